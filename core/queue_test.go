package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// order is a worker that notes the arguments of its calls, in order, and takes a millisecond for each.
type order struct {
	mu  sync.Mutex
	all []string
}

func (o *order) adapter() *coretest.Adapter {
	f := functions()
	f["note"] = core.Func(func(ctx context.Context, v string) (any, error) {
		o.mu.Lock()
		o.all = append(o.all, v)
		o.mu.Unlock()
		time.Sleep(time.Millisecond)
		return nil, nil
	})
	return &coretest.Adapter{Functions: f}
}

// queued begins a call and waits until it is in the queue, or runs.
func queued(ctx context.Context, calls *sync.WaitGroup, target core.Target, v string, opts ...core.CallOption) {
	calls.Go(func() { _, _ = core.Execute[any](ctx, target, "note", v, opts...) })
	synctest.Wait()
}

func TestTenantsTakeTurns(t *testing.T) {
	var o order
	bubble(t, o.adapter(), core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var calls sync.WaitGroup
		queued(t.Context(), &calls, p, "first")
		for _, tenant := range []string{"a a a a a", "b b", "", "c"} {
			ctx := t.Context()
			if name, _, _ := strings.Cut(tenant, " "); name != "" {
				ctx = core.WithTenant(ctx, name)
			}
			for i, name := range strings.Split(tenant, " ") {
				queued(ctx, &calls, p, fmt.Sprintf("%s%d", name, i))
			}
		}
		if s := p.Stats(); s.Waiting != 9 || s.Tenants["a"] != 5 || s.Tenants[""] != 1 || len(s.Tenants) != 4 {
			t.Errorf("%+v", s)
		}
		calls.Wait()
		want := []string{"first", "a0", "b0", "0", "c0", "a1", "b1", "a2", "a3", "a4"}
		if !slices.Equal(o.all, want) {
			t.Errorf("%q, not %q", o.all, want)
		}
		if s := p.Stats(); s.Tenants != nil || s.Waited != 9 || s.WaitTime != (1+9)*9/2*time.Millisecond {
			t.Errorf("%+v", s)
		}
	})
}

func TestPriority(t *testing.T) {
	var o order
	bubble(t, o.adapter(), core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var calls sync.WaitGroup
		queued(t.Context(), &calls, p, "first")
		chat := p.Session("chat")
		queued(t.Context(), &calls, p, "low", core.Priority(-1))
		queued(t.Context(), &calls, p, "usual")
		queued(t.Context(), &calls, chat, "usual in a session")
		queued(t.Context(), &calls, p, "high", core.Priority(7))
		queued(t.Context(), &calls, chat, "high in a session", core.Priority(7))
		queued(core.WithTenant(t.Context(), "other"), &calls, p, "usual of another tenant")
		calls.Wait()
		want := []string{"first", "high", "high in a session", "usual of another tenant", "usual", "usual in a session",
			"low"}
		if !slices.Equal(o.all, want) {
			t.Errorf("%q, not %q", o.all, want)
		}
	})
}

// A full queue refuses the caller that would be served last, even if it has been there for a while.
func TestTenantCannotKeepOutOthers(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, Queue: 4}, func(t *testing.T, p *core.Pool) {
		var calls sync.WaitGroup
		var mu sync.Mutex
		refused := map[string]string{}
		begin := func(tenant, name string, opts ...core.CallOption) {
			calls.Go(func() {
				_, err := core.Execute[int](core.WithTenant(t.Context(), tenant), p, "nap", 1000, opts...)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused[name] = err.Error()
				}
				if err != nil && (!errors.Is(err, core.ErrSaturated) || core.MayHaveRun(err)) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for i := range 6 {
			begin("a", fmt.Sprintf("a%d", i)) // the first one runs, four wait
		}
		time.Sleep(10 * time.Millisecond)
		begin("b", "b0")
		begin("b", "b1")
		begin("b", "b2")                      // a has two, b has two
		begin("c", "c0", core.Priority(1))    // before all others
		begin("a", "low", core.Priority(-10)) // nobody comes after it
		calls.Wait()
		want := map[string]string{
			"a5": "the queue is full", "a4": "gave way to a call of another tenant", "a3": "a call of another tenant",
			"b2": "the queue is full", "b1": "gave way to a call with a higher priority", "low": "the queue is full",
		}
		for name, text := range want {
			if !strings.Contains(refused[name], text) {
				t.Errorf("%s: %q, not %q", name, refused[name], text)
			}
		}
		if len(refused) != len(want) || p.Stats().Saturated != int64(len(want)) {
			t.Errorf("%q, %+v", refused, p.Stats())
		}
	})
}

func TestNoWait(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 2}, func(t *testing.T, p *core.Pool) {
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		chat := p.Session("chat")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = core.Execute[any](ctx, chat, "wait", nil) }()
		synctest.Wait()
		_, err := core.Execute[any](t.Context(), chat, "echo", 1, core.NoWait())
		if !errors.Is(err, core.ErrSaturated) || core.MayHaveRun(err) || !strings.Contains(err.Error(), "NoWait") {
			t.Error(err)
		}
		if _, err := core.Execute[any](t.Context(), p, "echo", 1, core.NoWait()); err != nil {
			t.Error("the other worker is free:", err)
		}
		cancel()
		synctest.Wait()
		if _, err := core.Execute[any](t.Context(), chat, "echo", 1, core.NoWait()); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Waited != 0 || s.Saturated != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// leaver is an argument whose encoding takes so long that its caller leaves.
type leaver struct{ leave func() }

func (l leaver) MarshalText() ([]byte, error) {
	l.leave()
	return []byte("late"), nil
}

// A call whose caller has left while it waited, or while its arguments were encoded, is not sent.
func TestCallOfACallerThatHasLeft(t *testing.T) {
	var o order
	bubble(t, o.adapter(), core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := core.Execute[any](ctx, p, "note", leaver{cancel})
		if !errors.Is(err, context.Canceled) || core.MayHaveRun(err) {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		var calls sync.WaitGroup
		queued(t.Context(), &calls, p, "first")
		queued(ctx, &calls, p, "leaves")
		cancel()
		calls.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond) // when the slot becomes free
		defer cancel()
		queued(t.Context(), &calls, p, "second")
		_, err = core.Execute[any](ctx, p, "note", "too late")
		if err == nil {
			t.Error("no error")
		}
		calls.Wait()
		synctest.Wait()
		if core.MayHaveRun(err) != slices.Contains(o.all, "too late") {
			t.Errorf("%q, and the error is %v", o.all, err)
		}
		if o.all = slices.DeleteFunc(o.all, func(v string) bool { return v == "too late" }); !slices.Equal(o.all,
			[]string{"first", "second"}) {
			t.Errorf("%q", o.all)
		}
	})
}

func TestTimeInTheQueueIsInTheError(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1500) }()
		synctest.Wait()
		result := make(chan error)
		go func() {
			_, err := core.Execute[any](t.Context(), p, "wait", nil, core.Timeout(2*time.Second))
			result <- err
		}()
		time.Sleep(time.Second)
		if s := p.Stats(); s.OldestWait != time.Second || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
		err := <-result
		var e *core.CallError
		if !errors.As(err, &e) || e.Waited != 1500*time.Millisecond || !e.MayHaveRun ||
			!strings.Contains(err.Error(), "with 1.5s in the queue") {
			t.Error(err)
		}
	})
}

// The calls of one session count, too.
func TestSessionCannotKeepOutOthers(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, Queue: 5}, func(t *testing.T, p *core.Pool) {
		chat := p.Session("chat")
		var calls sync.WaitGroup
		for range 9 { // one runs, five wait, three are refused
			calls.Go(func() { _, _ = core.Execute[any](core.WithTenant(t.Context(), "a"), chat, "nap", 100) })
		}
		synctest.Wait()
		if _, err := core.Execute[any](core.WithTenant(t.Context(), "b"), p, "echo", 1); err != nil {
			t.Error(err)
		}
		calls.Wait()
		if s := p.Stats(); s.Saturated != 4 || s.Calls != 6 {
			t.Errorf("%+v", s)
		}
	})
}
