package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// Waiting callers are served in order of arrival: in the pool's queue, in the queue of a session whose worker is busy,
// and across both queues for one worker.
func TestOldestFirst(t *testing.T) {
	for who, session := range map[string]func(n int) bool{
		"the pool":         func(int) bool { return false },
		"a session":        func(int) bool { return true },
		"both in turns":    func(n int) bool { return n%2 == 0 },
		"both in groups":   func(n int) bool { return n%6 < 3 },
		"the session last": func(n int) bool { return n == 0 || n > 10 },
	} {
		var mu sync.Mutex
		var order []int
		a := &coretest.Adapter{Functions: map[string]core.Function{
			"note": core.Func(func(_ context.Context, n int) (any, error) {
				time.Sleep(time.Second) // on the bubble's clock
				mu.Lock()
				defer mu.Unlock()
				order = append(order, n)
				return nil, nil
			})}}
		bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
			var callers sync.WaitGroup
			for n := range 20 {
				var target core.Target = p
				if session(n) {
					target = p.Session("mine")
				}
				callers.Go(func() {
					if _, err := core.Execute[any](t.Context(), target, "note", n); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait() // this call waits or runs
			}
			callers.Wait()
		})
		if !slices.IsSorted(order) || len(order) != 20 {
			t.Errorf("%s: they run in the order %v", who, order)
		}
	}
}

// The time that a call waited in the queue is taken off its handler's time limit.
func TestWaitingIsTakenOffTheLimit(t *testing.T) {
	fs := functions()
	fs["left"] = core.Func(func(ctx context.Context, _ any) (float64, error) {
		deadline, _ := ctx.Deadline()
		return time.Until(deadline).Seconds(), nil
	})
	for _, session := range []string{"", "mine"} {
		bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
			var target core.Target = p
			if session != "" {
				target = p.Session(session)
			}
			busy := make(chan error, 1)
			go func() { _, err := core.Execute[int](t.Context(), target, "nap", 4000); busy <- err }()
			synctest.Wait()
			left, err := core.Execute[float64](t.Context(), target, "left", nil, core.Timeout(10*time.Second))
			if left <= 0 || left > 6 || err != nil {
				t.Errorf("with session %q %v of 10 s are left after 4 s in the queue (%v)", session, left, err)
			}
			if err := <-busy; err != nil {
				t.Error(err)
			}
		})
	}
}

// Every call of a connection carries its own caller's metadata, not only the first.
func TestMetadataOfEveryCall(t *testing.T) {
	fs := functions()
	fs["meta"] = core.Function{Run: func(_ context.Context, c *core.Incoming) (any, error) { return c.Metadata, nil }}
	bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for n := range 5 {
			want := map[string]string{"n": fmt.Sprint(n), "same": "for all"}
			if n == 3 {
				want = nil
			}
			ctx := t.Context()
			if want != nil {
				ctx = core.WithMetadata(ctx, want)
			}
			got, err := core.Execute[map[string]string](ctx, p, "meta", nil)
			if err != nil || len(got) != len(want) || got["n"] != want["n"] || got["same"] != want["same"] {
				t.Errorf("call %d has the metadata %v, not %v; %v", n, got, want, err)
			}
		}
	})
}

// A receiver grants consumed items and consumed bytes as credit, whichever runs out first. If it granted too little of
// either, the sender would stop for good.
func TestCreditOfItemsAndOfBytes(t *testing.T) {
	value := func(n, size int) iter.Seq[string] {
		return func(yield func(string) bool) {
			for range n {
				if !yield(strings.Repeat("x", size)) {
					return
				}
			}
		}
	}
	fs := functions()
	fs["lengths"] = core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		sum := 0
		for v, err := range c.Input(ctx) {
			if err != nil {
				return nil, err
			}
			sum += len(v.(string))
		}
		return sum, nil
	}}
	fs["values"] = core.Function{Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		var in struct{ N, Size int }
		err := c.Decode(&in)
		for v := range value(in.N, in.Size) {
			if err == nil {
				err = c.Send(ctx, v)
			}
		}
		return nil, err
	}}
	fs["back"] = core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		sum := 0
		var in any
		err := c.Decode(&in)
		for v, failed := range c.Host().Stream(ctx, "host", in) {
			if failed != nil {
				return nil, failed
			}
			sum += len(v.(string))
		}
		return sum, err
	}}
	type amount struct{ N, Size int }
	host := map[string]core.Function{"host": core.StreamFunc(
		func(_ context.Context, in amount) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for v := range value(in.N, in.Size) {
					if !yield(v, nil) {
						return
					}
				}
			}
		})}
	for _, c := range []amount{{60, 64 << 10}, {5000, 1}, {300, 8 << 10}} {
		bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1, Functions: host},
			func(t *testing.T, p *core.Pool) {
				want := c.N * c.Size
				if got, err := core.Execute[int](t.Context(), p, "lengths", nil,
					core.Input(value(c.N, c.Size))); got != want || err != nil {
					t.Errorf("of %d inputs of %d bytes %d bytes come; %v", c.N, c.Size, got, err)
				}
				got := 0
				for v, err := range core.ExecuteStream[string](t.Context(), p, "values", c) {
					if err != nil {
						t.Error(err)
					}
					got += len(v)
				}
				if got != want {
					t.Errorf("of %d items of %d bytes %d bytes come", c.N, c.Size, got)
				}
				if got, err := core.Execute[int](t.Context(), p, "back", c); got != want || err != nil {
					t.Errorf("of %d items of the host's of %d bytes %d bytes come; %v", c.N, c.Size, got, err)
				}
			})
	}
}

// The whole chain of an error's causes arrives.
func TestWholeChainOfCauses(t *testing.T) {
	const depth = 8
	var chain *core.RemoteError
	for n := range depth {
		chain = &core.RemoteError{Type: fmt.Sprintf("Cause%d", n), Message: fmt.Sprint("number ", n), Cause: chain}
	}
	fs := functions()
	fs["chain"] = core.Func(func(context.Context, any) (any, error) { return nil, chain })
	fs["item"] = core.StreamFunc(func(context.Context, any) iter.Seq2[any, error] {
		return func(yield func(any, error) bool) { yield(nil, &core.ItemError{Err: chain}) }
	})
	whole := func(t *testing.T, err error) {
		t.Helper()
		var e *core.RemoteError
		if !errors.As(err, &e) {
			t.Fatalf("the error is %v", err)
		}
		for n := depth - 1; n >= 0; n-- {
			if e == nil || e.Type != fmt.Sprintf("Cause%d", n) || e.Message != fmt.Sprint("number ", n) {
				t.Fatalf("in the place of cause %d there is %+v", n, e)
			}
			e = e.Cause
		}
	}
	bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		_, err := core.Execute[any](t.Context(), p, "chain", nil)
		whole(t, err)
		for n := range depth {
			text := fmt.Sprintf("Cause%d: number %d", n, n)
			if !strings.Contains(err.(*core.CallError).Err.(*core.RemoteError).Traceback(), text) {
				t.Errorf("the traceback lacks %s", text)
			}
		}
		for _, err := range core.ExecuteStream[any](t.Context(), p, "item", nil) {
			whole(t, err)
		}
	})
}

// The host compares whole tokens.
func TestTokensAreComparedWhole(t *testing.T) {
	for name, c := range map[string]struct {
		show func(token string) string
		ok   bool
	}{
		"itself":           {func(token string) string { return token }, true},
		"none":             {func(string) string { return "" }, false},
		"another":          {func(token string) string { return strings.Repeat("x", len(token)) }, false},
		"its beginning":    {func(token string) string { return token[:len(token)-1] }, false},
		"its end":          {func(token string) string { return token[1:] }, false},
		"one and more":     {func(token string) string { return token + "x" }, false},
		"in other letters": {func(token string) string { return swapCase(token) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := served{functions: functions(), show: c.show}
			o := &core.Options{Size: 1, Logger: hclog.NewNullLogger()}
			p, err := core.Open(t.Context(), a, core.Command{}, o)
			if err == nil {
				_ = p.Close()
			}
			if (err == nil) != c.ok || err != nil && !errors.Is(err, core.ErrProtocol) {
				t.Errorf("a worker that shows %s: %v", name, err)
			}
		})
	}
}

func swapCase(s string) string {
	return string(bytes.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, []byte(s)))
}

// If a worker's function passes on an error of the host, the error keeps its type, even if the call did not start.
func TestHostErrorKeepsItsType(t *testing.T) {
	for _, flags := range []core.Flags{0, core.NotStarted} {
		synctest.Test(t, func(t *testing.T) {
			host, worker := coretest.Pipe()
			codecs := []core.Codec{codec.Codec{}}
			served := make(chan error, 1)
			go func() { served <- core.Serve(t.Context(), worker, codecs, functions(), nil) }()
			if _, err := host.Read(); err != nil {
				t.Fatal(err)
			}
			hello, _ := json.Marshal(map[string]any{
				"version": 1, "codec": "json", "max_frame": 1 << 20, "concurrency": 1, "calls": 9,
				"window": map[string]int{"items": 9, "bytes": 999},
			})
			err := host.Write([]core.Frame{{Kind: core.KindHello, Body: hello},
				{Kind: core.KindCall, ID: 1, Name: "callback", Flags: core.NoInput}})
			for answered := false; err == nil && !answered; {
				var frames []core.Frame
				frames, err = host.Read()
				for _, f := range frames {
					switch f.Kind {
					case core.KindCall:
						body, _ := codecs[0].Append(nil, &core.RemoteError{Type: "Sorry", Message: "no such luck"})
						err = host.Write([]core.Frame{{Kind: core.KindError, Flags: flags, ID: f.ID, Body: body}})
					case core.KindError:
						answered = true
						var e core.RemoteError
						if err := codecs[0].Decode(f.Body, &e); err != nil || e.Type != "Sorry" ||
							e.Message != "no such luck" || f.Flags != 0 {
							t.Errorf("with the flags %d it becomes %+v, flags %d; %v", flags, e, f.Flags, err)
						}
					}
				}
			}
			if err != nil {
				t.Error(err)
			}
			if err := errors.Join(host.CloseWrite(), <-served); err != nil {
				t.Error(err)
			}
		})
	}
}

// A host function has no host of its own. The methods return an error, and nothing is sent.
func TestHostOfTheHost(t *testing.T) {
	log := newSpy(func(*spy, string) {})
	host := core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		c.Host().Log("info", "a record", nil)
		for _, err := range c.Host().Stream(ctx, "host", nil) {
			if err == nil {
				return nil, errors.New("an item came")
			}
		}
		return nil, c.Host().Call(ctx, "host", nil, nil)
	}}
	o := core.Options{Size: 1, Logger: log, Functions: map[string]core.Function{"host": host}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		_, err := core.Execute[any](t.Context(), p, "callback", nil)
		if err == nil || !strings.Contains(err.Error(), "a function of the host calls workers through its pool") {
			t.Errorf("the call's error is %v", err)
		}
		synctest.Wait()
		if n := countPrefix(log.lines(), "a record"); n != 1 {
			t.Errorf("the record was logged %d times", n)
		}
		if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
			t.Errorf("the next call: %d, %v", got, err)
		}
	})
}

// A trace has neither the token in a hello nor the values of metadata.
func TestTraceShowsNoSecrets(t *testing.T) {
	for _, f := range []core.Frame{
		{Kind: core.KindHello, Body: []byte(`{"token": "secret"}`)},
		{Kind: core.KindCall, ID: 1, Name: "f", Meta: map[string]string{"authorization": "secret"}},
	} {
		if shown := f.String(); strings.Contains(shown, "secret") || !strings.Contains(shown, fmt.Sprint(f.ID)) {
			t.Errorf("shown as %s", shown)
		}
	}
}
