package core_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// An index whose worker cannot start is tried later and later, whatever the others answer meanwhile.
func TestBackoffIsOfOneIndex(t *testing.T) {
	var starts atomic.Int64
	broken := errors.New("no such model")
	a := &coretest.Adapter{Before: func(_ context.Context, index int) error {
		if index == 1 {
			starts.Add(1)
			return broken
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		for begin := time.Now(); time.Since(begin) < 8*time.Second; time.Sleep(5 * time.Millisecond) {
			if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
				t.Fatal(err)
			}
		}
		n := starts.Load()
		if n < 5 || n > 8 { // 0, 100 ms, 200 ms, ..., each a quarter more at most
			t.Errorf("it was started %d times in 8 s", n)
		}
		s := p.Stats()
		if w := s.Workers[1]; int64(w.Failures) != n || !errors.Is(w.LastErr, broken) {
			t.Errorf("its failures are %d, of %d, and the last is %v", w.Failures, n, w.LastErr)
		}
		if w := s.Workers[0]; w.Failures != 0 || w.LastErr != nil {
			t.Errorf("the other's failures are %d, and the last is %v", w.Failures, w.LastErr)
		}
		if s.StartFails != n {
			t.Errorf("StartFails is %d of %d", s.StartFails, n)
		}
	})
}

// A worker that answers has nothing behind it any more.
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
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }() // the two have both workers
		time.Sleep(2 * time.Second)
		if w := p.Stats().Workers[1]; w.Failures != 0 || w.LastErr != nil {
			t.Errorf("after an answer its failures are %d, and the last is %v", w.Failures, w.LastErr)
		}
	})
}

// ErrCrashLoop is told when no worker is left and none of the indexes starts; it counts their failures.
func TestCrashLoopCounts(t *testing.T) {
	var broken atomic.Bool
	a := &coretest.Adapter{Before: func(context.Context, int) error {
		if broken.Load() {
			return errors.New("no such model")
		}
		return nil
	}}
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
		if !errors.Is(err, core.ErrCrashLoop) || !strings.Contains(err.Error(), "no such model") || core.MayHaveRun(err) {
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

// An ended context takes no slot.
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

// A nil slice is an empty list, and not no argument.
func TestNilSliceIsAnEmptyList(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for _, none := range []any{[]float64(nil), []any(nil), []string{}} {
			if got, err := core.Execute[any](t.Context(), p, "echo", none); err != nil || !reflect.DeepEqual(got, []any{}) {
				t.Errorf("%T arrives as %#v; %v", none, got, err)
			}
		}
		if got, err := core.Execute[any](t.Context(), p, "echo", []byte(nil)); err != nil || !reflect.DeepEqual(got, []byte{}) {
			t.Errorf("no bytes arrive as %#v; %v", got, err)
		}
	})
}
