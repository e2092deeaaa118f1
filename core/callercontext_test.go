package core_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// A context may be user code too. None of its methods is called while a lock is held.
type nosy struct {
	context.Context
	p *core.Pool
}

func (c nosy) Value(key any) any           { c.p.Stats(); return c.Context.Value(key) }
func (c nosy) Err() error                  { c.p.Stats(); return c.Context.Err() }
func (c nosy) Deadline() (time.Time, bool) { c.p.Stats(); return c.Context.Deadline() }
func (c nosy) Done() <-chan struct{}       { c.p.Stats(); return c.Context.Done() }

func TestContextThatCallsThePool(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		for _, target := range []core.Target{p, p.Session("s")} {
			if _, err := core.Execute[int](nosy{ctx, p}, target, "echo", 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a call that waits too long: %v", err)
			}
		}
		if _, err := core.Execute[int](nosy{t.Context(), p}, p, "echo", 1); err != nil {
			t.Error(err)
		}
	})
}

// A context that was cancelled before its deadline has not missed it, however late the call looks.
func TestCancelledBeforeTheDeadline(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		check := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		cancel()
		time.Sleep(2 * time.Second) // on the bubble's clock, past the deadline
		_, err := core.Execute[int](ctx, p, "echo", 1)
		check("Execute", err)
		for _, err := range core.ExecuteStream[int](ctx, p, "count", 1) {
			check("ExecuteStream", err)
		}
		for _, limit := range []time.Duration{-1, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			time.AfterFunc(time.Millisecond, cancel)
			_, err := core.Execute[int](ctx, p, "nap", 5000, core.Timeout(limit))
			check("a running call", err)
			cancel()
		}
	})
}

// rude is a context whose methods misbehave once it is done. Some do so from the beginning.
type rude struct {
	context.Context
	done  <-chan struct{} // nil: that of Context
	err   func() error
	value func()
	own   func() // for Done
}

func (c rude) over() bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

func (c rude) Done() <-chan struct{} {
	if c.own != nil {
		c.own()
	}
	if c.done != nil {
		return c.done
	}
	return c.Context.Done()
}

func (c rude) Err() error {
	if c.over() && c.err != nil {
		return c.err()
	}
	if c.over() && c.done != nil {
		return context.Canceled
	}
	return c.Context.Err()
}

func (c rude) Value(key any) any {
	if c.value != nil && c.over() {
		c.value()
	}
	return c.Context.Value(key)
}

// A context that panics or ends its goroutine does so on its caller's goroutine alone, whatever the call waits for. The
// slot is free again once the handler has been cancelled.
func TestContextsCannotHurtTheHost(t *testing.T) {
	errOwn := errors.New("the context's own error")
	exit := func() error { runtime.Goexit(); return nil }
	for name, c := range map[string]struct {
		rude rude
		want string
		err  error
	}{
		"Err panics":                  {rude{err: func() error { panic("boom") }}, "panicked: boom", nil},
		"Err ends its goroutine":      {rude{err: exit}, "ended its goroutine", nil},
		"Err returns nothing":         {rude{err: func() error { return nil }}, "returned", context.Canceled},
		"Err returns an error of own": {rude{err: func() error { return errOwn }}, "returned", errOwn},
		"Value panics":                {rude{value: boom}, "panicked: boom", nil},
		"Value ends its goroutine":    {rude{value: runtime.Goexit}, "ended its goroutine", nil},
		"Done panics":                 {rude{own: boom}, "panicked: boom", nil},
		"Done ends its goroutine":     {rude{own: runtime.Goexit}, "ended its goroutine", nil},
		"nothing":                     {rude{}, "returned", context.Canceled},
	} {
		for _, own := range []bool{true, false} { // a Done channel of its own, or that of a context inside
			for _, stream := range []bool{false, true} {
				for _, busy := range []bool{false, true} { // the call ends while it waits for a slot
					for _, limit := range []time.Duration{0, -1, time.Hour} {
						how := fmt.Sprintf("own Done %t, stream %t, busy %t, limit %s", own, stream, busy, limit)
						t.Run(name+", "+how, func(t *testing.T) {
							testRude(t, c.rude, own, stream, busy, limit, c.want, c.err)
						})
					}
				}
			}
		}
	}
}

func testRude(
	t *testing.T, c rude, own, stream, busy bool, limit time.Duration, want string, wantErr error,
) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		if busy {
			go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }()
			synctest.Wait()
		}
		var opts []core.CallOption
		if limit != 0 {
			opts = append(opts, core.Timeout(limit))
		}
		inner, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.Context = inner
		if own {
			done := make(chan struct{})
			c.done = done
			time.AfterFunc(100*time.Millisecond, func() { close(done) })
		} else {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		begin := time.Now()
		var err error
		how := outcome(func() {
			if !stream {
				_, err = core.Execute[int](c, p, "nap", 5000, opts...)
				return
			}
			for _, err = range core.ExecuteStream[int](c, p, "nap", 5000, opts...) {
				_ = err
			}
		})
		if how != want || !errors.Is(err, wantErr) {
			t.Errorf("it %s, %v; want %s, %v", how, err, want, wantErr)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
			t.Errorf("a call after it: %d, %v", got, err)
		}
		if n := p.Stats().Workers[0].Running; n != 0 {
			t.Errorf("%d slots are taken", n)
		}
	})
}
