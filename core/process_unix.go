//go:build unix

package core

import (
	"errors"
	"os"
	"syscall"
)

// inheritsFiles: a child can be given more descriptors than the standard three.
const inheritsFiles = true

// killSignal is how exitSignal calls SIGKILL.
var killSignal = syscall.SIGKILL.String()

func killGroup(proc *os.Process)      { _ = syscall.Kill(-proc.Pid, syscall.SIGKILL) } // an error: nobody is left
func terminateGroup(proc *os.Process) { _ = syscall.Kill(-proc.Pid, syscall.SIGTERM) }

// exitSignal returns the name of the signal that ended the process, or "".
func exitSignal(state *os.ProcessState) string {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal().String()
	}
	return ""
}

// readAvailable returns what is in the pipe now, at most one pipe's fill, also after the read deadline.
func readAvailable(r *os.File) []byte {
	raw, err := r.SyscallConn()
	if err != nil {
		return nil
	}
	const limit = 64 << 10
	buf := make([]byte, limit)
	total := 0
	_ = raw.Control(func(fd uintptr) { // the descriptor does not block
		for total < limit {
			n, err := syscall.Read(int(fd), buf[total:])
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if n <= 0 {
				return
			}
			total += n
		}
	})
	return buf[:total]
}
