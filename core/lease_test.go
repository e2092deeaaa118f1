package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// holder is a back end's side of a lease, written as a script.
type holder struct {
	events chan any // core.LeaseEvent, error, or a string that Next panics with
	closed chan struct{}
	once   sync.Once
	obeys  func(h *holder, kill bool) // what a signal does; nil: nothing

	mu      sync.Mutex // guards signals
	signals []bool
}

func newHolder(events ...any) *holder {
	h := &holder{events: make(chan any, 20), closed: make(chan struct{})}
	for _, e := range events {
		h.events <- e
	}
	return h
}

func (h *holder) Next() (core.LeaseEvent, error) {
	select {
	case e := <-h.events:
		switch e := e.(type) {
		case error:
			return core.LeaseEvent{}, e
		case string:
			panic(e)
		}
		return e.(core.LeaseEvent), nil
	case <-h.closed:
		return core.LeaseEvent{}, errors.New("the lease was closed")
	}
}

func (h *holder) Signal(kill bool) {
	h.mu.Lock()
	h.signals = append(h.signals, kill)
	h.mu.Unlock()
	if h.obeys != nil {
		h.obeys(h, kill)
	}
}

func (h *holder) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *holder) isClosed() bool {
	select {
	case <-h.closed:
		return true
	default:
		return false
	}
}

// exit is the event of an exit.
func exit(code int, signal string, oom bool) core.LeaseEvent {
	return core.LeaseEvent{Exit: &core.LeaseExit{Code: code, Signal: signal, OOM: oom}}
}

func report(text string) core.LeaseEvent { return core.LeaseEvent{Report: []byte(text)} }

// leasing is coretest's adapter with a lease for each worker. A worker whose connection ends exits by itself.
type leasing struct {
	*coretest.Adapter
	lease func(l *core.Launcher) *holder

	mu      sync.Mutex // guards holders
	holders []*holder
}

func (a *leasing) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	h := a.lease(l)
	a.mu.Lock()
	a.holders = append(a.holders, h)
	a.mu.Unlock()
	process, err := l.Adopt(ctx, core.Lease{Name: "the worker at gpu-1", Host: "gpu-1", PID: 4711, Holder: h})
	if err != nil {
		return nil, err
	}
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	link.Conn = &leasedConn{link.Conn, h}
	link.Process = process
	return link, nil
}

// all returns the leases that were made.
func (a *leasing) all() []*holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.holders)
}

// leasedConn is a connection whose end ends the worker.
type leasedConn struct {
	core.Conn
	holder *holder
}

func (c *leasedConn) CloseWrite() error {
	c.holder.events <- exit(0, "", false)
	return c.Conn.CloseWrite()
}

var hang = core.Func(func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() })

// exits returns how the workers were lost.
func (l *eventLog) exits() []*core.WorkerExit {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*core.WorkerExit
	for _, e := range l.events {
		var how *core.WorkerExit
		if changed, ok := e.(core.StateChanged); ok && errors.As(changed.Err, &how) {
			all = append(all, how)
		}
	}
	return all
}

func answers(t *testing.T, p *core.Pool) {
	t.Helper()
	if got, err := core.Execute[string](t.Context(), p, "echo", "hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A leased worker lives like a local one: its output is logged, and its exit is known.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var events eventLog
		a := &leasing{
			Adapter: &coretest.Adapter{Functions: map[string]core.Function{
				"echo": core.Func(func(_ context.Context, v string) (string, error) { return v, nil }),
			}},
			lease: func(*core.Launcher) *holder {
				return newHolder(
					core.LeaseEvent{Output: []byte("load")}, core.LeaseEvent{Output: []byte("ing\nalmost ")},
					report("{}\n"), core.LeaseEvent{}, core.LeaseEvent{Output: []byte("done\n")})
			},
		}
		p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
			Size: 1, Logger: hclog.New(&hclog.LoggerOptions{Output: &log}), OnEvent: events.put,
		})
		if err != nil {
			t.Fatal(err)
		}
		answers(t, p)
		if info := p.Workers()[0].Info(); info.Host != "gpu-1" {
			t.Errorf("%+v", info)
		}
		first := a.all()[0]
		first.events <- exit(-1, "killed", true)
		a.Crash(0)
		time.Sleep(time.Minute)
		answers(t, p)
		exits := events.exits()
		if len(exits) != 1 {
			t.Fatal(exits)
		}
		if how := exits[0]; how.PID != 4711 || how.Host != "gpu-1" || how.ExitCode != -1 || how.Signal != "killed" ||
			!how.OOM || !strings.Contains(how.Error(), "(pid 4711 on gpu-1) was killed because memory ran out") ||
			!slices.Equal(how.Stderr, []string{"loading", "almost done"}) || !first.isClosed() {
			t.Errorf("%+v", how)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if len(a.all()) != 2 || !a.all()[1].isClosed() {
			t.Errorf("%d leases", len(a.all()))
		}
		if text := log.String(); strings.Count(text, "loading") < 2 || strings.Count(text, "almost done") < 2 {
			t.Error(text)
		}
	})
}

// If the lease is lost, how the worker ended is unknown. What the adapter says about it is in the error.
func TestLeaseLost(t *testing.T) {
	for what, e := range map[string]any{"error": errors.New("the node is gone"), "panic": "the node is gone"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &leasing{
					Adapter: &coretest.Adapter{Functions: map[string]core.Function{"hang": hang}},
					lease:   func(*core.Launcher) *holder { return newHolder(report("{}")) },
				}
				p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1})
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Second, func() { a.all()[0].events <- e })
				_, err = core.Execute[any](t.Context(), p, "hang", nil)
				var how *core.WorkerExit
				if !errors.As(err, &how) || how.Lost == nil || !errors.Is(err, core.ErrWorkerLost) ||
					how.ExitCode != -1 || !strings.Contains(err.Error(), "was lost with its back end after 1.") ||
					!strings.Contains(err.Error(), "the node is gone") {
					t.Errorf("%+v", err)
				}
				if e, ok := e.(error); ok && !errors.Is(err, e) {
					t.Error("the error does not wrap the adapter's")
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A worker that does not end gets its signals through the lease. If the back end does not do that, its lease ends.
func TestLeaseSignals(t *testing.T) {
	for name, test := range map[string]struct {
		obeys func(h *holder, kill bool)
		want  []bool
		text  string
	}{
		"asked": {
			func(h *holder, _ bool) { h.events <- exit(-1, "terminated", false) }, []bool{false}, `signal "terminated"`,
		},
		"killed": {func(h *holder, kill bool) {
			if kill {
				h.events <- exit(-1, "killed", false)
			}
		}, []bool{false, true}, `signal "killed"`},
		"silent": {nil, []bool{false, true}, "was lost with its back end after"},
		"panics": {func(*holder, bool) { panic("no") }, []bool{false, true}, "was lost with its back end"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done := make(chan struct{})
				a := &leasing{
					Adapter: &coretest.Adapter{Functions: map[string]core.Function{
						"hang": core.Func(func(context.Context, any) (any, error) { <-done; return nil, nil }),
					}},
					lease: func(*core.Launcher) *holder {
						h := newHolder(report("{}"))
						h.obeys = test.obeys
						return h
					},
				}
				var events eventLog
				p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, OnEvent: events.put})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _ = core.Execute[any](ctx, p, "hang", nil) // it ends with ctx
				cancel()
				time.Sleep(time.Minute)
				h := a.all()[0]
				exits := events.exits()
				if !slices.Equal(h.signals, test.want) || !h.isClosed() || len(exits) != 1 ||
					!strings.Contains(exits[0].Error(), test.text) {
					t.Errorf("%v %v", h.signals, exits)
				}
				close(done)
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What a leased worker reports is judged as the report of a local one. A start that fails ends the lease.
func TestLeaseReports(t *testing.T) {
	for name, test := range map[string]struct {
		events []any
		is     error
		text   string
	}{
		"failed": {
			[]any{report(`{"failed": {"type": "ImportError", "message": "no torch"}, "remedy": "install it"}` + "\n")},
			nil, "ImportError: no torch",
		},
		"unavailable": {
			[]any{report(`{"unavailable": "no grpcio"}`), exit(1, "", false)}, core.ErrUnavailable, "no grpcio",
		},
		"tried": {
			[]any{report(" "), exit(-1, "segmentation fault", false)}, core.ErrUnavailable, "tried the protocol",
		},
		"none":       {[]any{report(""), exit(7, "", false)}, nil, "exited with code 7"},
		"only ended": {[]any{exit(7, "", false)}, nil, "exited with code 7"},
		"no JSON":    {[]any{report("hello\n")}, nil, "not a JSON object"},
		"too long":   {[]any{report(strings.Repeat("x", 1<<17))}, nil, "longer than"},
		"lost":       {[]any{io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF, "its back end is gone"},
		"late":       {nil, context.DeadlineExceeded, "start timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &leasing{Adapter: &coretest.Adapter{}, lease: func(*core.Launcher) *holder {
					h := newHolder(append([]any{core.LeaseEvent{Output: []byte("a last word")}}, test.events...)...)
					h.obeys = func(h *holder, _ bool) { h.events <- exit(-1, "killed", false) }
					return h
				}}
				options := &core.Options{Size: 1, Logger: hclog.NewNullLogger()}
				_, err := core.Open(t.Context(), a, core.Command{}, options)
				if err == nil || test.is != nil && !errors.Is(err, test.is) ||
					!strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), "a last word") {
					t.Errorf("%v", err)
				}
				for _, h := range a.all() {
					if !h.isClosed() {
						t.Error("a lease is left")
					}
				}
			})
		})
	}
}

// A worker whose back end is about to end, or that has told too much memory, is replaced without a gap.
func TestLeaseIsReplaced(t *testing.T) {
	for cause, e := range map[core.Cause]core.LeaseEvent{
		core.CauseBackEnd: {Ending: "the machine\nis drained"},
		core.CauseMemory:  {Memory: 200 << 20},
	} {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &leasing{
					Adapter: &coretest.Adapter{Functions: map[string]core.Function{
						"echo": core.Func(func(_ context.Context, v string) (string, error) { return v, nil }),
					}},
					lease: func(l *core.Launcher) *holder {
						if !l.WatchMemory {
							t.Error("the adapter is not told to watch the memory")
						}
						return newHolder(report("{}"), core.LeaseEvent{Memory: 99 << 20})
					},
				}
				var events eventLog
				p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
					Size: 1, Recycle: core.Recycle{Memory: 100 << 20}, OnEvent: events.put,
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if s := p.Stats(); s.Replaced != 0 {
					t.Errorf("%+v", s)
				}
				a.all()[0].events <- e
				a.all()[0].events <- e
				for range 100 {
					answers(t, p)
					time.Sleep(100 * time.Millisecond)
				}
				if s := p.Stats(); s.Replaced != 1 || s.Lost != 0 || len(a.all()) != 2 || !a.all()[0].isClosed() {
					t.Errorf("%+v", s)
				}
				planned := events.lines("ReplacementPlanned")
				if len(planned) != 1 || cause == core.CauseBackEnd && !strings.Contains(planned[0], `the machine`) {
					t.Errorf("%q", planned)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Limits bind processes of this machine. A lease that cannot have them is closed.
func TestLeaseHasNoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolder(report("{}"))
		a := &leasing{Adapter: &coretest.Adapter{}, lease: func(*core.Launcher) *holder { return h }}
		_, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
			Size: 1, Limits: core.Limits{Nice: 1}, StartBudget: 1, Logger: hclog.NewNullLogger(),
		})
		if err == nil || !strings.Contains(err.Error(), "bound only workers on this machine") || !h.isClosed() {
			t.Errorf("%v", err)
		}
	})
}

// keeping is an adapter that keeps something for each pool.
type keeping struct {
	*coretest.Adapter
	log   *[]string
	fails bool
	makes func() core.OwnedAdapter // nil: itself
}

func (k keeping) ForPool(info core.PoolInfo) core.OwnedAdapter {
	*k.log = append(*k.log, fmt.Sprintf("for %.4s, %s", info.RunID, info.Command.Path))
	info.Log(hclog.Info, "kept", "answer", 42)
	if k.makes != nil {
		return k.makes()
	}
	return k
}

func (k keeping) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := k.Adapter.Start(ctx, l)
	if err == nil {
		*k.log = append(*k.log, fmt.Sprintf("start %.4s %q", l.RunID, l.Env))
		link.Conn = closeLogger{link.Conn, k.log}
	}
	return link, err
}

func (k keeping) Close(ctx context.Context) error {
	if _, limited := ctx.Deadline(); !limited {
		*k.log = append(*k.log, "no limit")
	}
	*k.log = append(*k.log, "released")
	if k.fails {
		return errors.New("a job is left")
	}
	return nil
}

type closeLogger struct {
	core.Conn
	log *[]string
}

func (c closeLogger) Close() error {
	if last := *c.log; last[len(last)-1] != "closed" { // it may be called again
		*c.log = append(*c.log, "closed")
	}
	return c.Conn.Close()
}

// A pool has an adapter of its own, from before its first worker to after its last.
func TestForPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		var text bytes.Buffer
		a := keeping{Adapter: &coretest.Adapter{}, log: &log}
		cmd := core.Command{Path: "worker", Env: []string{"A=1"}}
		options := &core.Options{
			Name: "pets", Size: 1, Logger: hclog.New(&hclog.LoggerOptions{Output: &text}),
			WorkerEnv: func(int) []string { return []string{"A=2"} },
		}
		want := []string{"for pets, worker", `start pets ["A=1" "A=2"]`, "closed", "released"}
		p, err := core.Open(t.Context(), a, cmd, options)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil || !slices.Equal(log, want) {
			t.Errorf("%v, %q", err, log)
		}
		if !strings.Contains(text.String(), "pets: kept: answer=42") {
			t.Error(text.String())
		}

		log, a.fails = nil, true
		options.WorkerEnv = nil
		want[1] = `start pets ["A=1"]`
		if p, err = core.Open(t.Context(), a, cmd, options); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err == nil || !strings.Contains(err.Error(), "a job is left") || !slices.Equal(log, want) {
			t.Errorf("%v, %q", err, log)
		}

		log = nil
		w, err := core.StartRaw(t.Context(), a, cmd, options)
		if err != nil {
			t.Fatal(err)
		}
		if w.Close(); !slices.Equal(log, want) {
			t.Errorf("%q", log)
		}
	})
}

// releasing tells when the pool has released it.
type releasing struct {
	*coretest.Adapter
	released chan struct{}
}

func (r releasing) ForPool(core.PoolInfo) core.OwnedAdapter { return r }

func (r releasing) Close(context.Context) error {
	close(r.released)
	return errors.New("a job is left")
}

// What an adapter keeps for a pool is released although code of the program hangs.
func TestForPoolWithCodeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		a := releasing{&coretest.Adapter{Functions: functions()}, make(chan struct{})}
		p, err := core.Open(t.Context(), a, core.Command{Path: "worker"}, &core.Options{
			Size: 1, Logger: hclog.NewNullLogger(), Functions: map[string]core.Function{
				"host": core.Func(func(context.Context, any) (any, error) { <-free; return nil, nil }),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = core.Execute[any](t.Context(), p, "callback", nil) }()
		synctest.Wait()
		begin := time.Now()
		err = p.Close()
		for _, text := range []string{"an input of a call or the adapter has not returned", "a job is left"} {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v lacks %q", err, text)
			}
		}
		if took := time.Since(begin); took != 8*time.Second { // StopTimeout and three seconds
			t.Errorf("Close took %s", took)
		}
		select {
		case <-a.released:
		default:
			t.Error("the adapter was not released")
		}
		close(free)
	})
}

// ForPool is the adapter's code: whatever it does is an error of Open.
func TestBadForPool(t *testing.T) {
	for text, makes := range map[string]func() core.OwnedAdapter{
		"ForPool returned nil":   func() core.OwnedAdapter { return nil },
		"ForPool panicked: oops": func() core.OwnedAdapter { panic("oops") },
	} {
		synctest.Test(t, func(t *testing.T) {
			a := keeping{Adapter: &coretest.Adapter{}, log: new([]string), makes: makes}
			options := &core.Options{Logger: hclog.NewNullLogger()}
			if _, err := core.Open(t.Context(), a, core.Command{}, options); err == nil ||
				!strings.Contains(err.Error(), text) {
				t.Errorf("%v", err)
			}
			if _, err := core.StartRaw(t.Context(), a, core.Command{}, options); err == nil ||
				!strings.Contains(err.Error(), text) {
				t.Errorf("%v", err)
			}
		})
	}
}
