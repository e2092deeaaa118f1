package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	turn     bool        // a replacement is under way; it counts against Options.Surge
	retry    *time.Timer // asks for a start after a wait; nil before the first wait
	stopped  bool        // its budget of failed starts is spent: it is in Pool.stopped
	removed  bool        // Resize has removed it
}

// startFailures counts the starts of one place that failed in a row. A worker that ends before its minimum uptime, and
// has answered no call, counts as a failed start. An answered call or the minimum uptime resets the count. Each place
// has its own count and its own wait before the next start: the failures of one place say nothing about another.
type startFailures struct {
	count int
	last  error // the error of the last failed start
}

// crashLoop is how many starts in a row, over all places, have to fail before callers get ErrCrashLoop instead of
// waiting. Every place must have failed, and no worker may serve.
const crashLoop = 5

// maxBackoff bounds the wait between two starts of a place, before a random part is added. It is also the time between
// two probes.
const maxBackoff = 30 * time.Second

// minUptime is a worker's minimum uptime. A worker that ends earlier counts as a failed start, unless it has answered a
// call.
const minUptime = 10 * time.Second

// backoff returns the wait before the next start. It doubles with each failure.
func (f *startFailures) backoff() time.Duration {
	if f.count == 0 {
		return 0
	}
	wait := min(100*time.Millisecond<<min(f.count-1, 20), maxBackoff)
	return wait + rand.N(wait/4+1) // so that workers that died together do not keep starting together
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
	if w := pl.alive(); w != nil && (w.state == StateStarting || w.due == "" || pl.turn) {
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
	for _, pl := range slices.Clone(p.starts) {
		old := pl.alive()
		switch {
		case old == nil || p.replacing >= max(1, p.opts.Surge):
		case p.opts.Surge < 0 && p.holding(old) == 0: // the place of a worker with sessions waits for their end
			p.unask(pl)
			pl.turn = true
			p.replacing++
			old.leave(old.due)
		case p.opts.Surge > 0 && p.starting < p.opts.StartLimit:
			p.unask(pl)
			pl.turn = true
			p.replacing++
			p.startWorker(pl)
		}
	}
}

// alive returns the place's worker, or nil if it is dead or there is none.
func (pl *place) alive() *Worker {
	if pl.worker == nil || pl.worker.state == StateDead {
		return nil
	}
	return pl.worker
}

// endTurn ends the replacement of a place's worker, in whatever way. Callers hold mu.
func (p *Pool) endTurn(pl *place) {
	if pl.turn {
		pl.turn = false
		p.replacing--
	}
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
	p.markDead(w, err)
	if p.closing {
		if p.lastErr == nil {
			p.lastErr = err
		}
		return
	}
	defer p.beginStarts()
	p.endTurn(pl)
	p.stats.StartFails++
	p.addFailure(pl, err)
	p.failReload(w, err)
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
}

// callOffNext calls off the start of a place's replacement, if there is one. Callers hold mu.
func (p *Pool) callOffNext(pl *place) {
	if pl.next != nil {
		pl.next.abort(errAborted)
		pl.next = nil
		p.endTurn(pl)
	}
}

// isOpen reports whether a worker has been ready. Open then returns the pool.
func (p *Pool) isOpen() bool {
	select {
	case <-p.opened:
		return true
	default:
		return false
	}
}

// errAborted is the cause that ends the start of a worker that is not needed any more.
var errAborted = errors.New("the start was called off")

// addFailure counts a failed start. Callers hold mu.
func (p *Pool) addFailure(pl *place, err error) {
	pl.failures.count++
	pl.failures.last, p.lastErr = err, err
}

// resetFailures forgets the failures of a place: its worker has answered a call, or lived long enough. If the pool had
// stopped trying, all other places try again, too. Callers hold mu.
func (p *Pool) resetFailures(pl *place) {
	if pl.failures.count == 0 || pl.worker != nil && pl.worker.due != "" { // a replacement may be what fails
		return
	}
	pl.failures = startFailures{}
	if pl.stopped {
		p.tryAgain(pl)
	}
}

// restart plans the next start in a place whose worker was lost, or could not be started. It starts at once if the
// place has no failures, else after a wait that doubles with each failure. err is why the start failed, or nil. If
// starts keep failing and no worker serves, restart also fails the callers that wait. Callers hold mu.
func (p *Pool) restart(pl *place, err error) {
	if p.closing || pl.removed {
		return
	}
	defer func() {
		if err := p.crashLoopError(); err != nil { // callers must not wait for a worker that may never be ready
			p.waiting.failAll(p, err)
		}
	}()
	p.unask(pl) // it may have asked for a replacement
	pl.stopRetry()
	failures := pl.failures.count
	if failures == 0 {
		p.emit(RestartPlanned{Time: time.Now(), Index: pl.index})
		p.ask(pl)
		return
	}
	if p.opts.StartBudget > 0 && failures >= p.opts.StartBudget {
		p.stopTrying(pl)
		return
	}
	wait := pl.failures.backoff()
	p.emit(RestartPlanned{
		Time: time.Now(), Index: pl.index, In: wait, Failures: failures, Err: pl.failures.last,
	})
	if err != nil {
		p.logs.events(pl.index).Error("worker could not be started", "error", err, "failures", failures,
			"retry_in", wait)
	}
	p.askAfter(pl, wait)
}

// askAfter asks for a start after a wait. Callers hold mu.
func (p *Pool) askAfter(pl *place, wait time.Duration) {
	pl.stopRetry()
	pl.retry = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ask(pl)
	})
}

func (pl *place) stopRetry() {
	if pl.retry != nil {
		pl.retry.Stop()
	}
}

// stopTrying ends the regular starts of a place whose budget of failed starts is spent. From now on the pool only
// probes. Callers hold mu.
func (p *Pool) stopTrying(pl *place) {
	if !pl.stopped {
		pl.stopped = true
		p.logs.events(pl.index).Error("the pool has stopped starting this worker", "reason", pl.failures.last,
			"failures", pl.failures.count, "probe_every", maxBackoff)
		p.emit(StartsStopped{
			Time: time.Now(), Index: pl.index, Failures: pl.failures.count, Err: pl.failures.last,
		})
	}
	p.endTurn(pl)
	p.stopped = append(p.stopped, pl)
	if p.probe == nil {
		p.probe = time.AfterFunc(maxBackoff, p.probeNext)
	} else if len(p.stopped) == 1 {
		p.probe.Reset(maxBackoff)
	}
}

// probeNext starts a worker in one of the places where the pool has stopped trying: in turn, one for the whole pool.
func (p *Pool) probeNext() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(p.stopped) == 0 {
		return
	}
	pl := p.stopped[0]
	p.stopped = p.stopped[1:]
	if len(p.stopped) > 0 {
		p.probe.Reset(maxBackoff)
	}
	p.ask(pl)
}

// tryAgain resumes regular starts: a probe in pl was successful. Callers hold mu.
func (p *Pool) tryAgain(pl *place) {
	pl.stopped = false
	p.emit(StartsResumed{Time: time.Now(), Index: pl.index})
	waiting := p.stopped
	p.stopped = nil
	for _, other := range waiting {
		other.failures.count = 0 // a new budget; last stays for Stats until a start succeeds
		other.stopped = false
		p.emit(StartsResumed{Time: time.Now(), Index: other.index})
		p.ask(other)
	}
}

// crashLoopError returns ErrCrashLoop with its details if no worker serves and starts keep failing, else nil. Callers
// hold mu.
func (p *Pool) crashLoopError() error {
	times, stopped := 0, false
	for _, pl := range p.places {
		if pl.failures.count == 0 && !pl.empty() {
			return nil
		}
		times += pl.failures.count
		stopped = stopped || pl.stopped
	}
	if times < crashLoop && !stopped {
		return nil
	}
	for _, w := range p.workers {
		if w.state == StateReady || w.state == StateDraining {
			return nil
		}
	}
	if times == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d starts failed, and no worker serves; the last one: %w", ErrCrashLoop, times, p.lastErr)
}
