package core

import (
	"context"
	"sync/atomic"
	"time"
)

// callerContext stands for the context of a call's caller, which may be user code. The caller's own context is asked on
// the caller's goroutine only, and never while the call holds a slot: when the call begins, and why it has ended. The
// context package and the pool's goroutines ask this type, which then runs no user code.
type callerContext struct {
	caller   context.Context
	done     <-chan struct{}
	deadline time.Time
	limited  bool // there is a deadline
	metadata map[string]string
	tenant   string
	served   *served // the call whose Function makes this call, or nil

	err        atomic.Pointer[error] // the first answer of Err that is not nil
	key, value any                   // of the first Value: the context package asks for a type of its own
}

// enter asks the caller's context for its facts.
func (c *callerContext) enter(caller context.Context) {
	c.caller, c.done = caller, caller.Done()
	c.deadline, c.limited = caller.Deadline()
	c.metadata, _ = caller.Value(metadataKey{}).(map[string]string)
	c.tenant, _ = caller.Value(tenantKey{}).(string)
	c.served, _ = caller.Value(servedKey{}).(*served)
	select {
	case <-c.done:
		if err := caller.Err(); err != nil {
			c.err.Store(&err)
		}
	default:
	}
}

func (c *callerContext) Done() <-chan struct{}       { return c.done }
func (c *callerContext) Deadline() (time.Time, bool) { return c.deadline, c.limited }

// Err does not ask the caller's context once the call has begun. See reason.
func (c *callerContext) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	if c.err.Load() == nil {
		err := context.Canceled
		if c.limited && !time.Now().Before(c.deadline) {
			err = context.DeadlineExceeded
		}
		c.err.CompareAndSwap(nil, &err)
	}
	return *c.err.Load()
}

// Value answers the context package alone. It asks for its own key when a context is derived, on the caller's
// goroutine, and perhaps again later on another one.
func (c *callerContext) Value(key any) any {
	if c.key == nil {
		c.key, c.value = key, c.caller.Value(key)
	}
	if c.key == key {
		return c.value
	}
	return nil
}

// reason returns the caller's own error and cause for the end of its context, or nil if it has not ended.
func (c *callerContext) reason() (err, cause error) {
	if c.Err() == nil {
		return nil, nil
	}
	err = c.caller.Err()
	if err == nil || err == context.Canceled || err == context.DeadlineExceeded {
		return err, context.Cause(c.caller)
	}
	return err, err // of a context of another kind
}

// endOfContext returns the error of a context that is done. A context may be user code that returns none.
func endOfContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Canceled
}
