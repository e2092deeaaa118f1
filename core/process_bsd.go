//go:build unix && !linux

package core

import (
	"os"
	"syscall"
)

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// armLifeline has nothing to arm: these systems tell nobody but the worker itself, which reads end of file.
func armLifeline(*os.File, int) error { return nil }

func reopen(r *os.File) *os.File { return r }

// waitExit returns when the process has exited. It has been reaped then; in the moment until its group is killed the group's id could in
// theory become a stranger's.
func waitExit(proc *os.Process) *os.ProcessState {
	state, err := proc.Wait()
	if err != nil {
		return nil
	}
	return state
}
