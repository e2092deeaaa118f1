package core_test

import (
	"context"
	"errors"
	"fmt"
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

// eventLog is an Options.OnEvent that keeps the events.
type eventLog struct {
	mu     sync.Mutex
	events []core.Event
}

func (l *eventLog) put(e core.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *eventLog) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = nil
}

// lines returns the texts of the events of these types, without the package's name.
func (l *eventLog) lines(types ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, e := range l.events {
		if slices.Contains(types, strings.TrimPrefix(fmt.Sprintf("%T", e), "core.")) {
			lines = append(lines, e.String())
		}
	}
	return lines
}

// Each worker's states form one chain, in order, from its start to its end.
func TestEventsTellEachChangeOfState(t *testing.T) {
	var log eventLog
	a := &coretest.Adapter{}
	o := core.Options{Size: 2, Recycle: core.Recycle{Calls: 5}, OnEvent: log.put}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		for i := range 50 {
			call(t, p, "echo", 1)
			synctest.Wait()
			if i%20 == 10 {
				a.Crash(0)
				time.Sleep(time.Minute) // a worker without an answered call is started again after a wait
			}
		}
		if err := errors.Join(p.Reload(t.Context()), p.Resize(3), p.Resize(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	})
	state := map[*core.Worker]core.WorkerState{}
	lost, now := 0, time.Time{}
	for _, e := range log.events {
		s, ok := e.(core.StateChanged)
		if !ok {
			continue
		}
		if s.From != state[s.Worker] {
			t.Errorf("%s: from %q, but it was %q", s, s.From, state[s.Worker])
		}
		if s.Time.Before(now) {
			t.Errorf("%s: its time is before that of the event before it", s)
		}
		if errors.Is(s.Err, core.ErrWorkerLost) {
			lost++
		}
		now, state[s.Worker] = s.Time, s.To
	}
	for w, last := range state {
		if last != core.StateDead {
			t.Errorf("%s is %s after Close", w, last)
		}
	}
	if lost != 2 || len(state) < 12 {
		t.Errorf("%d workers, %d of them lost", len(state), lost)
	}
}

func TestEventsTellWhatThePoolDecides(t *testing.T) {
	var log eventLog
	var broken atomic.Bool
	a := breakable(&broken)
	o := core.Options{
		Size: 1, Queue: -1, StartBudget: 2, Recycle: core.Recycle{Calls: 1}, OnEvent: log.put,
		Logger: hclog.NewNullLogger(),
	}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		expect := func(types string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := log.lines(strings.Fields(types)...); !slices.Equal(got, want) {
				t.Errorf("%s: %q, not %q", types, got, want)
			}
			log.clear()
		}
		expect("StateChanged AdapterChanged",
			"worker 0 is starting", "worker 0 is ready", "worker 0 speaks coretest")
		call(t, p, "echo", 1)
		expect("StateChanged ReplacementPlanned", "worker 0 is to be replaced: it has had 1 calls",
			"worker 0 is starting", "worker 0 is ready", "worker 0 is draining: it has had 1 calls",
			"worker 0 is stopping", "worker 0 is dead")
		broken.Store(true)
		call(t, p, "echo", 1)
		expect("StateChanged ReplacementFailed",
			"worker 0 is starting", "worker 0 is dead: no luck",
			"worker 0 serves on: its replacement could not be started: no luck")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = core.Execute[any](ctx, p, "wait", nil) }()
		synctest.Wait()
		if _, err := core.Execute[any](t.Context(), p, "echo", 1); !errors.Is(err, core.ErrSaturated) {
			t.Error(err)
		}
		cancel()
		expect("CallRefused",
			"echo was refused: pool saturated: no slot is free, and the queue is full (Options.Queue: 0)")
		time.Sleep(time.Minute)
		log.clear()
		a.Crash(0)
		synctest.Wait()
		if got := log.lines("StartsStopped", "RestartPlanned"); len(got) != 1 ||
			!strings.Contains(got[0], "starts failed, and the pool only probes: no luck") {
			t.Errorf("%q", got)
		}
		log.clear()
		broken.Store(false)
		time.Sleep(time.Minute)
		expect("StartsResumed", "worker 0 is started again")
		if err := p.Resize(2); err != nil {
			t.Error(err)
		}
		expect("Resized", "resized from 1 to 2 workers")
		if err := p.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		broken.Store(true)
		if err := p.Reload(t.Context()); err == nil {
			t.Error("no error")
		}
		expect("Reloaded", "the pool was reloaded in 0s", "the pool could not be reloaded: "+
			"2 workers were not replaced: no luck")
	})
}

// The hook may panic, end its goroutine, call the pool, or be too slow. It costs the pool nothing.
func TestPlannedRestartAsText(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "worker 1 starts again at once", 200 * time.Millisecond: "worker 1 starts again in 200ms",
	} {
		if got := (core.RestartPlanned{Index: 1, In: in}).String(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestEventHookThatMisbehaves(t *testing.T) {
	for name, hook := range map[string]func(*core.Pool){
		"panic": func(*core.Pool) { panic("ouch") },
		"call": func(p *core.Pool) {
			if p != nil {
				p.Stats()
				_, _ = core.Execute[any](context.Background(), p, "echo", 1)
			}
		},
		"hang": func(*core.Pool) { time.Sleep(20 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			var pool *core.Pool
			var mu sync.Mutex
			var missed int
			o := core.Options{Size: 1, Queue: -1, OnEvent: func(e core.Event) {
				mu.Lock()
				if m, ok := e.(core.EventsMissed); ok {
					missed += m.Count
				}
				p := pool
				mu.Unlock()
				hook(p)
			}}
			bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
				mu.Lock()
				pool = p
				mu.Unlock()
				for range 3 {
					if err := p.Reload(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if name != "hang" {
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _, _ = core.Execute[any](ctx, p, "wait", nil) }()
				synctest.Wait()
				for range 2000 {
					_, _ = core.Execute[any](t.Context(), p, "echo", 1)
				}
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if missed < 900 || missed > 1100 {
					t.Errorf("%d of 2000 events missed", missed)
				}
			})
		})
	}
}

// The event of a failed replacement has its cause, also if the failure ends a reload.
func TestCauseOfAFailedReplacement(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	var causes []core.Cause // the pool calls OnEvent from one goroutine
	o := core.Options{Size: 2, OnEvent: func(e core.Event) {
		if f, ok := e.(core.ReplacementFailed); ok {
			causes = append(causes, f.Cause)
		}
	}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		settled(t, p)
		broken.Store(true)
		if err := p.Reload(t.Context()); err == nil {
			t.Error("the reload is successful")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(causes, []core.Cause{core.CauseReload}) {
			t.Errorf("%q", causes)
		}
	})
}

// A worker whose start the pool ends, because it closes, has no error.
func TestCloseDuringAStart(t *testing.T) {
	var log eventLog
	var slow atomic.Bool
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		if slow.Load() {
			<-ctx.Done()
		}
		return context.Cause(ctx)
	}}
	o := core.Options{Size: 1, OnEvent: log.put, Logger: hclog.NewNullLogger()}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		slow.Store(true)
		if err := p.Resize(2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := log.lines("StateChanged"); !slices.Contains(got, "worker 1 is dead") {
			t.Errorf("%q", got)
		}
	})
}
