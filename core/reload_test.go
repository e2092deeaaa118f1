package core_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// slowStart makes each start take a second of the bubble's clock.
func slowStart(ctx context.Context, _ int) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestReloadUnderLoad(t *testing.T) {
	for _, surge := range []int{0, 3} {
		o := core.Options{Size: 3, Surge: surge, StartLimit: 3}
		bubble(t, &coretest.Adapter{Before: slowStart}, o, func(t *testing.T, p *core.Pool) {
			if err := p.WaitReady(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			before := p.Workers()
			ctx, stop := context.WithCancel(t.Context())
			var load sync.WaitGroup
			for range 3 {
				load.Go(func() {
					for ctx.Err() == nil {
						begin := time.Now()
						if _, err := core.Execute[int](t.Context(), p, "nap", 10); err != nil {
							t.Error(err)
						}
						if took := time.Since(begin); took > 20*time.Millisecond {
							t.Errorf("a call of 10 ms took %s", took)
						}
					}
				})
			}
			begin := time.Now()
			if err := p.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			if took, want := time.Since(begin), 3*time.Second/time.Duration(max(1, surge)); took != want {
				t.Errorf("the reload took %s, not %s", took, want)
			}
			time.Sleep(time.Second)
			stop()
			load.Wait()
			after := settled(t, p)
			for i, w := range after {
				if w == before[i] {
					t.Errorf("%s was not replaced", w)
				}
			}
			if s := p.Stats(); len(after) != 3 || s.Replaced != 3 || s.Restarts != 0 || s.Lost != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A program that cannot be loaded leaves the old workers serving.
func TestReloadOfABrokenProgram(t *testing.T) {
	var broken atomic.Bool
	var starts atomic.Int32
	a := &coretest.Adapter{Before: func(context.Context, int) error {
		starts.Add(1)
		if broken.Load() {
			return errors.New("SyntaxError: no luck")
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
		before := settled(t, p)
		broken.Store(true)
		for range 3 {
			err := p.Reload(t.Context())
			if err == nil || !strings.Contains(err.Error(), "3 workers were not replaced: ") ||
				!strings.Contains(err.Error(), "no luck") || !errors.As(err, new(*core.StartError)) {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if n := starts.Load(); n != 6 {
			t.Errorf("%d starts: a failed reload goes on", n-3)
		}
		for i, w := range settled(t, p) {
			if w != before[i] {
				t.Errorf("%s was replaced", w)
			}
		}
		call(t, p, "echo", 1)
		broken.Store(false)
		if err := p.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		settled(t, p)
		if s := p.Stats(); s.Replaced != 3 || s.Ready != 3 || len(s.Workers) != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestReloadThatIsCalledOff(t *testing.T) {
	bubble(t, &coretest.Adapter{Before: slowStart}, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		err := p.Reload(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 workers were not replaced") {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if s := p.Stats(); s.Replaced != 1 || s.Ready != 3 || len(s.Workers) != 3 || s.StartFails != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Workers that are starting may have read the old program, so a reload replaces them, too.
func TestReloadWhileWorkersStart(t *testing.T) {
	var starts atomic.Int32
	a := &coretest.Adapter{Before: func(ctx context.Context, i int) error {
		starts.Add(1)
		return slowStart(ctx, i)
	}}
	bubble(t, a, core.Options{Size: 2, StartLimit: 2}, func(t *testing.T, p *core.Pool) {
		if err := p.Resize(3); err != nil { // its worker starts now
			t.Fatal(err)
		}
		synctest.Wait()
		if err := p.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		settled(t, p)
		if s := p.Stats(); starts.Load() != 6 || s.Ready != 3 || len(s.Workers) != 3 {
			t.Errorf("%d starts, %+v", starts.Load(), s)
		}
	})
}

// A worker that is lost while its replacement starts does not leave a second one behind.
func TestLossDuringReload(t *testing.T) {
	a := &coretest.Adapter{Before: slowStart}
	bubble(t, a, core.Options{Size: 2, StartLimit: 4}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for _, w := range p.Workers() { // the one that is replaced, and the one that is to be
			done := make(chan error)
			go func() { done <- p.Reload(t.Context()) }()
			synctest.Wait()
			a.Crash(w.Info().Index)
			if err := <-done; err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
			if s := p.Stats(); len(s.Workers) != 2 || s.Ready != 2 {
				t.Errorf("%+v", s)
			}
		}
		if n := p.Stats().Lost; n != 2 {
			t.Errorf("%d workers lost", n)
		}
	})
}

// With a negative Surge a worker leaves before its replacement starts. If that one cannot be started, the others stay.
func TestReloadWithoutSurge(t *testing.T) {
	var broken atomic.Bool
	a := &coretest.Adapter{Before: func(ctx context.Context, i int) error {
		if broken.Load() {
			return errors.New("no luck")
		}
		return slowStart(ctx, i)
	}}
	bubble(t, a, core.Options{Size: 3, Surge: -1, StartLimit: 3}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Reload(t.Context()); err != nil || p.Stats().Ready != 3 {
			t.Errorf("%v, %+v", err, p.Stats())
		}
		broken.Store(true)
		err := p.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), "3 workers were not replaced") {
			t.Error(err)
		}
		synctest.Wait()
		if s := p.Stats(); s.Ready != 2 {
			t.Errorf("%+v", s)
		}
		broken.Store(false)
		// It does not wait for the next regular start.
		if err := p.Reload(t.Context()); err != nil || p.Stats().Ready != 3 {
			t.Errorf("%v, %+v", err, p.Stats())
		}
	})
}

// A replacement that gets ready at the moment in which it is called off is not needed any more.
func TestReloadThatIsCalledOffTooLate(t *testing.T) {
	f := functions()
	f["warm"] = core.Func(func(context.Context, any) (any, error) {
		time.Sleep(time.Second)
		return nil, nil
	})
	o := core.Options{
		Size: 2, MinSize: 1, IdleTime: 2 * time.Second, Warmup: core.Warmup{Command: "warm"},
	}
	for range 200 { // it depends on the order of three timers
		bubble(t, &coretest.Adapter{Functions: f}, o, func(t *testing.T, p *core.Pool) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := p.Reload(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) { // the order decides
				t.Error(err)
			}
			time.Sleep(time.Hour)
			if s := p.Stats(); s.Ready != 1 || len(s.Workers) != 1 {
				t.Fatalf("%+v", s)
			}
		})
	}
}

// curious is a context that asks the pool.
type curious struct {
	context.Context
	pool *core.Pool
}

func (a curious) Err() error {
	a.pool.Stats()
	return a.Context.Err()
}

func TestReloadWithAContextThatCallsThePool(t *testing.T) {
	bubble(t, &coretest.Adapter{Before: slowStart}, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := p.Reload(curious{ctx, p}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A new program that ends right after its hello fails the reload, too.
func TestReloadOfAProgramThatEndsEarly(t *testing.T) {
	var broken atomic.Bool
	a := &coretest.Adapter{}
	a.Before = func(ctx context.Context, index int) error {
		if broken.Load() {
			time.AfterFunc(1200*time.Millisecond, func() { a.Crash(index) })
		}
		return slowStart(ctx, index)
	}
	bubble(t, a, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		err := p.Reload(t.Context())
		if !errors.Is(err, core.ErrWorkerLost) || !strings.Contains(err.Error(), "workers were not replaced") {
			t.Error(err)
		}
		if s := p.Stats(); s.Ready != 2 {
			t.Errorf("%+v", s)
		}
	})
}
