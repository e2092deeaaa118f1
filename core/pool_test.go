package core_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// functions returns the commands of the workers in these tests.
func functions() map[string]core.Function {
	return map[string]core.Function{
		"echo": core.Func(func(_ context.Context, v any) (any, error) { return v, nil }),
		"fail": core.Func(func(_ context.Context, text string) (any, error) {
			return nil, &core.RemoteError{Type: "ValueError", Message: text,
				Cause: &core.RemoteError{Type: "KeyError", Message: "deep"}}
		}),
		"count": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			var n int
			if err := c.Decode(&n); err != nil {
				return nil, err
			}
			for i := range n {
				if err := c.Send(ctx, i); err != nil {
					return nil, err
				}
			}
			return map[string]any{"sent": n}, nil
		}},
		"wait": core.Func(func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"nap": core.Func(func(ctx context.Context, ms int) (int, error) {
			select {
			case <-time.After(time.Duration(ms) * time.Millisecond):
				return ms, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}),
		"mixed": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			for i := range 5 {
				var err error
				if i%2 == 1 {
					err = c.Fail(ctx, fmt.Errorf("odd %d", i))
				} else {
					err = c.Send(ctx, i)
				}
				if err != nil {
					return nil, err
				}
			}
			return nil, nil
		}},
		"sum": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			total := int64(0)
			for v, err := range c.Input(ctx) {
				if err != nil {
					return nil, err
				}
				total += v.(int64)
			}
			return total, nil
		}},
		"who": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			return c.Session + c.Metadata["k"], nil
		}},
		"callback": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			var v any
			err := c.Host().Call(ctx, "host", 20, &v)
			return v, err
		}},
		"callbacks": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			var all []any
			for v, err := range c.Host().Stream(ctx, "hosts", 3) {
				if err != nil {
					return nil, err
				}
				all = append(all, v)
			}
			return all, nil
		}},
		"panic": {Run: func(context.Context, *core.Incoming) (any, error) { panic("ouch") }},
		"bad":   {Run: func(context.Context, *core.Incoming) (any, error) { return make(chan int), nil }},
	}
}

// breakable is an adapter whose workers fail to start while broken is set.
func breakable(broken *atomic.Bool) *coretest.Adapter {
	return &coretest.Adapter{Before: func(context.Context, int) error {
		if broken.Load() {
			return errors.New("no luck")
		}
		return nil
	}}
}

// bubble runs f in its own synctest bubble, with a pool of coretest workers.
func bubble(t *testing.T, a *coretest.Adapter, o core.Options, f func(t *testing.T, p *core.Pool)) {
	t.Helper()
	if a.Functions == nil {
		a.Functions = functions()
	}
	if o.Logger == nil {
		o.Logger = hclog.New(&hclog.LoggerOptions{Output: io.Discard})
	}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), a, core.Command{}, &o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, p)
	})
}

func TestExecute(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		got, err := core.Execute[map[string]int](t.Context(), p, "echo", map[string]int{"a": 1})
		if err != nil || got["a"] != 1 {
			t.Fatal(got, err)
		}
		_, err = core.Execute[any](t.Context(), p, "fail", "bad operand")
		var remote *core.RemoteError
		if !errors.As(err, &remote) || remote.Error() != "ValueError: bad operand" || remote.Cause == nil ||
			!core.MayHaveRun(err) {
			t.Fatal(err)
		}
	})
}

// A value that only decodes in part is not returned.
func TestNothingComesWithAnError(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		if got, err := core.Execute[[2]int8](t.Context(), p, "echo", []int{1, 300}); err == nil || got != [2]int8{} {
			t.Error(got, err)
		}
		for got, err := range core.ExecuteStream[[2]int8](t.Context(), p, "echo", []int{1, 300}) {
			var item *core.ItemError
			if !errors.As(err, &item) || got != [2]int8{} {
				t.Error(got, err)
			}
		}
	})
}

func TestErrorsThatDidNotRun(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for command, want := range map[string]string{
			"ecko":  `unknown command "ecko"; did you mean echo?`,
			"count": "count sends a stream: use ExecuteStream",
		} {
			_, err := core.Execute[any](t.Context(), p, command, 1)
			if err == nil || !strings.Contains(err.Error(), want) || core.MayHaveRun(err) {
				t.Errorf("%s: %v", command, err)
			}
		}
		_, err := core.Execute[any](t.Context(), p, "echo", map[string]any{"f": func() {}})
		if err == nil || core.MayHaveRun(err) || !strings.Contains(err.Error(), "f") {
			t.Error(err)
		}
		if _, err = core.Execute[any](t.Context(), p, "echo", 1); err != nil {
			t.Errorf("a slot was lost: %v", err)
		}
	})
}

func TestStream(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, WindowItems: 4}, func(t *testing.T, p *core.Pool) {
		var result struct {
			Sent int `json:"sent"`
		}
		seq := core.ExecuteStream[int](t.Context(), p, "count", 1000, core.Result(&result))
		n := 0
		for v, err := range seq {
			if err != nil || v != n {
				t.Fatal(v, err)
			}
			n++
		}
		if n != 1000 || result.Sent != 1000 {
			t.Fatal(n, result)
		}
		for _, err := range seq {
			if err == nil || core.MayHaveRun(err) {
				t.Fatal("a second range must be an error", err)
			}
		}
		for v, err := range core.ExecuteStream[string](t.Context(), p, "echo", "one") {
			if v != "one" || err != nil {
				t.Fatal(v, err)
			}
		}
	})
}

func TestItemErrors(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var good, bad []int64
		for v, err := range core.ExecuteStream[int64](t.Context(), p, "mixed", nil) {
			var item *core.ItemError
			if errors.As(err, &item) {
				bad = append(bad, item.Index)
			} else if err != nil {
				t.Fatal(err)
			} else {
				good = append(good, v)
			}
		}
		if !slices.Equal(good, []int64{0, 2, 4}) || !slices.Equal(bad, []int64{1, 3}) {
			t.Fatal(good, bad)
		}
	})
}

func TestInput(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, WindowItems: 3}, func(t *testing.T, p *core.Pool) {
		got, err := core.Execute[int](t.Context(), p, "sum", nil,
			core.Input(slices.Values([]int{1, 2, 3, 4, 5, 6, 7, 8, 9})))
		if err != nil || got != 45 {
			t.Fatal(got, err)
		}
		_, err = core.Execute[int](t.Context(), p, "sum", nil, core.Input(slices.Values([]any{1, make(chan int)})))
		if err == nil || !strings.Contains(err.Error(), "input") {
			t.Fatal(err)
		}
		if _, err = core.Execute[any](t.Context(), p, "echo", 1); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMetadataAndSessionReachTheHandler(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{}, func(t *testing.T, p *core.Pool) {
		got, err := core.Execute[string](core.WithMetadata(t.Context(), map[string]string{"k": "v"}), p.Session("s"),
			"who", nil)
		if err != nil || got != "sv" {
			t.Fatal(got, err)
		}
	})
}

func TestTextThatIsNoneFailsItsCallAlone(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		bad := core.WithMetadata(t.Context(), map[string]string{"k": "\xff"})
		for _, call := range []func() error{
			func() error { _, err := core.Execute[any](bad, p, "echo", 1); return err },
			func() error { _, err := core.Execute[any](t.Context(), p.Session("\xff"), "echo", 1); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), "UTF-8") || core.MayHaveRun(err) {
				t.Error(err)
			}
		}
		if _, err := core.Execute[any](t.Context(), p, "echo", 1); err != nil {
			t.Error(err)
		}
	})
}

func TestCallbacks(t *testing.T) {
	o := core.Options{Size: 1, Functions: map[string]core.Function{
		"host": core.Func(func(_ context.Context, n int) (int, error) { return n + 1, nil }),
		"hosts": core.StreamFunc(func(_ context.Context, n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					if !yield(i, nil) {
						return
					}
				}
			}
		}),
	}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		if got, err := core.Execute[int](t.Context(), p, "callback", nil); err != nil || got != 21 {
			t.Fatal(got, err)
		}
		if got, err := core.Execute[[]int](t.Context(), p, "callbacks", nil); err != nil ||
			!slices.Equal(got, []int{0, 1, 2}) {
			t.Fatal(got, err)
		}
	})
}

func TestCallbackIntoItsOwnSessionIsRefused(t *testing.T) {
	var pool *core.Pool
	o := core.Options{Size: 1, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, _ any) (any, error) {
			return core.Execute[any](ctx, pool.Session("s"), "echo", 1)
		}),
	}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		pool = p
		begin := time.Now()
		_, err := core.Execute[any](t.Context(), p.Session("s"), "callback", nil)
		if err == nil || !strings.Contains(err.Error(), "itself waiting") || time.Since(begin) > time.Second {
			t.Fatal(err, time.Since(begin))
		}
	})
}

func TestDeadlineReturnsAtOnceAndFreesTheSlotWithTheAnswer(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, CallTimeout: time.Second}, func(t *testing.T, p *core.Pool) {
		begin := time.Now()
		_, err := core.Execute[any](t.Context(), p, "wait", nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second || !core.MayHaveRun(err) {
			t.Fatal(err, time.Since(begin))
		}
		if _, err = core.Execute[any](t.Context(), p, "echo", 1, core.Timeout(-1)); err != nil {
			t.Fatal(err)
		}
		if s := p.Stats(); s.Running != 0 || s.Lost != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestStreamsQueueLikeCalls(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var wg sync.WaitGroup
		var running, most atomic.Int32
		for range 5 {
			wg.Go(func() {
				n := 0
				// The stream is longer than a window, so it lasts.
				for _, err := range core.ExecuteStream[int](t.Context(), p, "count", 2000) {
					if err != nil {
						t.Error(err)
					}
					if n++; n == 1 {
						most.Store(max(most.Load(), running.Add(1)))
						time.Sleep(time.Second) // on the bubble's clock
						running.Add(-1)
					}
				}
				if n != 2000 {
					t.Error(n)
				}
			})
		}
		synctest.Wait()
		if s := p.Stats(); s.Running != 1 || s.Waiting != 4 {
			t.Errorf("%+v", s)
		}
		wg.Wait()
		if most.Load() != 1 {
			t.Errorf("%d streams ran on one slot at once", most.Load())
		}
	})
}

func TestBreakCancels(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for range core.ExecuteStream[int](t.Context(), p, "count", 1<<30) {
			break
		}
		synctest.Wait()
		if s := p.Stats(); s.Cancelled != 1 || s.Running != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestConsumerPanicCancels(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		func() {
			defer func() { _ = recover() }()
			for range core.ExecuteStream[int](t.Context(), p, "count", 1<<30) {
				panic("consumer")
			}
		}()
		synctest.Wait()
		if s := p.Stats(); s.Running != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestALimitThatIsOverIsNamed(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, CallTimeout: 2 * time.Second, StreamTimeout: time.Minute},
		func(t *testing.T, p *core.Pool) {
			execute := func(ctx context.Context, o ...core.CallOption) error {
				_, err := core.Execute[any](ctx, p, "wait", nil, o...)
				return err
			}
			stream := func(o ...core.CallOption) (last error) {
				for _, err := range core.ExecuteStream[any](t.Context(), p, "wait", nil, o...) {
					last = err
				}
				return last
			}
			within := func(d time.Duration) context.Context {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				t.Cleanup(cancel)
				return ctx
			}
			const changes = "the call option Timeout changes it for one call"
			for _, c := range []struct {
				err  error
				want string
			}{
				{execute(t.Context()), "no answer within 2s (Options.CallTimeout; " + changes +
					"): context deadline exceeded"},
				{execute(t.Context(), core.Timeout(time.Second)),
					"no answer within 1s (the call option Timeout): context deadline exceeded"},
				{stream(), "the stream has not ended within 1m0s (Options.StreamTimeout; " + changes +
					"): context deadline exceeded"},
				{stream(core.Timeout(time.Hour)),
					"the stream has not ended within 1h0m0s (the call option Timeout): context deadline exceeded"},
				{execute(within(3 * time.Second)),
					"no answer by the deadline of the caller's context: context deadline exceeded"},
				{execute(within(3*time.Second), core.Timeout(4*time.Second)),
					"no answer by the deadline of the caller's context: context deadline exceeded"},
				{execute(within(3*time.Second), core.Timeout(time.Second)),
					"no answer within 1s (the call option Timeout): context deadline exceeded"},
				{execute(within(3*time.Second), core.Timeout(-1)),
					"no answer by the deadline of the caller's context: context deadline exceeded"},
			} {
				if want := "wait on worker 0 (coretest): " + c.want; c.err.Error() != want ||
					!errors.Is(c.err, context.DeadlineExceeded) {
					t.Errorf("%v\nnot %s", c.err, want)
				}
			}
			go func() { _ = execute(t.Context(), core.Timeout(5*time.Second)) }()
			synctest.Wait()
			err := execute(t.Context())
			want := "wait: no answer within 2s (Options.CallTimeout; " + changes +
				"), with 2s in the queue: waiting for a worker: context deadline exceeded (it did not run)"
			if err.Error() != want {
				t.Errorf("%v\nnot %s", err, want)
			}
		})
}

func TestCallThatIgnoresCancelGetsTheWorkerReplaced(t *testing.T) {
	var stuck chan struct{} // made in the bubble, so that the bubble's clock goes on while a call waits for it
	fs := functions()
	fs["stuck"] = core.Function{Run: func(context.Context, *core.Incoming) (any, error) { <-stuck; return nil, nil }}
	o := core.Options{Size: 1, CallTimeout: time.Second, CancelGrace: 3 * time.Second}
	bubble(t, &coretest.Adapter{Functions: fs}, o,
		func(t *testing.T, p *core.Pool) {
			stuck = make(chan struct{})
			defer close(stuck)
			_, err := core.Execute[any](t.Context(), p, "stuck", nil)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, err = core.Execute[any](t.Context(), p, "echo", 1, core.Timeout(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if s := p.Stats(); s.Lost != 1 || s.Terminated != 1 || s.Restarts != 1 ||
				time.Since(begin) < 3*time.Second {
				t.Fatalf("%+v after %s", s, time.Since(begin))
			}
		})
}

func TestQueueHonoursDeadlinesAndItsBound(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, Queue: 2}, func(t *testing.T, p *core.Pool) {
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				_, errs[i] = core.Execute[any](ctx, p, "nap", 10_000)
			})
			synctest.Wait()
		}
		if !errors.Is(errs[3], core.ErrSaturated) || core.MayHaveRun(errs[3]) {
			t.Fatal("the fourth caller must be turned away at once", errs[3])
		}
		wg.Wait()
		for i, err := range errs[:3] {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(i, err)
			}
		}
		if core.MayHaveRun(errs[2]) != true && p.Stats().Calls < 2 {
			t.Error("the slot never moved on")
		}
		if s := p.Stats(); s.Saturated != 1 || s.Waiting != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestConcurrencyIsReal(t *testing.T) {
	bubble(t, &coretest.Adapter{Concurrency: 8}, core.Options{Size: 1, Concurrency: 4},
		func(t *testing.T, p *core.Pool) {
			begin := time.Now()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if _, err := core.Execute[int](t.Context(), p, "nap", 1000); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := time.Since(begin); got != 2*time.Second {
				t.Fatalf("eight naps of a second, four at once, took %s", got)
			}
		})
}

func TestLossGivesEachCallOneErrorAtOnce(t *testing.T) {
	a := &coretest.Adapter{Concurrency: 16}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var lost atomic.Int32
		var wg sync.WaitGroup
		begin := time.Now()
		for range 16 {
			wg.Go(func() {
				_, err := core.Execute[any](t.Context(), p, "wait", nil)
				var o *core.WorkerExit
				if errors.Is(err, core.ErrWorkerLost) && errors.As(err, &o) && core.MayHaveRun(err) {
					lost.Add(1)
				}
			})
		}
		synctest.Wait()
		a.Crash(0)
		wg.Wait()
		if lost.Load() != 16 || time.Since(begin) > time.Second {
			t.Fatal(lost.Load(), time.Since(begin))
		}
		if _, err := core.Execute[any](t.Context(), p, "echo", 1); err != nil {
			t.Fatal("the worker was not replaced", err)
		}
		if s := p.Stats(); s.Lost != 1 || s.Restarts != 1 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestLossIsALossAlsoWhenACallComesAtThatMoment(t *testing.T) {
	a := &coretest.Adapter{}
	bubble(t, a, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		for range 20 {
			if err := p.WaitReady(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			lost := make(chan error)
			for range 2 {
				go func() {
					_, err := core.Execute[any](t.Context(), p, "nap", 1000)
					lost <- err
				}()
			}
			synctest.Wait()
			a.Crash(0)
			_, _ = core.Execute[any](t.Context(), p, "echo", 1)
			for range 2 {
				if err := <-lost; err != nil && !errors.As(err, new(*core.WorkerExit)) {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestStartFailures(t *testing.T) {
	broken := func(context.Context, int) error { return errors.New("no luck") }
	synctest.Test(t, func(t *testing.T) {
		_, err := core.Open(t.Context(), &coretest.Adapter{Before: broken}, core.Command{}, &core.Options{Size: 3})
		var e *core.StartError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "no luck") {
			t.Fatal(err)
		}
	})
	var starts atomic.Int32
	a := &coretest.Adapter{Before: func(context.Context, int) error {
		if starts.Add(1) > 1 {
			return errors.New("no luck")
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 1, Logger: hclog.NewNullLogger()}, func(t *testing.T, p *core.Pool) {
		a.Crash(0)
		synctest.Wait()
		_, err := core.Execute[any](t.Context(), p, "echo", 1, core.Timeout(time.Hour))
		if !errors.Is(err, core.ErrCrashLoop) || !strings.Contains(err.Error(), "no luck") || core.MayHaveRun(err) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // on the bubble's clock
		if n := starts.Load(); n > 40 {
			t.Fatalf("%d starts in ten minutes are a spin", n)
		}
	})
}

func TestOneFailedStartDoesNotFailOpen(t *testing.T) {
	var first atomic.Bool
	a := &coretest.Adapter{Before: func(_ context.Context, i int) error {
		if i == 0 && !first.Swap(true) {
			return errors.New("no luck")
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for want, o := range map[string]core.Options{
		"Size is -1":             {Size: -1},
		"MaxFrame is 7":          {MaxFrame: 7},
		"MaxFrame is 1073741825": {MaxFrame: 1<<30 + 1},
		"StartTimeout is -1s":    {StartTimeout: -time.Second},
		`Functions has "f" with`: {Functions: map[string]core.Function{"f": {}}},
	} {
		_, err := core.Open(t.Context(), &coretest.Adapter{}, core.Command{}, &o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}

func TestWhatIsMissing(t *testing.T) {
	if p, err := core.Open(t.Context(), nil, core.Command{}, nil); p != nil || err == nil ||
		!strings.Contains(err.Error(), "no adapter") {
		t.Error(p, err)
	}
	bubble(t, &coretest.Adapter{}, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 3); err == nil ||
			!strings.Contains(err.Error(), "waiting for 3 workers: the pool has 2") {
			t.Error(err)
		}
		s := p.Session("")
		s.Close()
		_, err := core.Execute[any](t.Context(), s, "echo", 1)
		n := 0
		for _, streamErr := range core.ExecuteStream[any](t.Context(), s, "count", 1) {
			n++
			err = errors.Join(err, streamErr)
		}
		if n != 1 || core.MayHaveRun(err) || strings.Count(err.Error(), "id must not be empty (it did not run)") != 2 {
			t.Error(n, err)
		}
	})
}

func TestAPanickingFunctionIsItsCallsError(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for _, c := range []string{"panic", "bad"} {
			var remote *core.RemoteError
			if _, err := core.Execute[any](t.Context(), p, c, nil); !errors.As(err, &remote) {
				t.Fatal(c, err)
			}
		}
		if s := p.Stats(); s.Lost != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestHealth(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		go func() { _, _ = core.Execute[any](t.Context(), p, "nap", 60_000, core.Timeout(-1)) }()
		time.Sleep(time.Second) // on the bubble's clock
		w := p.Workers()[0]
		h, err := w.Health(t.Context())
		if err != nil || len(h.Running) != 1 || h.Running[0].Name != "nap" || h.Running[0].MS != 1000 {
			t.Fatalf("%+v %v", h, err)
		}
		if i := w.Info(); i.Adapter != "coretest" || i.Codec != "json" || i.Slots != 1 || len(i.Commands) == 0 ||
			!slices.Equal(i.Features, []string{"exact-numbers", "pieces", "stacks"}) {
			t.Fatalf("%+v", i)
		}
	})
}

func TestHealthOfALostWorker(t *testing.T) {
	a := &coretest.Adapter{}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		w := p.Workers()[0]
		a.Crash(0)
		synctest.Wait()
		if _, err := w.Health(t.Context()); !errors.Is(err, core.ErrWorkerLost) {
			t.Fatal(err)
		}
	})
}
