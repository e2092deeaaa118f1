package core

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Process is a worker process that core launched, owns and reaps. It leads a process group of its own, which ends with it. Its methods may
// be called from any goroutine.
type Process struct {
	Stdin    *os.File // what the worker reads, with Spec.Stdio; the adapter closes it
	Stdout   *os.File // what the worker writes, with Spec.Stdio; the adapter closes it
	Endpoint string   // where the worker listens, from its report

	name     string // what was started, for errors
	pid      int
	proc     *os.Process
	out      *output
	capture  *os.File // the reading end of what it prints
	lifeline *os.File // the worker's group is killed when this, the writing end, closes; nil where descriptors are not inherited
	armed    *os.File // its reading end. Were it the worker's, Pdeathsig could end that first, and the group would live on
	oom      *oomCounter
	oomBase  uint64 // the counter when it was started

	exited chan struct{} // closed when it has exited, its group not yet killed
	done   chan struct{}

	mu         sync.Mutex // guards what follows, and that nothing is signalled that was reaped
	terminated bool       // we sent SIGTERM
	killed     bool       // we sent SIGKILL
	end        exitStatus // set when it has exited
}

// outputGrace is how long the end of an ended process's output may take to come. Only a process that left the group and
// still holds the pipe makes anybody wait so long.
const outputGrace = 100 * time.Millisecond

// PID is the process's id, which is also that of its group.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has exited, what was left of its group has been killed, it has been reaped, and its output has been
// read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is for adapters whose connection is the worker's standard output: it takes what came there before the first frame, which is
// what start-up hooks print, and treats it as the worker's output. A line must not be split between two calls.
func (p *Process) Output(b []byte) {
	s := splitter{emit: p.out.line}
	s.write(b)
	s.flush()
}

// supervise waits for the process to exit and clears up behind it.
func (p *Process) supervise() {
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.out.read(p.capture)
	}()

	state := waitExit(p.proc)
	close(p.exited)
	p.mu.Lock()
	killGroup(p.proc)
	if state == nil {
		state, _ = p.proc.Wait()
	}
	p.end = exitStatus{code: -1, killed: p.killed}
	if state != nil { // nil: somebody else in this program reaped it
		p.end.code, p.end.signal = state.ExitCode(), exitSignal(state)
	}
	p.end.oom = p.end.signal == killSignal && !p.killed && p.oom.claim(p.oomBase)
	p.mu.Unlock()
	if p.lifeline != nil {
		_, _ = p.armed.Close(), p.lifeline.Close() // in this order nobody is signalled
	}

	timer := time.NewTimer(outputGrace)
	if err := p.capture.SetReadDeadline(time.Now().Add(outputGrace)); err != nil {
		// This system's pipes have no deadlines. Closing one ends a read.
		select {
		case <-read:
		case <-timer.C:
			_ = p.capture.Close()
		}
	}
	<-read
	_ = p.capture.Close()
	timer.Stop()
	close(p.done)
}

// terminate asks the process and its group to end.
func (p *Process) terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasExited() {
		p.terminated = true
		terminateGroup(p.proc)
	}
}

// kill ends the process and its group.
func (p *Process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasExited() {
		p.killed = true
		killGroup(p.proc)
	}
}

func (p *Process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stop ends the process after its connection was closed: it waits for half the timeout, terminates, waits for the other half, kills, and
// waits until Done. It returns what ended the process: "exited", "terminated" or "killed". Several goroutines may call it; the fastest
// one's steps count.
func (p *Process) stop(timeout time.Duration) string {
	for _, signal := range []func(){p.terminate, p.kill} {
		timer := time.NewTimer(timeout / 2)
		select {
		case <-p.exited:
		case <-timer.C:
			signal()
		}
		timer.Stop()
	}
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.end.killed && p.end.signal == killSignal:
		return "killed"
	case p.terminated:
		return "terminated"
	default:
		return "exited"
	}
}

// Exit says how the process ended: with a code, or -1 and the name of a signal. oom means that the kernel killed it because memory ran
// out. It is valid after Done.
func (p *Process) Exit() (code int, signal string, oom bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end.code, p.end.signal, p.end.oom
}

// exitedByItself reports whether the process ended without being told to. It is valid after Done.
func (p *Process) exitedByItself() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasExited() && !p.terminated && !p.killed
}

// lastOutput returns the last lines that the process printed since then, the newest last.
func (p *Process) lastOutput(since time.Time) []string { return mergeOutput(p.out.tail(since)) }

// exit returns how the process ended. It is valid after Done.
func (p *Process) exit() exitStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end
}

// oomCounter is the kernel's count of processes that it killed in this program's control group because memory ran out. Workers begin in
// the same group. A count says that some process there was killed, not which; so each rise explains one SIGKILL that was not ours.
type oomCounter struct {
	path    string // "": unknown, as on systems without control groups; then nothing is ever put down to memory
	mu      sync.Mutex
	claimed uint64 // rises up to here have been put down to a process
}

func newOOMCounter() *oomCounter {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return &oomCounter{}
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // "0::/path" in version 2, "4:memory:/path" in version 1
		if len(fields) != 3 {
			continue
		}
		path := ""
		switch {
		case fields[0] == "0" && fields[1] == "":
			path = "/sys/fs/cgroup" + fields[2] + "/memory.events"
		case fields[1] == "memory":
			path = "/sys/fs/cgroup/memory" + fields[2] + "/memory.oom_control"
		}
		if c := (&oomCounter{path: path}); path != "" {
			if _, err := c.read(); err == nil {
				return c
			}
		}
	}
	return &oomCounter{}
}

var errNoCounter = errors.New("no oom_kill counter")

func (c *oomCounter) read() (uint64, error) {
	if c.path == "" {
		return 0, errNoCounter
	}
	text, err := os.ReadFile(c.path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(count), 10, 64)
		}
	}
	return 0, errNoCounter
}

// base returns the count for a process that is about to start.
func (c *oomCounter) base() uint64 {
	n, err := c.read()
	if err != nil {
		return 0
	}
	return n
}

// claim reports whether the count rose since base, other than for processes that claimed it already.
func (c *oomCounter) claim(base uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.read()
	from := max(base, c.claimed)
	if err != nil || n <= from {
		return false
	}
	c.claimed = from + 1
	return true
}
