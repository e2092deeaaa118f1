//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

func snapshots(t *testing.T, adapter core.Adapter, o snakepit.Options, env ...string) *Fixture {
	t.Helper()
	program := script(t, filepath.Join("internal", "e2e", "testdata", "snapshots.py"), env...)
	f, err := BeginWith(t, adapter, program, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func adapterOf(t *testing.T, adapter string) core.Adapter {
	t.Helper()
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// kill kills the process of the worker that serves, without waiting for the loss.
func (f *Fixture) kill() {
	f.Helper()
	for _, w := range f.Stats().Workers {
		if w.State == core.StateReady {
			if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				f.Error(err)
			}
		}
	}
}

// A session of Python survives a kill between any two of its calls, and in the middle of a call. An answered call
// counts once, and so does one that failed by itself. A call that was lost does not count here: it had no answer.
func TestSessionSurvivesKills(t *testing.T) {
	t.Parallel()
	for env, adapters := range map[string][]string{
		"TEST_CONCURRENCY=1": adapters,
		"TEST_CONCURRENCY=3": {"msgpack"}, // no adapter knows how its worker runs handlers
		"TEST_ASYNC=1":       {"msgpack"},
	} {
		t.Run(strings.ToLower(env), func(t *testing.T) {
			onEach(t, adapters, func(t *testing.T, adapter string) { survives(t, adapter, env) })
		})
	}
}

func survives(t *testing.T, adapter, env string) {
	var started func()
	f := snapshots(t, adapterOf(t, adapter), snakepit.Options{Functions: map[string]snakepit.Function{
		"host.more": core.Func(func(context.Context, any) (int, error) { return 1, nil }),
		"host.wait": core.Func(func(ctx context.Context, _ any) (any, error) {
			started()
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}}, env)
	s := f.Session("s")
	n := 0
	want := func(what string, got int, err error) {
		t.Helper()
		if n++; err != nil || got != n {
			t.Errorf("%s is %d, %v, not %d", what, got, err, n)
		}
	}
	lost := func(err error) {
		t.Helper()
		if !errors.Is(err, snakepit.ErrWorkerLost) || !snakepit.MayHaveRun(err) {
			t.Errorf("the error is %v", err)
		}
	}
	for _, step := range []func(){
		func() {
			got, err := snakepit.Execute[int](t.Context(), s, "add", nil)
			want("a call", got, err)
		},
		func() {
			for got, err := range snakepit.ExecuteStream[int](t.Context(), s, "add_each", Args{"n": 3}) {
				want("an item", got, err)
			}
		},
		func() {
			n++
			got, err := snakepit.Execute[int](t.Context(), s, "add_and_ask", nil)
			want("a call with a callback", got, err)
		},
		func() {
			_, err := snakepit.Execute[int](t.Context(), s, "add", Args{"fail": true})
			n++
			says(t, err, fmt.Sprintf("failed at %d", n))
		},
		func() {
			ctx, cancel := context.WithCancel(t.Context())
			started = cancel
			_, err := snakepit.Execute[any](ctx, s, "add_and_wait", nil)
			if n++; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			Eventually(t, "the cancelled call has ended", func() bool { return f.Stats().Running == 0 })
		},
		func() {
			_, err := snakepit.Execute[any](t.Context(), s, "add_and_die", Args{"when": "in the handler"})
			lost(err)
		},
		func() {
			_, err := snakepit.Execute[any](t.Context(), s, "add_and_die", Args{"when": "in the snapshot"})
			lost(err)
		},
		func() {
			started = f.kill
			_, err := snakepit.Execute[any](t.Context(), s, "add_and_wait", nil)
			lost(err)
		},
	} {
		step()
		f.lose()
		got, err := snakepit.Execute[int](t.Context(), s, "add", nil)
		want("the count after a kill", got, err)
	}
	if f.Stats().SnapshotBytes == 0 {
		t.Error("there is no snapshot")
	}
	s.Close()
	if got, err := snakepit.Execute[int](t.Context(), s, "add", nil); err != nil || got != 1 {
		t.Errorf("a new session has %d, %v", got, err)
	}
}

// Kills at any moment: an answered call always counts, and a lost one once or not at all.
func TestSessionSurvivesKillsAtAnyMoment(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		f := snapshots(t, adapterOf(t, adapter), snakepit.Options{Size: 2})
		s := f.Session("s")
		calls := make(chan struct{}, 1)
		var killer sync.WaitGroup
		killer.Go(func() {
			for range calls {
				for range rand.N(300) { // so that the moment differs
					f.Stats()
				}
				f.kill()
			}
		})
		answered, unknown, last := 0, 0, 0
		for i := 0; answered < 120; i++ {
			if i%12 == 5 {
				calls <- struct{}{}
			}
			got, err := snakepit.Execute[int](t.Context(), s, "add", nil)
			switch {
			case err == nil:
				if got <= last || got > last+1+unknown {
					t.Fatalf("after %d comes %d, and %d calls between were lost", last, got, unknown)
				}
				answered, last, unknown = answered+1, got, 0
			case snakepit.MayHaveRun(err) && errors.Is(err, snakepit.ErrWorkerLost):
				unknown++
			case !errors.Is(err, snakepit.ErrWorkerLost):
				t.Fatal(err)
			}
		}
		close(calls)
		killer.Wait()
	})
}

// Workers that are replaced do not wait for sessions that have a snapshot.
func TestSessionsMoveOnReload(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		f := snapshots(t, adapterOf(t, adapter), snakepit.Options{Size: 2})
		sessions := []*snakepit.Session{f.Session("a"), f.Session("b"), f.Session("c")}
		for n := range 3 {
			for _, s := range sessions {
				if got, err := snakepit.Execute[int](t.Context(), s, "add", nil); err != nil || got != n+1 {
					t.Errorf("the count is %d, %v, not %d", got, err, n+1)
				}
			}
			if err := f.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			Eventually(t, "the old workers have left", func() bool { return len(f.Workers()) == 2 })
		}
		sessions[0].Close()
		if got, err := snakepit.Execute[int](t.Context(), sessions[0], "add", nil); err != nil || got != 1 {
			t.Errorf("a new session has %d, %v", got, err)
		}
		if s := f.Stats(); s.Lost != 0 || s.Replaced != 6 {
			t.Errorf("%+v", s)
		}
	})
	f := snapshots(t, adapterOf(t, "msgpack"), snakepit.Options{Recycle: snakepit.Recycle{Calls: 2}})
	for n := range 20 {
		got, err := snakepit.Execute[int](t.Context(), f.Session("s"), "add", nil)
		if err != nil || got != n+1 {
			t.Errorf("the count is %d, %v, not %d", got, err, n+1)
		}
	}
}

// A snapshot that fails costs the session's survival, and not the call. A restore that fails is the call's error.
func TestHooksThatFail(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		refuse := filepath.Join(t.TempDir(), "refuse")
		f := snapshots(t, adapterOf(t, adapter), snakepit.Options{}, "TEST_REFUSE="+refuse)
		s := f.Session("s")
		add := func(want int) {
			t.Helper()
			if got, err := snakepit.Execute[int](t.Context(), s, "add", nil); err != nil || got != want {
				t.Errorf("the count is %d, %v, not %d", got, err, want)
			}
		}
		add(1)
		f.lose()
		File(t, refuse, "")
		for range 2 {
			_, err := snakepit.Execute[int](t.Context(), s, "add", nil)
			says(t, err, `restoring the state of session "s"`, "no room for the state")
			if remote := new(snakepit.RemoteError); !errors.As(err, &remote) || snakepit.MayHaveRun(err) {
				t.Errorf("%+v", err)
			}
		}
		if err := os.Remove(refuse); err != nil {
			t.Fatal(err)
		}
		add(2)
		if _, err := snakepit.Execute[any](t.Context(), s, "spoil", Args{"bad": true}); err != nil {
			t.Error(err)
		}
		add(3)
		f.lose()
		if _, err := snakepit.Execute[any](t.Context(), s, "add", nil); !errors.Is(err, snakepit.ErrSessionLost) {
			t.Error(err)
		}
		s.Close()
		add(1)
		log := f.Logged()
		for _, text := range []string{
			"the snapshot of a session failed", "ValueError: this state can't be kept", "in snapshot", "[ERROR]",
		} {
			if !strings.Contains(log, text) {
				t.Errorf("the log lacks %q", text)
			}
		}
	})
}

// lose kills the worker and waits for the loss.
func (f *Fixture) lose() {
	f.Helper()
	if err := f.WaitReady(f.Context(), 1); err != nil {
		f.Fatal(err)
	}
	before := f.Stats().Lost
	f.kill()
	Eventually(f.T, "the loss is known", func() bool { return f.Stats().Lost > before })
}

// turns starts its workers with each of its adapters in turn.
type turns struct {
	adapters []core.Adapter
	starts   atomic.Int64
}

func (a *turns) Name() string { return "turns" }

func (a *turns) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	return a.adapters[int(a.starts.Add(1)-1)%len(a.adapters)].Start(ctx, l)
}

// A state moves between workers with different codecs, and keeps its types.
func TestSnapshotChangesItsCodec(t *testing.T) {
	t.Parallel()
	f := snapshots(t, &turns{adapters: []core.Adapter{jsonstdio.Adapter{}, msgpack.Adapter{}}}, snakepit.Options{})
	s := f.Session("s")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	value := map[string]any{
		"int": int64(5), "float": 5.0, "large": uint64(1<<63 + 1), "bytes": []byte("\x00\xff"), "none": nil,
		"text": "ü", "time": at, "list": []any{int64(1), "two", []any{}}, "$bytes": map[string]any{"$bytes": "x"},
	}
	if _, err := snakepit.Execute[any](t.Context(), s, "keep", Args{"value": value}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		f.lose()
		got, err := snakepit.Execute[any](t.Context(), s, "keep", nil)
		if err != nil || !reflect.DeepEqual(got, any(value)) {
			t.Errorf("%#v, %v", got, err)
		}
	}
}

// A large snapshot travels in pieces. One above the limit costs the session's survival.
func TestLargeSnapshots(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		f := snapshots(t, adapterOf(t, adapter), snakepit.Options{MaxSnapshot: 12 << 20})
		s := f.Session("s")
		for _, size := range []int{8 << 20, 1 << 20} { // JSON makes a third more of it
			if n, err := snakepit.Execute[int](t.Context(), s, "keep", Args{"size": size}); err != nil || n != size {
				t.Fatal(n, err)
			}
			if n := f.Stats().SnapshotBytes; n < int64(size) {
				t.Errorf("%d bytes are kept", n)
			}
			f.lose()
			if n, err := snakepit.Execute[int](t.Context(), s, "keep", nil); err != nil || n != size {
				t.Error(n, err)
			}
		}
		if n, err := snakepit.Execute[int](t.Context(), s, "keep", Args{"size": 13 << 20}); err != nil || n != 13<<20 {
			t.Fatal(n, err)
		}
		f.lose()
		if _, err := snakepit.Execute[any](t.Context(), s, "keep", nil); !errors.Is(err, snakepit.ErrSessionLost) {
			t.Error(err)
		}
	})
}
