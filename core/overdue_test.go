package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// deaf is a worker's command that ignores cancellation and ends when end is closed.
func deaf(end chan struct{}) map[string]core.Function {
	f := functions()
	f["deaf"] = core.Function{Run: func(context.Context, *core.Incoming) (any, error) { <-end; return nil, nil }}
	return f
}

// giveUp makes a call. The call is overdue when giveUp returns.
func giveUp(t *testing.T, target core.Target, command string) {
	t.Helper()
	_, err := core.Execute[any](t.Context(), target, command, nil, core.Timeout(time.Second))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a call that does not end: %v", err)
	}
	time.Sleep(6 * time.Second) // CancelGrace is 5 s
}

// A worker with an overdue call accepts no new calls. Once that call has ended, the same worker accepts calls again.
func TestWorkerServesAgainAfterAnOverdueCall(t *testing.T) {
	end := make(chan struct{})
	a := &coretest.Adapter{Functions: deaf(end), Concurrency: 4}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		end = make(chan struct{})
		a.Functions["deaf"] = deaf(end)["deaf"]
		running := make(chan error, 1)
		go func() { // keeps the worker from being ended
			_, err := core.Execute[int](t.Context(), p, "nap", 20_000)
			running <- err
		}()
		synctest.Wait()
		giveUp(t, p, "deaf")
		if s := p.Stats(); s.Ready != 0 || s.Workers[0].State != "draining" {
			t.Errorf("with an overdue call: %+v", s)
		}
		close(end)
		synctest.Wait()
		if s := p.Stats(); s.Ready != 1 || s.Restarts != 0 || s.Terminated != 0 {
			t.Errorf("after it: %+v", s)
		}
		if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
			t.Errorf("the next call: %d, %v", got, err)
		}
		if err := <-running; err != nil {
			t.Errorf("the call beside it: %v", err)
		}
		if s := p.Stats(); s.Restarts != 0 {
			t.Errorf("the worker was replaced: %+v", s)
		}
	})
}

// A session on such a worker blocks no other caller. New calls run while the overdue call goes on beside free slots,
// and after it has ended.
func TestOverdueCallBesideASession(t *testing.T) {
	end := make(chan struct{})
	a := &coretest.Adapter{Functions: deaf(end), Concurrency: 2}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		end = make(chan struct{})
		a.Functions["deaf"] = deaf(end)["deaf"]
		chat := p.Session("chat")
		if _, err := core.Execute[int](t.Context(), chat, "echo", 1); err != nil {
			t.Fatal(err)
		}
		giveUp(t, p, "deaf")
		for _, target := range []core.Target{p, chat, p.Session("another")} {
			if got, err := core.Execute[int](t.Context(), target, "echo", 5); err != nil || got != 5 {
				t.Errorf("a call beside an overdue one: %d, %v", got, err)
			}
		}
		close(end)
		synctest.Wait()
		if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
			t.Errorf("a call after it: %d, %v", got, err)
		}
		if s := p.Stats(); s.Restarts != 0 || s.Ready != 1 || s.Sessions != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// If the session has ended too, a worker whose overdue call goes on is replaced.
func TestOverdueCallOutlivesTheSession(t *testing.T) {
	end := make(chan struct{})
	a := &coretest.Adapter{Functions: deaf(end), Concurrency: 2}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		end = make(chan struct{})
		a.Functions["deaf"] = deaf(end)["deaf"]
		chat := p.Session("chat")
		if _, err := core.Execute[int](t.Context(), chat, "echo", 1); err != nil {
			t.Fatal(err)
		}
		giveUp(t, p, "deaf")
		chat.Close()
		time.Sleep(time.Minute)
		if s := p.Stats(); s.Terminated != 1 || s.Restarts != 1 || s.Ready != 1 {
			t.Errorf("%+v", s)
		}
		close(end)
	})
}

// The report of a stuck worker names the stuck call, not one that was stuck and has ended.
func TestStuckCallIsNamed(t *testing.T) {
	log := newSpy(func(*spy, string) {})
	ends := map[string]chan struct{}{}
	worker := functions()
	for _, name := range []string{"first", "second", "third"} {
		worker[name] = core.Function{Run: func(context.Context, *core.Incoming) (any, error) {
			<-ends[name]
			return nil, nil
		}}
	}
	a := &coretest.Adapter{Functions: worker, Concurrency: 3}
	bubble(t, a, core.Options{Size: 1, Logger: log}, func(t *testing.T, p *core.Pool) {
		for name := range worker {
			ends[name] = make(chan struct{})
		}
		busy, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _, _ = core.Execute[any](busy, p, "wait", nil, core.Timeout(-1)) }() // keeps the worker alive
		synctest.Wait()
		giveUp(t, p, "first")
		close(ends["first"])
		synctest.Wait()
		go func() { _, _ = core.Execute[any](t.Context(), p, "third", nil, core.Timeout(2*time.Second)) }()
		giveUp(t, p, "second")
		stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		lines := log.lines()
		for _, c := range [][2]string{
			{"worker accepts no new calls", "first goes on"}, {"worker accepts no new calls", "second goes on"},
			{"worker is terminated", "second"}, {"worker lost", "because second went on"},
		} {
			named := func(line string) bool { return strings.HasPrefix(line, c[0]) && strings.Contains(line, c[1]) }
			if !slices.ContainsFunc(lines, named) {
				t.Errorf("the log does not say %q with %q: %q", c[0], c[1], lines)
			}
		}
		close(ends["second"])
		close(ends["third"])
	})
}
