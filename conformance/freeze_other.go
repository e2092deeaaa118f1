//go:build !unix

package conformance

import "github.com/snakepit-go/snakepit/core"

// freeze stops a worker's process, so that it reads nothing any more.
func (t *trial) freeze(*core.Started) { t.Skipf("this system can't freeze a process") }
