package core_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// settled returns the pool's workers after all that was begun has happened.
func settled(t *testing.T, p *core.Pool) []*core.Worker {
	t.Helper()
	synctest.Wait()
	return p.Workers()
}

// call makes a call that must succeed.
func call(t *testing.T, target core.Target, command string, args any) {
	t.Helper()
	if _, err := core.Execute[any](t.Context(), target, command, args); err != nil {
		t.Fatal(err)
	}
}

func TestRecycleAfterCalls(t *testing.T) {
	o := core.Options{Size: 2, Recycle: core.Recycle{Calls: 20}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		for range 1000 {
			call(t, p, "echo", 1)
			if n := len(settled(t, p)); n > 3 {
				t.Fatalf("%d workers", n)
			}
		}
		s := p.Stats()
		if len(s.Workers) != 2 || s.Lost != 0 || s.Restarts != 0 {
			t.Fatalf("%+v", s)
		}
		if s.Replaced < 1000/20 || s.Replaced > 1000/18 {
			t.Errorf("%d replacements in 1000 calls; each worker has 18 to 20", s.Replaced)
		}
	})
}

// Workers that started together do not leave together: each has up to a tenth fewer calls.
func TestRecycleAfterCallsIsSpread(t *testing.T) {
	var log eventLog
	o := core.Options{Size: 1, Recycle: core.Recycle{Calls: 100}, OnEvent: log.put}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		for range 3000 {
			call(t, p, "echo", 1)
			synctest.Wait()
		}
	})
	calls := map[string]int{}
	for _, line := range log.lines("ReplacementPlanned") {
		calls[line]++
	}
	if len(calls) < 3 || len(calls) > 11 {
		t.Errorf("the workers have left after %v", calls)
	}
}

func TestRecycleByAge(t *testing.T) {
	o := core.Options{Size: 4, Recycle: core.Recycle{Age: time.Hour}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		first := settled(t, p)
		time.Sleep(50 * time.Minute)
		if now := settled(t, p); now[0] != first[0] || p.Stats().Replaced != 0 {
			t.Fatal("replaced too early")
		}
		left := map[time.Duration]bool{}
		for range 10 * 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			left[time.Duration(p.Stats().Replaced)] = true
		}
		if n := p.Stats().Replaced; n != 4 || len(p.Workers()) != 4 {
			t.Errorf("%d of 4 workers replaced after an hour", n)
		}
		if len(left) < 3 {
			t.Error("the workers have left together")
		}
	})
}

func TestRecycleOfTheIdle(t *testing.T) {
	o := core.Options{Size: 2, Recycle: core.Recycle{Idle: time.Minute}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		before := settled(t, p)
		time.Sleep(time.Hour) // a worker without calls has nothing to give back
		call(t, p, "echo", 1)
		time.Sleep(59 * time.Second)
		if now := settled(t, p); now[0] != before[0] {
			t.Fatal("replaced too early")
		}
		time.Sleep(2 * time.Second)
		if now := settled(t, p); now[0] == before[0] || now[1] != before[1] {
			t.Fatal("the worker that had a call is not the one that was replaced")
		}
		time.Sleep(time.Hour)
		if n := p.Stats().Replaced; n != 1 {
			t.Fatalf("%d replacements", n)
		}
	})
}

// A worker that is to be replaced ends its calls and keeps its sessions. Its replacement is ready before it leaves.
func TestRecyclingInterruptsNothing(t *testing.T) {
	o := core.Options{Size: 1, Recycle: core.Recycle{Calls: 2}, MaxSnapshot: -1}
	bubble(t, coretest.Conformance(2), o, func(t *testing.T, p *core.Pool) {
		chat := p.Session("chat")
		remember := func(value any) any {
			t.Helper()
			got, err := core.Execute[any](t.Context(), chat, "conformance.remember", map[string]any{"value": value})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := p.Workers()[0]
		remember("green")
		remember("red")
		for range 10 {
			call(t, p, "conformance.echo", map[string]any{"value": 1})
		}
		workers := settled(t, p)
		if len(workers) < 2 || workers[0] != first || p.Stats().Workers[0].State != core.StateDraining {
			t.Fatalf("the worker of the session is %+v", p.Stats().Workers)
		}
		if reason := p.Stats().Workers[0].Reason; !strings.Contains(reason, "2 calls") {
			t.Error(reason)
		}
		if got := remember(nil); got != "red" {
			t.Fatalf("the session's state is %v", got)
		}
		time.Sleep(10 * time.Minute)
		if settled(t, p)[0] != first {
			t.Fatal("the session's worker has left before the session")
		}
		chat.Close()
		if now := settled(t, p); len(now) != 1 || now[0] == first {
			t.Fatal("the worker stays after its session")
		}
		if s := p.Stats(); s.Lost != 0 || s.Restarts != 0 || s.StartFails != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// With a negative Surge a worker leaves before its replacement starts, but not while it has a session.
func TestReplacementWithoutSurge(t *testing.T) {
	most, now := 0, 0
	o := core.Options{Size: 2, Surge: -1, Recycle: core.Recycle{Calls: 10}}
	o.OnEvent = func(e core.Event) {
		if s, ok := e.(core.StateChanged); ok {
			switch s.To {
			case core.StateStarting:
				now++
			case core.StateDead:
				now--
			}
			most = max(most, now)
		}
	}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		chat := p.Session("chat")
		call(t, chat, "echo", 1)
		pinned := settled(t, p)[0]
		for range 100 {
			call(t, p, "echo", 1)
			synctest.Wait()
		}
		for range 20 {
			call(t, chat, "echo", 1)
		}
		if settled(t, p)[0] != pinned || p.Stats().Sessions != 1 {
			t.Errorf("the session has lost its worker: %+v", p.Stats())
		}
		chat.Close()
		if now := settled(t, p); len(now) != 2 || now[0] == pinned || p.Stats().Ready != 2 ||
			p.Stats().Restarts != 0 {
			t.Errorf("%+v", p.Stats())
		}
		if most != 2 {
			t.Errorf("up to %d workers at a time", most)
		}
	})
}

// A limit that was reached during a reload counts once the reload has failed.
func TestLimitDuringAReload(t *testing.T) {
	var hangs atomic.Bool
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		if hangs.Load() {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}}
	o := core.Options{Size: 1, Recycle: core.Recycle{Calls: 10, Age: time.Minute}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		for _, more := range []func(){
			func() { call(t, p, "echo", 1) },
			func() { time.Sleep(time.Minute) },
		} {
			before := settled(t, p)[0]
			hangs.Store(true)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Reload(ctx) }()
			synctest.Wait()
			for range 10 {
				call(t, p, "echo", 1)
			}
			time.Sleep(59 * time.Second)
			hangs.Store(false) // first: the worker may begin to be replaced at once
			cancel()
			if err := <-done; err == nil {
				t.Fatal("no error")
			}
			more()
			if settled(t, p)[0] == before {
				t.Error("the limit was forgotten")
			}
		}
	})
}

// With a negative Surge the place of a worker that left may stay empty, if no start succeeds. The others serve on.
func TestRecycleWithoutSurgeWhileStartsFail(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	o := core.Options{Size: 4, Surge: -1, StartBudget: 3, Recycle: core.Recycle{Age: time.Hour}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		time.Sleep(3 * time.Hour)
		if s := p.Stats(); s.Ready != 3 {
			t.Errorf("%+v", s)
		}
		broken.Store(false)
		time.Sleep(time.Hour)
		if s := p.Stats(); s.Ready != 4 || s.Replaced < 4 {
			t.Errorf("%+v", s)
		}
	})
}
