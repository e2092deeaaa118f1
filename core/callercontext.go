package core

import (
	"context"
	"time"
)

// callerContext stands for the context of a call's caller, which may be user code. The caller's own context is asked on
// the caller's goroutine only: when the call begins, and for Err once the call holds no slot. The context package and
// the pool's goroutines ask this type, which then runs no user code.
type callerContext struct {
	caller   context.Context
	done     <-chan struct{}
	deadline time.Time
	limited  bool // there is a deadline

	key, value any // of the first Value for a key that is not this package's: the context package asks for its own type
}

// enter asks the caller's context for its facts.
func (c *callerContext) enter(caller context.Context) {
	*c = callerContext{caller: caller, done: caller.Done()}
	c.deadline, c.limited = caller.Deadline()
}

func (c *callerContext) Done() <-chan struct{}       { return c.done }
func (c *callerContext) Deadline() (time.Time, bool) { return c.deadline, c.limited }

// Err does not ask the caller's context. See cause.
func (c *callerContext) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	if c.limited && !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// Value is called for this package's keys on the caller's goroutine only. The context package asks for its own key
// first when a context is derived, on that goroutine, and perhaps again later on another one.
func (c *callerContext) Value(key any) any {
	switch key.(type) {
	case metadataKey, servedKey:
		return c.caller.Value(key)
	}
	if c.key == nil {
		c.key, c.value = key, c.caller.Value(key)
	}
	if c.key == key {
		return c.value
	}
	return nil
}

// cause returns the caller's own reason for the end of its context, or nil if it has not ended. Only the caller's
// goroutine calls it, without a slot.
func (c *callerContext) cause() error {
	if c.Err() == nil {
		return nil
	}
	err := c.caller.Err()
	if err == nil || err == context.Canceled || err == context.DeadlineExceeded {
		return context.Cause(c.caller)
	}
	return err // of a context of another kind
}

// endOfContext returns the error of a context that is done. A context may be user code that returns none.
func endOfContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Canceled
}
