package core

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Session is a Target whose calls all go to one worker, which keeps state for it: the handler sees its id and a dict of its own. The worker
// is chosen at the first call. Once that worker is lost, every call gets ErrSessionLost until Close, so that nobody goes on with fresh
// state unawares. An unused session ends after Options.SessionIdle. Handles with the same id are the same session; they may be used
// from any number of goroutines.
type Session struct {
	pool *Pool
	id   string
}

// Session returns the session with an id of the caller's choice, which must not be empty.
func (p *Pool) Session(id string) *Session { return &Session{p, id} }

// ID returns the session's id.
func (s *Session) ID() string { return s.id }

// Close ends the session and has its worker drop the state, after the calls that already wait there. It does not wait for that, but a
// later call, which begins a new session of the same id, does.
func (s *Session) Close() {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.sessions[s.id]; e != nil {
		p.endSession(e)
	}
}

// session is what a pool knows of one. Guarded by pool.mu.
type session struct {
	id      string
	worker  *Worker              // nil until a worker was there for the first call; the session is lost with it
	users   int                  // callers that wait or run
	waiting map[*waiter]struct{} // those of them that wait in the pool's queue, because there is no worker yet
	ended   bool
	idle    *time.Timer
}

// lost reports whether the session's worker is gone, and its state with it.
func (s *session) lost() bool { return s.worker != nil && s.worker.state == StateDead }

// endingSession is an ended session whose worker has yet to drop its state.
type endingSession struct {
	session *session
	done    chan struct{}
}

// sessionKey names a session among all pools.
type sessionKey struct {
	pool *Pool
	id   string
}

// joinSession returns the session of an id, making it if need be, with one more user. mu is held.
func (p *Pool) joinSession(id string) (*session, error) {
	s := p.sessions[id]
	if s == nil {
		s = &session{id: id}
		p.sessions[id] = s
	}
	if s.lost() {
		return nil, fmt.Errorf("%w: the worker of session %q is gone, and its state; Session.Close lets a new one begin", ErrSessionLost, id)
	}
	s.users++
	s.stopTimer()
	return s, nil
}

// leaveSession takes a user away; the last one starts the idle time. mu is held.
func (p *Pool) leaveSession(s *session) {
	if s.users--; s.users > 0 || s.ended || p.closing {
		return
	}
	if s.worker == nil {
		delete(p.sessions, s.id) // it never began
		return
	}
	p.startIdle(s)
}

// startIdle ends the session after the idle time, unless it is used before. mu is held.
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

// pinSession settles where a session lives. w may be nil: then nobody is ready yet. mu is held.
func (p *Pool) pinSession(s *session, w *Worker) {
	if s.worker = w; w == nil {
		return
	}
	w.sessions++
	// Its calls wait there from now on, and are lost with that worker.
	older := func(a, b *waiter) int { return cmp.Compare(a.seq, b.seq) }
	for _, me := range slices.SortedFunc(maps.Keys(s.waiting), older) {
		p.waiting.Remove(me.place)
		w.waiting.insert(me)
	}
	s.waiting = nil
}

// endSession forgets a session. mu is held.
func (p *Pool) endSession(s *session) {
	delete(p.sessions, s.id)
	s.ended = true
	s.stopTimer()
	w := s.worker
	if w == nil {
		err := fmt.Errorf("%w: session %q was closed before it had a worker", ErrSessionLost, s.id)
		for me := range s.waiting {
			p.resolve(me, nil, err)
		}
		return
	}
	w.sessions--
	signal(w.wake)
	if !w.forgets || p.closing || !w.servesSessions() {
		return
	}
	ending := &endingSession{session: s, done: make(chan struct{})}
	p.ending[s.id] = ending
	p.goroutines.Add(1)
	go func() {
		defer p.goroutines.Done()
		p.forget(w, s)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.ending, s.id)
		close(ending.done)
	}()
}

// forget is the runner's own command that drops a session's state.
const forget = "snakepit.forget"

// forget has the worker drop a session's state, after the calls that wait there already.
func (p *Pool) forget(w *Worker, s *session) {
	ctx := p.ctx // no time limit: until the state is dropped nobody may begin that session anew; the worker's loss ends the wait
	r := &request{command: forget}
	p.mu.Lock()
	if w.state == StateDead {
		p.mu.Unlock()
		return
	}
	_, err := p.slot(ctx, s, nil)
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
