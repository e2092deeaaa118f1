package fallback

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// adapter is an adapter that a test controls. Its fields may be set when no Start is running.
type adapter struct {
	name string
	err  error
	gate chan struct{} // if not nil, each Start takes something from it first
	link *core.Link

	started, inside atomic.Int32 // Starts so far, and running
	saw             atomic.Value // the launcher of the last one
}

type conn struct{ core.Conn }

func (a *adapter) Name() string { return a.name }

func (a *adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if l != nil {
		a.saw.Store(l)
	}
	a.started.Add(1)
	a.inside.Add(1)
	defer a.inside.Add(-1)
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w: %w", a.name, core.ErrUnavailable, context.Cause(ctx)) // a careless adapter
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.link != nil {
		return a.link, nil
	}
	return &core.Link{Conn: &conn{}}, nil
}

func (a *adapter) expect(t *testing.T, started, inside int32) {
	t.Helper()
	if a.started.Load() != started || a.inside.Load() != inside {
		t.Fatalf("%s has been started %d times, %d not yet done; want %d and %d",
			a.name, a.started.Load(), a.inside.Load(), started, inside)
	}
}

func lacking(what string) error {
	return fmt.Errorf("%w: no module named %q; pip install %s", core.ErrUnavailable, what, what)
}

// outcome is what a Start returned.
type outcome struct {
	link *core.Link
	err  error
}

// start starts n workers at once. It returns the channel of their outcomes.
func start(ctx context.Context, c core.Adapter, n int) chan outcome {
	done := make(chan outcome, n)
	for range n {
		go func() {
			link, err := c.Start(ctx, nil)
			done <- outcome{link, err}
		}()
	}
	return done
}

// expect takes the next outcome. It checks which adapter the link names, and which were refused.
func expect(t *testing.T, done chan outcome, name string, refused ...string) {
	t.Helper()
	o := <-done
	if o.err != nil {
		t.Fatalf("instead of %s: %v", name, o.err)
	}
	var names []string
	for _, r := range o.link.Refused {
		names = append(names, r.Adapter)
	}
	if o.link.Adapter != name || !slices.Equal(names, refused) {
		t.Fatalf("got %s, refused %v; want %s, refused %v", o.link.Adapter, names, name, refused)
	}
}

func TestStartTakesTheFirstAvailable(t *testing.T) {
	own := &core.Link{
		Conn: &conn{}, Adapter: "leaf", MaxFrame: 7, Refused: []core.Refusal{{Adapter: "inner", Err: lacking("inner")}},
	}
	a, b, c := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b", link: own}, &adapter{name: "c"}
	l := &core.Launcher{}
	link, err := New(a, b, c).Start(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if link != own || link.Adapter != "leaf" || b.saw.Load() != any(l) {
		t.Errorf("the adapter's own link became %+v", link)
	}
	if len(link.Refused) != 2 || link.Refused[0].Adapter != "a" || link.Refused[0].Err != a.err ||
		link.Refused[1].Adapter != "inner" {
		t.Errorf("refused were %v", link.Refused)
	}
	c.expect(t, 0, 0)
}

func TestNames(t *testing.T) {
	a, b, c := &adapter{name: "a"}, &adapter{name: "b"}, &adapter{name: "c"}
	if got := New(a, New(b, c)).Name(); got != "a,b,c" {
		t.Errorf("the chain is called %q", got)
	}
	for names, want := range map[string]string{"a": "a", " c , a ": "c,a", "a,b,c": "a,b,c"} {
		if got, err := Parse(names, a, b, c); err != nil || got.Name() != want {
			t.Errorf("%q became %v, %v", names, got, err)
		}
	}
	if got, err := Parse("b", a, b, c); err != nil || got != core.Adapter(b) {
		t.Errorf("a single name became %v, %v", got, err)
	}
	for names, want := range map[string]string{
		"": "empty", "a,": "empty", "a,,b": "empty", "a,b,a": `"a" is there twice`,
		"a,x": `no adapter "x"`, "A": `no adapter "A"`, "a b": `no adapter "a b"`,
	} {
		got, err := Parse(names, a, b, c)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a,b,c") {
			t.Errorf("%q became %v, %v", names, got, err)
		}
	}
}

// One Start finds out whether an adapter is available. Once an adapter is known to work, Starts run side by side.
func TestOneStartFindsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &adapter{name: "a", err: lacking("a"), gate: make(chan struct{})}
		b := &adapter{name: "b", gate: make(chan struct{})}
		c := New(a, b)
		done := start(t.Context(), c, 8)
		synctest.Wait()
		a.expect(t, 1, 1)
		b.expect(t, 0, 0)
		a.gate <- struct{}{}
		synctest.Wait()
		a.expect(t, 1, 0)
		b.expect(t, 1, 1)
		b.gate <- struct{}{}
		synctest.Wait()
		b.expect(t, 8, 7)
		close(b.gate)
		for range 8 {
			expect(t, done, "b", "a")
		}
		a.expect(t, 1, 0)
	})
}

func TestCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b"}
		c := New(a, b)
		c.CoolDown = time.Hour
		expect(t, start(t.Context(), c, 1), "b", "a")
		<-time.After(time.Hour - 1)
		expect(t, start(t.Context(), c, 1), "b", "a")
		a.expect(t, 1, 0)

		<-time.After(1)
		a.gate = make(chan struct{})
		done := start(t.Context(), c, 4) // one tries a, three go on with b
		synctest.Wait()
		a.expect(t, 2, 1)
		b.expect(t, 5, 0)
		for range 3 {
			expect(t, done, "b", "a")
		}
		close(a.gate) // still refused, for another hour
		expect(t, done, "b", "a")
		expect(t, start(t.Context(), c, 1), "b", "a")
		a.expect(t, 2, 0)

		<-time.After(time.Hour)
		a.err = nil
		expect(t, start(t.Context(), c, 1), "a")
		a.gate = make(chan struct{})
		done = start(t.Context(), c, 3)
		synctest.Wait()
		a.expect(t, 6, 3)
		close(a.gate)
		for range 3 {
			expect(t, done, "a")
		}

		a.err = lacking("a") // it was removed meanwhile
		expect(t, start(t.Context(), c, 1), "b", "a")
		expect(t, start(t.Context(), c, 1), "b", "a")
		a.expect(t, 7, 0)
	})
}

func TestCoolDownDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for coolDown, want := range map[time.Duration]time.Duration{0: time.Minute, -1: 0} {
			a, b := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b"}
			c := New(a, b)
			c.CoolDown = coolDown
			expect(t, start(t.Context(), c, 1), "b", "a")
			if want > 0 {
				<-time.After(want - 1)
				expect(t, start(t.Context(), c, 1), "b", "a")
				a.expect(t, 1, 0)
				<-time.After(1)
			}
			expect(t, start(t.Context(), c, 1), "b", "a")
			a.expect(t, 2, 0)
		}
	})
}

// If no other adapter is known to work, a Start waits for the one that tries again.
func TestNothingWorksButMight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b", err: lacking("b")}
		c := New(a, b)
		o := <-start(t.Context(), c, 1)
		if !errors.Is(o.err, core.ErrUnavailable) || !errors.Is(o.err, a.err) || !errors.Is(o.err, b.err) {
			t.Fatalf("the error wraps not all reasons: %v", o.err)
		}
		for _, want := range []string{"a was refused: " + a.err.Error(), "b was refused: " + b.err.Error()} {
			if !strings.Contains(o.err.Error(), want) {
				t.Errorf("the error does not say %q: %v", want, o.err)
			}
		}
		if o = <-start(t.Context(), c, 1); !errors.Is(o.err, core.ErrUnavailable) {
			t.Errorf("the second Start: %v", o.err)
		}
		a.expect(t, 1, 0)
		b.expect(t, 1, 0)
		<-time.After(time.Minute)
		a.err, a.gate = nil, make(chan struct{})
		done := start(t.Context(), c, 3)
		synctest.Wait()
		a.expect(t, 2, 1)
		b.expect(t, 1, 0)
		close(a.gate)
		for range 3 {
			expect(t, done, "a")
		}
	})
}

// A Start that ends with its caller's context says nothing about the adapter. A Start that waits ends with its own
// caller's context.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &adapter{name: "a", gate: make(chan struct{})}, &adapter{name: "b"}
		c := New(a, b)
		gone := errors.New("gone")
		first, leaveFirst := context.WithCancelCause(t.Context())
		prober := start(first, c, 1)
		synctest.Wait()
		second, leaveSecond := context.WithCancelCause(t.Context())
		waiter := start(second, c, 1)
		others := start(t.Context(), c, 2)
		synctest.Wait()
		a.expect(t, 1, 1)

		leaveSecond(gone)
		if o := <-waiter; !errors.Is(o.err, gone) || errors.Is(o.err, core.ErrUnavailable) ||
			!strings.Contains(o.err.Error(), "whether a is available") {
			t.Errorf("the waiter ended with %v", o.err)
		}
		leaveFirst(gone)
		if o := <-prober; !errors.Is(o.err, gone) {
			t.Errorf("the prober ended with %v", o.err)
		}
		synctest.Wait()
		a.expect(t, 2, 1) // one of the others is finding out now
		b.expect(t, 0, 0)
		close(a.gate)
		expect(t, others, "a")
		expect(t, others, "a")
	})
}

// A broken worker is broken on every adapter: the chain tries no other one and remembers nothing.
func TestOtherErrorsAreFinal(t *testing.T) {
	broken := errors.New("no such file: worker.py")
	a, b, c := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b", err: broken}, &adapter{name: "c"}
	chain := New(a, b, c)
	for range 2 {
		_, err := chain.Start(t.Context(), nil)
		var start *core.StartError
		if !errors.Is(err, broken) || errors.Is(err, core.ErrUnavailable) || !errors.As(err, &start) ||
			start.Adapter != "b" || !reflect.DeepEqual(start.Refused, []core.Refusal{{Adapter: "a", Err: a.err}}) {
			t.Errorf("got %v", err)
		}
	}
	var start *core.StartError
	_, err := New(&adapter{name: "z", err: lacking("z")}, chain).Start(t.Context(), nil)
	if !errors.As(err, &start) || start.Adapter != "b" || start.Err != broken || len(start.Refused) != 2 ||
		start.Refused[0].Adapter != "z" || start.Refused[1].Adapter != "a" {
		t.Errorf("a chain in a chain: %+v", start)
	}
	a.expect(t, 1, 0)
	b.expect(t, 3, 0)
	c.expect(t, 0, 0)
	b.err = nil
	if link, err := chain.Start(t.Context(), nil); err != nil || link.Adapter != "b" {
		t.Errorf("got %v, %v", link, err)
	}
	b.err = broken // says nothing about the adapter
	if _, err := chain.Start(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	c.expect(t, 0, 0)
}

func TestStrict(t *testing.T) {
	a, b := &adapter{name: "a", err: lacking("a")}, &adapter{name: "b"}
	c := New(a, b)
	c.Strict = true
	for range 2 {
		_, err := c.Start(t.Context(), nil)
		if !errors.Is(err, a.err) || !strings.Contains(err.Error(), "strict") ||
			!strings.Contains(err.Error(), "a was refused: "+a.err.Error()) {
			t.Errorf("got %v", err)
		}
	}
	a.expect(t, 1, 0)
	b.expect(t, 0, 0)
}

// After a panic of an adapter no other Start is left waiting.
func TestPanic(t *testing.T) {
	a := &adapter{name: "a"}
	c := New(panics{}, a)
	for range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = c.Start(t.Context(), nil)
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("a chain of nothing was made")
		}
	}()
	New()
}

type panics struct{}

func (panics) Name() string { return "panics" }

func (panics) Start(context.Context, *core.Launcher) (*core.Link, error) {
	panic("a mistake in an adapter")
}
