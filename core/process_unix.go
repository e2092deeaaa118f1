//go:build unix

package core

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// inheritsFiles: a child can inherit more descriptors than the standard three.
const inheritsFiles = true

// killSignal is exitSignal's name for SIGKILL.
var killSignal = syscall.SIGKILL.String()

// faultSignals are exitSignal's names for the signals of a fault in the process itself.
var faultSignals = []string{
	syscall.SIGSEGV.String(), syscall.SIGBUS.String(), syscall.SIGILL.String(), syscall.SIGFPE.String(),
	syscall.SIGABRT.String(), syscall.SIGTRAP.String(), syscall.SIGSYS.String(),
}

// hasNice says that this system has nice values.
const hasNice = true

// applyNice sets the nice value of a process that has just started. Its children inherit it.
func (l *Limits) applyNice(pid int) error {
	if l.Nice == 0 {
		return nil
	}
	err := syscall.Setpriority(syscall.PRIO_PROCESS, pid, l.Nice)
	if err != nil && !errors.Is(err, syscall.ESRCH) { // ESRCH: it has ended
		return &RemedyError{
			Err:    fmt.Errorf("the limit Limits.Nice cannot be set to %d: %w", l.Nice, err),
			Remedy: "use a value from 0 to 19, or run this program with the right to raise priorities",
		}
	}
	return nil
}

func killGroup(proc *os.Process)      { _ = syscall.Kill(-proc.Pid, syscall.SIGKILL) } // an error: no process is left
func terminateGroup(proc *os.Process) { _ = syscall.Kill(-proc.Pid, syscall.SIGTERM) }

// exitSignal returns the name of the signal that ended the process, or "".
func exitSignal(state *os.ProcessState) string {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal().String()
	}
	return ""
}

// readAvailable returns the bytes that are in the pipe now, at most 64 KiB. It works after the read deadline too.
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
