package core

import (
	"context"
	"errors"
	"fmt"
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

// replacementFailed notes that the replacement of a place's worker could not be started. The worker serves on. Callers
// hold mu.
func (p *Pool) replacementFailed(pl *place, err error) {
	old := pl.alive()
	if old == nil {
		p.restart(pl, err)
		return
	}
	old.replaceErr = err
	p.broadcast()
	p.emit(ReplacementFailed{Time: time.Now(), Worker: old, Cause: old.cause, Err: err})
	if old.cause == CauseReload { // Reload gives up, and returns the error
		p.callOffReload()
		return
	}
	wait := pl.failures.backoff()
	old.log.Error("worker's replacement could not be started; the old worker serves on", "error", err,
		"failures", pl.failures.count, "retry_in", wait)
	p.askAfter(pl, wait)
}

// Reload replaces every worker by a fresh one, with no gap: a worker leaves once its replacement is ready. It ends its
// calls, and serves its sessions until they end or move, as for Recycle. Options.Surge says how many are replaced at
// once. Reload returns when all replacements are ready. If one cannot be started, Reload stops and returns why; the
// other old workers serve on. The same holds when ctx is done. One Reload runs at a time; others wait. Any goroutine
// may call it.
func (p *Pool) Reload(ctx context.Context) (err error) {
	begin := time.Now()
	defer func() { p.emit(Reloaded{Time: time.Now(), Took: time.Since(begin), Err: err}) }()
	select {
	case p.reloading <- struct{}{}:
		defer func() { <-p.reloading }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another reload: %w", endOfContext(ctx))
	}
	p.spawner.servers.renew()
	p.mu.Lock()
	var old []*Worker
	for _, w := range p.workers {
		if pl := w.place; pl.worker == w || pl.next == w {
			old = append(old, w)
			w.replaceErr = nil
			w.mustReload = true
		}
	}
	for _, w := range old {
		p.replaceIfReady(w)
	}
	p.mu.Unlock()
	for {
		p.mu.Lock()
		left, starting, err := 0, false, error(nil)
		for _, w := range old {
			switch pl := w.place; {
			case pl.removed || w.state == StateDead:
			case pl.next == w:
				starting = true
			case pl.worker == w:
				left++
				err = errors.Join(err, w.replaceErr)
			}
		}
		switch {
		case p.closing:
			err = ErrClosed
		case err != nil:
			err = fmt.Errorf("%d workers were not replaced: %w", left, err)
		case ctx.Err() != nil:
			err = fmt.Errorf("%d workers were not replaced: %w", left, endOfContext(ctx))
		}
		if err != nil || left == 0 && !starting {
			for _, w := range old {
				w.mustReload = false
			}
			p.callOffReload()
			p.mu.Unlock()
			return err
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// replaceIfReady has a worker replaced for Reload. A worker that is starting is replaced when it is ready: it may have
// read the old program. Callers hold mu.
func (p *Pool) replaceIfReady(w *Worker) {
	if w.mustReload && w.state != StateStarting {
		p.replace(w, CauseReload, "the pool is reloaded")
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
		if pl.next != nil {
			pl.next.abort(errAborted)
		}
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

// errRemoved is the cause that ends the start of a worker whose place Resize has removed.
var errRemoved = fmt.Errorf("%w: the pool was made smaller", errAborted)
