//go:build !unix

package core

import (
	"os"
	"syscall"
)

// Where there are no process groups and no signals, the worker alone can be ended, and only by force. Its children have to notice that
// their pipes are closed.

const inheritsFiles = false

const killSignal = ""

func sysProcAttr() *syscall.SysProcAttr { return nil }

func armLifeline(*os.File, int) error { return nil }

func reopen(r *os.File) *os.File { return r }

func killGroup(proc *os.Process)      { _ = proc.Kill() } // an error: it has exited
func terminateGroup(proc *os.Process) { _ = proc.Kill() }

func exitSignal(*os.ProcessState) string { return "" }

func readAvailable(*os.File) []byte { return nil }

func waitExit(proc *os.Process) *os.ProcessState {
	state, err := proc.Wait()
	if err != nil {
		return nil
	}
	return state
}
