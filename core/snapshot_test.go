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

	"github.com/hashicorp/go-hclog"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// counters is an adapter whose workers count for sessions. Each worker has its own counters.
type counters struct {
	concurrency int
	plain       func(index, start int) bool // reports whether a worker has no snapshots; or nil
	codec       func(start int) core.Codec  // of a worker; nil means JSON
	snapshot    func(n int) (any, error)    // replaces the snapshot; or nil
	restore     func(n int) error           // is called before a restore; or nil

	log hclog.Logger // of the workers

	mu     sync.Mutex
	starts int
	first  *coretest.Conn
	ends   map[int]*coretest.Conn // by index: the newest worker's end
}

func (*counters) Name() string { return "counters" }

func (a *counters) Start(_ context.Context, l *core.Launcher) (*core.Link, error) {
	host, worker := coretest.Pipe()
	a.mu.Lock()
	if a.ends == nil {
		a.ends = map[int]*coretest.Conn{}
	}
	a.ends[l.Index] = worker
	start := a.starts
	if a.starts++; start == 0 {
		a.first = worker
	}
	a.mu.Unlock()
	codecs := []core.Codec{codec.Codec{}}
	if a.codec != nil {
		codecs[0] = a.codec(start)
	}
	var mu sync.Mutex
	count := map[string]int{}
	add := func(session string, n int) int {
		mu.Lock()
		defer mu.Unlock()
		if session == "" {
			return 0
		}
		count[session] += n
		return count[session]
	}
	functions := map[string]core.Function{
		"worker": {Run: func(context.Context, *core.Incoming) (any, error) { return start, nil }},
		"add": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			return add(c.Session, 1), nil
		}},
		"addAndFail": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			return nil, fmt.Errorf("failed at %d", add(c.Session, 1))
		}},
		"addAndPanic": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			panic(fmt.Sprint("panic at ", add(c.Session, 1)))
		}},
		"addAndWait": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			add(c.Session, 1)
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		"addLate": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			time.Sleep(time.Second)
			return add(c.Session, 1), nil
		}},
		"addForEach": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			for range 3 {
				if err := c.Send(ctx, add(c.Session, 1)); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}},
		"snakepit.forget": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			delete(count, c.Session)
			return nil, nil
		}},
	}
	o := core.ServeOptions{Concurrency: a.concurrency, Token: l.WorkerToken, Logger: a.log}
	if a.plain == nil || !a.plain(l.Index, start) {
		o.Snapshot = func(session string) (any, error) {
			n := add(session, 0)
			if a.snapshot != nil {
				return a.snapshot(n)
			}
			return map[string]any{"n": n}, nil
		}
		o.Restore = func(session string, decode func(v any) error) error {
			var v struct {
				N int `json:"n"`
			}
			if err := decode(&v); err != nil {
				return err
			}
			if a.restore != nil {
				if err := a.restore(v.N); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			count[session] = v.N
			return nil
		}
	}
	go func() {
		_ = core.Serve(context.Background(), worker, codecs, functions, &o)
		_ = worker.Close()
	}()
	return &core.Link{Conn: host, Codecs: codecs, Token: l.WorkerToken}, nil
}

// counting runs f in a bubble with a pool of counters.
func counting(t *testing.T, a *counters, o core.Options, f func(t *testing.T, p *core.Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, opened(t, a, o))
		time.Sleep(time.Minute) // on the bubble's clock: until functions of workers that have crashed return
	})
}

// crash ends the worker that has the session.
func (a *counters) crash(t *testing.T, p *core.Pool) {
	t.Helper()
	for _, w := range p.Stats().Workers {
		if w.Sessions > 0 && w.State != core.StateDead {
			a.mu.Lock()
			_ = a.ends[w.Index].Close()
			a.mu.Unlock()
			synctest.Wait()
			return
		}
	}
	t.Fatalf("no worker has a session: %+v", p.Stats())
}

// count makes a call that adds one, and checks the sum.
func count(t *testing.T, target core.Target, want int) {
	t.Helper()
	if got, err := core.Execute[int](t.Context(), target, "add", nil); err != nil || got != want {
		t.Errorf("the count is %d, %v, not %d", got, err, want)
	}
}

// A session survives its worker: whatever its calls were and however they ended, the next worker has the state.
func TestSessionSurvivesItsWorker(t *testing.T) {
	for _, size := range []int{1, 2} {
		a := &counters{}
		counting(t, a, core.Options{Size: size}, func(t *testing.T, p *core.Pool) {
			s := p.Session("s")
			other := p.Session("other")
			count(t, other, 1)
			for n := 1; n < 30; {
				switch n % 5 {
				case 0:
					_, err := core.Execute[any](t.Context(), s, "addAndFail", nil)
					if want := fmt.Sprintf("failed at %d", n); err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%v, not %s", err, want)
					}
					n++
				case 1:
					for v, err := range core.ExecuteStream[int](t.Context(), s, "addForEach", nil) {
						if err != nil || v != n {
							t.Errorf("%d, %v, not %d", v, err, n)
						}
						n++
					}
				case 2:
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					_, err := core.Execute[any](ctx, s, "addAndWait", nil)
					cancel()
					synctest.Wait()
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					n++
				case 3:
					if _, err := core.Execute[any](t.Context(), s, "addAndPanic", nil); err == nil {
						t.Error("no error")
					}
					n++
				case 4:
					count(t, s, n)
					n++
				}
				a.crash(t, p)
			}
			count(t, other, 2)
			if got := p.Stats().SnapshotBytes; got != int64(len(`{"n":30}`)+len(`{"n":2}`)) {
				t.Errorf("%d bytes of snapshots", got)
			}
			s.Close()
			other.Close()
			synctest.Wait()
			if got := p.Stats(); got.SnapshotBytes != 0 || got.Sessions != 0 {
				t.Errorf("%+v", got)
			}
			count(t, s, 1)
		})
	}
}

// A call that is lost with its worker counts once or not at all.
func TestSnapshotOfALostCall(t *testing.T) {
	a := &counters{}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		count(t, s, 1)
		done := make(chan error)
		go func() {
			_, err := core.Execute[any](t.Context(), s, "addAndWait", nil)
			done <- err
		}()
		synctest.Wait()
		waits := make(chan error)
		go func() {
			_, err := core.Execute[any](t.Context(), s, "add", nil) // it waits for the worker, and goes on without it
			waits <- err
		}()
		synctest.Wait()
		a.crash(t, p)
		if err := <-done; !errors.Is(err, core.ErrWorkerLost) || !core.MayHaveRun(err) {
			t.Error(err)
		}
		if err := <-waits; err != nil {
			t.Error(err)
		}
		count(t, s, 3)
	})
}

// While one call restores a session, the others wait. The state is restored once.
func TestRestoreIsDoneOnce(t *testing.T) {
	restores := 0
	a := &counters{concurrency: 4, restore: func(int) error { restores++; time.Sleep(time.Second); return nil }}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		count(t, s, 1)
		a.crash(t, p)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if n, err := core.Execute[int](t.Context(), s, "add", nil); err != nil || n < 2 {
					t.Error(n, err)
				}
			})
		}
		wg.Wait()
		count(t, s, 12)
		if restores != 1 {
			t.Errorf("%d restores", restores)
		}
	})
}

// If the state cannot be restored, the call did not run, and the next call tries again.
func TestRestoreFails(t *testing.T) {
	var fail error
	a := &counters{concurrency: 2, restore: func(int) error {
		if fail == context.DeadlineExceeded {
			time.Sleep(2 * time.Second)
			return nil
		}
		return fail
	}}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		count(t, s, 1)
		a.crash(t, p)
		fail = errors.New("no room")
		for range 3 {
			_, err := core.Execute[any](t.Context(), s, "add", nil)
			if err == nil || core.MayHaveRun(err) ||
				!strings.Contains(err.Error(), `restoring the state of session "s": `) ||
				!strings.Contains(err.Error(), "no room") || !errors.As(err, new(*core.RemoteError)) {
				t.Error(err)
			}
		}
		fail = context.DeadlineExceeded // a restore that takes longer than its caller waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := core.Execute[any](ctx, s, "add", nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || core.MayHaveRun(err) {
			t.Error(err)
		}
		if n := p.Stats().Running; n != 1 {
			t.Errorf("%d slots are taken", n)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second/2)
		_, err = core.Execute[any](ctx, s, "add", nil) // waits for the restore that goes on
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || core.MayHaveRun(err) {
			t.Error(err)
		}
		count(t, s, 2)
		if n := p.Stats().Running; n != 0 {
			t.Errorf("%d slots are taken", n)
		}
		a.crash(t, p)
		fail = context.DeadlineExceeded
		done := make(chan error)
		go func() {
			_, err := core.Execute[any](t.Context(), s, "add", nil)
			done <- err
		}()
		synctest.Wait()
		a.crash(t, p) // while it restores
		if err := <-done; !errors.Is(err, core.ErrWorkerLost) || core.MayHaveRun(err) {
			t.Error(err)
		}
		fail = nil
		count(t, s, 3)
	})
}

// If there is no snapshot, or it is too large, the session is lost with its worker. The log says why.
func TestNoSnapshot(t *testing.T) {
	for why, snapshot := range map[string]func(n int) (any, error){
		"nothing to show":         func(int) (any, error) { return nil, errors.New("nothing to show") },
		"can't be sent":           func(int) (any, error) { return map[string]any{"n": make(chan int)}, nil },
		"panicked: boom":          func(int) (any, error) { panic("boom") },
		"the state has":           func(int) (any, error) { return strings.Repeat("x", 5000), nil },
		"raise Options.MaxSnapsh": func(int) (any, error) { return strings.Repeat("x", 200), nil },
	} {
		log := newSpy(func(*spy, string) {})
		has := true
		a := &counters{log: log}
		a.snapshot = func(n int) (any, error) {
			if has {
				return map[string]any{"n": n}, nil
			}
			return snapshot(n)
		}
		counting(t, a, core.Options{Size: 1, MaxSnapshot: 100, MaxFrame: 4096, Logger: log},
			func(t *testing.T, p *core.Pool) {
				s := p.Session("s")
				count(t, s, 1)
				if p.Stats().SnapshotBytes == 0 {
					t.Error("no snapshot is kept")
				}
				has = false
				count(t, s, 2)
				count(t, s, 3)
				if n := p.Stats().SnapshotBytes; n != 0 {
					t.Errorf("%s: %d bytes are kept", why, n)
				}
				has = true
				count(t, s, 4)
				a.crash(t, p)
				count(t, s, 5)
				has = false
				count(t, s, 6)
				a.crash(t, p)
				if _, err := core.Execute[any](t.Context(), s, "add", nil); !errors.Is(err, core.ErrSessionLost) {
					t.Error(why, err)
				}
				if !slices.ContainsFunc(log.lines(), func(line string) bool { return strings.Contains(line, why) }) {
					t.Errorf("the log: %q", log.lines())
				}
			})
	}
}

// A pool that keeps no snapshots asks for none, and neither do sessions with Hint.
func TestSnapshotsAreNotAskedFor(t *testing.T) {
	taken := 0
	snapshot := func(n int) (any, error) { taken++; return map[string]any{"n": n}, nil }
	counting(t, &counters{snapshot: snapshot}, core.Options{MaxSnapshot: -1}, func(t *testing.T, p *core.Pool) {
		count(t, p.Session("s"), 1)
		count(t, p.Session("s"), 2)
	})
	counting(t, &counters{snapshot: snapshot}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		count(t, p.Session("s", core.Hint()), 1)
		count(t, p.Session("s", core.Hint()), 2)
		count(t, p, 0)
	})
	if taken != 0 {
		t.Errorf("%d snapshots were taken", taken)
	}
}

// Nothing of an ended session shows up again, whenever it ends.
func TestClosedSessionHasNoSnapshot(t *testing.T) {
	a := &counters{concurrency: 2, restore: func(int) error { time.Sleep(time.Second); return nil }}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		for _, when := range []string{"before a loss", "after a loss", "during a restore", "while it waits"} {
			count(t, s, 1)
			count(t, s, 2)
			done := make(chan error, 1)
			execute := func() { _, err := core.Execute[int](t.Context(), s, "add", nil); done <- err }
			switch when {
			case "before a loss":
				s.Close()
				synctest.Wait()
				count(t, s, 1)
				a.crash(t, p)
				count(t, s, 2)
				s.Close()
			case "after a loss":
				a.crash(t, p)
				s.Close()
			case "during a restore":
				a.crash(t, p)
				go execute()
				synctest.Wait()
				s.Close()
				if err := <-done; !errors.Is(err, core.ErrSessionLost) || core.MayHaveRun(err) {
					t.Error(err)
				}
			case "while it waits":
				a.crash(t, p)
				go execute()
				synctest.Wait()
				go func() { _, err := core.Execute[int](t.Context(), s, "add", nil); done <- err }()
				synctest.Wait()
				s.Close()
				for range 2 {
					if err := <-done; err != nil && !errors.Is(err, core.ErrSessionLost) {
						t.Error(err)
					}
				}
			}
			count(t, s, 1)
			if n := p.Stats().SnapshotBytes; n != int64(len(`{"n":1}`)) {
				t.Errorf("%s: %d bytes", when, n)
			}
			s.Close()
		}
		count(t, s, 1)
		call(t, s, "snakepit.forget", nil) // the program may forget a session itself
		a.crash(t, p)
		if _, err := core.Execute[any](t.Context(), s, "add", nil); !errors.Is(err, core.ErrSessionLost) {
			t.Error(err)
		}
	})
	counting(t, &counters{}, core.Options{SessionIdle: time.Minute}, func(t *testing.T, p *core.Pool) {
		count(t, p.Session("s"), 1)
		time.Sleep(2 * time.Minute)
		if got := p.Stats(); got.Sessions != 0 || got.SnapshotBytes != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A worker that is replaced need not wait for sessions that have a snapshot. They move, also with calls that wait.
func TestSessionsMove(t *testing.T) {
	for _, o := range []core.Options{{Size: 1}, {Size: 2}, {Size: 2, Surge: -1}, {Size: 1, Surge: -1}} {
		counting(t, &counters{}, o, func(t *testing.T, p *core.Pool) {
			var sessions []*core.Session
			for i := range 6 {
				sessions = append(sessions, p.Session(fmt.Sprint(i)))
				count(t, sessions[i], 1)
			}
			late, waits := make(chan error), make(chan error)
			go func() { _, err := core.Execute[any](t.Context(), sessions[0], "addLate", nil); late <- err }()
			synctest.Wait()
			go func() { _, err := core.Execute[any](t.Context(), sessions[0], "add", nil); waits <- err }()
			for n := 2; n < 5; n++ {
				if err := p.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				for i := range sessions[1:] {
					count(t, sessions[i+1], n)
				}
			}
			if err := errors.Join(<-late, <-waits); err != nil {
				t.Error(err)
			}
			count(t, sessions[0], 4)
			synctest.Wait()
			if n := len(p.Workers()); n != o.Size {
				t.Errorf("%d workers are left", n)
			}
			if s := p.Stats(); s.Lost != 0 || s.Sessions != 6 {
				t.Errorf("%+v", s)
			}
		})
	}
	counting(t, &counters{}, core.Options{Size: 2, Recycle: core.Recycle{Calls: 3}}, func(t *testing.T, p *core.Pool) {
		for n := range 50 {
			count(t, p.Session("s"), n+1)
			synctest.Wait() // until a replacement is ready
		}
		if err := p.Resize(1); err != nil {
			t.Fatal(err)
		}
		count(t, p.Session("s"), 51)
		synctest.Wait()
		if s := p.Stats(); s.Lost != 0 || s.Replaced < 15 || len(s.Workers) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// If the new program restores nothing, sessions stay with their old workers as long as those live.
func TestSessionsStayIfNothingRestoresThem(t *testing.T) {
	a := &counters{plain: func(_, start int) bool { return start > 0 }}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := p.Session("s")
		count(t, s, 1)
		if err := p.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		count(t, p.Session("new"), 1)
		count(t, s, 2)
		old := p.Workers()[0]
		if info := old.Info(); !slices.Contains(info.Features, "snapshots") || len(p.Workers()) != 2 {
			t.Fatalf("%+v", p.Stats())
		}
		a.mu.Lock()
		_ = a.first.Close()
		a.mu.Unlock()
		synctest.Wait()
		_, err := core.Execute[any](t.Context(), s, "add", nil)
		if !errors.Is(err, core.ErrSessionLost) || core.MayHaveRun(err) ||
			!strings.Contains(err.Error(), "on_snapshot") {
			t.Error(err)
		}
		s.Close()
		synctest.Wait()
		count(t, s, 1)
	})
}

// A state moves between workers with different codecs.
func TestSnapshotChangesItsCodec(t *testing.T) {
	a := &counters{codec: func(start int) core.Codec {
		if start%2 == 0 {
			return msgpack.Codec{}
		}
		return codec.Codec{}
	}}
	counting(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for n := 1; n < 6; n++ {
			count(t, p.Session("s"), n)
			a.crash(t, p)
		}
	})
}

// A worker that gives snapshots has to restore them.
func TestServeNeedsBothFunctions(t *testing.T) {
	host, worker := coretest.Pipe()
	defer func() { _ = host.Close() }()
	err := core.Serve(t.Context(), worker, []core.Codec{codec.Codec{}}, nil, &core.ServeOptions{
		Snapshot: func(string) (any, error) { return nil, nil },
	})
	if err == nil || !strings.Contains(err.Error(), "set both") {
		t.Error(err)
	}
}

// With a negative Surge a worker waits only for its sessions without a snapshot.
func TestReplacementWaitsForSessionsWithoutASnapshot(t *testing.T) {
	a := &counters{concurrency: 1, snapshot: func(n int) (any, error) {
		if n == 2 {
			return nil, errors.New("none")
		}
		return map[string]any{"n": n}, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, Surge: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}()
		keeps, not := p.Session("keeps"), p.Session("not")
		call(t, keeps, "add", nil)
		call(t, not, "add", nil)
		call(t, not, "add", nil)
		before := settled(t, p)[0]
		done := make(chan error, 1)
		go func() { done <- p.Reload(t.Context()) }()
		time.Sleep(time.Minute)
		if settled(t, p)[0] != before {
			t.Error("a session has lost its worker")
		}
		not.Close()
		if err := <-done; err != nil || p.Workers()[0] == before {
			t.Error(err)
		}
	})
}

// With a negative Surge, the call that reaches Recycle.Calls has its worker leave, and with it the sessions that only
// wait. The session of that very call stays.
func TestLastCallOfAWorkerWasQueued(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%t", busy), func(t *testing.T) {
			o := core.Options{Size: 2, Surge: -1, Recycle: core.Recycle{Calls: 4}}
			counting(t, &counters{concurrency: 1}, o, func(t *testing.T, p *core.Pool) {
				settled(t, p)
				a, b, c := p.Session("a"), p.Session("b"), p.Session("c")
				for _, s := range []*core.Session{a, b, c} {
					call(t, s, "add", nil)
				}
				var callers sync.WaitGroup
				late := func(s *core.Session, command string) {
					callers.Go(func() { call(t, s, command, nil) })
					synctest.Wait()
				}
				if busy { // then c cannot move at once
					late(b, "addLate")
					late(b, "addLate")
				}
				late(a, "addLate")
				late(c, "add") // waits for a, or moves
				callers.Wait()
				for want := 3; want < 6; want++ {
					if got, err := core.Execute[int](t.Context(), c, "add", nil); err != nil || got != want {
						t.Errorf("%d instead of %d, %v", got, want, err)
					}
				}
			})
		})
	}
}
