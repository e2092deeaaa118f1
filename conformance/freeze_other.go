//go:build !unix

package conformance

import "github.com/snakepit-go/snakepit/core"

// freeze skips the clause: it would have to stop a worker's process.
func (t *trial) freeze(*core.RawWorker) { t.Skipf("this system can't freeze a process") }
