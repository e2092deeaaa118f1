package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
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

// If the worker of an index cannot start, its delay grows, even if other indexes answer meanwhile.
func TestBackoffIsOfOneIndex(t *testing.T) {
	var mu sync.Mutex
	var starts []time.Time
	broken := errors.New("no luck")
	a := &coretest.Adapter{Before: func(_ context.Context, index int) error {
		if index == 1 {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Now())
			return broken
		}
		return nil
	}}
	log := newSpy(func(*spy, string) {})
	bubble(t, a, core.Options{Size: 2, Logger: log}, func(t *testing.T, p *core.Pool) {
		for begin := time.Now(); time.Since(begin) < 8*time.Second; time.Sleep(5 * time.Millisecond) {
			if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		n := len(starts)
		wait := 100 * time.Millisecond
		for i := 1; i < n; i++ {
			if took := starts[i].Sub(starts[i-1]); took < wait || took > wait*5/4+time.Millisecond {
				t.Errorf("start %d came %s after the one before, not %s and a quarter of that at most", i, took, wait)
			}
			wait *= 2
		}
		mu.Unlock()
		if n < 5 {
			t.Errorf("it was started %d times in 8 s", n)
		}
		if logged := countPrefix(log.lines(), "worker could not be started"); logged != n {
			t.Errorf("of %d failures %d are in the log", n, logged)
		}
		s := p.Stats()
		if w := s.Workers[1]; w.Failures != n || !errors.Is(w.LastErr, broken) {
			t.Errorf("its failures are %d, of %d, and the last is %v", w.Failures, n, w.LastErr)
		}
		if w := s.Workers[0]; w.Failures != 0 || w.LastErr != nil {
			t.Errorf("the other's failures are %d, and the last is %v", w.Failures, w.LastErr)
		}
		if s.StartFails != int64(n) {
			t.Errorf("StartFails is %d of %d", s.StartFails, n)
		}
	})
}

// A pool that serves warns once that there is no room for more workers. Without a worker, and if another adapter of a
// chain was refused for another reason, it is an error each time.
func TestNoRoomIsNoError(t *testing.T) {
	full := &core.UnavailableError{Reason: "two are too many", Full: true}
	broken := &core.UnavailableError{Reason: "it is not installed"}
	failed := regexp.MustCompile(`\[ERROR\].* could not be started`)
	for name, c := range map[string]struct {
		err     error
		crashes bool // the worker that serves
		warns   int
		isError bool
	}{
		"no room":                 {err: full, warns: 1},
		"all of a chain are full": {err: errors.Join(full, full), warns: 1},
		"both sentinels":          {err: fmt.Errorf("%w: %w", core.ErrUnavailable, core.ErrNoRoom), warns: 1},
		"another one is broken":   {err: errors.Join(full, broken), isError: true},
		"no worker serves":        {err: full, crashes: true, warns: 1, isError: true},
	} {
		t.Run(name, func(t *testing.T) {
			var starts atomic.Int64
			a := &coretest.Adapter{Before: func(_ context.Context, index int) error {
				if index > 0 || starts.Add(1) > 1 {
					return c.err
				}
				return nil
			}}
			var text bytes.Buffer // the logger has a lock
			log := hclog.New(&hclog.LoggerOptions{Output: &text, Level: hclog.Info})
			bubble(t, a, core.Options{Size: 4, Logger: log, StartBudget: 3}, func(t *testing.T, p *core.Pool) {
				time.Sleep(time.Minute)
				if c.crashes {
					a.Crash(0)
					time.Sleep(time.Minute)
				}
			})
			warns := strings.Count(text.String(), "there is no room for it")
			if isError := failed.MatchString(text.String()); warns != c.warns || isError != c.isError {
				t.Errorf("%d warnings:\n%s", warns, text.String())
			}
		})
	}
}

// A start that runs out of time ends with what the adapter says of it, if that has a remedy. Otherwise the pool
// explains it.
func TestLateStartIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		err  func(ctx context.Context) error
		want []string
	}{
		"by the adapter": {func(ctx context.Context) error {
			return &core.RemedyError{Err: fmt.Errorf("no room in time: %w", context.Cause(ctx)), Remedy: "make room"}
		}, []string{
			"no room in time: context deadline exceeded: not within the start timeout of 1s\n", "\nhint: make room",
		}},
		"by the pool": {context.Cause, []string{"has not said hello", "raise Options.StartTimeout"}},
		"without a cause": {func(ctx context.Context) error { return ctx.Err() }, []string{
			"has not said hello", "raise Options.StartTimeout",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
					<-ctx.Done()
					return c.err(ctx)
				}}
				_, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
					Size: 1, StartTimeout: time.Second, Logger: hclog.NewNullLogger(),
				})
				for _, want := range c.want {
					if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
						t.Errorf("%v; it lacks %q", err, want)
					}
				}
			})
		})
	}
}

// A worker that answers resets the failure count of its index.
func TestAnswerForgetsFailures(t *testing.T) {
	var starts atomic.Int64
	a := &coretest.Adapter{Before: func(_ context.Context, index int) error {
		if index == 1 && starts.Add(1) <= 3 {
			return errors.New("not yet")
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if n := p.Stats().Workers[1].Failures; n != 3 {
			t.Errorf("its failures are %d", n)
		}
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }()
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }() // the two calls take both workers
		time.Sleep(2 * time.Second)
		if w := p.Stats().Workers[1]; w.Failures != 0 || w.LastErr != nil {
			t.Errorf("after an answer its failures are %d, and the last is %v", w.Failures, w.LastErr)
		}
	})
}

// Calls fail with ErrCrashLoop when no worker is left and no index can start one. The error counts the failures.
func TestCrashLoopCounts(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	bubble(t, a, core.Options{Size: 2, CallTimeout: -1}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		a.Crash(1)
		time.Sleep(5 * time.Second) // one index fails again and again
		if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
			t.Errorf("with a worker there: %v", err)
		}
		a.Crash(0)
		synctest.Wait()
		if n := p.Stats().Workers[1].Failures; n < 5 {
			t.Errorf("its failures are %d", n)
		}
		_, err := core.Execute[int](t.Context(), p, "echo", 1)
		failed := 0
		for _, w := range p.Stats().Workers {
			failed += w.Failures
		}
		if !errors.Is(err, core.ErrCrashLoop) || !strings.Contains(err.Error(), "no luck") ||
			core.MayHaveRun(err) {
			t.Errorf("%v", err)
		}
		if failed < 6 {
			t.Errorf("%d failures in all", failed)
		}
		broken.Store(false)
		if err := p.WaitReady(t.Context(), 1); !errors.Is(err, core.ErrCrashLoop) {
			t.Errorf("WaitReady: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
			t.Errorf("once it starts again: %v", err)
		}
	})
}

// Callers wait while starts fail, until the fifth failure in a row.
func TestCrashLoopBeginsWithTheFifthFailure(t *testing.T) {
	var broken atomic.Bool
	a := breakable(&broken)
	bubble(t, a, core.Options{Size: 1, CallTimeout: -1}, func(t *testing.T, p *core.Pool) {
		if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		a.Crash(0)
		synctest.Wait()
		_, err := core.Execute[int](t.Context(), p, "echo", 1)
		if n := p.Stats().Workers[0].Failures; n != 5 || !errors.Is(err, core.ErrCrashLoop) {
			t.Errorf("after %d failures: %v", n, err)
		}
	})
}

// When Open runs out of time, its error says so. If a start failed, the error says how the last one did.
func TestOpenThatRunsOutOfTime(t *testing.T) {
	for failing, want := range map[int]bool{0: true, -1: false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
			defer cancel()
			a := &coretest.Adapter{Before: func(ctx context.Context, index int) error {
				if index == failing {
					return errors.New("no luck")
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}}
			_, err := core.Open(ctx, a, core.Command{}, &core.Options{Size: 2, Logger: hclog.NewNullLogger()})
			if err == nil || !strings.HasPrefix(err.Error(), "no worker was ready in time: enough") ||
				strings.Contains(err.Error(), "no luck") != want {
				t.Errorf("%v", err)
			}
		})
	}
}

// A call whose context has ended takes no slot.
func TestEndedContextTakesNoSlot(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the user left")
		cancel(cause)
		for _, target := range []core.Target{p, p.Session("s")} {
			_, err := core.Execute[int](ctx, target, "echo", 1)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || core.MayHaveRun(err) {
				t.Errorf("Execute: %v", err)
			}
			for _, err := range core.ExecuteStream[int](ctx, target, "count", 1) {
				if !errors.Is(err, context.Canceled) || core.MayHaveRun(err) {
					t.Errorf("ExecuteStream: %v", err)
				}
			}
		}
		if s := p.Stats(); s.Calls != 0 || s.Cancelled != 0 || s.Sessions != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A nil slice arrives as an empty list, not as a missing argument.
func TestNilSliceIsAnEmptyList(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for _, none := range []any{[]float64(nil), []any(nil), []string{}} {
			if got, err := core.Execute[any](t.Context(), p, "echo", none); err != nil ||
				!reflect.DeepEqual(got, []any{}) {
				t.Errorf("%T arrives as %#v; %v", none, got, err)
			}
		}
		if got, err := core.Execute[any](t.Context(), p, "echo", []byte(nil)); err != nil ||
			!reflect.DeepEqual(got, []byte{}) {
			t.Errorf("no bytes arrive as %#v; %v", got, err)
		}
	})
}
