package core

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Recycle says when a worker is replaced by a fresh one. A zero field is no reason. The worker serves all callers until
// its replacement is ready. After that it ends its calls, serves its sessions until they end or move, and leaves. A
// session with a snapshot moves. So a worker may exceed a limit for a while.
type Recycle struct {
	// Calls replaces a worker after so many calls, and Age after so much time since its start. Each worker
	// has its own limits, up to a tenth below these, so that workers that started together do not leave
	// together.
	Calls int
	Age   time.Duration
	// Idle replaces a worker that has served calls and has had no call and no session for so long.
	Idle time.Duration
	// Memory replaces a worker whose process tree has more than so many bytes of resident memory. Pages
	// that several of its processes share count once. The pool looks once a second. It needs Linux. A back
	// end tells the memory of its workers itself.
	Memory int64
}

// leastMemory is the smallest Recycle.Memory. A bare interpreter has 10 MiB.
const leastMemory = 16 << 20

// check returns an error that names the bad field and its value.
func (r *Recycle) check() error {
	switch {
	case r.Calls < 0:
		return fmt.Errorf("option Recycle.Calls is %d; it has to be positive, or 0 for no limit", r.Calls)
	case r.Age < 0:
		return fmt.Errorf("option Recycle.Age is %s; it has to be positive, or 0 for no limit", r.Age)
	case r.Idle < 0:
		return fmt.Errorf("option Recycle.Idle is %s; it has to be positive, or 0 for no limit", r.Idle)
	case r.Memory != 0 && !hasTreeMemory:
		return errors.New("option Recycle.Memory needs Linux, where the system shows the memory of other processes")
	case r.Memory != 0 && r.Memory < leastMemory:
		return fmt.Errorf("option Recycle.Memory is %d bytes; the minimum is %d: a bare interpreter has 10 MiB",
			r.Memory, leastMemory)
	}
	return nil
}

// draw returns the limits of one worker.
func (r Recycle) draw() Recycle {
	r.Calls -= rand.N(r.Calls/10 + 1)
	r.Age -= rand.N(r.Age/10 + 1)
	return r
}

// noteIdle notes when a worker became idle, if an option depends on it. Callers hold mu.
func (p *Pool) noteIdle(w *Worker) {
	if w.running == 0 && w.sessions == 0 && p.tracksIdle() {
		w.idleSince = time.Now()
	}
}

func (p *Pool) tracksIdle() bool { return p.opts.Recycle.Idle > 0 || p.opts.MinSize < p.opts.Size }

// checkMemory replaces the workers that have too much memory.
func (p *Pool) checkMemory() {
	p.mu.Lock()
	processes := map[*Worker]*Process{}
	here := false
	for _, w := range p.workers {
		if w.state == StateReady && w.link.Process != nil {
			processes[w] = w.link.Process
			here = here || w.link.Process.Host() == ""
		}
	}
	p.mu.Unlock()
	var table processTable
	if here {
		table = readProcesses()
	}
	limit := p.opts.Recycle.Memory
	for w, process := range processes {
		n := process.memory.Load()
		if process.Host() == "" {
			n = table.memory(process.PID(), limit)
		}
		if n > limit {
			p.mu.Lock()
			p.replace(w, CauseMemory, fmt.Sprintf("its processes have %d MiB of memory, and the limit is %d",
				n>>20, limit>>20))
			p.mu.Unlock()
		}
	}
}
