//go:build linux

package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// hook is an Options.OnEvent that keeps the texts of some events.
type hook struct {
	mu     sync.Mutex
	events []core.Event
}

func (h *hook) put(e core.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// wedged returns the first event of a worker that does not answer.
func (h *hook) wedged() (core.WorkerWedged, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.events, func(e core.Event) bool { _, ok := e.(core.WorkerWedged); return ok })
	if i < 0 {
		return core.WorkerWedged{}, false
	}
	return h.events[i].(core.WorkerWedged), true
}

// A worker that does not answer is reported with its condition and its stacks. If the policy says so, it is replaced.
func TestWedged(t *testing.T) {
	for _, adapter := range []string{"jsonstdio", "msgpack", "grpc"} {
		for command, condition := range map[string]core.Condition{
			"computes_in_c": core.ConditionStuckComputing, "waits_in_c": core.ConditionStuckWaiting,
		} {
			t.Run(adapter+"/"+command, func(t *testing.T) {
				t.Parallel()
				var h hook
				f := stuckWith(t, adapter, snakepit.Options{
					Wedged: snakepit.WedgedReplace, WedgedAfter: time.Second, OnEvent: h.put, StopTimeout: time.Second,
				})
				_, err := snakepit.Execute[any](t.Context(), f.Pool, command, nil)
				var exit *snakepit.WorkerExit
				if !errors.As(err, &exit) || !strings.Contains(exit.Error(), "it has not answered for ") ||
					!strings.Contains(exit.Stacks, "in "+command) {
					t.Fatalf("%v; %+v", err, exit)
				}
				e, ok := h.wedged()
				if !ok || e.Diagnosis.Condition != condition || !strings.Contains(e.Stacks, "in "+command) ||
					e.Diagnosis.Running[0].Name != command {
					t.Errorf("%+v", e)
				}
				if got, err := snakepit.Execute[int](t.Context(), f.Pool, "echo", 7); err != nil || got != 7 {
					t.Error(got, err)
				}
				if log := f.Logged(); !strings.Contains(log, "worker does not answer") {
					t.Error(log)
				}
			})
		}
	}
}

// By default the pool only says so, and also when the worker answers again. One that computes is not wedged.
func TestWedgedIsLogged(t *testing.T) {
	var h hook
	f := stuckWith(t, "msgpack", snakepit.Options{WedgedAfter: 2 * time.Second, OnEvent: h.put})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = snakepit.Execute[any](ctx, f.Pool, "computes", nil)
	}()
	for range 3 {
		becomes(f, core.ConditionComputing)
	}
	cancel()
	<-done
	if e, ok := h.wedged(); ok {
		t.Errorf("a busy worker is %s", e)
	}
	pid := f.Workers()[0].Info().PID
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	Eventually(t, "the event", func() bool { _, ok := h.wedged(); return ok })
	if e, _ := h.wedged(); e.Diagnosis.Condition != core.ConditionStopped || e.Stacks != "" {
		t.Errorf("%+v", e)
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	Eventually(t, "it answers again", func() bool { return strings.Contains(f.Log.String(), "worker answers again") })
	if s := f.Stats(); s.Terminated != 0 || s.Lost != 0 || s.Ready != 1 {
		t.Errorf("%+v", s)
	}
}

// The stacks of a worker are in the log, and in the exit, before it is ended for a call that goes on.
func TestStacksOfAnOverdueCall(t *testing.T) {
	for _, adapter := range []string{"jsonstdio", "msgpack", "grpc"} {
		t.Run(adapter, func(t *testing.T) {
			t.Parallel()
			var h hook
			f := stuckWith(t, adapter, snakepit.Options{
				CancelGrace: 100 * time.Millisecond, StopTimeout: time.Second, OnEvent: h.put,
			})
			limit := snakepit.Timeout(300 * time.Millisecond)
			_, err := snakepit.Execute[any](t.Context(), f.Pool, "waits_in_c", nil, limit)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			Eventually(t, "it is ended", func() bool { return f.Stats().Lost == 1 })
			if got, err := snakepit.Execute[int](t.Context(), f.Pool, "echo", 7); err != nil || got != 7 {
				t.Error(got, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			found := false
			for _, e := range h.events {
				var exit *snakepit.WorkerExit
				if s, ok := e.(core.StateChanged); ok && errors.As(s.Err, &exit) {
					found = strings.Contains(exit.Stacks, "in waits_in_c") &&
						strings.Contains(exit.Error(), "waits_in_c went on 100ms after it was cancelled")
				}
			}
			if log := f.Log.String(); !found || !strings.Contains(log, "worker is terminated") ||
				!strings.Contains(log, "in waits_in_c") {
				t.Errorf("%t\n%s", found, log)
			}
		})
	}
}
