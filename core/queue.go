package core

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// waiter is a caller in a queue. resolve takes it out of the queue, sets worker or err, and closes ready.
type waiter struct {
	request *request
	session *session // or nil
	within  *served  // the call of this pool whose Function waits here, or nil
	since   time.Time
	seq     uint64 // orders the waiters by age
	turn    uint64 // orders the waiters of different tenants; see Pool.enqueue
	ready   chan struct{}
	worker  *Worker
	err     error
	queue   *waiters // the queue that it is in
	index   int      // its place in queue
}

// compare orders the waiters: by priority, then in turn between the tenants, then by age.
func (wt *waiter) compare(other *waiter) int {
	return cmp.Or(cmp.Compare(other.request.priority, wt.request.priority), cmp.Compare(wt.turn, other.turn),
		cmp.Compare(wt.seq, other.seq))
}

// waiters is a queue of callers: a heap with the caller in front that is served next. Guarded by pool.mu.
type waiters struct{ all []*waiter }

// Len, Less, Swap, Push and Pop are for container/heap.
func (q *waiters) Len() int           { return len(q.all) }
func (q *waiters) Less(i, j int) bool { return q.all[i].compare(q.all[j]) < 0 }

func (q *waiters) Swap(i, j int) {
	q.all[i], q.all[j] = q.all[j], q.all[i]
	q.all[i].index, q.all[j].index = i, j
}

func (q *waiters) Push(x any) {
	wt := x.(*waiter)
	wt.queue, wt.index = q, len(q.all)
	q.all = append(q.all, wt)
}

func (q *waiters) Pop() any {
	last := len(q.all) - 1
	wt := q.all[last]
	q.all[last] = nil
	q.all = q.all[:last]
	return wt
}

// head returns the caller that is served next, or nil.
func (q *waiters) head() *waiter {
	if len(q.all) == 0 {
		return nil
	}
	return q.all[0]
}

func (q *waiters) insert(wt *waiter) { heap.Push(q, wt) }
func (q *waiters) remove(wt *waiter) { heap.Remove(q, wt.index) }

// fail resolves some of the callers with err.
func (q *waiters) fail(p *Pool, err error, which func(*waiter) bool) {
	for _, wt := range slices.Clone(q.all) {
		if which(wt) {
			p.resolve(wt, nil, err)
		}
	}
}

func (q *waiters) failAll(p *Pool, err error) { q.fail(p, err, func(*waiter) bool { return true }) }

// tenant is a tenant with callers in a queue.
type tenant struct {
	turn    uint64 // of its newest waiter
	waiting int
}

// order gives a new waiter its place among the callers. The tenants take turns: the first waiters of all tenants come
// before the second ones. A tenant whose callers have not waited begins at the turn that is served now. (This is
// start-time fair queueing, by Goyal, Vin and Cheng, 1996, with calls of equal cost.) Callers hold mu.
func (p *Pool) order(wt *waiter) {
	p.seq++
	wt.seq, wt.turn = p.seq, p.turn+1
	if t := p.tenants[wt.request.caller.tenant]; t != nil {
		wt.turn = max(wt.turn, t.turn+1)
	}
}

// enqueue adds an ordered waiter to a queue. Callers hold mu.
func (p *Pool) enqueue(q *waiters, wt *waiter) {
	name := wt.request.caller.tenant
	t := p.tenants[name]
	if t == nil {
		t = &tenant{}
		p.tenants[name] = t
	}
	t.waiting++
	if wt.request.priority != 0 {
		p.prioritized++
	}
	t.turn = wt.turn
	p.queued++
	q.insert(wt)
	if wt.within != nil {
		p.nested[wt] = struct{}{}
	}
	s := wt.session
	if s != nil {
		s.queued++
	}
	if s != nil && q == &p.waiting {
		if s.waiting == nil {
			s.waiting = map[*waiter]struct{}{}
		}
		s.waiting[wt] = struct{}{}
	}
}

// dequeue removes a waiter from its queue. Callers hold mu.
func (p *Pool) dequeue(wt *waiter) {
	wt.queue.remove(wt)
	p.queued--
	name := wt.request.caller.tenant
	if t := p.tenants[name]; t.waiting == 1 {
		delete(p.tenants, name)
	} else {
		t.waiting--
	}
	if wt.request.priority != 0 {
		p.prioritized--
	}
	delete(p.nested, wt)
	if s := wt.session; s != nil {
		delete(s.waiting, wt)
		s.queued--
	}
	p.stats.Waited++
	p.stats.WaitTime += time.Since(wt.since)
}

// resolve removes a waiter from its queue and gives it a worker or an error. Callers hold mu.
func (p *Pool) resolve(wt *waiter, w *Worker, err error) {
	p.dequeue(wt)
	if w != nil {
		p.turn = max(p.turn, wt.turn)
	}
	wt.worker, wt.err = w, err
	close(wt.ready)
}

// makeRoom makes room in a full queue for a waiter, or returns the error of its refusal. Of all callers, the one that
// would be served last is refused: a tenant that fills the queue cannot keep out the others. Callers hold mu.
func (p *Pool) makeRoom(wt *waiter) error {
	err := fmt.Errorf("%w: no slot is free, and the queue is full (Options.Queue: %d)", ErrSaturated,
		max(0, p.opts.Queue))
	last := p.lastInLine(wt)
	if last == wt {
		return p.refuse(wt, err)
	}
	p.resolve(last, nil, p.refuse(last, fmt.Errorf("%w; after %s in the queue it gave way to %s", err,
		roundTime(time.Since(last.since)), rival(wt, last))))
	return nil
}

// lastInLine returns the one that would be served last, of wt and all callers in the queues. Callers hold mu.
func (p *Pool) lastInLine(wt *waiter) *waiter {
	_, known := p.tenants[wt.request.caller.tenant]
	if p.prioritized == 0 && wt.request.priority == 0 && (len(p.tenants) == 0 || known && len(p.tenants) == 1) {
		return wt // all are in the order of their arrival
	}
	last := wt
	consider := func(q *waiters) {
		for _, other := range q.all {
			if s := other.session; s != nil && s.ended {
				continue // the end of a session has to run
			}
			if last.compare(other) < 0 {
				last = other
			}
		}
	}
	consider(&p.waiting)
	for _, w := range p.workers {
		consider(&w.waiting)
	}
	return last
}

// rival says why a waiter comes before another one.
func rival(wt, last *waiter) string {
	if wt.request.priority != last.request.priority {
		return "a call with a higher priority"
	}
	return "a call of another tenant"
}

// refuse notes that a call is refused with err. Callers hold mu.
func (p *Pool) refuse(wt *waiter, err error) error {
	p.stats.Saturated++
	p.emit(CallRefused{
		Time: time.Now(), Command: wt.request.command, Session: wt.request.session,
		Tenant: wt.request.caller.tenant, Err: err,
	})
	return err
}
