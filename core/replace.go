package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Cause says why a worker is replaced or leaves.
type Cause string

// The causes. They are also the reasons in the log.
const (
	CauseCalls   Cause = "calls"   // Recycle.Calls
	CauseAge     Cause = "age"     // Recycle.Age
	CauseIdle    Cause = "idle"    // Recycle.Idle, or the pool shrinks
	CauseMemory  Cause = "memory"  // Recycle.Memory
	CauseReload  Cause = "reload"  // Pool.Reload, or the program has changed
	CauseResized Cause = "resized" // Pool.Resize
	CauseBackEnd Cause = "backend" // its back end is about to end
	CauseAsked   Cause = "asked"   // Worker.Replace
)

// replace has a worker replaced. detail is the text for the log. It has no effect on a worker that is leaving, or that
// is to be replaced already. Callers hold mu.
func (p *Pool) replace(w *Worker, cause Cause, detail string) {
	pl := w.place
	if pl.worker != w || pl.removed || w.due != "" || w.state == StateDead || p.closing {
		return
	}
	w.cause, w.due = cause, detail
	level := hclog.Info
	if cause == CauseReload { // it concerns every worker, and whoever asked for it knows
		level = hclog.Debug
	}
	w.log.log(level, "worker is to be replaced", []any{"cause", cause, "reason", detail})
	p.emit(ReplacementPlanned{Time: time.Now(), Worker: w, Cause: cause, Reason: detail})
	p.ask(pl)
}

// Replace has the worker replaced by a fresh one, as Recycle does: it serves on until its replacement is ready, and
// then ends its calls and its sessions. reason goes into the log. It has no effect on a worker that is leaving, or that
// is to be replaced already. Replace does not wait. Any goroutine may call it.
func (w *Worker) Replace(reason string) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.pool.replace(w, CauseAsked, reason)
}

// Terminate ends the worker by force: SIGTERM, then SIGKILL after half of Options.StopTimeout. Its calls get
// ErrWorkerLost, and the pool starts another worker in its place. reason goes into the log and into WorkerExit, with
// the stacks of its threads. It has no effect on a worker that is starting, stopping or dead. Terminate does not wait.
// Any goroutine may call it.
func (w *Worker) Terminate(reason string) {
	w.pool.mu.Lock()
	w.doomed = cmp.Or(w.doomed, reason)
	w.pool.mu.Unlock()
	signal(w.wake)
}

// replacementFailed notes that the replacement of a place's worker could not be started. The worker serves on. Callers
// hold mu.
func (p *Pool) replacementFailed(pl *place, err error) {
	old := pl.alive()
	if old == nil {
		p.restart(pl, err)
		return
	}
	p.emit(ReplacementFailed{Time: time.Now(), Worker: old, Cause: old.cause, Err: err})
	if old.cause == CauseReload { // Reload gives up, and returns the error
		return
	}
	wait := pl.failures.backoff()
	p.logFailedStart(pl.index, "the old worker serves on, because its replacement could not be started", err,
		"failures", pl.failures.count, "retry_in", wait)
	p.askAfter(pl, wait)
}

// Reload replaces every worker by a fresh one, with no gap: a worker leaves once its replacement is ready. It ends its
// calls, and serves its sessions until they end or move, as for Recycle. Options.Surge says how many are replaced at
// once. Reload returns when all replacements are ready. If one cannot be started, Reload stops and returns why; the
// other old workers serve on. The same holds when ctx is done. One Reload runs at a time; others wait. Any goroutine
// may call it.
func (p *Pool) Reload(ctx context.Context) error { return p.reloadFor(ctx, "the pool was reloaded") }

// reloadFor is Reload. The log has the message when it is done.
func (p *Pool) reloadFor(ctx context.Context, message string) (err error) {
	begin := time.Now()
	defer func() {
		took := time.Since(begin)
		p.emit(Reloaded{Time: time.Now(), Took: took, Err: err})
		if err == nil {
			p.log.Info(message, "took", took.Round(time.Millisecond))
		}
	}()
	select {
	case p.reloading <- struct{}{}:
		defer func() { <-p.reloading }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another reload: %w", endOfContext(ctx))
	}
	p.spawner.servers.renew()
	r := p.beginReload()
	for {
		p.mu.Lock()
		left := 0
		for _, pl := range p.places {
			if !r.done(pl) {
				left++
			}
		}
		err, changed := r.err, p.changed
		if p.closing {
			err = ErrClosed
		} else if err != nil {
			err = fmt.Errorf("%s: %w", notReplaced(left), err)
		}
		p.mu.Unlock()
		if err == nil && left > 0 {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				err = fmt.Errorf("%s: %w", notReplaced(left), endOfContext(ctx))
			}
		}
		p.mu.Lock()
		p.callOffReload()
		p.reload = nil
		p.mu.Unlock()
		return err
	}
}

func notReplaced(workers int) string {
	if workers == 1 {
		return "one worker was not replaced"
	}
	return fmt.Sprintf("%d workers were not replaced", workers)
}

// reload is a Reload that runs. Guarded by pool.mu.
type reload struct {
	old map[*Worker]struct{} // the workers that may have read the old program
	err error                // why a worker could not be started since then
}

// done reports whether a place has a worker that has read the new program, or none.
func (r *reload) done(pl *place) bool {
	w := pl.worker
	if w == nil {
		return true
	}
	_, old := r.old[w]
	return !old && (w.state == StateReady || w.state == StateDraining)
}

// beginReload has all workers replaced that are there now. Where the pool waits before it starts a worker again, it
// starts one now: the new program may be better.
func (p *Pool) beginReload() *reload {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &reload{old: map[*Worker]struct{}{}}
	p.reload = r
	for _, w := range p.workers {
		r.old[w] = struct{}{}
	}
	for _, w := range slices.Clone(p.workers) {
		p.replaceIfOld(w)
	}
	for _, pl := range p.places {
		if pl.worker != nil && pl.worker.state == StateDead {
			pl.stopRetry()
			p.ask(pl)
		}
	}
	p.stopped = nil
	return r
}

// replaceIfOld has a worker replaced for the Reload that runs, if there is one. A worker that is starting is replaced
// when it is ready: it may have read the old program. Callers hold mu.
func (p *Pool) replaceIfOld(w *Worker) {
	if p.reload == nil || p.reload.err != nil || w.state == StateStarting {
		return
	}
	if _, old := p.reload.old[w]; old {
		p.replace(w, CauseReload, "the pool is reloaded")
	}
}

// failReload ends the Reload that runs, if there is one: a start has failed. Callers hold mu.
func (p *Pool) failReload(w *Worker, err error) {
	if p.reload == nil || p.reload.err != nil {
		return
	}
	if _, old := p.reload.old[w]; !old {
		p.reload.err = err
		p.callOffReload()
		p.broadcast()
	}
}

// callOffReload calls off the replacements for Reload that are not ready. Callers hold mu.
func (p *Pool) callOffReload() {
	for _, pl := range p.places {
		w := pl.alive()
		if w == nil || w.cause != CauseReload || w.leaving != "" {
			continue
		}
		w.due, w.cause = "", ""
		p.unask(pl)
		p.callOffNext(pl)
		signal(w.wake) // it may have reached a limit in the meantime
	}
}

// leave has the worker accept no new callers. It ends its calls, serves its sessions until they end or move, and then
// stops. Callers hold pool.mu.
func (w *Worker) leave(reason string) {
	if w.leaving == "" {
		w.leaving = reason
		w.pool.moveWaiters(w)
	}
	signal(w.wake)
}
