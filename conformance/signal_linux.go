package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// signalled sends a worker's process the signal for its stacks, and waits until its file grows.
func (t *trial) signalled(w *core.RawWorker, pid, number int) {
	if w.Process == nil || w.Process.Host() != "" {
		t.Skipf("core has not launched the worker, so it can't ask it by a signal")
	}
	size := func() int64 {
		info, err := os.Stat(filepath.Join(w.Dir(), fmt.Sprintf("stacks.%d", w.Process.PID())))
		if err != nil {
			t.Fatalf("the worker's file for stacks: %v", err)
		}
		return info.Size()
	}
	before := size()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(syscall.Signal(number))
	}
	if err != nil {
		t.Fatalf("signal %d to process %d: %v", number, pid, err)
	}
	for size() == before {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("signal %d was sent to process %d, and its file of stacks does not grow", number, pid)
		}
	}
}
