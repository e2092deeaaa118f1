package core

import (
	"container/list"
	"context"
	"fmt"
	"slices"
)

// waiter is a caller in a queue. Whoever takes it out of the queue fills in worker or err and closes ready.
type waiter struct {
	seq     uint64
	session *session // or nil
	within  bool     // the call is made by a Function that serves a call of the same pool
	ready   chan struct{}
	worker  *Worker
	err     error
	moved   *list.Element // its place in its session's worker's queue, if it began in the pool's
}

// waiters is a queue of callers, the oldest first. Guarded by pool.mu.
type waiters struct{ list.List }

func (q *waiters) head() *waiter {
	if e := q.Front(); e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

func (q *waiters) failAll(p *Pool, err error) { q.fail(p, err, func(*waiter) bool { return true }) }

// fail turns some of the callers away.
func (q *waiters) fail(p *Pool, err error, which func(*waiter) bool) {
	for e := q.Front(); e != nil; {
		next := e.Next()
		if which(e.Value.(*waiter)) {
			p.leave(q, e, nil, err)
		}
		e = next
	}
}

// insert puts a waiter in its place by age.
func (q *waiters) insert(w *waiter) *list.Element {
	for e := q.Front(); e != nil; e = e.Next() {
		if e.Value.(*waiter).seq > w.seq {
			return q.InsertBefore(w, e)
		}
	}
	return q.PushBack(w)
}

// leave takes a waiter out of its queue with what it waited for, or with an error. mu is held.
func (p *Pool) leave(q *waiters, e *list.Element, w *Worker, err error) {
	waiting := q.Remove(e).(*waiter)
	p.queued--
	waiting.worker, waiting.err = w, err
	close(waiting.ready)
}

// acquire returns a worker, one of whose slots is now the caller's, to be given back by release. A session's caller gets the
// session's worker. Waiting ends with ctx.
func (p *Pool) acquire(ctx context.Context, id string) (*Worker, *session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for before := p.forgetting[id]; before != nil; before = p.forgetting[id] { // an ended session of the same id
		p.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("waiting for the session's end: %w", ctx.Err())
		}
	}
	if p.closing || p.draining && !p.within(ctx) {
		return nil, nil, ErrClosed
	}
	var s *session
	if id != "" {
		var err error
		if s, err = p.join(id); err != nil {
			return nil, nil, err
		}
	}
	w, err := p.slot(ctx, s)
	if err != nil && s != nil {
		p.part(s)
	}
	return w, s, err
}

// slot waits for a slot: of the session's worker, or with no session of any. mu is held, and free while it waits.
func (p *Pool) slot(ctx context.Context, s *session) (*Worker, error) {
	q, w := &p.waiting, p.leastBusy()
	if s != nil {
		if s.worker == nil {
			p.pin(s, p.home())
		}
		if w = s.worker; w != nil {
			q = &w.waiting
		}
	}
	if w != nil && w.running < w.slots && q.Len() == 0 && (w.open() || s != nil && w.serving()) {
		p.occupy(w)
		return w, nil
	}
	if err := p.looping(); err != nil {
		return nil, err
	}
	if p.queued >= p.opts.Queue && (s == nil || !s.ended) { // the end of a session is no caller's
		p.stats.Saturated++
		return nil, fmt.Errorf("%w: %d callers are waiting for %d workers", ErrSaturated, p.queued, len(p.workers))
	}
	p.seq++
	me := &waiter{seq: p.seq, session: s, within: p.within(ctx), ready: make(chan struct{})}
	e := q.PushBack(me)
	p.queued++
	p.mu.Unlock()
	select {
	case <-me.ready:
		p.mu.Lock()
		return me.worker, me.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	select {
	case <-me.ready: // at the same moment
		if me.worker != nil {
			p.vacate(me.worker)
		}
	default:
		if me.moved != nil {
			q, e = &s.worker.waiting, me.moved
		}
		q.Remove(e)
		p.queued--
	}
	return nil, fmt.Errorf("waiting for a worker: %w", ctx.Err())
}

// within reports whether ctx is that of a Function which serves a call of this pool, so that what runs cannot end before what it calls.
// mu is held.
func (p *Pool) within(ctx context.Context) bool {
	served := servedBy(ctx)
	return served != nil && slices.ContainsFunc(p.workers, func(w *Worker) bool { return w.mux == served.mux })
}

// occupy takes a slot. mu is held.
func (p *Pool) occupy(w *Worker) {
	w.running++
	w.calls++
	p.stats.Calls++
}

// home returns the worker where a new session is to live: of those with the fewest sessions the least busy. mu is held.
func (p *Pool) home() *Worker {
	var best *Worker
	for _, w := range p.workers {
		if w.open() && (best == nil || w.sessions < best.sessions || w.sessions == best.sessions && w.running*best.slots < best.running*w.slots) {
			best = w
		}
	}
	return best
}

// vacate gives a slot back and to whoever waits for it. mu is held.
func (p *Pool) vacate(w *Worker) {
	w.running--
	if p.draining {
		p.ring()
	}
	p.grant(w)
	if !w.open() {
		signal(w.wake)
	}
}

// leastBusy returns the ready worker with the fewest calls for its slots, or nil. mu is held.
func (p *Pool) leastBusy() *Worker {
	var best *Worker
	for _, w := range p.workers {
		if w.open() && (best == nil || w.running*best.slots < best.running*w.slots) {
			best = w
		}
	}
	return best
}

// grant gives w's free slots to those who wait, the oldest first: sessions that live there, and while it is ready anybody. mu is held.
func (p *Pool) grant(w *Worker) {
	for w.running < w.slots && w.serving() {
		q := &w.waiting
		mine, any := w.waiting.head(), p.waiting.head()
		if !w.open() {
			any = nil
		}
		if mine == nil || any != nil && any.seq < mine.seq {
			q, mine = &p.waiting, any
		}
		if mine == nil {
			return
		}
		if s := mine.session; s != nil && s.worker == nil {
			p.pin(s, w) // which takes it to w's own queue
			continue
		}
		p.occupy(w)
		p.leave(q, q.Front(), w, nil)
	}
}
