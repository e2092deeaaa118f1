package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// states returns the workers' states in short.
func states(p *core.Pool) string {
	var all []string
	for _, w := range p.Stats().Workers {
		all = append(all, fmt.Sprintf("%d %s", w.Index, w.State))
	}
	return strings.Join(all, ", ")
}

func TestPoolGrowsWithItsCallersAndShrinksWhenIdle(t *testing.T) {
	o := core.Options{MinSize: 1, Size: 4, StartLimit: 4}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		if got := settled(t, p); len(got) != 1 || p.Size() != 4 {
			t.Fatalf("%d workers of %d", len(got), p.Size())
		}
		begin := time.Now()
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() { call(t, p, "nap", 1000) })
		}
		synctest.Wait()
		if got := states(p); got != "0 ready, 1 ready, 2 ready" || time.Since(begin) != 0 {
			t.Fatalf("%s after %s", got, time.Since(begin))
		}
		callers.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("three calls at once took %s", took)
		}
		time.Sleep(59 * time.Second)
		call(t, p, "echo", 1) // the first worker takes it
		if got := len(settled(t, p)); got != 3 {
			t.Errorf("%d workers before the idle time", got)
		}
		time.Sleep(2 * time.Second)
		if got := states(p); got != "0 ready" {
			t.Errorf("%s after the idle time", got)
		}
		time.Sleep(time.Hour)
		if s := p.Stats(); s.Ready != 1 || s.Lost != 0 || s.Restarts != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Sessions that begin together get a worker each while the pool can grow, and keep it.
func TestSessionsOfAPoolThatGrows(t *testing.T) {
	o := core.Options{MinSize: -1, Size: 3}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		time.Sleep(2 * time.Minute)
		if n := len(settled(t, p)); n != 0 {
			t.Fatalf("%d workers without calls", n)
		}
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		for i := range 3 {
			callers.Go(func() { call(t, p.Session(fmt.Sprint(i)), "nap", 1000) })
		}
		callers.Wait()
		for _, w := range p.Stats().Workers {
			if w.Sessions != 1 {
				t.Errorf("%+v", w)
			}
		}
		time.Sleep(10 * time.Minute)
		if got := states(p); got != "0 ready, 1 ready, 2 ready" {
			t.Errorf("the sessions' workers are %s", got)
		}
		p.Session("1").Close()
		time.Sleep(2 * time.Minute)
		if s := p.Stats(); s.Ready != 2 || s.Sessions != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestResize(t *testing.T) {
	bubble(t, &coretest.Adapter{Before: slowStart}, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		for _, size := range []int{-1, 0, 1025} {
			if err := p.Resize(size); err == nil || !strings.Contains(err.Error(), fmt.Sprint(size)) {
				t.Errorf("%d: %v", size, err)
			}
		}
		if err := p.Resize(4); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitReady(t.Context(), 4); err != nil || p.Size() != 4 {
			t.Fatal(err)
		}
		for i := range 4 {
			call(t, p.Session(fmt.Sprint(i)), "echo", i)
		}
		long := make(chan error)
		go func() {
			_, err := core.Execute[int](t.Context(), p.Session("3"), "nap", 5000)
			long <- err
		}()
		synctest.Wait()
		if err := p.Resize(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := states(p); got != "0 ready, 1 draining, 2 draining, 3 draining" {
			t.Error(got)
		}
		call(t, p.Session("2"), "echo", 1)
		if err := <-long; err != nil {
			t.Error(err)
		}
		for i := range 4 {
			p.Session(fmt.Sprint(i)).Close()
		}
		if got := len(settled(t, p)); got != 1 || p.Size() != 1 {
			t.Errorf("%d workers", got)
		}
		if err := p.WaitReady(t.Context(), 2); err == nil {
			t.Error("two of one worker are ready")
		}
		// A start that is not needed any more is called off.
		if err := errors.Join(p.Resize(9), p.Resize(2)); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		if s := p.Stats(); states(p) != "0 ready, 1 ready" || s.StartFails != 0 || s.Lost != 0 {
			t.Errorf("%s %+v", states(p), s)
		}
	})
}

func TestResizeOfAClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), &coretest.Adapter{Functions: functions()}, core.Command{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Resize(2); !errors.Is(err, core.ErrClosed) {
			t.Error(err)
		}
		if err := p.Reload(t.Context()); !errors.Is(err, core.ErrClosed) {
			t.Error(err)
		}
	})
}

// A function that calls its own pool waits for a worker that is about to start. It is no deadlock.
func TestFunctionMakesThePoolGrow(t *testing.T) {
	var pool *core.Pool
	o := core.Options{MinSize: 1, Size: 2, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, v any) (any, error) {
			return core.Execute[any](ctx, pool, "echo", v)
		}),
	}}
	bubble(t, &coretest.Adapter{Before: slowStart}, o, func(t *testing.T, p *core.Pool) {
		pool = p
		call(t, p, "callback", nil)
		if n := len(p.Workers()); n != 2 {
			t.Errorf("%d workers", n)
		}
	})
}

// A worker that has left because it was idle is not started again by a replacement that was called off.
func TestShrinkAfterAReloadThatWasCalledOff(t *testing.T) {
	var slow atomic.Bool
	var starts atomic.Int32
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		starts.Add(1)
		if slow.Load() {
			time.Sleep(10 * time.Second) // whatever ctx says
		}
		return ctx.Err()
	}}
	o := core.Options{Size: 2, MinSize: 1, IdleTime: 3 * time.Second, Surge: 2, StartLimit: 4}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() { call(t, p, "nap", 1000) })
		}
		callers.Wait()
		slow.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := p.Reload(ctx); err == nil {
			t.Error("no error")
		}
		time.Sleep(8 * time.Second)
		slow.Store(false)
		before := starts.Load()
		time.Sleep(time.Minute)
		if s := p.Stats(); starts.Load() != before || len(s.Workers) != 1 {
			t.Errorf("%d starts that nobody asked for, %+v", starts.Load()-before, s)
		}
	})
}

// Idle workers leave from the end, so that a smaller Resize finds the last places empty.
func TestTheFirstPlacesStay(t *testing.T) {
	o := core.Options{MinSize: 1, Size: 3}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		var callers sync.WaitGroup
		for i := range 3 { // the last one is idle last
			callers.Go(func() { call(t, p, "nap", 1000*(i+1)) })
			synctest.Wait()
		}
		callers.Wait()
		time.Sleep(2 * time.Minute)
		if got := states(p); got != "0 ready" {
			t.Error(got)
		}
	})
}

// A caller that may not wait has the pool grow for the next one.
func TestRefusedCallersMakeThePoolGrow(t *testing.T) {
	for name, o := range map[string]core.Options{
		"NoWait": {MinSize: -1, Size: 2, IdleTime: time.Second},
		"Queue":  {MinSize: -1, Size: 2, IdleTime: time.Second, Queue: -1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
				time.Sleep(time.Minute)
				var opts []core.CallOption
				if name == "NoWait" {
					opts = append(opts, core.NoWait())
				}
				for _, want := range []error{core.ErrSaturated, nil} {
					if _, err := core.Execute[any](t.Context(), p, "echo", 1, opts...); !errors.Is(err, want) {
						t.Errorf("%v, not %v", err, want)
					}
					synctest.Wait()
				}
				if got := states(p); got != "0 ready" {
					t.Error(got)
				}
			})
		})
	}
}

// A new worker cannot serve a session that has one, so the pool does not grow for its calls.
func TestCallsOfASessionDoNotMakeThePoolGrow(t *testing.T) {
	o := core.Options{MinSize: 1, Size: 3}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		var caller sync.WaitGroup
		caller.Go(func() { call(t, s, "nap", 1000) })
		synctest.Wait()
		if _, err := core.Execute[any](t.Context(), s, "echo", 1, core.NoWait()); !errors.Is(err, core.ErrSaturated) {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(p.Workers()); n != 1 {
			t.Errorf("%d workers", n)
		}
		caller.Wait()
	})
}
