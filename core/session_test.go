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

func TestSessionsStayAndAreLostWithTheirWorker(t *testing.T) {
	a := &coretest.Adapter{}
	bubble(t, a, core.Options{Size: 3, SessionIdle: time.Minute}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		s := p.Session("s")
		for range 5 {
			if _, err := core.Execute[any](t.Context(), s, "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		home := -1
		for _, w := range p.Stats().Workers {
			if w.Sessions == 1 && w.Calls == 5 {
				home = w.Index
			}
		}
		if home < 0 {
			t.Fatalf("%+v", p.Stats())
		}
		a.Crash(home)
		synctest.Wait()
		for range 2 {
			if _, err := core.Execute[any](t.Context(), s, "echo", 1); !errors.Is(err, core.ErrSessionLost) ||
				core.MayHaveRun(err) {
				t.Fatal(err)
			}
		}
		s.Close()
		if _, err := core.Execute[any](t.Context(), s, "echo", 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // on the bubble's clock
		if n := p.Stats().Sessions; n != 0 {
			t.Fatalf("%d sessions outlived their idle time", n)
		}
	})
}

// Each use of a session begins its idle time anew. After that the session ends, and its worker drops the state.
func TestSessionsEndAfterTheirIdleTime(t *testing.T) {
	for _, uses := range []int{1, 2, 5} {
		a := coretest.Conformance(1)
		bubble(t, a, core.Options{Size: 1, SessionIdle: time.Minute}, func(t *testing.T, p *core.Pool) {
			s := p.Session("s")
			for i := range uses {
				time.Sleep(50 * time.Second) // on the bubble's clock
				got, err := core.Execute[any](t.Context(), s, "conformance.remember", map[string]any{"value": "kept"})
				if err != nil || p.Stats().Sessions != 1 || got != "kept" {
					t.Fatalf("use %d: %v, %v, %+v", i, got, err, p.Stats())
				}
			}
			time.Sleep(61 * time.Second)
			synctest.Wait()
			if s := p.Stats(); s.Sessions != 0 || s.Workers[0].Sessions != 0 {
				t.Errorf("after %d uses and the idle time there are %d sessions", uses, s.Sessions)
			}
			got, err := core.Execute[any](t.Context(), s, "conformance.remember", nil)
			if got != nil || err != nil {
				t.Errorf("after the idle time the worker still has %v, %v", got, err)
			}
		})
	}
}

func TestSessionsSpread(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			if _, err := core.Execute[any](t.Context(), p.Session(fmt.Sprint(i)), "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range p.Stats().Workers {
			if w.Sessions != 2 {
				t.Fatalf("%+v", p.Stats())
			}
		}
	})
}

// A closed session starts anew after its worker has dropped the state. If the worker fails to, the log says so.
func TestClosedSessionIsForgottenFirst(t *testing.T) {
	for failing, warnings := range map[bool]int{false: 0, true: 1} {
		log := newSpy(func(*spy, string) {})
		worker := functions()
		worker["snakepit.forget"] = core.Func(func(context.Context, any) (any, error) {
			time.Sleep(2 * time.Second)
			if failing {
				return nil, errors.New("it cannot forget")
			}
			return nil, nil
		})
		a := &coretest.Adapter{Functions: worker, Concurrency: 2}
		bubble(t, a, core.Options{Size: 1, Logger: log}, func(t *testing.T, p *core.Pool) {
			s := p.Session("s")
			for range 2 {
				begin := time.Now()
				if _, err := core.Execute[any](t.Context(), s, "echo", 1); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took != 0 {
					t.Errorf("a call took %s", took)
				}
				s.Close()
				if _, err := core.Execute[any](t.Context(), p, "echo", 1); err != nil || time.Since(begin) != 0 {
					t.Errorf("a call beside it: %v after %s", err, time.Since(begin))
				}
				_, err := core.Execute[any](t.Context(), s, "echo", 1)
				if err != nil || time.Since(begin) != 2*time.Second {
					t.Errorf("the call after it: %v after %s", err, time.Since(begin))
				}
			}
			if n := countPrefix(log.lines(), "session's state could not be dropped"); n != 2*warnings {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// A new session goes to a worker with the fewest sessions, and to the least busy of those.
func TestSessionsAvoidTheBusy(t *testing.T) {
	for idle := range 3 {
		bubble(t, &coretest.Adapter{Concurrency: 2}, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
			if err := p.WaitReady(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if _, err := core.Execute[any](t.Context(), p.Session(fmt.Sprint(i)), "echo", 1); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			for i := range 3 {
				if i != idle {
					go func() { _, _ = core.Execute[int](ctx, p.Session(fmt.Sprint(i)), "nap", 10_000) }()
				}
			}
			synctest.Wait()
			if _, err := core.Execute[any](t.Context(), p.Session("new"), "echo", 1); err != nil {
				t.Fatal(err)
			}
			s := p.Stats()
			for _, w := range s.Workers {
				if free := w.Running == 0; free != (w.Sessions == 2) {
					t.Errorf("worker %d runs %d calls, and has %d sessions", w.Index, w.Running, w.Sessions)
				}
			}
			if s.Calls != 6 {
				t.Errorf("Stats counts %d calls", s.Calls)
			}
		})
	}
}

func TestFirstCallsOfASessionShareOneWorker(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 4}, func(t *testing.T, p *core.Pool) {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := core.Execute[any](t.Context(), p.Session("s"), "nap", 10); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		homes := 0
		for _, w := range p.Stats().Workers {
			if w.Calls > 0 {
				homes++
			}
		}
		if homes != 1 {
			t.Fatalf("%+v", p.Stats())
		}
	})
}

// A session with Hint prefers its worker and takes another one while that is busy. Its end drops the state of all.
func TestHint(t *testing.T) {
	a := coretest.Conformance(1)
	bubble(t, a, core.Options{Size: 3}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		chat := p.Session("chat", core.Hint())
		remember := func(ctx context.Context, v any) (any, int) {
			t.Helper()
			got, err := core.Execute[any](ctx, chat, "conformance.remember", map[string]any{"value": v})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range p.Stats().Workers {
				if w.Sessions != 0 {
					t.Error("a session with Hint holds its worker")
				}
			}
			return got, 0
		}
		busy := func() context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _, _ = core.Execute[any](ctx, chat, "conformance.wait", nil) }()
			synctest.Wait()
			return cancel
		}
		remember(t.Context(), "first")
		if got, _ := remember(t.Context(), nil); got != "first" {
			t.Error("it has left its worker:", got)
		}
		first := busy() // on the favorite
		if got, _ := remember(t.Context(), nil); got != nil {
			t.Error("another worker knows", got)
		}
		remember(t.Context(), "second")
		second := busy()
		remember(t.Context(), "third")
		first()
		second()
		synctest.Wait()
		for i := range 3 {
			a.Crash(i) // it is never lost
			time.Sleep(time.Second)
			remember(t.Context(), "again")
		}
		chat.Close()
		synctest.Wait()
		if s := p.Stats(); s.Sessions != 0 || s.Lost != 3 {
			t.Errorf("%+v", s)
		}
		chat = p.Session("chat", core.Hint())
		var hold []context.CancelFunc
		for range 3 {
			if got, _ := remember(t.Context(), nil); got != nil {
				t.Error("a worker still has", got)
			}
			hold = append(hold, busy())
		}
		for _, end := range hold {
			end()
		}
	})
}

func TestMaxSessions(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, MaxSessions: 2}, func(t *testing.T, p *core.Pool) {
		for _, id := range []string{"a", "b", "a"} {
			call(t, p.Session(id), "echo", 1)
		}
		_, err := core.Execute[any](t.Context(), p.Session("c"), "echo", 1)
		if !errors.Is(err, core.ErrSaturated) || core.MayHaveRun(err) || !strings.Contains(err.Error(), "MaxSessions") {
			t.Error(err)
		}
		call(t, p, "echo", 1)
		p.Session("a").Close()
		call(t, p.Session("c"), "echo", 1)
		if s := p.Stats(); s.Sessions != 2 || s.Saturated != 1 {
			t.Errorf("%+v", s)
		}
	})
}
