package core

import (
	"context"
	"errors"
	"iter"
	"maps"
	"time"
)

// Host lets a Function of a worker written in Go call the host that opened its call. It is valid until that call ends.
// Any number of goroutines may use its methods. Its calls carry the metadata of their context (see WithMetadata), and
// the trace headers of the call that is served: traceparent, tracestate and baggage. If the context's metadata has a
// traceparent, the context's trace headers go instead.
type Host struct{ call *Incoming }

// Host returns the host that opened the call. A function in Options.Functions already runs on the host and calls
// workers through its pool: there the methods of Host return an error.
func (c *Incoming) Host() *Host { return &Host{c} }

var errNoHost = errors.New("a function of the host calls workers through its pool")

// Call calls one of the host's functions and decodes its result into out, a non-nil pointer or nil.
func (h *Host) Call(ctx context.Context, name string, args, out any) error {
	s, err := h.open(ctx, name, args)
	if err != nil {
		return err
	}
	for _, err := range s.items(ctx) {
		s.abandon("the caller has left")
		if err == nil || !errors.Is(err, ctx.Err()) {
			err = errors.New(name + " sends a stream: use Stream")
		}
		return err
	}
	return h.result(s, out)
}

// Stream calls one of the host's functions and yields its items, decoded into types that the codec chooses. An
// *ItemError is the error of one item; any other error is the last value. Breaking out of the loop cancels the call.
// The sequence may be ranged over once.
func (h *Host) Stream(ctx context.Context, name string, args any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		s, err := h.open(ctx, name, args)
		if err != nil {
			yield(nil, err)
			return
		}
		defer s.abandon("the caller has left")
		for it, err := range s.items(ctx) {
			var v any
			if err == nil {
				err = s.mux.decode(it.bytes, &v)
			}
			if !yield(v, err) {
				return
			}
		}
		if err := h.result(s, nil); err != nil && ctx.Err() == nil {
			yield(nil, err)
		}
	}
}

// Log sends one log record to the host. The host logs it under the name of the call's command. level is trace, debug,
// info, warn or error.
func (h *Host) Log(level, message string, fields map[string]any) {
	c := h.call
	m := c.stream.mux
	if !m.worker {
		m.log.Warn(message, "error", errNoHost)
		return
	}
	body, err := m.terms.codec.Append(nil, logRecord{
		Level: level, Logger: c.Name, Message: message, Fields: fields, Call: c.stream.id,
		Time: float64(time.Now().UnixMilli()) / 1e3,
	})
	if err != nil {
		m.log.Warn("log record could not be encoded", "error", err)
		return
	}
	m.mu.Lock()
	m.enqueue(Frame{Kind: KindLog, Body: body}, nil)
	m.mu.Unlock()
}

// open opens a call to the host on behalf of the handler's own call.
func (h *Host) open(ctx context.Context, name string, args any) (*stream, error) {
	c := h.call
	m := c.stream.mux
	if !m.worker {
		return nil, errNoHost
	}
	body, err := m.terms.codec.Append(nil, args)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	f := Frame{Name: name, Parent: c.stream.id, Session: c.Session, Flags: NoInput, Body: body, Meta: c.traced(ctx)}
	if err := checkText(&f); err != nil {
		return nil, err
	}
	return m.open(f, deadline, nil, nil)
}

// traceHeaders are the entries of a call's metadata that its handler's calls carry, too. The first one names the span.
var traceHeaders = [...]string{"traceparent", "tracestate", "baggage"}

// traced returns the metadata of ctx with the trace headers.
func (c *Incoming) traced(ctx context.Context) map[string]string {
	meta, _ := ctx.Value(metadataKey{}).(map[string]string)
	if _, own := meta[traceHeaders[0]]; own {
		return meta
	}
	added := false
	for _, key := range traceHeaders {
		value, there := c.Metadata[key]
		if !there {
			continue
		}
		if !added {
			added = true
			if meta = maps.Clone(meta); meta == nil {
				meta = map[string]string{}
			}
		}
		meta[key] = value
	}
	return meta
}

func (h *Host) result(s *stream, out any) error {
	body, err := s.outcome()
	if not, ok := err.(*notRunError); ok {
		err = not.err // only a pool retries on another worker
	}
	if err != nil || out == nil {
		return err
	}
	return s.mux.decode(body, out)
}
