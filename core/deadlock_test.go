package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// asks opens a pool whose workers have a command that calls a host function. That function calls the same pool.
func asks(t *testing.T, o core.Options, concurrency int, f func(t *testing.T, p *core.Pool, gate chan struct{})) {
	var pool *core.Pool
	var gate chan struct{} // the function waits for it before it calls the pool
	worker := functions()
	worker["ask"] = core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		var target, out any
		if err := c.Decode(&target); err != nil {
			return nil, err
		}
		err := c.Host().Call(ctx, "host", target, &out)
		return out, err
	}}
	o.Functions = map[string]core.Function{"host": core.Func(func(ctx context.Context, session string) (int, error) {
		<-gate
		if session != "" {
			return core.Execute[int](ctx, pool.Session(session), "nap", 100)
		}
		return core.Execute[int](ctx, pool, "nap", 100)
	})}
	bubble(t, &coretest.Adapter{Functions: worker, Concurrency: concurrency}, o, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		pool, gate = p, make(chan struct{})
		f(t, p, gate)
	})
}

// all makes n calls at once and returns their errors.
func all(n int, call func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = call(i) })
	}
	wg.Wait()
	return errs
}

const stuckText = "every slot is held by a call whose function waits for a slot of the same pool"

// Every slot waits for a function, and every function waits for a slot. The last function fails at once, and the others
// go on.
func TestFunctionsThatWaitForEachOther(t *testing.T) {
	for _, c := range []struct{ size, concurrency, calls int }{{1, 1, 1}, {2, 1, 2}, {1, 2, 2}, {2, 2, 4}, {2, 2, 9}} {
		t.Run(fmt.Sprintf("%d by %d", c.size, c.concurrency), func(t *testing.T) {
			asks(t, core.Options{Size: c.size}, c.concurrency, func(t *testing.T, p *core.Pool, gate chan struct{}) {
				time.AfterFunc(time.Second, func() { close(gate) })
				begin := time.Now()
				told := 0
				for _, err := range all(c.calls, func(int) error {
					_, err := core.Execute[int](t.Context(), p, "ask", "")
					return err
				}) {
					switch {
					case err == nil:
					case strings.Contains(err.Error(), stuckText):
						told++
					default:
						t.Error(err)
					}
				}
				if told == 0 {
					t.Error("nobody was told")
				}
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("it took %s", took)
				}
				if s := p.Stats(); s.Running != 0 || s.Waiting != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// While a slot can become free, such a function just waits.
func TestFunctionsThatOnlyHaveToWait(t *testing.T) {
	asks(t, core.Options{Size: 2}, 1, func(t *testing.T, p *core.Pool, gate chan struct{}) {
		close(gate)
		for i, err := range all(2, func(i int) error {
			if i == 0 {
				_, err := core.Execute[int](t.Context(), p, "ask", "")
				return err
			}
			_, err := core.Execute[int](t.Context(), p, "nap", 5000)
			return err
		}) {
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
}

// A function that waits for a session needs a slot of one particular worker. Free slots of other workers do not help.
func TestFunctionThatWaitsForASession(t *testing.T) {
	asks(t, core.Options{Size: 2}, 1, func(t *testing.T, p *core.Pool, gate chan struct{}) {
		close(gate)
		for _, id := range []string{"a", "b", "c"} { // a and c, or b and c, share a worker
			if _, err := core.Execute[int](t.Context(), p.Session(id), "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		begin, told := time.Now(), 0
		for _, from := range []string{"a", "b"} {
			_, err := core.Execute[int](t.Context(), p.Session(from), "ask", "c")
			var remote *core.RemoteError
			switch {
			case err == nil:
			case errors.As(err, &remote) && strings.Contains(err.Error(), stuckText):
				told++
			default:
				t.Error(err)
			}
		}
		if told != 1 || time.Since(begin) > time.Second {
			t.Errorf("%d were told, after %s", told, time.Since(begin))
		}
	})
}

// A function that waits for a session's worker is not affected by other workers.
func TestFunctionThatWaitsForASessionBesideOthers(t *testing.T) {
	asks(t, core.Options{Size: 2}, 1, func(t *testing.T, p *core.Pool, gate chan struct{}) {
		close(gate)
		for _, id := range []string{"a", "b", "c"} { // a and c share a worker
			if _, err := core.Execute[int](t.Context(), p.Session(id), "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		other := make(chan error, 1)
		go func() {
			_, err := core.Execute[int](t.Context(), p.Session("b"), "nap", 10_000)
			other <- err
		}()
		synctest.Wait()
		begin := time.Now()
		_, err := core.Execute[int](t.Context(), p.Session("a"), "ask", "c")
		if err == nil || !strings.Contains(err.Error(), stuckText) || time.Since(begin) > time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
	})
}

// A function waits for a worker that is starting.
func TestFunctionThatWaitsForAStart(t *testing.T) {
	var pool *core.Pool
	a := &coretest.Adapter{Functions: functions(), Before: func(_ context.Context, index int) error {
		if index == 1 {
			time.Sleep(10 * time.Second)
		}
		return nil
	}}
	o := core.Options{Size: 2, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, _ any) (int, error) {
			return core.Execute[int](ctx, pool, "echo", 5)
		}),
	}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		pool = p
		begin := time.Now()
		got, err := core.Execute[int](t.Context(), p, "callback", nil)
		if took := time.Since(begin); err != nil || got != 5 || took < 5*time.Second || took > 15*time.Second {
			t.Errorf("%d, %v after %s", got, err, took)
		}
	})
}

// A function that ends a session and calls it again needs a slot for the end too.
func TestFunctionThatClosesASessionAndCallsIt(t *testing.T) {
	var pool *core.Pool
	worker := functions()
	worker["snakepit.forget"] = core.Func(func(context.Context, any) (any, error) { return nil, nil })
	o := core.Options{Size: 1, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, _ any) (int, error) {
			s := pool.Session("s")
			if _, err := core.Execute[int](context.WithoutCancel(t.Context()), s, "echo", 1,
				core.Timeout(time.Millisecond)); err == nil {
				return 0, errors.New("there was a free slot")
			}
			s.Close()
			return core.Execute[int](ctx, s, "echo", 5)
		}),
	}}
	bubble(t, &coretest.Adapter{Functions: worker}, o, func(t *testing.T, p *core.Pool) {
		pool = p
		if _, err := core.Execute[int](t.Context(), p.Session("s"), "echo", 1); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err := core.Execute[int](t.Context(), p, "callback", nil)
		if err == nil || !strings.Contains(err.Error(), stuckText) || time.Since(begin) > time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// Work that a function leaves behind when it returns waits like any other caller.
func TestWorkThatOutlivesItsFunction(t *testing.T) {
	var pool *core.Pool
	done := make(chan error, 1)
	o := core.Options{Size: 1, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, _ any) (any, error) {
			go func() {
				time.Sleep(time.Second) // the function's call has ended, and another call has the slot
				_, err := core.Execute[int](context.WithoutCancel(ctx), pool, "echo", 5)
				done <- err
			}()
			return nil, nil
		}),
	}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		pool, done = p, make(chan error, 1)
		if _, err := core.Execute[any](t.Context(), p, "callback", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Execute[int](t.Context(), p, "nap", 5000); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
