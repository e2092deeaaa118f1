//go:build unix

package conformance

import (
	"os"
	"syscall"

	"github.com/snakepit-go/snakepit/core"
)

// freeze stops a worker's process, so that it reads nothing more.
func (t *trial) freeze(w *core.RawWorker) {
	t.needsLocal(w)
	p, err := os.FindProcess(w.Process.PID())
	if err == nil {
		err = p.Signal(syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}
