package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file answers the calls that the peer opens, on either side of a connection.

// incoming starts a call that the peer opened, or refuses it. joined holds the pieces that came before, or is nil.
// Callers hold mu.
func (m *mux) incoming(f *Frame, joined *join, e *effects) error {
	if joined == nil {
		if !m.isNext(f.ID) {
			return errors.New("a call with an id that is not the peer's next")
		}
		m.lastPeerID = f.ID
	}
	refuse := func(kind, text string) error {
		frame := Frame{Kind: KindError, Flags: NotStarted, ID: f.ID}
		e.replies = append(e.replies, reply{frame: frame, body: &RemoteError{Type: kind, Message: text}})
		return nil
	}
	fn, known := m.functions[f.Name]
	switch {
	case m.byeSent && m.streams[f.Parent] == nil, m.closing:
		return refuse(TypeDraining, "no more calls are accepted")
	case !known:
		text := fmt.Sprintf("unknown function %q%s", truncate(f.Name, 200), suggest(f.Name, m.functions))
		return refuse(TypeUnknownCommand, text)
	case m.openIncoming >= m.terms.incoming, joined != nil && joined.dropped:
		return refuse(TypeSaturated, fmt.Sprintf("more than %d calls at once", m.terms.incoming))
	}
	s := &stream{
		mux: m, id: f.ID, name: f.Name, since: time.Now(), inEnded: f.Flags&NoInput != 0,
		keeps: f.Flags&KeepState != 0, credit: m.terms.send, granted: m.terms.receive,
		came: Volume{Bytes: int64(len(f.Body))}, parent: f.Parent, session: f.Session,
		arrived: make(chan struct{}, 1), sendable: make(chan struct{}, 1),
	}
	ctx, stop := context.WithCancelCause(m.base)
	s.cancel = stop
	free := func() { stop(nil) }
	if f.TTL > 0 {
		var stopTimer context.CancelFunc
		ctx, stopTimer = context.WithTimeout(ctx, f.TTL)
		free = func() { stopTimer(); stop(nil) }
	}
	ctx = withServed(ctx, m, s, m.streams[f.Parent])
	m.streams[s.id] = s
	m.openIncoming++
	call := &Incoming{Name: f.Name, Session: f.Session, Metadata: f.Meta, body: f.Body, stream: s}
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		defer free()
		m.serve(ctx, fn, call)
	}()
	return nil
}

// serve answers an incoming call. The function, its result and its error are user code. Whatever they do, the call gets
// exactly one answer.
func (m *mux) serve(ctx context.Context, fn Function, call *Incoming) {
	s := call.stream
	var answer Frame
	var failed error // the function's
	guard("the function", func() error {
		if m.observe != nil {
			ctx = m.observe(ctx, call)
		}
		v, err := fn.Run(ctx, call)
		if err == nil {
			answer, err = m.result(s, v)
		}
		if failed = err; err != nil {
			answer = Frame{Kind: KindError, ID: s.id}
			answer.Body, err = m.errorBody(toRemote(ctx, err))
		}
		return err
	}, func(err error) {
		var p *panicError
		if errors.As(err, &p) {
			m.log.Error(p.Error(), "name", call.Name, "stack", p.stack)
			failed = p
			answer = Frame{Kind: KindError, ID: s.id}
			body := func() (err error) { answer.Body, err = m.errorBody(p.remote()); return err }
			err = guardAdapter("the adapter's codec", body, m.fail)
		}
		if err != nil {
			m.fail(err)
		}
		m.sendState(call)
		m.sendAnswer(s, answer)
		s.functionEnded(failed)
	})
}

// sendState sends the state of the call's session, if the host wants it.
func (m *mux) sendState(call *Incoming) {
	s := call.stream
	if !s.keeps || m.snapshot == nil {
		return
	}
	m.states.Lock()
	defer m.states.Unlock()
	f := Frame{Kind: KindState, ID: s.id}
	err := isolate("the function Snapshot", func() error {
		v, err := m.snapshot(call.Session)
		if err == nil {
			f.Body, err = m.terms.codec.Append(nil, v)
		}
		return captureError(err)
	})
	if err == nil {
		err = m.terms.checkSize(&f, "the state")
	}
	if err != nil {
		m.log.Error("the snapshot of a session failed", "session", call.Session, "error", err)
		f.Flags, f.Body = Failed, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !s.closed {
		m.enqueue(f, s)
	}
}

// result makes the frame for a function's result.
func (m *mux) result(s *stream, v any) (Frame, error) {
	f := Frame{Kind: KindEnd, ID: s.id}
	if v == nil {
		return f, nil
	}
	var err error
	if f.Body, err = m.terms.codec.Append(nil, v); err != nil {
		return f, &RemoteError{Type: TypeBadResult, Message: err.Error()}
	}
	return f, m.terms.checkSize(&f, "the result")
}

// errorBody encodes an error. If that fails or the frame would be too large, it leaves out the data, then all but the
// type and the message, shortened until they fit. Encoding the data may run user code. errorBody fails only if the
// codec fails.
func (m *mux) errorBody(e *RemoteError) ([]byte, error) {
	body, err := m.terms.codec.Append(nil, e)
	limit := m.terms.maxFrame - frameOverhead
	if err == nil && len(body) > limit {
		err = fmt.Errorf("the error with it has %d bytes, and the limit is %d", len(body), limit)
	}
	if err != nil && e.Value != nil {
		smaller := *e
		smaller.Value = nil
		smaller.Notes = append(slices.Clip(e.Notes), "its data can't be sent: "+escapeControl(err.Error(), true))
		if smaller.Text != "" {
			smaller.Text = strings.TrimSuffix(e.Text, "\n") + "\n" + smaller.Notes[len(e.Notes)] + "\n"
		}
		return m.errorBody(&smaller)
	}
	for most := 1000; err != nil; most /= 2 { // such as text that is not valid UTF-8
		body, err = m.terms.codec.Append(nil, &RemoteError{ // a shortened and escaped copy
			Type:    escapeControl(truncate(e.Type, min(most, 200)), true),
			Message: escapeControl(truncate(e.Message, most), true),
		})
		switch {
		case most == 0:
			return body, err
		case err == nil && len(body) > limit:
			err = errors.New("still too large")
		}
	}
	return body, nil
}

// sendAnswer sends the answer of an incoming call.
func (m *mux) sendAnswer(s *stream, answer Frame) {
	m.mu.Lock()
	m.openIncoming--
	if !s.closed {
		m.close(s, nil)
		s.went.Bytes += int64(len(answer.Body))
		m.enqueue(answer, s)
	}
	m.mu.Unlock()
	s.finish()
}
