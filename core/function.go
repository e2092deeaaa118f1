package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
)

// Function answers calls that the peer opens. On the host they come from a worker's ctx.call and ctx.stream. On a
// worker written in Go they are the host's calls. Func and StreamFunc make a Function from a typed function.
type Function struct {
	// Run answers one call. Its result or its error is the call's answer. Values sent before it are the items of a
	// stream. ctx ends when the call is cancelled, its deadline has passed, or the connection is lost. Run may be
	// called from many goroutines at once. A panic or runtime.Goexit in Run, or in a method of its result or error,
	// becomes the call's error, and the stack is logged. If the error, or one that it wraps, has a method
	// SnakepitData() any, the result travels as the error's data: RemoteError.Data decodes it, and in Python it is
	// RemoteError.data. Data that cannot be sent is left out, and a note says why.
	Run func(ctx context.Context, call *Incoming) (any, error)
	// Stream says that Run sends items. A worker announces it in its hello.
	Stream bool
}

// Func makes a Function from f. f's argument is decoded from the call's argument.
func Func[In, Out any](f func(ctx context.Context, in In) (Out, error)) Function {
	return Function{Run: func(ctx context.Context, call *Incoming) (any, error) {
		var in In
		if err := call.Decode(&in); err != nil {
			return nil, err
		}
		return f(ctx, in)
	}}
}

// StreamFunc makes a Function from f. Each value that f yields becomes an item. An *ItemError is the error of one item;
// any other error ends the stream.
func StreamFunc[In, Out any](f func(ctx context.Context, in In) iter.Seq2[Out, error]) Function {
	return Function{Stream: true, Run: func(ctx context.Context, call *Incoming) (any, error) {
		var in In
		if err := call.Decode(&in); err != nil {
			return nil, err
		}
		for v, err := range f(ctx, in) {
			var item *ItemError
			switch {
			case errors.As(err, &item):
				err = call.Fail(ctx, item.Err)
			case err == nil:
				err = call.Send(ctx, v)
			}
			if err != nil {
				return nil, err
			}
		}
		return nil, nil
	}}
}

// Incoming is a call that the peer opened. It belongs to the Function that serves it, until that Function returns. One
// goroutine at a time may use its methods, except that one may read Input while another one calls Send.
type Incoming struct {
	Name     string            // the command or function that is called
	Session  string            // the session that the call belongs to, or ""
	Metadata map[string]string // the caller's metadata, or nil
	body     []byte
	stream   *stream
}

// Decode decodes the call's argument into v, a non-nil pointer. It may be called again.
func (c *Incoming) Decode(v any) error {
	if err := c.stream.mux.decode(c.body, v); err != nil {
		return &RemoteError{Type: TypeBadArguments, Message: err.Error()}
	}
	return nil
}

// Send sends one item. It blocks until the receiver grants credit. It returns ctx's error if ctx is done first.
func (c *Incoming) Send(ctx context.Context, v any) error {
	size, err := c.stream.send(ctx, v)
	if err == nil {
		c.stream.watch.item(ToWorker, size)
	}
	return err
}

// Fail sends an error in place of an item. The stream continues.
func (c *Incoming) Fail(ctx context.Context, err error) error {
	body, bad := c.stream.mux.errorBody(toRemote(ctx, err))
	if bad != nil {
		return bad
	}
	if bad = c.stream.sendBody(ctx, body, Failed); bad == nil {
		c.stream.watch.item(ToWorker, len(body))
	}
	return bad
}

// Input yields the values that the caller streams, decoded into types that the codec chooses. An *ItemError is the
// error of one item; any other error is the last value. If the call is cancelled, the last value is ctx's error, so
// that a cut input does not look complete. The sequence may be ranged over once.
func (c *Incoming) Input(ctx context.Context) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for body, err := range c.stream.items(ctx) {
			var v any
			if err == nil {
				c.stream.watch.item(ToHost, len(body.bytes))
				if err = c.stream.mux.decode(body.bytes, &v); err != nil {
					err = &ItemError{Index: body.index, Err: err}
				}
			}
			if !yield(v, err) {
				c.stream.stopInput()
				return
			}
			if err != nil && err == ctx.Err() {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// toRemote turns any error into the form that is sent. It calls methods of err, which may be user code.
func toRemote(ctx context.Context, err error) *RemoteError {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", err), "*")
	if v := reflect.ValueOf(err); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		text := fmt.Sprintf("the error is a nil pointer of type %T; return a plain nil if nothing failed", err)
		return &RemoteError{Type: kind, Message: text}
	}
	if why := context.Cause(ctx); why != nil && errors.Is(err, ctx.Err()) {
		return &RemoteError{Type: TypeCancelled, Message: why.Error()}
	}
	if remote, ok := err.(*RemoteError); ok {
		return remote
	}
	if errors.Is(err, ErrFrameTooLarge) {
		kind = TypeTooLarge
	} else if strings.HasPrefix(kind, "errors.") || strings.HasPrefix(kind, "fmt.") {
		kind = "error" // these types say nothing about the error
	}
	remote := &RemoteError{Type: kind, Message: err.Error()}
	var gives interface{ SnakepitData() any }
	if errors.As(err, &gives) {
		remote.Value = gives.SnakepitData()
	}
	return remote
}

// served describes the incoming call that a Function serves. The Function's context carries it.
type served struct {
	mux      *mux
	stream   *stream
	parent   *stream      // the call of ours whose handler made the incoming call, or nil
	sessions []sessionKey // the sessions that wait for its end
}

type servedKey struct{}

// withServed returns a context for the Function that serves call. parent is the call of ours whose handler made it, or
// nil.
func withServed(ctx context.Context, m *mux, call, parent *stream) context.Context {
	s := &served{mux: m, stream: call, parent: parent}
	if parent != nil {
		s.sessions = parent.sessions
	}
	return context.WithValue(ctx, servedKey{}, s)
}
