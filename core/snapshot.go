package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A worker may have functions that turn the state of a session into a value, and back. The pool then keeps a snapshot
// of the session: the state after its last answered call. If the session's worker is lost, or leaves, the next call
// takes another worker, which first restores the state. So the snapshot goes with the session, and not with a worker.

// featureSnapshots is the feature of a worker that sends the state of a session when the call frame asks for it, and
// restores it by restoreCommand.
const featureSnapshots = "snapshots"

// restoreCommand is the built-in command of workers that sets a session's state. Its argument is the snapshot.
const restoreCommand = "snakepit.restore"

// snapshot is the state of a session. It does not change.
type snapshot struct {
	body  []byte
	codec Codec // of body
}

// encoded returns the body for another codec.
func (n *snapshot) encoded(c Codec) ([]byte, error) {
	if len(n.body) == 0 || n.codec.Name() == c.Name() {
		return n.body, nil
	}
	var v any
	if err := n.codec.Decode(n.body, &v); err != nil {
		return nil, err
	}
	return c.Append(nil, v)
}

// setSnapshot replaces the session's snapshot. next may be nil. Callers hold mu.
func (p *Pool) setSnapshot(s *session, next *snapshot) {
	if s.snapshot != nil {
		p.stats.SnapshotBytes -= int64(len(s.snapshot.body))
		if s.worker != nil {
			s.worker.movable--
		}
	}
	if s.snapshot = next; next != nil {
		p.stats.SnapshotBytes += int64(len(next.body))
		if s.worker != nil {
			s.worker.movable++
		}
	}
}

// keep takes the state that the worker has sent for the call's session.
func (f *inflight) keep(state *Frame) {
	var next *snapshot
	most := f.pool.opts.MaxSnapshot
	fits := len(state.Body) <= most
	if fits && state.Flags&Failed == 0 {
		next = &snapshot{slices.Clone(state.Body), f.worker.mux.terms.codec} // the body may be part of a read buffer
	}
	p, s := f.pool, f.session
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.ended || s.worker != f.worker {
		return
	}
	p.setSnapshot(s, next)
	p.sessionsChanged(f.worker)
	if !fits && !s.warned {
		s.warned = true
		f.worker.log.Warn("session's snapshot is too large; the session is lost with its worker", "session", s.id,
			"bytes", len(state.Body), "limit", most, "hint", "keep less in the snapshot, or raise Options.MaxSnapshot")
	}
}

// keepsState reports whether the worker is to send the state of the call's session. Callers hold pool.mu.
func (f *inflight) keepsState() bool {
	s := f.session
	return s != nil && f.worker.restores && f.pool.opts.MaxSnapshot > 0 && s.worker == f.worker && !s.ended &&
		f.request.command != forgetCommand
}

// mayMove reports whether the session has to go on, or can go on, with another worker: its own is lost or leaves, and
// has no call of it. Callers hold mu.
func (p *Pool) mayMove(s *session) bool {
	w := s.worker
	switch {
	case w == nil || s.snapshot == nil:
		return false
	case w.state == StateDead:
		return true
	}
	return (w.leaving != "" || w.retired != "") && s.users == s.queued && p.canRestore()
}

// canRestore reports whether other workers restore sessions. After a change of the program they may not. Callers hold
// mu.
func (p *Pool) canRestore() bool {
	return !slices.ContainsFunc(p.workers, func(w *Worker) bool { return w.accepting() && !w.restores })
}

// holding returns the number of sessions that keep a worker from leaving once it has no calls. Callers hold mu.
func (p *Pool) holding(w *Worker) int {
	if w.movable > 0 && p.canRestore() {
		return w.sessions - w.movable
	}
	return w.sessions
}

// sessionsChanged notes that a worker has other sessions than before. It may leave now, or begin to. Callers hold mu.
func (p *Pool) sessionsChanged(w *Worker) {
	p.noteIdle(w)
	signal(w.wake)
	if w.due != "" {
		p.beginStarts() // with a negative Options.Surge its replacement may have waited for this
	}
}

// wakeLeaving has the leaving workers look whether their sessions can move now. Callers hold mu.
func (p *Pool) wakeLeaving() {
	for _, w := range p.workers {
		if w.leaving != "" && w.movable > 0 {
			signal(w.wake)
		}
	}
}

// move takes a session from its worker. Its next call, or those that wait for it, choose another one. Callers hold mu.
func (p *Pool) move(s *session) {
	w := s.worker
	w.sessions--
	w.movable--
	s.worker, s.moved = nil, true
	if s.queued > 0 {
		s.waiting = map[*waiter]struct{}{}
	}
	for _, wt := range slices.Clone(w.waiting.all) {
		if wt.session == s {
			w.waiting.remove(wt)
			p.waiting.insert(wt)
			s.waiting[wt] = struct{}{}
		}
	}
	p.sessionsChanged(w) // another worker may leave now, with its own sessions
	if s.queued == 0 {
		return
	}
	for _, other := range slices.Clone(p.workers) {
		if other.accepting() {
			p.grant(other)
		}
	}
	p.grow()
}

// moveWaiters moves the sessions with waiting calls that need not stay with w. Callers hold mu.
func (p *Pool) moveWaiters(w *Worker) {
	for _, wt := range slices.Clone(w.waiting.all) {
		if s := wt.session; s.worker == w && p.mayMove(s) {
			p.move(s)
		}
	}
}

// restoring is the call that restores a session. It runs in the slot of the call that needs the state. Guarded by
// pool.mu.
type restoring struct {
	ended bool          // the worker has answered, or is lost
	alone bool          // the call that needs the state is given up: the slot is free when the restore ends
	done  chan struct{} // closed when it has ended
}

// prepare has the worker restore the call's session if it does not have the state yet, and decides whether the worker
// sends the state with its answer. frame is the call's frame. If prepare returns an error, the call must not be sent.
func (f *inflight) prepare(ctx context.Context, frame *Frame) error {
	p, w, s := f.pool, f.worker, f.session
	if s == nil || !p.restores.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s.worker == w && s.moved { // until the state is there, or the session has ended
		var err error
		switch {
		case s.ended:
			err = &notRunError{err: fmt.Errorf("%w: session %q was closed before its new worker had the state",
				ErrSessionLost, s.id)}
		case s.restoring != nil:
			err = p.awaitRestore(ctx, s.restoring)
		default:
			err = f.restore(ctx, frame)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case f.keepsState():
		frame.Flags |= KeepState
	case f.request.command == forgetCommand:
		p.setSnapshot(s, nil)
	}
	return nil
}

// awaitRestore waits until another call of the session has restored it. Callers hold mu; awaitRestore unlocks it while
// it waits.
func (p *Pool) awaitRestore(ctx context.Context, r *restoring) (err error) {
	p.unlocked(func() {
		select {
		case <-r.done:
		case <-ctx.Done():
			err = &notRunError{err: fmt.Errorf("waiting for the session's state: %w", ctx.Err())}
		}
	})
	return err
}

// restore restores the call's session on its worker. Callers hold pool.mu; restore unlocks it while it waits.
func (f *inflight) restore(ctx context.Context, frame *Frame) error {
	p, w, s := f.pool, f.worker, f.session
	if !w.restores {
		return &notRunError{err: fmt.Errorf("%w: the worker of session %q is gone, and its new one can't restore "+
			"the state; write @worker.on_snapshot, or let Session.Close begin a new session", ErrSessionLost, s.id)}
	}
	r, held := &restoring{done: make(chan struct{})}, s.snapshot
	s.restoring = r
	var err error
	p.unlocked(func() { err = f.sendRestore(ctx, r, held, frame) })
	if !r.ended {
		r.alone, f.lent = true, true
	}
	return err
}

// sendRestore makes the call of restoreCommand and waits for its end.
func (f *inflight) sendRestore(ctx context.Context, r *restoring, held *snapshot, frame *Frame) error {
	g := &inflight{
		pool: f.pool, worker: f.worker, session: f.session, restoring: r, request: &request{command: restoreCommand},
	}
	begun := false
	defer func() { // also if the codec panics
		if !begun {
			g.release(nil)
		}
	}()
	body, err := held.encoded(f.worker.mux.terms.codec)
	if err != nil {
		return &notRunError{err: f.notRestored(err)}
	}
	call := Frame{Name: restoreCommand, Session: f.session.id, Parent: frame.Parent, Flags: NoInput, Body: body}
	var not *notRunError
	if err := g.open(ctx, call, f.sessionKeys()); errors.As(err, &not) {
		return err
	} else if err != nil {
		return f.notRestored(err)
	}
	begun = true
	if err = g.awaitResult(ctx, nil); g.stream.isClosed() {
		<-r.done // at once
	}
	var lost *lostError
	switch {
	case err == nil || errors.As(err, &not) && not.retryable:
		return err
	case errors.As(err, &lost):
		err = f.pool.lossError(ctx, f.worker, lost.err)
	}
	return &notRunError{err: f.notRestored(err)}
}

func (f *inflight) notRestored(err error) error {
	return fmt.Errorf("restoring the state of session %q: %w", f.session.id, err)
}

// restored notes the end of a restore, which is nil if it did not begin. It reports whether the slot is free now.
// Callers hold pool.mu.
func (f *inflight) restored(end *stream) bool {
	r, s := f.restoring, f.session
	if end != nil && end.err == nil && !end.failed && !s.ended {
		s.moved = false
	}
	r.ended, s.restoring = true, nil
	close(r.done)
	return r.alone
}
