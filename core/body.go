package core

import "os"

// body is what a Process stands for: a child of this program, a worker of a fork server, or a worker that a back end
// holds. The pool treats all of them alike.
type body interface {
	// wait returns when the process has exited. Its id and its group's stay its own until collect, if the system can do
	// that.
	wait()

	// signal asks the process and its group to end, or ends them if kill is set. It returns false, and does nothing, if
	// their ids may be used again. It does not block. Callers hold Process.mu.
	signal(kill bool) bool

	// collect returns how the process ended and, if it is known, what it has used. It is called once, after wait.
	collect() (exitStatus, *os.ProcessState)

	// release gives up what is held of the process after its end.
	release()
}

// ownChild is a child process of this program.
type ownChild struct {
	proc  *os.Process
	state *os.ProcessState // set by wait where that reaps the process
}

func (c *ownChild) wait() { c.state = waitExit(c.proc) }

func (c *ownChild) signal(kill bool) bool {
	if kill {
		killGroup(c.proc)
	} else {
		terminateGroup(c.proc)
	}
	return true
}

func (c *ownChild) collect() (exitStatus, *os.ProcessState) {
	if c.state == nil {
		c.state, _ = c.proc.Wait() // an error: other code in this program has reaped it
	}
	end := exitStatus{code: -1}
	if c.state != nil {
		end.code, end.signal = c.state.ExitCode(), exitSignal(c.state)
	}
	return end, c.state
}

func (c *ownChild) release() {}
