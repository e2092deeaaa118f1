package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
)

// Function answers calls that the other side opens: a worker's ctx.call and ctx.stream, and on a worker written in Go the host's calls.
// Func and StreamFunc make one from a typed function.
type Function struct {
	// Run answers one call. Its result, or else its error, is the call's answer; what it sends before are the items of
	// a stream. ctx ends when the call is cancelled, its time is up, or the connection is lost. Run may be called from
	// many goroutines at once. A panic or runtime.Goexit in it, or in a method of its result or error, becomes the
	// call's error; the stack is logged.
	Run func(ctx context.Context, call *Incoming) (any, error)
	// Stream says that Run sends items. A worker's hello announces it.
	Stream bool
}

// Func makes a Function of f, whose argument is decoded from the call's.
func Func[In, Out any](f func(ctx context.Context, in In) (Out, error)) Function {
	return Function{Run: func(ctx context.Context, call *Incoming) (any, error) {
		var in In
		if err := call.Decode(&in); err != nil {
			return nil, err
		}
		return f(ctx, in)
	}}
}

// StreamFunc makes a Function of f, each of whose values becomes an item. An *ItemError is one item's error; any other error ends the
// stream.
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

// Incoming is a call that the other side opened. It belongs to the Function that serves it, until that returns; its methods may be used
// from one goroutine at a time, but Input and Send from two at once.
type Incoming struct {
	Name     string            // what was called
	Session  string            // the session that it belongs to, or ""
	Metadata map[string]string // what the caller sent along, or nil
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

// Send sends one item. It blocks while the receiver has granted no credit, and returns ctx's error when ctx is done.
func (c *Incoming) Send(ctx context.Context, v any) error { return c.stream.send(ctx, v, 0) }

// Fail sends an error in an item's place; the stream goes on.
func (c *Incoming) Fail(ctx context.Context, err error) error {
	return c.stream.send(ctx, toRemote(ctx, err), Failed)
}

// Input yields what the caller streams in, decoded into values of the codec's own choice. An *ItemError is one item's, any other
// error is the last; when the call is cancelled that is ctx's, so that an input that was cut off is not taken for a whole one. It may be
// ranged over once.
func (c *Incoming) Input(ctx context.Context) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for body, err := range c.stream.items(ctx) {
			var v any
			if err == nil {
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

// toRemote turns any error into the shape that travels. It calls methods of err, which may be the user's.
func toRemote(ctx context.Context, err error) *RemoteError {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", err), "*")
	if v := reflect.ValueOf(err); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		text := fmt.Sprintf("the error is a nil pointer of type %T; where nothing failed, return nil itself", err)
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
		kind = "error" // a text and no type of its own
	}
	return &RemoteError{Type: kind, Message: err.Error()}
}
