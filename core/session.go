package core

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Session is a Target whose calls all go to one worker. The worker keeps state for it: the handler sees the session's
// id and a dict of its own. The first call chooses the worker.
//
// If the worker gives snapshots, the pool keeps the state after the last answered call. When that worker is lost or
// leaves, the next call takes another worker, which restores the state first. If the restore fails, the call fails with
// that error and did not run, and the next call tries again. Without a snapshot, every call after the loss gets
// ErrSessionLost until the session ends, so that no call silently continues with fresh state.
//
// A session ends by Close, or when no call has used it for Options.SessionIdle. Sessions with the same id are the same
// session. Any number of goroutines may use them.
type Session struct {
	pool *Pool
	id   string
	hint bool
}

// SessionOption changes how the calls of a session choose their worker.
type SessionOption func(*Session)

// Hint makes a session prefer its worker, but not insist on it: while that worker is busy, another one with a free slot
// takes the call. So its calls never get ErrSessionLost, and it does not keep a worker from leaving. The state that a
// handler sees is a cache: each worker has its own, and the pool keeps no snapshot.
func Hint() SessionOption { return func(s *Session) { s.hint = true } }

// Session returns the session with an id that the caller chooses. The id must not be empty. If the pool already has
// Options.MaxSessions, the first call of another one gets ErrSaturated.
func (p *Pool) Session(id string, opts ...SessionOption) *Session {
	s := &Session{pool: p, id: id}
	for _, o := range opts {
		o(s)
	}
	return s
}

// ID returns the session's id.
func (s *Session) ID() string { return s.id }

// Close ends the session. Its worker drops the state after the calls that already wait there. Close does not wait for
// that. A later call with the same id does wait, and then begins a new session.
func (s *Session) Close() {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.sessions[s.id]; e != nil {
		p.endSession(e)
	}
}

// session is the pool's state of one session. Guarded by pool.mu.
type session struct {
	id       string
	worker   *Worker              // nil until a worker is ready for the first call; the session is lost with its worker
	favorite *Worker              // of calls with Hint: the worker that had the last one, or nil
	visited  map[*Worker]struct{} // the workers that had calls with Hint; nil before the first
	users    int                  // calls that wait or run
	waiting  map[*waiter]struct{} // the calls in the pool's queue, which wait for the session's first worker
	ended    bool
	idle     *time.Timer

	queued    int        // those of users that wait in a queue
	snapshot  *snapshot  // the state after the last answered call, or nil if the pool does not have it
	moved     bool       // the worker has to restore the snapshot before calls run
	restoring *restoring // the call that restores it now, or nil
	warned    bool       // the log has that the snapshot is too large
}

// lost reports whether the session's worker is gone, and the state with it.
func (s *session) lost() bool { return s.worker != nil && s.worker.state == StateDead }

// endingSession is an ended session whose worker has yet to drop its state.
type endingSession struct {
	session *session
	done    chan struct{} // closed when the worker has dropped the state
}

// sessionKey identifies a session among the sessions of all pools.
type sessionKey struct {
	pool *Pool
	id   string
}

// joinSession returns the session with an id and adds a user to it. It makes the session if there is none. Callers hold
// mu.
func (p *Pool) joinSession(r *request) (*session, error) {
	id := r.session
	s := p.sessions[id]
	if s == nil {
		if n := len(p.sessions); p.opts.MaxSessions > 0 && n >= p.opts.MaxSessions {
			return nil, p.refuse(&waiter{request: r}, fmt.Errorf("%w: the pool has as many sessions as "+
				"Options.MaxSessions allows (%d); close unused ones, or lower Options.SessionIdle", ErrSaturated, n))
		}
		s = &session{id: id}
		p.sessions[id] = s
	}
	if p.mayMove(s) {
		p.move(s)
	}
	if s.lost() && !r.hint {
		return nil, fmt.Errorf("%w: the worker of session %q is gone, and its state; "+
			"Session.Close lets a new one begin", ErrSessionLost, id)
	}
	s.users++
	s.stopTimer()
	return s, nil
}

// leaveSession removes a user. When the last one leaves, the idle time begins. Callers hold mu.
func (p *Pool) leaveSession(s *session) {
	if s.users--; s.queued > 0 && p.mayMove(s) {
		p.move(s)
	}
	if s.users > 0 || s.ended || p.closing {
		return
	}
	if s.worker == nil && s.visited == nil && s.snapshot == nil {
		delete(p.sessions, s.id) // it never had a worker, so there is no state
		return
	}
	p.startIdle(s)
}

// startIdle ends the session after the idle time, unless it is used before that. Callers hold mu.
func (p *Pool) startIdle(s *session) {
	switch {
	case p.opts.SessionIdle < 0 || p.closing:
	case s.idle != nil:
		s.idle.Reset(p.opts.SessionIdle)
	default:
		s.idle = time.AfterFunc(p.opts.SessionIdle, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if s.users == 0 && !s.ended {
				p.endSession(s)
			}
		})
	}
}

func (s *session) stopTimer() {
	if s.idle != nil {
		s.idle.Stop()
	}
}

// pinSession makes w the session's worker. If w is nil, no worker is ready yet, and the session stays without one.
// Callers hold mu.
func (p *Pool) pinSession(s *session, w *Worker) {
	if s.worker = w; w == nil {
		return
	}
	w.sessions++
	if s.snapshot != nil {
		w.movable++
	}
	// From now on the session's calls wait for this worker, and are lost with it.
	for wt := range s.waiting {
		p.waiting.remove(wt)
		w.waiting.insert(wt)
	}
	s.waiting = nil
}

// endSession ends a session and has its worker drop the state. Callers hold mu.
func (p *Pool) endSession(s *session) {
	delete(p.sessions, s.id)
	s.ended = true
	s.stopTimer()
	p.setSnapshot(s, nil)
	if s.worker == nil && s.visited == nil {
		err := fmt.Errorf("%w: session %q was closed before it had a worker", ErrSessionLost, s.id)
		for wt := range s.waiting {
			p.resolve(wt, nil, err)
		}
		return
	}
	var knowing []*Worker // the workers that have state of the session
	if w := s.worker; w != nil {
		w.sessions--
		p.sessionsChanged(w)
		knowing = append(knowing, w)
	}
	for w := range s.visited {
		if w != s.worker {
			knowing = append(knowing, w)
		}
	}
	knowing = slices.DeleteFunc(knowing, func(w *Worker) bool { return !w.forgets || !w.servesSessions() })
	if len(knowing) == 0 || p.closing {
		return
	}
	ending := &endingSession{session: s, done: make(chan struct{})}
	restoring := s.restoring
	p.ending[s.id] = ending
	p.goroutines.Add(1)
	go func() {
		defer p.goroutines.Done()
		if restoring != nil { // the worker must not restore the state after it has dropped it
			select {
			case <-restoring.done:
			case <-p.ctx.Done():
			}
		}
		for _, w := range knowing {
			p.forget(w, &session{id: s.id, worker: w, ended: true})
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.ending, s.id)
		close(ending.done)
	}()
}

// visit notes that a call with Hint has a slot of w. s may be nil. Callers hold pool.mu.
func (s *session) visit(r *request, w *Worker) {
	if s == nil || !r.hint {
		return
	}
	s.favorite = w
	if s.visited == nil {
		s.visited = map[*Worker]struct{}{}
	}
	for other := range s.visited {
		if other.state == StateDead {
			delete(s.visited, other)
		}
	}
	s.visited[w] = struct{}{}
}

// forgetCommand is the built-in command of workers that drops a session's state.
const forgetCommand = "snakepit.forget"

// forget has the worker drop a session's state, after the calls that already wait for the worker.
func (p *Pool) forget(w *Worker, s *session) {
	// There is no time limit: the session's id cannot be used again until the state is dropped. The loss of the worker
	// ends the wait.
	ctx := p.ctx
	r := &request{command: forgetCommand}
	p.mu.Lock()
	if w.state == StateDead {
		p.mu.Unlock()
		return
	}
	_, err := p.slot(ctx, r, s, nil)
	p.mu.Unlock()
	if err == nil {
		var f *inflight
		if f, err = p.openCall(ctx, r, w, s); err == nil {
			err = f.awaitResult(ctx, nil)
		}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrSessionLost) {
		w.log.Warn("session's state could not be dropped", "session", s.id, "error", err)
	}
}
