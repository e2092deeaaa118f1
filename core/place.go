package core

import (
	"context"
	"errors"
	"slices"
	"time"
)

// place is one of the places that the pool has for workers. A worker's replacement has the worker's place. Guarded by
// pool.mu.
type place struct {
	index    int
	worker   *Worker // serves callers, or starts; dead while the next start waits; nil if the place is empty
	next     *Worker // the replacement of worker, while it starts
	failures startFailures
	asked    bool        // it is in Pool.starts
	retry    *time.Timer // asks for a start after a wait; nil before the first wait
	stopped  bool        // its budget of failed starts is spent: it is in Pool.stopped, or probed
	removed  bool        // Resize has removed it
}

// addPlaces makes the places up to size. Callers hold mu.
func (p *Pool) addPlaces(size int) {
	for i := len(p.places); i < size; i++ {
		p.places = append(p.places, &place{index: i})
	}
}

// empty reports whether the place has no worker, and none is about to start.
func (pl *place) empty() bool { return pl.worker == nil && !pl.asked }

// occupied returns the number of places that have a worker, or are about to. Callers hold mu.
func (p *Pool) occupied() int {
	n := 0
	for _, pl := range p.places {
		if !pl.empty() {
			n++
		}
	}
	return n
}

// ask asks for the start of a worker in a place. Options.StartLimit and Options.Surge may delay it. Callers hold mu.
func (p *Pool) ask(pl *place) {
	if pl.asked || pl.removed || p.closing {
		return
	}
	if w := pl.alive(); w != nil && (w.state == StateStarting || w.due == "" || w.leaving != "" || pl.next != nil) {
		return
	}
	pl.asked = true
	p.starts = append(p.starts, pl)
	p.beginStarts()
}

// unask takes back what ask did. Callers hold mu.
func (p *Pool) unask(pl *place) {
	pl.asked = false
	p.starts = slices.DeleteFunc(p.starts, func(other *place) bool { return other == pl })
}

// beginStarts starts workers in the places that have asked, as far as the limits allow. Places that have no worker come
// first. Callers hold mu.
func (p *Pool) beginStarts() {
	if len(p.starts) == 0 || p.closing {
		return
	}
	for _, pl := range slices.Clone(p.starts) {
		if pl.alive() == nil && p.starting < p.opts.StartLimit {
			p.unask(pl)
			p.startWorker(pl)
		}
	}
	replacing := 0
	for _, pl := range p.places {
		if p.replacing(pl) {
			replacing++
		}
	}
	for _, pl := range slices.Clone(p.starts) {
		old := pl.alive()
		switch {
		case old == nil || replacing >= max(1, p.opts.Surge):
		case p.opts.Surge < 0 && p.holding(old) == 0: // the place of a worker with sessions waits for their end
			p.unask(pl)
			replacing++
			old.leave(old.due)
		case p.opts.Surge > 0 && p.starting < p.opts.StartLimit:
			p.unask(pl)
			replacing++
			p.startWorker(pl)
		}
	}
}

// replacing reports whether a place counts against Options.Surge. With a negative Surge that is every place whose
// worker does not serve: if no start succeeds, no other worker leaves. Callers hold mu.
func (p *Pool) replacing(pl *place) bool {
	if p.opts.Surge < 0 {
		return pl.worker != nil && !pl.worker.accepting()
	}
	return pl.next != nil
}

// alive returns the place's worker, or nil if it is dead or there is none.
func (pl *place) alive() *Worker {
	if pl.worker == nil || pl.worker.state == StateDead {
		return nil
	}
	return pl.worker
}

// startWorker starts a new worker in a place. Callers hold mu.
func (p *Pool) startWorker(pl *place) {
	w := &Worker{
		pool: p, place: pl, index: pl.index, state: StateStarting, started: time.Now(), log: p.logs.events(pl.index),
		limits: p.opts.Recycle.draw(), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	var ctx context.Context
	ctx, w.abort = context.WithCancelCause(p.ctx)
	switch {
	case pl.alive() != nil:
		pl.next = w
	case pl.worker != nil:
		if pl.worker.leaving != "" {
			p.stats.Replaced++
		} else {
			p.stats.Restarts++
		}
		p.remove(pl.worker)
		pl.worker = w
	default:
		pl.worker = w
	}
	// Sorted by index, and by age within one.
	at := len(p.workers)
	for at > 0 && p.workers[at-1].index > w.index {
		at--
	}
	p.workers = slices.Insert(p.workers, at, w)
	p.starting++
	p.emit(StateChanged{Time: w.started, Worker: w, To: StateStarting})
	p.goroutines.Add(1)
	go w.run(ctx)
}

// remove takes a dead worker out of the pool. Callers hold mu.
func (p *Pool) remove(w *Worker) {
	p.workers = slices.DeleteFunc(p.workers, func(other *Worker) bool { return other == w })
}

// startFailed notes that a worker's start failed, and plans the next one.
func (p *Pool) startFailed(w *Worker, err error) {
	err = captureIsolated(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	pl := w.place
	p.starting--
	isNext := pl.next == w
	if !isNext && pl.worker != w { // its start was called off
		p.markDead(w, nil)
		p.remove(w)
		p.beginStarts()
		return
	}
	if p.closing { // the pool has ended it
		p.markDead(w, nil)
		if p.lastErr == nil {
			p.lastErr = err
		}
		return
	}
	p.markDead(w, err)
	defer p.beginStarts()
	p.stats.StartFails++
	p.addFailure(pl, err)
	switch {
	case isNext:
		pl.next = nil
		p.remove(w)
		p.replacementFailed(pl, err)
	case !p.isOpen():
		// Open has not returned yet. When every worker has failed once, Open closes the pool and returns the error.
		if p.starting == 0 && len(p.starts) == 0 {
			close(p.failed)
		}
	default:
		p.restart(pl, err)
	}
	p.failReload(w, err)
}

// callOffNext calls off the start of a place's replacement, if there is one. Callers hold mu.
func (p *Pool) callOffNext(pl *place) {
	if pl.next != nil {
		pl.next.abort(errAborted)
		pl.next = nil
	}
}

// isOpen reports whether a worker has been ready. Open then returns the pool.
func (p *Pool) isOpen() bool { return isDone(p.opened) }

// errAborted is the cause that ends the start of a worker that is not needed any more.
var errAborted = errors.New("the start was called off")
