package core

import (
	"fmt"
	"slices"
	"time"
)

// grow asks for workers in empty places, as many as the waiting callers need besides those that are about to start.
// Callers hold mu.
func (p *Pool) grow() { p.growFor(p.waiting.Len()) }

// growFor is grow for a number of callers. Callers hold mu.
func (p *Pool) growFor(callers int) {
	if p.min == len(p.places) {
		return
	}
	coming := 0
	for _, pl := range p.places {
		if pl.asked && pl.alive() == nil || pl.worker != nil && pl.worker.state == StateStarting {
			coming++
		}
	}
	for _, pl := range p.places {
		if coming*p.slots >= callers {
			return
		}
		if pl.empty() {
			coming++
			p.ask(pl)
		}
	}
}

// canGrow reports whether a place is empty. Callers hold mu.
func (p *Pool) canGrow() bool {
	if p.min == len(p.places) {
		return false
	}
	for _, pl := range p.places {
		if pl.empty() {
			return true
		}
	}
	return false
}

// shrink has idle workers leave while the pool has more than it keeps and w has been idle for Options.IdleTime. It
// reports whether w leaves. Callers hold mu.
func (p *Pool) shrink(w *Worker) bool {
	for w.place.worker == w && w.due == "" && p.occupied() > p.min && p.waiting.Len() == 0 &&
		time.Since(w.idleSince) >= p.opts.IdleTime {
		last := w // idle workers are alike, and a smaller Resize removes the last places
		for _, other := range p.workers {
			if other.index > w.index && other.place.worker == other && other.due == "" && other.accepting() &&
				other.running == 0 && other.sessions == 0 {
				last = other
			}
		}
		p.vacate(last.place, CauseIdle, fmt.Sprintf("it was idle for %s", p.opts.IdleTime))
		if last == w {
			return true
		}
		w.idleSince = last.idleSince // w stays in its stead
	}
	return false
}

// vacate empties a place. Its worker leaves. Callers hold mu.
func (p *Pool) vacate(pl *place, cause Cause, reason string) {
	p.unask(pl)
	pl.stopRetry()
	p.callOffNext(pl)
	p.stopped = slices.DeleteFunc(p.stopped, func(other *place) bool { return other == pl })
	w := pl.worker
	pl.worker = nil
	switch {
	case w == nil:
	case w.state == StateDead:
		p.remove(w)
	case w.state == StateStarting:
		w.abort(errAborted)
	default:
		w.cause = cause
		w.leave(reason)
	}
}

// Resize changes the number of workers to size, from 1 to 1024. If Options.MinSize is smaller than Options.Size, size
// is the new maximum, and the minimum follows if it would be larger. New workers start at once; Resize does not wait
// for them. Numeric libraries in workers that start from now on get their share of the processors for the new size. The
// workers that are too many end their calls, serve their sessions until they end or move, and leave. Any goroutine may
// call it. The error is ErrClosed after Close, or says what is wrong with size.
func (p *Pool) Resize(size int) error {
	if size < 1 || size > maxSize {
		return fmt.Errorf("the pool's size cannot be %d: it has to be from 1 to %d", size, maxSize)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.draining {
		return ErrClosed
	}
	before := len(p.places)
	if size == before {
		return nil
	}
	for _, pl := range p.places[min(size, before):] {
		pl.removed = true
		pl.stopped = false
		p.vacate(pl, CauseResized, fmt.Sprintf("the pool was made smaller, from %d to %d workers", before, size))
	}
	p.places = p.places[:min(size, before)]
	p.spawner.size.Store(int32(size))
	p.addPlaces(size)
	if p.opts.MinSize == p.opts.Size {
		p.min = size
	} else {
		p.min = min(p.opts.MinSize, size)
	}
	p.log.Info("the pool was resized", "from", before, "to", size)
	p.emit(Resized{Time: time.Now(), From: before, To: size})
	for _, pl := range p.places[:p.min] {
		if pl.empty() {
			p.ask(pl)
		}
	}
	p.grow()
	p.beginStarts()
	p.broadcast()
	return nil
}
