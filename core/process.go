package core

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Process is a worker process that core owns. It has launched and reaps it, or has adopted it from a back end. The
// process leads a process group of its own. The group is killed when the process ends. Any goroutine may call its
// methods.
type Process struct {
	Stdin    *os.File // a pipe to the worker's stdin, with Spec.Stdio; the adapter closes it
	Stdout   *os.File // a pipe from the worker's stdout, with Spec.Stdio; the adapter closes it
	Endpoint string   // where the worker listens, from its report

	name    string // the path of the executable, or what a Lease says, for errors
	pid     int
	host    string // Lease.Host, or "" on this machine
	body    body
	out     *output
	capture *os.File // the read end of the pipe for its output; nil elsewhere
	input   *os.File // the write end of the pipe for Spec.Input, or nil
	// The two ends of a pipe, nil where descriptors are not inherited. The group is killed when the write end closes.
	// If only the worker held a read end, Pdeathsig could kill the worker first, and its group would survive.
	lifelineWrite, lifelineRead *os.File
	limits                      *Limits
	group                       *memoryGroup // or nil
	oom                         *oomCounter
	oomBase                     uint64 // the counter when it was started

	memory atomic.Int64  // what its back end has told last, if there is one
	ending chan string   // capacity 1: why its back end is about to end; nil if there is none
	exited chan struct{} // closed when it has exited, before its group is killed
	done   chan struct{}
	asking chan struct{} // capacity 1: held by the goroutine that asks for the stacks by a signal

	mu         sync.Mutex // guards the fields below; held for each signal, so that no reaped process gets one
	terminated bool       // we sent SIGTERM
	killed     bool       // we sent SIGKILL
	ended      exitStatus // how it ended; set when it has exited
}

// outputGrace is how long the last output of an ended process may take to arrive. The whole time passes only if another
// process outside the group still holds the pipe.
const outputGrace = 100 * time.Millisecond

// PID is the id of the process and of its group, on the machine where it runs.
func (p *Process) PID() int { return p.pid }

// Host is the name of the machine where a back end runs the process. It is "" if core has launched it here.
func (p *Process) Host() string { return p.host }

// Done returns a channel that is closed when the process has exited, its group has been killed, it has been reaped, and
// its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// LogOutput is for adapters whose connection is the worker's standard output. Start-up hooks may print there before the
// first frame. LogOutput adds these bytes to the worker's output. Each call needs whole lines.
func (p *Process) LogOutput(b []byte) {
	s := splitter{emit: p.out.line}
	s.write(b)
	s.flush()
}

// supervise waits for the process to exit and cleans up after it. It writes input to the standard input of a process of
// this machine.
func (p *Process) supervise(input []byte) {
	drain := p.attend(input)
	p.body.wait()
	close(p.exited)
	p.mu.Lock()
	kept := p.body.signal(true)
	end, state := p.body.collect()
	end.killed = p.killed
	// If the process was not kept, memory may have ended its fork server.
	if end.signal == killSignal && !p.killed && p.host == "" {
		end.limit = p.group.reached()
		end.oom = end.limit != "" || kept && p.oom.claim(p.oomBase)
	}
	if end.limit == "" {
		end.limit = p.limits.reached(end, state)
	}
	p.ended = end
	p.mu.Unlock()
	p.body.release()
	p.group.remove()
	if p.lifelineWrite != nil {
		_, _ = p.lifelineRead.Close(), p.lifelineWrite.Close() // in this order the kernel sends no signal
	}
	drain()
	close(p.done)
}

// attend writes input and reads the output of a process of this machine. The result ends both after the process.
func (p *Process) attend(input []byte) (drain func()) {
	if p.capture == nil { // the output comes with the lease
		return func() {}
	}
	read, fed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		p.out.read(p.capture)
	}()
	go func() {
		defer close(fed)
		if p.input != nil {
			_, _ = p.input.Write(input) // an error: the worker has ended, or has closed its standard input
			_ = p.input.Close()
		}
	}()
	return func() {
		if p.input != nil && p.input.SetWriteDeadline(time.Now()) == nil { // another process may hold the read end
			<-fed
		}
		timer := time.NewTimer(outputGrace)
		defer timer.Stop()
		if err := p.capture.SetReadDeadline(time.Now().Add(outputGrace)); err != nil {
			// This system's pipes have no deadlines. Closing the pipe ends the read.
			select {
			case <-read:
			case <-timer.C:
				_ = p.capture.Close()
			}
		}
		<-read
		_ = p.capture.Close()
	}
}

// terminate asks the process and its group to end.
func (p *Process) terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasExited() && p.body.signal(false) {
		p.terminated = true
	}
}

// kill ends the process and its group.
func (p *Process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasExited() && p.body.signal(true) {
		p.killed = true
	}
}

func (p *Process) hasExited() bool { return isDone(p.exited) }

// stop ends the process after its connection was closed. It waits for half the timeout, sends SIGTERM, waits for the
// other half, sends SIGKILL, and waits for Done. It returns how the process ended: "exited", "terminated" or "killed".
// Several goroutines may call it; the earliest signal counts.
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
	case p.ended.killed && (p.ended.signal == killSignal || p.ended.lost != nil):
		return "killed"
	case p.terminated:
		return "terminated"
	default:
		return "exited"
	}
}

// Exit returns the exit code, or -1 and the name of the signal that ended the process. oom means that the kernel killed
// it because memory ran out. The values are valid after Done.
func (p *Process) Exit() (code int, signal string, oom bool) {
	end := p.status()
	return end.code, end.signal, end.oom
}

// exitedByItself reports whether the process ended without a signal of ours. It is valid after Done.
func (p *Process) exitedByItself() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasExited() && !p.terminated && !p.killed
}

// lastOutput returns the last lines that the process printed at or after since, the newest last.
func (p *Process) lastOutput(since time.Time) []string { return mergeOutput(p.out.tail(since)) }

// status returns how the process ended. It is valid after Done.
func (p *Process) status() exitStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// oomCounter is the kernel's count of the processes that it killed in this program's control group because memory ran
// out. Workers start in the same group. The count does not say which process was killed, so each increase explains one
// SIGKILL that was not ours.
type oomCounter struct {
	path    string     // "": unknown, as on systems without control groups; no exit is then explained by memory
	mu      sync.Mutex // guards claimed
	claimed uint64     // increases up to this count explain an earlier exit
}

func newOOMCounter() *oomCounter {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return &oomCounter{}
	}
	for line := range strings.Lines(string(groups)) {
		// "0::/path" in version 2, "4:memory:/path" in version 1
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
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

// claim reports whether the count has increased since base, by more than earlier claims explain. If so, it claims one
// increase.
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
