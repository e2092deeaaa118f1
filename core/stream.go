package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// stream is one call as one side sees it: a direction that it receives and one that it sends. The consumer of the one and the producer
// of the other may be two goroutines.
type stream struct {
	mux      *mux
	id       uint64
	name     string
	opener   bool                    // we opened it
	since    time.Time               // when it came or, if we opened it, was written; the latter guarded by mux.mu
	deadline time.Time               // of an outgoing call: becomes the call frame's TTL
	ended    func(answered bool)     // called once, without mu, when the terminal frame has come or the connection is lost; or nil
	cancel   context.CancelCauseFunc // of an incoming call's context
	sessions []sessionKey            // of an outgoing call: the sessions that wait for its end
	arrived  chan struct{}           // capacity 1: something was received
	sendable chan struct{}           // capacity 1: credit came, or nothing more is wanted; nil if we never send
	owed     window                  // consumed, credit not yet granted; the consumer's own
	taken    int64                   // items consumed; the consumer's own

	// guarded by mux.mu
	written    bool    // of an outgoing call: handed to Conn.Write
	inQueue    int     // frames of it in mux.queue
	in         []Frame // items received and not consumed
	granted    window  // what the peer may still send
	gotItem    bool    // an item has come
	inEnded    bool    // the peer sends nothing more
	discarding bool    // what is received is of no use: we cancelled, or want no more input
	credit     window  // what we may still send
	outEnded   bool    // we send nothing more
	cancelSent bool
	closed     bool   // the call has ended
	answer     []byte // the terminal frame's body
	failed     bool   // answer is an error
	notStarted bool
	heard      bool  // the caller has been given the answer
	logged     bool  // by logLate
	err        error // the connection's, if that ended the call
	localErr   error // what went wrong with our own direction
}

// finish tells everybody who waits for s. It is called once s is closed, without mu.
func (s *stream) finish() {
	if s.ended != nil {
		s.ended(s.err == nil)
	}
	if s.cancel != nil {
		s.cancel(s.err)
	}
	signal(s.arrived)
	if s.sendable != nil {
		signal(s.sendable)
	}
}

// A waiting item keeps alive whatever its connection read together with it, some 64 KiB. A few may; of more, those that are smaller than that
// by far are copied, so that a stream's window is what it costs.
const (
	maxPinned = 16
	smallBody = 16 << 10
)

// received takes an item in. mux.mu is held.
func (s *stream) received(f *Frame) error {
	s.gotItem = true
	if s.discarding {
		return nil
	}
	if s.inEnded {
		return errors.New("an item after the end")
	}
	if s.granted.Items <= 0 || s.granted.Bytes <= 0 {
		return errors.New("an item without credit")
	}
	s.granted.Items--
	s.granted.Bytes -= int64(len(f.Body))
	if len(s.in) >= maxPinned && len(f.Body) < smallBody { // it may wait for long, and is often a part of all that was read with it
		f.Body = bytes.Clone(f.Body)
	}
	s.in = append(s.in, *f)
	signal(s.arrived)
	return nil
}

// item is one received value, not yet decoded.
type item struct {
	index int64
	bytes []byte
}

// items yields what is received until the direction ends; what ended the call itself is in s afterwards. A failed item is an *ItemError;
// ctx's error is the last. Credit goes back as the consumer asks for more.
func (s *stream) items(ctx context.Context) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		var batch, spare []Frame
		for {
			s.mux.mu.Lock()
			batch, s.in = s.in, spare
			ended, spoiled := s.inEnded, s.localErr
			s.mux.mu.Unlock()
			if spoiled != nil {
				yield(item{}, spoiled)
				return
			}
			for i := range batch {
				if err := ctx.Err(); err != nil {
					yield(item{}, err)
					return
				}
				f := &batch[i]
				it, err := item{index: s.taken, bytes: f.Body}, error(nil)
				if f.Flags&Failed != 0 {
					err = &ItemError{Index: s.taken, Err: s.remote(f.Body)}
				}
				s.taken++
				size := int64(len(f.Body))
				f.Body = nil
				if !yield(it, err) {
					return
				}
				s.consumed(size)
			}
			if spare = batch[:0]; len(batch) > 0 {
				continue
			}
			if ended {
				return
			}
			select {
			case <-s.arrived:
			case <-ctx.Done():
				yield(item{}, ctx.Err())
				return
			}
		}
	}
}

// consumed grants credit once half of the window has been used.
func (s *stream) consumed(size int64) {
	s.owed.Items++
	s.owed.Bytes += size
	w := s.mux.terms.receive
	if s.owed.Items*2 < w.Items && s.owed.Bytes*2 < w.Bytes {
		return
	}
	m := s.mux
	m.mu.Lock()
	if !s.inEnded {
		s.granted.Items += s.owed.Items
		s.granted.Bytes += s.owed.Bytes
		m.control = append(m.control, Frame{Kind: KindCredit, ID: s.id, Items: s.owed.Items, Bytes: s.owed.Bytes})
		m.wakeWriter()
	}
	m.mu.Unlock()
	s.owed = window{}
}

// remote decodes a structured error; one that can't be decoded is an error all the same.
func (s *stream) remote(body []byte) error {
	var r RemoteError
	if err := s.mux.decode(body, &r); err != nil {
		return fmt.Errorf("the worker's error could not be decoded: %w", err)
	}
	return &r
}

// send encodes v and sends it as an item, waiting for credit.
func (s *stream) send(ctx context.Context, v any, flags Flags) error {
	m := s.mux
	body, err := m.terms.codec.Append(nil, v)
	if err != nil {
		return err
	}
	f := Frame{Kind: KindItem, Flags: flags, ID: s.id, Body: body}
	if err := m.terms.fits(&f, "the item"); err != nil {
		return err
	}
	for {
		m.mu.Lock()
		if s.outEnded {
			m.mu.Unlock()
			return io.EOF
		}
		if s.credit.Items > 0 && s.credit.Bytes > 0 {
			s.credit.Items--
			s.credit.Bytes -= int64(len(body))
			m.enqueue(f, s)
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-s.sendable:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endInput ends our direction of a call that we opened.
func (s *stream) endInput() {
	m := s.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if !s.outEnded {
		s.outEnded = true
		m.enqueue(Frame{Kind: KindEnd, ID: s.id}, s)
	}
}

// stopInput tells the opener of an incoming call to send no more.
func (s *stream) stopInput() {
	m := s.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	s.in, s.discarding = nil, true
	if !s.inEnded {
		s.inEnded = true
		m.control = append(m.control, Frame{Kind: KindCancel, ID: s.id, Name: "no more input is wanted"})
		m.wakeWriter()
	}
}

// abandon gives a call that we opened and that has not ended up: what still comes is dropped, and what is queued is not
// sent. It returns true if the peer has been asked to stop it and has yet to answer. A call that was never written ends
// here.
func (s *stream) abandon(reason string) bool {
	m := s.mux
	m.mu.Lock()
	if s.closed || s.cancelSent {
		m.mu.Unlock()
		return false
	}
	s.in, s.discarding, s.outEnded = nil, true, true
	if s.written {
		s.cancelSent = true
		m.dropQueued(s)
		m.control = append(m.control, Frame{Kind: KindCancel, ID: s.id, Name: reason})
		m.wakeWriter()
		m.mu.Unlock()
		return true
	}
	m.close(s, errLeaving)
	m.dropQueued(s)
	m.mu.Unlock()
	s.finish()
	return false
}

// failLocally ends a call that we opened because of something on our side.
func (s *stream) failLocally(err error) {
	s.mux.mu.Lock()
	if s.localErr == nil {
		s.localErr = err
	}
	s.mux.mu.Unlock()
	signal(s.arrived)
}

func (s *stream) isClosed() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.closed
}

// unheard reports whether the call has ended with an answer that its caller did not wait for.
func (s *stream) unheard() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.closed && s.err == nil && !s.heard
}

func (s *stream) wasAbandoned() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.discarding
}

func (s *stream) wasWritten() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.written
}

// outcome returns the answer of a call that we opened and that has ended, or what ended it.
func (s *stream) outcome() ([]byte, error) {
	s.mux.mu.Lock()
	s.heard = true
	answer, failed, refused, written, err := s.answer, s.failed, s.notStarted, s.written, s.err
	s.mux.mu.Unlock()
	switch {
	case err != nil && !written:
		if !errors.Is(err, ErrClosed) {
			err = fmt.Errorf("%w before it had the call: %w", ErrWorkerLost, err)
		}
		return nil, &notRunError{err: err, elsewhere: true}
	case err != nil:
		return nil, &lostError{err}
	case !failed:
		return answer, nil
	}
	err = s.remote(answer)
	if !refused {
		return nil, err
	}
	var remote *RemoteError
	if errors.As(err, &remote) {
		switch remote.Type {
		case TypeUnknownCommand:
			return nil, &notRunError{err: fmt.Errorf("%w: %s", ErrUnknownCommand, remote.Message)}
		case TypeDraining, TypeSaturated:
			return nil, &notRunError{err: err, elsewhere: true}
		}
	}
	return nil, &notRunError{err: err}
}

// notRunError wraps what kept a call from running at all.
type notRunError struct {
	err       error
	elsewhere bool // another worker may take it
}

func (e *notRunError) Error() string { return e.err.Error() }
func (e *notRunError) Unwrap() error { return e.err }

// lostError wraps what ended the connection under a call that may have run.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }
