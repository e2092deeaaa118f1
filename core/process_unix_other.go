//go:build unix && !linux

package core

import (
	"os"
	"syscall"
)

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// armLifeline does nothing: these systems cannot signal the group. Only the worker itself notices, by the end of file.
func armLifeline(*os.File, int) error { return nil }

func reopen(r *os.File) *os.File { return r }

// waitExit waits until the process has exited, and reaps it. Its group is killed a moment later. In theory the
// group's id could belong to other processes by then.
func waitExit(proc *os.Process) *os.ProcessState {
	state, err := proc.Wait()
	if err != nil {
		return nil
	}
	return state
}
