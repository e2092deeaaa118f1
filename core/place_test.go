package core_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestStartLimit(t *testing.T) {
	var now, most atomic.Int32
	a := &coretest.Adapter{Before: func(ctx context.Context, i int) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return slowStart(ctx, i)
	}}
	bubble(t, a, core.Options{Size: 8, StartLimit: 3}, func(t *testing.T, p *core.Pool) {
		begin := time.Now()
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 2*time.Second || most.Load() != 3 {
			t.Errorf("%d starts at once; the rest took %s", most.Load(), took)
		}
	})
}

// After its budget of failed starts, the pool only probes: one start at a time for all workers. When a probe succeeds,
// all are started again.
func TestStartBudget(t *testing.T) {
	var starts atomic.Int32
	var broken atomic.Bool
	a := breakable(&broken)
	loads := a.Before
	a.Before = func(ctx context.Context, index int) error {
		starts.Add(1)
		return loads(ctx, index)
	}
	var events []string
	o := core.Options{Size: 4, StartBudget: 3, Logger: hclog.NewNullLogger()}
	o.OnEvent = func(e core.Event) {
		switch e.(type) {
		case core.StartsStopped, core.StartsResumed:
			events = append(events, e.String())
		}
	}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		starts.Store(0)
		for i := range 4 {
			a.Crash(i)
		}
		time.Sleep(10 * time.Second)
		// The early end is a failure, and so are two starts.
		if n := starts.Load(); n != 4*2 {
			t.Errorf("%d starts", n)
		}
		for _, w := range p.Stats().Workers {
			if !w.Stopped || w.Failures != 3 {
				t.Errorf("%+v", w)
			}
		}
		_, err := core.Execute[any](t.Context(), p, "echo", 1)
		if !errors.Is(err, core.ErrCrashLoop) || !strings.Contains(err.Error(), "no luck") {
			t.Error(err)
		}
		starts.Store(0)
		time.Sleep(10 * time.Minute)
		if n := starts.Load(); n != 20 {
			t.Errorf("%d probes in ten minutes", n)
		}
		broken.Store(false)
		time.Sleep(30 * time.Second)
		call(t, p, "echo", 1)
		if s := p.Stats(); s.Ready != 4 && settled(t, p) != nil && p.Stats().Ready != 4 {
			t.Errorf("%+v", s)
		}
		if got := len(events); got != 8 {
			t.Errorf("%q", events)
		}
	})
}

// Without a call, a probe is successful once its worker has lived for a while.
func TestProbeWithoutCalls(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	o := core.Options{Size: 3, StartBudget: 1, Logger: hclog.NewNullLogger()}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		for i := range 3 {
			a.Crash(i)
		}
		time.Sleep(5 * time.Minute)
		broken.Store(false)
		time.Sleep(31*time.Second + 11*time.Second)
		if s := p.Stats(); s.Ready != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWarmup(t *testing.T) {
	warm := make(chan any, 9)
	f := functions()
	f["warm"] = core.Func(func(_ context.Context, v any) (any, error) {
		if v == "cold" {
			return nil, errors.New("no weights")
		}
		warm <- v
		return v, nil
	})
	a := &coretest.Adapter{Functions: f}
	o := core.Options{Size: 2, Warmup: core.Warmup{Command: "warm", Args: "model"}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		a.Crash(1)
		synctest.Wait()
		time.Sleep(time.Minute)
		if s := p.Stats(); len(warm) != 3 || s.Ready != 2 || s.Calls != 0 {
			t.Errorf("%d warm-up calls, %+v", len(warm), s)
		}
	})
	for want, w := range map[string]core.Warmup{
		`the warm-up call "warm": error: no weights`: {Command: "warm", Args: "cold"},
		`the warm-up call "wram": unknown command`:   {Command: "wram"},
		`the warm-up call "warm": a value of type`:   {Command: "warm", Args: make(chan int)},
		`the warm-up call "wait" has not ended: `:    {Command: "wait"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 2, Warmup: w})
			if !errors.As(err, new(*core.StartError)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, not %q", err, want)
			}
		})
	}
}

// Places that Resize has removed take no part in the probes.
func TestResizeOfAPoolThatHasStopped(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	o := core.Options{Size: 8, StartBudget: 1, Logger: hclog.NewNullLogger()}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		for i := range 8 {
			a.Crash(7 - i)
			synctest.Wait()
		}
		if err := p.Resize(1); err != nil {
			t.Fatal(err)
		}
		broken.Store(false)
		time.Sleep(31 * time.Second)
		if s := p.Stats(); s.Ready != 1 || len(s.Workers) != 1 {
			t.Errorf("%+v", s)
		}
	})
}
