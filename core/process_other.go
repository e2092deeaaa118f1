//go:build !unix

package core

import (
	"os"
	"syscall"
)

// Without process groups and signals the pool can end only the worker itself, and only by force. The worker's children
// have to notice that their pipes are closed.

const inheritsFiles = false

const killSignal = ""

const hasNice = false

func (*Limits) applyNice(int) error { return nil }

var faultSignals []string

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
