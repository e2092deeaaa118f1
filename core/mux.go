package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// mux runs many calls over one Conn: ids, credit, cancellation. Both sides of the connection use it; only the parity of
// their ids differs. One goroutine reads and one writes. Neither waits for user code.
type mux struct {
	conn      Conn
	terms     terms
	functions map[string]Function
	worker    bool // this is the worker's side, whose ids are even
	log       *logSource
	trace     bool
	recorder  *frameRing
	onBye     func()             // called when the peer has said bye, without mu
	onLog     func(body []byte)  // called with each log record, without mu; must not block
	observe   observeIncoming    // called when a function begins, without mu; or nil
	base      context.Context    // the parent of the contexts of incoming calls
	cancel    context.CancelFunc // cancels base
	running   sync.WaitGroup     // incoming calls
	done      chan struct{}      // closed when both goroutines have ended
	wake      chan struct{}      // capacity 1: the writer has something to do

	snapshot func(session string) (any, error) // ServeOptions.Snapshot
	states   sync.Mutex                        // makes taking a snapshot and queueing it one step

	mu           sync.Mutex // guards all fields below, and the mutable fields of every stream
	streams      map[uint64]*stream
	nextID       uint64           // the id of the next call that we open
	lastPeerID   uint64           // the highest id that the peer has opened
	control      []Frame          // frames that the writer sends first
	queue        []outgoing       // all other frames
	splits       []splitFrame     // frames that are being sent in pieces
	joins        map[uint64]*join // by call, the bodies that arrive in pieces
	opening      int              // how many joins are of call frames
	stale        int              // frames in queue that belong to abandoned calls
	pings        map[uint64]chan []byte
	openIncoming int       // live incoming calls
	byeSent      bool      // we open no more calls
	byeSeen      bool      // the peer accepts no more calls
	closing      bool      // the writer sends all queued frames, then closes our side
	err          error     // why the connection has ended; set once
	doing        []string  // the commands that were running when it ended
	busySince    time.Time // when the oldest of them began; zero if there were none
}

// observeIncoming tells observers of an incoming call. It returns the function's context.
type observeIncoming func(ctx context.Context, call *Incoming) context.Context

// terms are the limits and the codec that the two hellos agreed on.
type terms struct {
	codec    Codec
	maxFrame int
	send     window // the credit that the peer grants at the start of a direction
	receive  window // the credit that we grant
	incoming int    // how many calls the peer may have open at once
	outgoing int    // how many calls a worker may have open at once; on the host's side the pool counts
	pieces   bool   // both sides take large bodies in pieces
}

// checkSize returns an error if a frame exceeds the limit. what names its content in the error.
func (t *terms) checkSize(f *Frame, what string) error {
	size := f.Size()
	if size <= t.maxFrame {
		return nil
	}
	return fmt.Errorf("%w: a frame with %s has %d bytes, and the limit is %d; "+
		"raise Options.MaxFrame, or send it in smaller items", ErrFrameTooLarge, what, size, t.maxFrame)
}

// window is an amount of credit: items, and bytes of their bodies.
type window struct {
	Items int64 `json:"items"`
	Bytes int64 `json:"bytes"`
}

// outgoing is a frame that waits to be written.
type outgoing struct {
	frame Frame
	of    *stream // the call that the frame belongs to, or nil
}

// stale reports whether the frame belongs to an abandoned call and need not be written.
func (q *outgoing) stale() bool {
	s := q.of
	return s != nil && s.opener && (s.cancelSent || s.closed && !s.written)
}

// errLeaving: the connection accepts no new calls.
var errLeaving = errors.New("the worker accepts no new calls")

// maxBacklog bounds the answers that wait for a peer that sends but does not read. Windows bound the frames of calls.
const maxBacklog = 1 << 16

func newMux(conn Conn, t terms, functions map[string]Function, firstID uint64, log *logSource) *mux {
	base, cancel := context.WithCancel(context.Background())
	return &mux{
		conn: conn, terms: t, functions: functions, worker: firstID%2 == 0, log: log, base: base, cancel: cancel,
		nextID: firstID, done: make(chan struct{}), wake: make(chan struct{}, 1),
		streams: map[uint64]*stream{}, pings: map[uint64]chan []byte{},
	}
}

// run serves the connection until it ends. It first handles the frames that came with the hello. It returns when both
// goroutines and all incoming calls have ended. m.err then says why the connection ended.
func (m *mux) run(first []Frame) {
	reader, writer := make(chan struct{}), make(chan struct{})
	var err error
	go func() {
		defer close(writer)
		m.write()
	}()
	go func() {
		defer close(reader)
		err = m.read(first)
	}()
	<-reader
	if m.worker && endOf(err) == io.EOF { // the host has closed its side but still reads
		m.mu.Lock()
		m.closing = true
		m.mu.Unlock()
		m.wakeWriter()
		<-writer
	}
	m.fail(err) // err is nil if the adapter ended the reader's goroutine; m.err is then set already
	<-writer
	close(m.done)
	m.running.Wait()
}

// endWith ends the connection when the peer's process has exited. The last frames of the process may still arrive.
func (m *mux) endWith(exited <-chan struct{}) {
	select {
	case <-exited:
	case <-m.done:
		return
	}
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-m.done:
	case <-timer.C:
		m.fail(io.ErrUnexpectedEOF) // a child of the process holds the connection open
	}
}

// read passes the received frames to their calls until the connection ends. It returns why the connection ended.
func (m *mux) read(frames []Frame) error {
	for {
		if err := m.handle(frames); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		var err error
		if frames, err = m.receive(); err != nil {
			return err
		}
		m.recorder.record(frames, false)
		if m.trace {
			m.show("frame received", frames)
		}
	}
}

// receive, send, closeWrite and closeConn call the connection, which may be user code.
func (m *mux) receive() (frames []Frame, err error) {
	err = guardAdapter("the adapter's Read", func() (err error) {
		if frames, err = m.conn.Read(); err == nil && len(frames) == 0 {
			err = errNoFrames
		}
		return err
	}, m.fail)
	return frames, err
}

func (m *mux) send(batch []Frame) error {
	return guardAdapter("the adapter's Write", func() error { return m.conn.Write(batch) }, m.fail)
}

func (m *mux) closeWrite() error {
	return guardAdapter("the adapter's CloseWrite", m.conn.CloseWrite, m.fail)
}

func (m *mux) closeConn() error { return isolate("the adapter's Close", m.conn.Close) }

var errNoFrames = errors.New("the adapter's Read returned neither frames nor an error")

// show logs frames for SNAKEPIT_TRACE.
func (m *mux) show(msg string, frames []Frame) {
	for i := range frames {
		text := frames[i].String()
		m.log.putBlocking(len(text), func(l hclog.Logger) { l.Info(msg, "frame", text) })
	}
}

// write sends the queued frames until the connection ends or our side is closed.
func (m *mux) write() {
	var batch []Frame
	for {
		<-m.wake
		runtime.Gosched() // let callers that woke together queue their frames, so that one write sends them all
		m.mu.Lock()
		if m.err != nil {
			m.mu.Unlock()
			return
		}
		batch = append(batch[:0], m.control...)
		batch = m.appendQueued(batch, time.Now())
		clear(m.control)
		m.control = m.control[:0]
		isMore := len(m.splits) > 0 || len(m.queue) > 0
		closing := m.closing && !isMore
		m.mu.Unlock()
		if isMore {
			m.wakeWriter()
		}
		m.recorder.record(batch, true)
		if m.trace {
			m.show("frame sent", batch)
		}
		if len(batch) > 0 {
			if err := m.send(batch); err != nil {
				m.fail(err)
				return
			}
			clear(batch)
		}
		if closing {
			if err := m.closeWrite(); err != nil {
				m.fail(err)
			}
			return
		}
	}
}

// appendQueued appends the queued frames, and pieces of large ones. A frame stays in the queue while another one of its
// call is being sent in pieces. Callers hold mu.
func (m *mux) appendQueued(batch []Frame, now time.Time) []Frame {
	kept := m.queue[:0]
	for i := range m.queue {
		q := &m.queue[i]
		if q.of != nil {
			if q.of.splitting && !q.stale() {
				kept = append(kept, *q)
				continue
			}
			q.of.inQueue--
		}
		if q.stale() {
			continue
		}
		if s := q.of; q.frame.Kind == KindCall {
			s.written, s.since = true, now
			q.frame.TTL = s.ttl(now)
		}
		if m.terms.pieces && len(q.frame.Body) > splitAbove {
			batch = m.split(batch, *q)
		} else {
			batch = append(batch, q.frame)
		}
	}
	clear(m.queue[len(kept):])
	m.queue, m.stale = kept, 0
	return m.appendPieces(batch, now)
}

// enqueue queues a frame. of is the frame's call, or nil. Callers hold mu.
func (m *mux) enqueue(f Frame, of *stream) {
	if of != nil {
		of.inQueue++
	}
	m.queue = append(m.queue, outgoing{f, of})
	m.wakeWriter()
}

// dropQueued counts the queued frames of an abandoned call as stale. The writer skips them. Once half of the queue is
// stale, dropQueued compacts it, so memory stays bounded even if the worker does not read. Callers hold mu.
func (m *mux) dropQueued(s *stream) {
	if m.stale += s.inQueue; m.stale < minStale || m.stale*2 < len(m.queue) {
		return
	}
	m.queue = slices.DeleteFunc(m.queue, func(q outgoing) bool {
		if q.stale() {
			q.of.inQueue--
			return true
		}
		return false
	})
	m.stale = 0
}

// minStale is the number of stale frames below which the queue is not compacted.
const minStale = 64

// wakeWriter may be called with or without mu.
func (m *mux) wakeWriter() { signal(m.wake) }

// streamOwner is told about a call that we opened.
type streamOwner interface {
	keep(state *Frame)   // the state of the call's session has arrived; called without mu, before release
	release(end *stream) // the call has ended; called by finish, once, without mu
}

// open starts a call. It sets the frame's ID. The deadline becomes the frame's TTL when the frame is written. owner may
// be nil.
func (m *mux) open(
	f Frame, deadline time.Time, sessions []sessionKey, owner streamOwner,
) (*stream, error) {
	if err := m.terms.checkSize(&f, "the arguments"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil, m.closing, m.byeSent:
		return nil, &notRunError{err: errLeaving, retryable: true}
	case m.byeSeen && m.streams[f.Parent] == nil:
		return nil, &notRunError{err: errLeaving, retryable: true}
	}
	if m.worker {
		open := 0
		for _, s := range m.streams {
			if s.opener {
				open++
			}
		}
		if open >= m.terms.outgoing {
			err := fmt.Errorf("%w: %d calls to the host are open, which is the limit", ErrSaturated, open)
			return nil, &notRunError{err: err}
		}
	}
	f.Kind, f.ID = KindCall, m.nextID
	m.nextID += 2
	s := &stream{
		mux: m, id: f.ID, name: f.Name, opener: true, outEnded: f.Flags&NoInput != 0, deadline: deadline,
		sessions: sessions, owner: owner, keeps: f.Flags&KeepState != 0,
		credit: m.terms.send, granted: m.terms.receive, went: Volume{Bytes: int64(len(f.Body))},
		arrived: make(chan struct{}, 1),
	}
	if !s.outEnded {
		s.sendable = make(chan struct{}, 1)
	}
	m.streams[s.id] = s
	m.enqueue(f, s)
	return s, nil
}

// effects are what a batch of frames has to cause once mu is free.
type effects struct {
	states  []state // go to the owners of their calls, before calls end
	replies []reply
	then    []func()
}

// state is the state of a session that a worker has sent.
type state struct {
	of    *stream
	frame *Frame
}

// reply is a reply of the connection itself: a pong, or the error of a call that was not started.
type reply struct {
	frame  Frame
	body   any  // the frame's body, not yet encoded
	stacks bool // the body is a Pong, and the peer wants the stacks in it, too
}

// handle passes a batch of frames to their calls. An error means that the peer broke the protocol.
func (m *mux) handle(frames []Frame) error {
	var ended []*stream
	var e effects
	var err error
	m.mu.Lock()
	for i := range frames {
		var s *stream
		if s, err = m.handleOne(&frames[i], &e); err != nil {
			err = fmt.Errorf("%w (frame: %s)", err, frames[i].String())
			break
		}
		if s != nil {
			ended = append(ended, s)
		}
	}
	m.mu.Unlock()
	for _, st := range e.states {
		st.of.owner.keep(st.frame)
	}
	for _, s := range ended { // finish frees the slot before it wakes the caller, so the caller's next call can use it
		s.finish()
	}
	for _, f := range e.then {
		f()
	}
	if len(e.replies) > 0 && err == nil {
		err = m.sendReplies(e.replies)
	}
	return err
}

// handleOne passes one frame to its call. It returns the call if the frame ended it, else nil. Callers hold mu.
func (m *mux) handleOne(f *Frame, e *effects) (*stream, error) {
	var joined *join
	if len(m.joins) > 0 && f.Kind.mayBeSplit() {
		var err error
		if joined, err = m.joined(f); err != nil {
			return nil, err
		}
	}
	if n := f.Size(); n > m.terms.maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes, and the limit is %d", n, m.terms.maxFrame)
	}
	switch f.Kind {
	case KindCall:
		return nil, m.incoming(f, joined, e)
	case KindPiece:
		return nil, m.piece(f)
	case KindPing:
		stacks := m.worker && f.Name == featureStacks
		e.replies = append(e.replies, reply{Frame{Kind: KindPong, ID: f.ID}, m.pong(), stacks})
		return nil, nil
	case KindPong:
		if ch := m.pings[f.ID]; ch != nil {
			delete(m.pings, f.ID)
			ch <- f.Body // capacity 1
		}
		return nil, nil
	case KindLog:
		if m.onLog == nil {
			return nil, errors.New("a log record from a host")
		}
		body := f.Body
		e.then = append(e.then, func() { m.onLog(body) })
		return nil, nil
	case KindBye:
		m.byeSeen = true
		if m.onBye != nil {
			e.then = append(e.then, m.onBye)
		}
		return nil, nil
	case KindItem, KindEnd, KindError, KindCancel, KindCredit, KindState:
		return m.handleInCall(f, e)
	}
	return nil, errors.New("unexpected kind of frame")
}

// handleInCall is handleOne for a frame of an open call.
func (m *mux) handleInCall(f *Frame, e *effects) (*stream, error) {
	s := m.streams[f.ID]
	if s == nil {
		if m.neverUsed(f.ID) {
			return nil, errors.New("an id that was never used")
		}
		return nil, nil // the call ended while the frame was on its way
	}
	switch f.Kind {
	case KindItem:
		return nil, s.received(f)
	case KindState:
		if !s.keeps {
			return nil, errors.New("the state of a session, which the call did not ask for")
		}
		e.states = append(e.states, state{s, f})
	case KindCredit:
		if f.Items < 0 || f.Bytes < 0 {
			return nil, errors.New("negative credit")
		}
		const most = 1 << 53
		s.credit.Items = min(s.credit.Items+min(f.Items, most), most)
		s.credit.Bytes = min(s.credit.Bytes+min(f.Bytes, most), most)
		signal(s.sendable)
	case KindCancel:
		if s.opener {
			s.outEnded = true // the peer wants no more input
			signal(s.sendable)
		} else {
			s.inEnded, s.discarding = true, true
			s.cancel(&cancelledError{f.Name})
			signal(s.arrived)
		}
	case KindEnd, KindError:
		if !s.opener {
			if f.Kind == KindError || s.inEnded && !s.discarding {
				return nil, errors.New("a second end")
			}
			s.inEnded = true
			signal(s.arrived)
			return nil, nil
		}
		s.endBody, s.failed = f.Body, f.Kind == KindError
		s.came.Bytes += int64(len(f.Body))
		s.notStarted = f.Kind == KindError && f.Flags&NotStarted != 0
		if s.notStarted && s.came.Items > 0 {
			return nil, errors.New("items, and then an error that says the call did not start")
		}
		if s.cancelSent {
			e.then = append(e.then, func() { m.logLate(s) })
		}
		return m.close(s, nil), nil
	}
	return nil, nil
}

// logLate logs the error of a call that was cancelled or whose deadline had passed, such as an error of its clean-up
// code. The caller does not see this error: it gets the error of its context.
func (m *mux) logLate(s *stream) {
	m.mu.Lock()
	again := s.logged
	s.logged = true
	m.mu.Unlock()
	if again || !s.failed || s.notStarted {
		return
	}
	m.log.put(len(s.endBody), func(l hclog.Logger) {
		var r RemoteError
		decode := func() error { return m.decode(s.endBody, &r) }
		if err := guardAdapter("the adapter's codec", decode, func(error) {}); err != nil || r.is(TypeCancelled) {
			return
		}
		trace := escapeControl(truncate(r.Traceback(), maxMessage), true)
		l.Info("a call failed after it was given up", "command", s.name, "exception", trace)
	})
}

// close ends a call and removes it from streams. Callers hold mu, and call s.finish once they have released mu.
func (m *mux) close(s *stream, err error) *stream {
	delete(m.streams, s.id)
	delete(m.joins, s.id)
	s.closed, s.err, s.inEnded, s.outEnded = true, err, true, true
	return s
}

// sendReplies queues replies. An error means that the peer sends but does not read.
func (m *mux) sendReplies(replies []reply) error {
	for i := range replies {
		r := &replies[i]
		if pong, ok := r.body.(Pong); ok && r.stacks {
			r.body = stacksPong{pong.Running, pong.More, goStacks((m.terms.maxFrame - frameOverhead) / 2)}
		}
		var err error
		if r.frame.Body, err = m.encode(r.body); err != nil {
			m.fail(err)
			return nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range replies {
		pong := a.frame.Kind == KindPong
		switch {
		case pong && len(m.control) > maxBacklog:
			return errors.New("more pings than answers are read")
		case pong:
			m.control = append(m.control, a.frame)
		case len(m.queue) > maxBacklog:
			return errors.New("more calls than answers are read")
		default:
			m.queue = append(m.queue, outgoing{frame: a.frame})
		}
	}
	m.wakeWriter()
	return nil
}

// encode encodes a value of our own. The value runs no user code, but the codec is the adapter's, so callers must not
// hold mu.
func (m *mux) encode(v any) (body []byte, err error) {
	err = guardAdapter("the adapter's codec", func() (err error) {
		body, err = m.terms.codec.Append(nil, v)
		return err
	}, m.fail)
	return body, err
}

// fail ends the connection. Each live call gets err. Only the first call of fail has an effect.
func (m *mux) fail(err error) {
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return
	}
	m.err = err
	if p, ok := err.(*panicError); ok {
		m.log.Error(p.Error(), "stack", p.stack)
	}
	for _, s := range m.streams {
		if s.opener && s.isSent() {
			m.doing = append(m.doing, s.name)
			if m.busySince.IsZero() || s.since.Before(m.busySince) {
				m.busySince = s.since
			}
		}
	}
	ended := m.closeAll(err)
	for id, ch := range m.pings {
		delete(m.pings, id)
		close(ch)
	}
	m.mu.Unlock()
	m.cancel()
	_ = m.closeConn() // unblocks the other goroutine; m.err already says why the connection ended
	m.wakeWriter()
	for _, s := range ended {
		s.finish()
	}
}

// ended reports whether the connection has ended. done is closed soon after.
func (m *mux) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err != nil
}

// closeAll closes all calls with err. Callers hold mu, and call finish on each once they have released mu.
func (m *mux) closeAll(err error) []*stream {
	ended := make([]*stream, 0, len(m.streams))
	for _, s := range m.streams {
		ended = append(ended, m.close(s, err))
	}
	return ended
}

// shutdown ends every call with err, says bye and closes our side. The peer then closes its own side.
func (m *mux) shutdown(err error) {
	m.mu.Lock()
	ended := m.closeAll(err)
	clear(m.queue) // their callers are told that the calls did not run
	m.queue, m.splits, m.stale = m.queue[:0], nil, 0
	m.bye("closing")
	m.closing = true
	m.mu.Unlock()
	m.cancel()
	m.wakeWriter()
	for _, s := range ended {
		s.finish()
	}
}

// bye tells the peer, once, that we open no more calls. Callers hold mu.
func (m *mux) bye(reason string) {
	if !m.byeSent && m.err == nil {
		m.byeSent = true
		m.control = append(m.control, Frame{Kind: KindBye, Name: reason})
		m.wakeWriter()
	}
}

// decode decodes a body. An empty body counts as nil.
func (m *mux) decode(body []byte, v any) error {
	if len(body) == 0 {
		return m.terms.codec.Decode(m.null(), v)
	}
	return m.terms.codec.Decode(body, v)
}

// decodeOwned is decode for a body that is decoded only once. Large values in v become parts of it.
func (m *mux) decodeOwned(body []byte, v any) error {
	if c, ok := m.terms.codec.(interface{ DecodeOwned(b []byte, v any) error }); ok && len(body) > 0 {
		return c.DecodeOwned(body, v)
	}
	return m.decode(body, v)
}

// null returns the encoding of nil.
func (m *mux) null() []byte {
	body, _ := m.terms.codec.Append(nil, nil) // nil can always be encoded
	return body
}

// cancelledError is the cause of the context of an incoming call that the peer has cancelled.
type cancelledError struct{ reason string }

func (c *cancelledError) Error() string {
	if c.reason == "" {
		return "cancelled by the caller"
	}
	return "cancelled by the caller: " + c.reason
}

func (c *cancelledError) Is(target error) bool { return target == context.Canceled }
