//go:build !linux

package conformance

import "github.com/snakepit-go/snakepit/core"

// signalled skips the clause: this system has no real-time signals.
func (t *trial) signalled(*core.RawWorker, int, int) { t.Skipf("this system has no real-time signals") }
