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

// stream is one side's view of one call: one direction that it receives and one that it sends. The consumer of the one
// and the producer of the other may be two goroutines.
type stream struct {
	mux       *mux
	id        uint64
	name      string
	opener    bool                    // we opened the call
	keeps     bool                    // the call frame asks for the session's state
	since     time.Time               // when it was received; if we opened it, when writing began (guarded by mux.mu)
	deadline  time.Time               // of an outgoing call: becomes the call frame's TTL
	owner     streamOwner             // of an outgoing call; or nil
	cancel    context.CancelCauseFunc // of an incoming call's context
	sessions  []sessionKey            // of an outgoing call: the sessions that wait for its end
	arrived   chan struct{}           // capacity 1: a frame was received, or the call has ended
	sendable  chan struct{}           // capacity 1: credit came, or the peer wants no more; nil if we never send
	ungranted window                  // consumed, but credit not yet granted; only the consumer uses it
	taken     int64                   // items consumed; only the consumer uses it
	parent    uint64                  // of an incoming call: the call of ours that it serves, or 0
	session   string                  // of an incoming call
	watch     *watch                  // of an incoming call; only the goroutine that serves it uses it; or nil

	// guarded by mux.mu
	written    bool    // of an outgoing call: its frame, or the first piece of it, is passed to Conn.Write
	inQueue    int     // its frames in mux.queue
	splitting  bool    // one of its frames is being sent in pieces
	opening    bool    // the frame that is being split is the call frame
	in         []Frame // items received and not yet consumed
	granted    window  // credit that the peer still has
	came       Volume  // what has been received
	went       Volume  // what was queued for sending
	inEnded    bool    // the peer sends no more
	discarding bool    // received items are dropped: we cancelled the call, or want no more input
	credit     window  // credit that we still have
	outEnded   bool    // we send no more
	cancelSent bool    // we cancelled the call; if its frame is in pieces, the cancel follows it
	closed     bool    // the call has ended
	endBody    []byte  // the body of the End or Error frame that ended the call
	failed     bool    // endBody is an error
	notStarted bool    // the error says that the call did not run
	delivered  bool    // the caller has got the answer
	logged     bool    // logLate has seen the call
	err        error   // why the call ended without an answer
	localErr   error   // an error of our own direction

	cancelReason string // the reason of a cancel that waits for the call frame
}

// finish wakes all goroutines that wait for s. It is called once, after s was closed, without mu.
func (s *stream) finish() {
	if s.owner != nil {
		s.owner.release(s)
	}
	if s.cancel != nil {
		s.cancel(s.err)
	}
	signal(s.arrived)
	if s.sendable != nil {
		signal(s.sendable)
	}
}

// A queued item pins the read buffer that it came in, about 64 KiB. From the 17th on, small bodies are copied, so a
// stream costs about its window.
const (
	maxPinned = 16
	smallBody = 16 << 10 // bytes; much less than a read buffer
)

// received queues an item, or returns the breach of the protocol. Callers hold mux.mu.
func (s *stream) received(f *Frame) error {
	s.came.Items++
	s.came.Bytes += int64(len(f.Body))
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
	if len(s.in) >= maxPinned && len(f.Body) < smallBody {
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

// items yields the received items until the direction ends. Afterwards outcome says how the call itself ended. A
// failed item is an *ItemError. ctx's error and a local error are the last value. Each consumed item counts towards
// new credit.
func (s *stream) items(ctx context.Context) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		var batch, spare []Frame
		for {
			s.mux.mu.Lock()
			batch, s.in = s.in, spare
			ended, localErr := s.inEnded, s.localErr
			s.mux.mu.Unlock()
			if localErr != nil {
				yield(item{}, localErr)
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
				yield(item{}, endOfContext(ctx))
				return
			}
		}
	}
}

// consumed counts a consumed item. Once half of the window is consumed, it grants that much credit again.
func (s *stream) consumed(size int64) {
	s.ungranted.Items++
	s.ungranted.Bytes += size
	w := s.mux.terms.receive
	if s.ungranted.Items*2 < w.Items && s.ungranted.Bytes*2 < w.Bytes {
		return
	}
	m := s.mux
	m.mu.Lock()
	if !s.inEnded {
		s.granted.Items += s.ungranted.Items
		s.granted.Bytes += s.ungranted.Bytes
		credit := Frame{Kind: KindCredit, ID: s.id, Items: s.ungranted.Items, Bytes: s.ungranted.Bytes}
		m.control = append(m.control, credit)
		m.wakeWriter()
	}
	m.mu.Unlock()
	s.ungranted = window{}
}

// remote decodes the body of an error. It returns another error if the body cannot be decoded.
func (s *stream) remote(body []byte) error {
	var r RemoteError
	if err := s.mux.decode(body, &r); err != nil {
		return fmt.Errorf("the worker's error could not be decoded: %w", err)
	}
	r.cameBy(s.mux.terms.codec)
	return &r
}

// send encodes v and queues it as an item. It returns the size of the body, and what sendBody returns.
func (s *stream) send(ctx context.Context, v any) (size int, err error) {
	body, err := s.mux.terms.codec.Append(nil, v)
	if err != nil {
		return 0, err
	}
	return len(body), s.sendBody(ctx, body, 0)
}

// sendBody queues an item, once there is credit. It returns io.EOF if the peer wants no more items or the call has
// ended.
func (s *stream) sendBody(ctx context.Context, body []byte, flags Flags) error {
	m := s.mux
	f := Frame{Kind: KindItem, Flags: flags, ID: s.id, Body: body}
	if err := m.terms.checkSize(&f, "the item"); err != nil {
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
			s.went.Items++
			s.went.Bytes += int64(len(body))
			m.enqueue(f, s)
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-s.sendable:
		case <-ctx.Done():
			return endOfContext(ctx)
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

// stopInput tells the opener of an incoming call to send no more input.
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

// abandon gives up a call that we opened. Frames that still arrive are dropped, and queued frames are not sent. If
// the call was written, abandon asks the peer to stop it and returns true; the peer has yet to answer. If not, the
// call ends here. abandon does nothing if the call has ended or was abandoned before.
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
		if s.cancelReason = reason; !s.opening {
			m.control = append(m.control, Frame{Kind: KindCancel, ID: s.id, Name: reason})
			m.wakeWriter()
		}
		m.mu.Unlock()
		return true
	}
	m.close(s, errLeaving)
	m.dropQueued(s)
	m.mu.Unlock()
	s.finish()
	return false
}

// failLocally ends a call that we opened because of an error on our side.
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

// undelivered reports whether the call has ended with an answer that its caller has not got.
func (s *stream) undelivered() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.closed && s.err == nil && !s.delivered
}

func (s *stream) wasAbandoned() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.discarding
}

func (s *stream) wasWritten() bool {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.written // a call whose first piece is written will be sent to its end
}

// isSent reports whether the peer may have the call: its frame is written, and not only pieces of it. Callers hold
// mux.mu.
func (s *stream) isSent() bool { return s.written && !s.opening }

// outcome returns the answer of an ended call that we opened, or the error that ended it.
func (s *stream) outcome() ([]byte, error) {
	s.mux.mu.Lock()
	s.delivered = true
	answer, failed, refused, written, err := s.endBody, s.failed, s.notStarted, s.isSent(), s.err
	s.mux.mu.Unlock()
	switch {
	case err != nil && !written:
		if !errors.Is(err, ErrClosed) {
			err = fmt.Errorf("%w before it had the call: %w", ErrWorkerLost, err)
		}
		return nil, &notRunError{err: err, retryable: true}
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
		switch {
		case remote.is(TypeUnknownCommand):
			return nil, &notRunError{err: fmt.Errorf("%w: %s", ErrUnknownCommand, remote.Message)}
		case remote.is(TypeDraining), remote.is(TypeSaturated):
			return nil, &notRunError{err: err, retryable: true}
		}
	}
	return nil, &notRunError{err: err}
}

// notRunError wraps the reason why a call did not run.
type notRunError struct {
	err       error
	retryable bool // the call may be retried on another worker
}

func (e *notRunError) Error() string { return e.err.Error() }
func (e *notRunError) Unwrap() error { return e.err }

// lostError wraps the error that ended the connection of a call that may have run.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }
