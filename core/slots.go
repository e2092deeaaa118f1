package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// acquire takes a slot for a call and returns its worker, and the call's session if it has one. inflight.release gives
// the slot back. A session's caller gets a slot of the session's worker. acquire waits for a slot until ctx is done.
func (p *Pool) acquire(ctx context.Context, r *request) (*Worker, *session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, by := r.session, r.caller.served
	if !p.owns(by) {
		by = nil
	}
	for ending := p.ending[id]; ending != nil; ending = p.ending[id] { // an ended session with the same id
		if err := p.awaitEnd(ctx, ending, by); err != nil {
			return nil, nil, err
		}
	}
	if p.closing || p.draining && by == nil {
		return nil, nil, ErrClosed
	}
	var s *session
	if id != "" {
		var err error
		if s, err = p.joinSession(r); err != nil {
			return nil, nil, err
		}
	}
	taken := false
	defer func() {
		if !taken && s != nil { // also if ctx panics
			p.leaveSession(s)
		}
	}()
	w, err := p.slot(ctx, r, s, by)
	taken = err == nil
	return w, s, err
}

// awaitEnd waits until the worker of an ended session has dropped its state. Callers hold mu; awaitEnd unlocks it while
// it waits.
func (p *Pool) awaitEnd(ctx context.Context, ending *endingSession, by *served) error {
	if by != nil { // dropping the state needs a slot of the session's worker, so this could be a deadlock
		wt := &waiter{session: ending.session, within: by}
		p.nested[wt] = struct{}{}
		defer delete(p.nested, wt)
		if p.deadlocked(wt) {
			return errDeadlock
		}
	}
	var err error
	p.unlocked(func() {
		select {
		case <-ending.done:
		case <-ctx.Done():
			err = fmt.Errorf("waiting for the session's end: %w", ctx.Err())
		}
	})
	return err
}

// unlocked runs f without mu. Callers hold mu, and hold it again afterwards, even if f panics.
func (p *Pool) unlocked(f func()) {
	p.mu.Unlock()
	defer p.mu.Lock()
	f()
}

// errDeadlock is the error of a Function's call to its own pool that would wait for ever.
var errDeadlock = fmt.Errorf("%w: every slot is held by a call whose function waits for a slot of the same pool; "+
	"raise Options.Size or the worker's concurrency above the number of such calls, or use a second pool", ErrSaturated)

// slot takes a free slot, or waits for one: of the session's worker if s is not nil, else of any worker. by is the call
// whose Function asks for the slot, or nil. Callers hold mu; slot unlocks it while it waits.
func (p *Pool) slot(ctx context.Context, r *request, s *session, by *served) (*Worker, error) {
	q := &p.waiting
	var w *Worker
	switch {
	case s == nil:
		w = p.leastBusy()
	case r.hint:
		if w = s.favorite; w == nil || w.running >= w.slots || !w.accepting() {
			w = p.leastBusy()
		}
	default:
		if s.worker == nil {
			if best := p.fewestSessions(); best != nil && (best.running < best.slots || !p.canGrow()) {
				p.pinSession(s, best)
			}
		}
		if w = s.worker; w != nil {
			q = &w.waiting
		}
	}
	if w != nil && w.running < w.slots && q.Len() == 0 && (w.accepting() || s != nil && w.servesSessions()) {
		p.takeSlot(w)
		s.visit(r, w)
		return w, nil
	}
	if err := p.crashLoopError(); err != nil {
		return nil, err
	}
	wt := &waiter{request: r, within: by, since: time.Now(), ready: make(chan struct{})}
	if !r.hint {
		wt.session = s
	}
	p.order(wt)
	if q == &p.waiting && (r.noWait || p.queued >= p.opts.Queue) {
		p.growFor(p.waiting.Len() + 1) // for the next one: this caller does not wait, or it or another one is refused
	}
	switch {
	case r.noWait:
		return nil, p.refuse(wt, fmt.Errorf("%w: no slot is free, and the call may not wait (NoWait)", ErrSaturated))
	case p.queued >= p.opts.Queue && (s == nil || !s.ended): // the call that ends a session does not count
		if err := p.makeRoom(wt); err != nil {
			return nil, err
		}
	}
	p.enqueue(q, wt)
	p.grow()
	if by != nil && p.deadlocked(wt) {
		p.dequeue(wt)
		return nil, errDeadlock
	}
	got := false
	defer func() {
		if !got { // also if ctx panics
			p.withdraw(wt)
		}
	}()
	var err error
	p.unlocked(func() {
		select {
		case <-wt.ready:
		case <-ctx.Done():
			err = fmt.Errorf("waiting for a worker: %w", ctx.Err())
		}
	})
	r.waited += time.Since(wt.since)
	if err != nil {
		return nil, err
	}
	got = true
	if wt.worker != nil {
		s.visit(r, wt.worker)
	}
	return wt.worker, wt.err
}

// roundTime rounds a time for an error.
func roundTime(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// withdraw ends the wait of a waiter. It removes the waiter from its queue, or gives back the slot that the waiter has
// just got. Callers hold mu.
func (p *Pool) withdraw(wt *waiter) {
	select {
	case <-wt.ready: // it got a slot at the same moment
		if wt.worker != nil {
			p.releaseSlot(wt.worker)
		}
	default:
		p.dequeue(wt)
	}
}

// deadlocked reports whether wt would wait for ever. That is so if every slot that it may get is held by a call that
// cannot end, because the call's own Function waits for such a slot. Callers hold mu.
func (p *Pool) deadlocked(wt *waiter) bool {
	// Workers that are about to start have free slots. But with a negative Surge a replacement may wait for sessions.
	if slices.ContainsFunc(p.starts, func(pl *place) bool { return pl.alive() == nil || p.opts.Surge > 0 }) {
		return false
	}
	running := 0
	for _, w := range p.workers {
		if wt.session == nil || wt.session.worker == nil || wt.session.worker == w {
			running += w.running
		}
	}
	if running > len(p.nested) { // at least one running call does not wait here, so it can end
		return false
	}
	waiting := maps.Clone(p.nested)
	for before := -1; before != len(waiting); { // until the rest wait only for each other
		before = len(waiting)
		held := map[*mux]map[*stream]bool{} // the calls that cannot end while these waiters wait
		for other := range waiting {
			if call := other.within; call.parent != nil && !call.parent.isClosed() {
				if held[call.mux] == nil {
					held[call.mux] = map[*stream]bool{}
				}
				held[call.mux][call.parent] = true
			}
		}
		free := func(w *Worker) bool {
			if w.leaving != "" && (wt.session == nil || wt.session.worker != w) {
				return false // it serves only its sessions
			}
			return w.state != StateReady && w.state != StateDraining ||
				w.running < w.slots || len(held[w.mux]) < w.running
		}
		for other := range waiting {
			from := p.workers
			if s := other.session; s != nil && s.worker != nil {
				from = []*Worker{s.worker}
			}
			if slices.ContainsFunc(from, free) {
				delete(waiting, other)
			}
		}
	}
	_, left := waiting[wt]
	return left
}

// owns reports whether by is a live call from a worker of this pool. Such a call cannot end before the calls that its
// Function makes. by may be nil. Callers hold mu.
func (p *Pool) owns(by *served) bool {
	return by != nil && !by.stream.isClosed() &&
		slices.ContainsFunc(p.workers, func(w *Worker) bool { return w.mux == by.mux })
}

// takeSlot takes a slot for a call that waits in no queue. Callers hold mu.
func (p *Pool) takeSlot(w *Worker) {
	w.running++
	w.calls++
	p.stats.Calls++
	if w.limits.Calls > 0 && w.calls >= int64(w.limits.Calls) && w.due == "" {
		p.replace(w, CauseCalls, fmt.Sprintf("it has had %d calls", w.calls))
	}
}

// fewestSessions returns the worker for a new session, or nil: the least busy of the ready workers with the fewest
// sessions. Callers hold mu.
func (p *Pool) fewestSessions() *Worker {
	var best *Worker
	for _, w := range p.workers {
		switch {
		case !w.accepting():
		case best == nil, best.due != "" && w.due == "": // one that is to be replaced only if there is no other
			best = w
		case w.due != "" && best.due == "":
		case w.sessions < best.sessions,
			w.sessions == best.sessions && w.running*best.slots < best.running*w.slots:
			best = w
		}
	}
	return best
}

// releaseSlot gives a slot back, and gives it to the next waiter. Callers hold mu.
func (p *Pool) releaseSlot(w *Worker) {
	w.running--
	p.noteIdle(w)
	if p.draining {
		p.broadcast()
	}
	p.grant(w)
	if !w.accepting() {
		signal(w.wake)
	}
}

// leastBusy returns the ready worker with the fewest calls per slot, or nil. Callers hold mu.
func (p *Pool) leastBusy() *Worker {
	var best *Worker
	for _, w := range p.workers {
		if w.accepting() && (best == nil || w.running*best.slots < best.running*w.slots) {
			best = w
		}
	}
	return best
}

// grant gives w's free slots to waiters, in their order: to w's own sessions, and also to all others while w accepts
// calls from them. Callers hold mu.
func (p *Pool) grant(w *Worker) {
	for w.running < w.slots && w.servesSessions() {
		next := w.waiting.head()
		if w.accepting() {
			if other := p.waiting.head(); next == nil || other != nil && other.compare(next) < 0 {
				next = other
			}
		}
		if next == nil {
			return
		}
		if s := next.session; s != nil && s.worker == nil {
			p.pinSession(s, w) // it moves the session's waiters to w's own queue
			continue
		}
		p.resolve(next, w, nil) // first: takeSlot may have w leave, which moves the sessions that only wait
		p.takeSlot(w)
	}
}
