package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"
)

// Target is where a call can go: a *Pool, or a *Session of one.
type Target interface {
	// target returns the pool, and notes the session in the request.
	target(r *request) (*Pool, error)
}

func (p *Pool) target(*request) (*Pool, error) { return p, nil }

func (s *Session) target(r *request) (*Pool, error) {
	if s.id == "" { // the protocol has "" for a call without a session
		return nil, errors.New("the session's id must not be empty")
	}
	r.session, r.hint = s.id, s.hint
	return s.pool, nil
}

// CallOption changes one call.
type CallOption func(*request)

// Timeout bounds one call, including its wait for a worker. It replaces Options.CallTimeout or Options.StreamTimeout. A
// negative d means no limit. A deadline of the context still applies.
func Timeout(d time.Duration) CallOption { return func(r *request) { r.timeout = d } }

// Result decodes the stream's result, a Python generator's return value, into v, a non-nil pointer, once the stream has
// ended normally. A stream without a result leaves v unchanged.
func Result(v any) CallOption { return func(r *request) { r.result = v } }

// Input streams values to the handler, which reads them from ctx.input. A goroutine of the pool ranges over seq once
// and ends with the call. seq must not block for ever. Once seq has begun, the call is never retried on another worker.
// A panic in seq, or in a method of its values, becomes the call's error, and its stack is logged.
func Input[T any](seq iter.Seq[T]) CallOption {
	return func(r *request) {
		r.input = func(yield func(any) bool) {
			for v := range seq {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// Priority orders the calls that wait for a worker: those with a higher n are served first, also before other tenants.
// The default is 0; n may be negative. A steady stream of calls with a higher priority keeps the others waiting.
func Priority(n int) CallOption { return func(r *request) { r.priority = n } }

// NoWait makes the call fail with ErrSaturated at once if no worker has a free slot for it, or its session's worker has
// none.
func NoWait() CallOption { return func(r *request) { r.noWait = true } }

type metadataKey struct{}

// WithMetadata returns a context whose calls carry a copy of md to the handler, as ctx.metadata. md replaces any
// earlier metadata of the context.
func WithMetadata(ctx context.Context, md map[string]string) context.Context {
	return context.WithValue(ctx, metadataKey{}, maps.Clone(md))
}

type tenantKey struct{}

// WithTenant returns a context whose calls belong to a tenant, such as a customer. When calls wait, the tenants take
// turns, so one tenant's many calls do not hold up the others. If the queue is full, the caller that would be served
// last gets ErrSaturated: usually one of the tenant with the most waiting calls. Calls without a tenant share one, "".
func WithTenant(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, tenantKey{}, name)
}

// request is a call as the user made it.
type request struct {
	command    string
	args       any
	session    string
	hint       bool          // another worker than the session's may take the call
	timeout    time.Duration // 0: the pool's; negative: none
	priority   int
	noWait     bool
	result     any
	input      iter.Seq[any]
	inputBegun bool // the range over input has begun
	wantsItems bool

	caller callerContext
	watch  *watch        // or nil
	number uint64        // CallStart.Number, or 0 without an Observer
	waited time.Duration // in the queue
	limit  time.Duration // the time limit that applies, for errors; 0: the deadline of the caller's context
	source string        // the option that set limit, for errors
}

// The options that set the limit of a call without a Timeout of its own.
const (
	callLimit   = "Options.CallTimeout; the call option Timeout changes it for one call"
	streamLimit = "Options.StreamTimeout; the call option Timeout changes it for one call"
)

// context returns the context of the call. It ends with the caller's context, or when the time limit is reached: the
// call's own, else the standard one, unless the caller's context has a deadline.
func (r *request) context(
	caller context.Context, standard time.Duration, source string,
) (context.Context, context.CancelFunc) {
	r.caller.enter(caller)
	d := r.timeout
	switch {
	case d != 0:
		source = "the call option Timeout"
	case !r.caller.limited:
		d = standard
	}
	switch {
	case d > 0 && !(r.caller.limited && time.Until(r.caller.deadline) <= d):
		r.limit, r.source = d, source
		return context.WithTimeout(&r.caller, d)
	case r.wantsItems: // forwardItems uses AfterFunc, which derives from a context of the context package for less
		return context.WithCancel(&r.caller)
	}
	return &r.caller, func() {}
}

// explainTimeout adds to the error of an ended context its cause, or the time limit that was reached.
func (r *request) explainTimeout(ctx context.Context, err error) error {
	late := err == context.DeadlineExceeded // ctx itself may not have expired yet
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		late = ended == context.DeadlineExceeded
		if r.limit == 0 || !late { // the caller's context has ended, and not our limit passed, which is the earlier one
			own, cause := r.caller.reason()
			if own != nil {
				late = own == context.DeadlineExceeded
			}
			if cause != nil && cause != ended {
				err = fmt.Errorf("%w: %w", err, cause)
			}
		}
	}
	if !late {
		return err
	}
	what, when := "no answer", "by the deadline of the caller's context"
	if r.wantsItems {
		what = "the stream has not ended"
	}
	if r.limit > 0 {
		when = fmt.Sprintf("within %s (%s)", r.limit, r.source)
	}
	if r.waited > 0 {
		when += fmt.Sprintf(", with %s in the queue", roundTime(r.waited))
	}
	return fmt.Errorf("%s %s: %w", what, when, err)
}
