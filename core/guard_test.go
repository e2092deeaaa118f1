package core_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// trap is user code. Each of its methods runs its function.
type trap func()

func (f trap) MarshalText() ([]byte, error) { f(); return []byte("survived"), nil }
func (f trap) Error() string                { f(); return "survived" }

// asking is an error whose other methods are traps.
type asking struct{ trap }

func (asking) Error() string   { return "asked" }
func (e asking) Is(error) bool { e.trap(); return false }
func (e asking) Unwrap() error { e.trap(); return nil }

// textual is a panic value whose methods are traps when it is printed.
type textual struct{ trap }

func boom() { panic("boom") }

// outcome runs f on its own goroutine, as a server does, and returns how f ended.
func outcome(f func()) (how string) {
	done := make(chan string, 1)
	go func() {
		how := "ended its goroutine"
		defer func() {
			if p := recover(); p != nil {
				how = fmt.Sprint("panicked: ", p)
			}
			done <- how
		}()
		f()
		how = "returned"
	}()
	return <-done
}

// A panic in the arguments reaches the caller. The slot and the session are free again.
func TestPanicInArgumentsGivesTheSlotBack(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for name, target := range map[string]core.Target{"pool": p, "session": p.Session("s")} {
			for want, f := range map[string]trap{"panicked: boom": boom, "ended its goroutine": runtime.Goexit} {
				args := map[string]any{"x": f}
				if how := outcome(func() { _, _ = core.Execute[any](t.Context(), target, "echo", args) }); how != want {
					t.Errorf("%s: Execute %s", name, how)
				}
				how := outcome(func() {
					for range core.ExecuteStream[any](t.Context(), target, "count", args) {
						t.Error("an item")
					}
				})
				if how != want {
					t.Errorf("%s: ExecuteStream %s", name, how)
				}
				if s := p.Stats(); s.Running != 0 {
					t.Fatalf("%s: %d slots are taken", name, s.Running)
				}
				if got, err := core.Execute[int](t.Context(), target, "echo", 5); err != nil || got != 5 {
					t.Errorf("%s: the next call: %d, %v", name, got, err)
				}
			}
		}
	})
}

// A panic in the caller's own loop reaches the caller. The slot is free again.
func TestPanicInTheLoopGivesTheSlotBack(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for want, f := range map[string]trap{"panicked: boom": boom, "ended its goroutine": runtime.Goexit} {
			how := outcome(func() {
				for range core.ExecuteStream[any](t.Context(), p, "count", 1000) {
					f()
				}
			})
			if how != want {
				t.Errorf("the loop %s", how)
			}
			if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
				t.Errorf("the next call: %d, %v", got, err)
			}
		}
	})
}

// An input runs on a goroutine of the pool, where the caller cannot recover its panic. The panic fails the call.
func TestInputThatPanicsFailsItsCall(t *testing.T) {
	one := func(v any) iter.Seq[any] { return func(yield func(any) bool) { yield(v) } }
	for name, c := range map[string]struct {
		input iter.Seq[any]
		want  string
	}{
		"iterator panics": {func(yield func(any) bool) { yield(1); boom() }, "the input panicked: boom"},
		"iterator ends goroutine": {func(yield func(any) bool) { yield(1); runtime.Goexit() },
			"the input called runtime.Goexit"},
		"item panics":          {one(trap(boom)), "the input panicked: boom"},
		"item ends goroutine":  {one(trap(runtime.Goexit)), "the input called runtime.Goexit"},
		"panics with an error": {func(func(any) bool) { panic(trap(boom)) }, "the input panicked: "},
		"panics with nothing":  {func(func(any) bool) { panic(trap(runtime.Goexit)) }, "the input panicked: "},
		"ignores the end": {func(yield func(any) bool) {
			for yield(make(chan int)) {
			}
			yield(1)
		}, "chan int can't be sent"},
		"is nil": {nil, "the input panicked: "},
	} {
		t.Run(name, func(t *testing.T) {
			log := newSpy(func(*spy, string) {})
			bubble(t, &coretest.Adapter{}, core.Options{Size: 1, Logger: log}, func(t *testing.T, p *core.Pool) {
				_, err := core.Execute[int](t.Context(), p, "sum", nil, core.Input(c.input))
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the call's error is %v", err)
				}
				if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
					t.Errorf("the next call: %d, %v", got, err)
				}
				synctest.Wait()
				if c.want == "the input panicked: boom" && !slices.ContainsFunc(log.lines(), func(line string) bool {
					return strings.HasPrefix(line, c.want) && strings.Contains(line, "guard_test.go")
				}) {
					t.Errorf("the stack is not in the log: %v", log.lines())
				}
			})
		})
	}
}

// A host function, its result, its items and its error may do anything. The worker's call is answered once, and the
// host survives.
func TestFunctionsCannotHurtTheHost(t *testing.T) {
	var typedNil *core.CallError
	var remoteNil *core.RemoteError
	run := func(f func() (any, error)) core.Function {
		return core.Function{Run: func(context.Context, *core.Incoming) (any, error) { return f() }}
	}
	result := func(v any) core.Function { return run(func() (any, error) { return v, nil }) }
	failing := func(err error) core.Function { return run(func() (any, error) { return nil, err }) }
	item := func(v any, err error) core.Function {
		return core.StreamFunc(func(context.Context, any) iter.Seq2[any, error] {
			return func(yield func(any, error) bool) { yield(v, err) }
		})
	}
	for name, c := range map[string]struct {
		f    core.Function
		want string
	}{
		"panics":                     {run(func() (any, error) { panic("boom") }), "panic: boom"},
		"panics with an error":       {run(func() (any, error) { panic(errors.New("boom")) }), "panic: boom"},
		"panics with a broken error": {run(func() (any, error) { panic(trap(boom)) }), "panic: "},
		"panics with a goroutine's end": {
			run(func() (any, error) { panic(textual{runtime.Goexit}) }), "panic: a core_test.textual",
		},
		"panics with a broken field": {run(func() (any, error) { panic(struct{ Err error }{trap(runtime.Goexit)}) }),
			"panic: a struct"},
		"panics with an empty text": {run(func() (any, error) { panic("") }), `panic: ""`},
		"ends its goroutine": {run(func() (any, error) { runtime.Goexit(); return nil, nil }),
			"runtime.Goexit: the function called"},
		"result panics":              {result(trap(boom)), "panic: boom"},
		"result ends its goroutine":  {result(trap(runtime.Goexit)), "runtime.Goexit: "},
		"result cannot be sent":      {result(make(chan int)), "BadResult: "},
		"error is a nil pointer":     {failing(typedNil), "core.CallError: the error is a nil pointer of type"},
		"error is a nil RemoteError": {failing(remoteNil), "core.RemoteError: the error is a nil pointer"},
		"Error panics":               {failing(trap(boom)), "panic: boom"},
		"Error ends its goroutine":   {failing(trap(runtime.Goexit)), "runtime.Goexit: "},
		"Is panics":                  {failing(asking{boom}), "panic: boom"},
		"Is ends its goroutine":      {failing(asking{runtime.Goexit}), "runtime.Goexit: "},
		"error is no text":           {failing(errors.New("bad \xff")), `error: bad \xff`},
		"error causes itself":        {failing(looped()), "T: it goes round"},
		"item panics":                {item(trap(boom), nil), "panic: boom"},
		"item's error panics":        {item(nil, &core.ItemError{Err: trap(boom)}), "panic: boom"},
		"item's error is nil":        {item(nil, &core.ItemError{}), "<nil>: the error is a nil pointer"},
		"is a nil function":          {core.Func[any, any](nil), "panic: "},
	} {
		t.Run(name, func(t *testing.T) {
			streams := c.f.Stream
			worker := functions()
			worker["ask"] = core.Function{Run: func(ctx context.Context, call *core.Incoming) (any, error) {
				if !streams {
					return nil, call.Host().Call(ctx, "host", nil, nil)
				}
				for _, err := range call.Host().Stream(ctx, "host", nil) {
					if err != nil {
						return nil, err
					}
				}
				return nil, nil
			}}
			o := core.Options{Size: 1, Functions: map[string]core.Function{"host": c.f}}
			bubble(t, &coretest.Adapter{Functions: worker}, o, func(t *testing.T, p *core.Pool) {
				_, err := core.Execute[any](t.Context(), p, "ask", nil, core.Timeout(time.Minute))
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the call's error is %v", err)
				}
				if got, err := core.Execute[int](t.Context(), p, "echo", 5); err != nil || got != 5 {
					t.Errorf("the next call: %d, %v", got, err)
				}
			})
		})
	}
}

func looped() error {
	e := &core.RemoteError{Type: "T", Message: "it goes round"}
	e.Cause = e
	return e
}

// spy is a logger that calls a function with each record.
type spy struct {
	hclog.InterceptLogger
	mu  sync.Mutex
	got []string
}

func newSpy(accept func(s *spy, msg string)) *spy {
	s := &spy{InterceptLogger: hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})}
	s.RegisterSink(&sink{func(msg string, args []any) {
		s.mu.Lock()
		s.got = append(s.got, fmt.Sprint(append([]any{msg}, args...)...))
		s.mu.Unlock()
		accept(s, msg)
	}})
	return s
}

type sink struct {
	accept func(msg string, args []any)
}

func (s *sink) Accept(_ string, _ hclog.Level, msg string, args ...any) { s.accept(msg, args) }

func (s *spy) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// A logger may be slow, hang, panic, end its goroutine or call the pool. No call waits for it, and Close waits only
// briefly.
func TestLoggerDelaysNothing(t *testing.T) {
	hung := make(chan struct{})
	for name, c := range map[string]struct {
		accept func(p *core.Pool)
		close  string // Close's error, or ""
	}{
		"slow":               {func(*core.Pool) { time.Sleep(time.Hour) }, "the logger in Options.Logger"},
		"hangs":              {func(*core.Pool) { <-hung }, "the logger in Options.Logger"},
		"panics":             {func(*core.Pool) { panic("boom") }, ""},
		"ends its goroutine": {func(*core.Pool) { runtime.Goexit() }, ""},
		"asks the pool":      {func(p *core.Pool) { p.Stats(); p.Workers()[0].Info() }, ""},
		"calls the pool":     {func(p *core.Pool) { _, _ = core.Execute[int](context.Background(), p, "echo", 1) }, ""},
		"closes a session":   {func(p *core.Pool) { p.Session("s").Close() }, ""},
		"closes the pool":    {func(p *core.Pool) { _ = p.Close() }, "the logger in Options.Logger"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hung = make(chan struct{})
				var p atomic.Pointer[core.Pool]
				log := newSpy(func(_ *spy, msg string) {
					if p := p.Load(); p != nil && msg == "worker lost" {
						c.accept(p)
					}
				})
				a := &coretest.Adapter{Functions: functions()}
				pool, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 2, Logger: log})
				if err != nil {
					t.Fatal(err)
				}
				if err := pool.WaitReady(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
				p.Store(pool)
				a.Crash(0)
				synctest.Wait()
				begin := time.Now()
				got, err := core.Execute[int](t.Context(), pool, "echo", 5)
				if name == "closes the pool" {
					if !errors.Is(err, core.ErrClosed) {
						t.Errorf("a call of the closed pool: %v", err)
					}
				} else if err != nil || got != 5 {
					t.Errorf("a call of the other worker: %d, %v", got, err)
				}
				if took := time.Since(begin); took > 0 {
					t.Errorf("a call waited %s for the logger", took)
				}
				err = pool.Close()
				if err == nil {
					err = errors.New("")
				}
				if name != "closes the pool" && !strings.Contains(err.Error(), c.close) ||
					c.close == "" && err.Error() != "" {
					t.Errorf("Close says %q", err)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("Close waited %s for the logger", took)
				}
				if n := countPrefix(log.lines(), "worker lost"); n != 1 {
					t.Errorf("the loss was logged %d times", n)
				}
				close(hung)
				time.Sleep(2 * time.Hour) // the slow logger returns
			})
		})
	}
}

func countPrefix(lines []string, prefix string) int {
	n := 0
	for _, line := range lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// An adapter that panics, ends its goroutine or returns nonsense loses its worker. The host survives, and another
// worker follows.
func TestAdaptersCannotHurtTheHost(t *testing.T) {
	for name, c := range map[string]struct {
		odd  odd
		want string // part of the error of Open or of the call
	}{
		"Start panics":             {odd{start: boom}, "the adapter's Start panicked: boom"},
		"Start ends its goroutine": {odd{start: runtime.Goexit}, "the adapter's Start called runtime.Goexit"},
		"Start returns nothing": {odd{link: func(*core.Link) *core.Link { return nil }},
			"Start returned no connection"},
		"Start returns no Conn": {odd{link: func(*core.Link) *core.Link { return &core.Link{} }},
			"Start returned no connection"},
		"its refusal panics": {odd{link: func(l *core.Link) *core.Link {
			l.Refused = []core.Refusal{{Adapter: "other", Err: trap(boom)}}
			return l
		}}, ""},
		"its error panics":      {odd{err: trap(boom)}, "the adapter's Start panicked: boom"},
		"its error's Is panics": {odd{err: asking{boom}}, "panicked: boom"},
		"first Read panics":     {odd{read: 1, act: boom}, "the adapter's Read panicked: boom"},
		"first Read ends its goroutine": {odd{read: 1, act: runtime.Goexit},
			"the adapter's Read called runtime.Goexit"},
		"first Read returns nothing": {odd{read: 1}, "neither frames nor an error"},
		"first Write panics":         {odd{write: 1, act: boom}, "the adapter's Write panicked: boom"},
		"first Write ends its goroutine": {odd{write: 1, act: runtime.Goexit},
			"the adapter's Write called runtime.Goexit"},
		"Read panics": {odd{read: 2, act: boom}, "the adapter's Read panicked: boom"},
		"Read ends its goroutine": {odd{read: 2, act: runtime.Goexit},
			"the adapter's Read called runtime.Goexit"},
		"Read returns nothing": {odd{read: 2}, "neither frames nor an error"},
		"Read's error panics":  {odd{read: 2, err: trap(boom)}, "the adapter's Read panicked: boom"},
		"Write panics":         {odd{write: 2, act: boom}, "the adapter's Write panicked: boom"},
		"Write ends its goroutine": {odd{write: 2, act: runtime.Goexit},
			"the adapter's Write called runtime.Goexit"},
		"Write's error panics":        {odd{write: 2, err: trap(boom)}, "the adapter's Write panicked: boom"},
		"Close panics":                {odd{close: boom}, ""},
		"Close ends its goroutine":    {odd{close: runtime.Goexit}, ""},
		"its Name panics":             {odd{name: boom}, "the adapter's Start panicked: boom"},
		"its Name ends its goroutine": {odd{name: runtime.Goexit}, "the adapter's Start called runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &oddAdapter{Adapter: &coretest.Adapter{Functions: functions()}, odd: c.odd}
				a.tries.Store(1)
				p, err := core.Open(t.Context(), a, core.Command{},
					&core.Options{Size: 1, Logger: hclog.NewNullLogger()})
				if err == nil {
					_, err = core.Execute[int](t.Context(), p, "echo", 5)
					if got, again := core.Execute[int](t.Context(), p, "echo", 5); got != 5 || again != nil {
						t.Errorf("a call after it: %d, %v", got, again)
					}
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}
				if c.want == "" && err != nil ||
					c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// odd describes the misbehaviour of an oddAdapter.
type odd struct {
	start, close func()
	name         func()
	link         func(*core.Link) *core.Link
	read, write  int    // the number of the Read or Write that misbehaves
	act          func() // runs in that call; nil: return err, or no frames from Read
	err          error
}

// oddAdapter is an adapter whose first worker misbehaves.
type oddAdapter struct {
	*coretest.Adapter
	odd   odd
	tries atomic.Int64 // the number of misbehaving workers still to start
}

func (a *oddAdapter) Name() string {
	if a.odd.name != nil {
		a.odd.name()
	}
	return a.Adapter.Name()
}

func (a *oddAdapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if a.tries.Add(-1) < 0 {
		return a.Adapter.Start(ctx, l)
	}
	if a.odd.start != nil {
		a.odd.start()
	}
	if a.odd.err != nil && a.odd.read == 0 && a.odd.write == 0 {
		return nil, a.odd.err
	}
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	conn := link.Conn
	link.Conn = &oddConn{Conn: conn, odd: a.odd}
	if a.odd.link != nil {
		if link = a.odd.link(link); link == nil || link.Conn == nil {
			_ = conn.Close() // nothing else closes it
		}
	}
	return link, nil
}

type oddConn struct {
	core.Conn
	odd           odd
	reads, writes int
}

func (c *oddConn) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if c.reads++; c.reads != c.odd.read || err != nil {
		return frames, err
	}
	if c.odd.act != nil {
		c.odd.act()
	}
	return nil, c.odd.err
}

func (c *oddConn) Write(frames []core.Frame) error {
	if c.writes++; c.writes != c.odd.write {
		return c.Conn.Write(frames)
	}
	if c.odd.act != nil {
		c.odd.act()
	}
	return c.odd.err
}

func (c *oddConn) Close() error {
	err := c.Conn.Close()
	if c.odd.close != nil {
		c.odd.close()
	}
	return err
}

// A codec that panics or ends its goroutine loses its worker, even if the value is the pool's own. The host survives.
// If the value is a log record, only that record is lost, and the log names the culprit.
func TestCodecsCannotHurtTheHost(t *testing.T) {
	one := func(f core.Frame) func(id uint64) []core.Frame {
		return func(uint64) []core.Frame { return []core.Frame{f} }
	}
	const lost = "the adapter's codec "
	for name, c := range map[string]struct {
		odd    string // the type of value that the codec fails on, or "name"
		frames func(id uint64) []core.Frame
		want   string // part of the error of the worker's end; "": the worker survives
	}{
		"its name":           {"name", nil, lost},
		"a pong":             {"core.Pong", one(core.Frame{Kind: core.KindPing, ID: 7}), lost},
		"a refusal":          {"*core.RemoteError", one(core.Frame{Kind: core.KindCall, ID: 2, Name: "nobody"}), lost},
		"a function's panic": {"*core.RemoteError", one(core.Frame{Kind: core.KindCall, ID: 2, Name: "panics"}), lost},
		"a log record": {"*core.logRecord", func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindLog, Body: []byte("{}")}, {Kind: core.KindEnd, ID: id}}
		}, ""},
		"a last log record": {"*core.logRecord", func(uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindLog, Body: []byte("{}")}, {Kind: core.KindHello}}
		}, "unexpected kind of frame"},
	} {
		for how, act := range map[string]func(){"panicked: boom": boom, "called runtime.Goexit": runtime.Goexit} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					want := c.want
					if want == lost {
						want += how
					}
					log := newSpy(func(*spy, string) {})
					a := codecAdapter{rogue{c.frames}, &oddCodec{odd: c.odd, act: act}}
					p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
						Size: 1, Logger: log, Functions: map[string]core.Function{
							"panics": core.Func(func(context.Context, any) (any, error) { panic("a function's") }),
						},
					})
					if err == nil {
						_, err = core.Execute[any](t.Context(), p, "go", nil)
						_, next := core.Execute[any](t.Context(), p, "another", nil)
						if bad := errors.Join(next, p.Close()); bad != nil {
							t.Error(bad)
						}
					}
					said := strings.Join(log.lines(), "\n")
					if !strings.Contains(said, "the adapter's codec "+how) {
						t.Errorf("the log does not say who did it: %s", said)
					}
					if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
						t.Errorf("%v", err)
					}
				})
			})
		}
	}
}

// oddCodec misbehaves when its name is read, or on a value of one type.
type oddCodec struct {
	codec.Codec
	odd string
	act func()
}

func (c *oddCodec) meet(what string) {
	if what == c.odd {
		c.act()
	}
}

func (c *oddCodec) Name() string {
	c.meet("name")
	return c.Codec.Name()
}

func (c *oddCodec) Append(dst []byte, v any) ([]byte, error) {
	c.meet(fmt.Sprintf("%T", v))
	return c.Codec.Append(dst, v)
}

func (c *oddCodec) Decode(b []byte, v any) error {
	c.meet(fmt.Sprintf("%T", v))
	return c.Codec.Decode(b, v)
}

// codecAdapter is an adapter whose codec is an oddCodec.
type codecAdapter struct {
	rogue
	odd *oddCodec
}

func (a codecAdapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.rogue.Start(ctx, l)
	if err == nil {
		link.Codecs = []core.Codec{a.odd}
	}
	return link, err
}

// The pool reads the text of an adapter's error once, and holds no lock then.
func TestAdapterErrorsThatCallThePool(t *testing.T) {
	var p atomic.Pointer[core.Pool]
	asks := trap(func() {
		if p := p.Load(); p != nil {
			p.Stats()
		}
	})
	for name, o := range map[string]odd{
		"refusal": {link: func(l *core.Link) *core.Link {
			l.Refused = []core.Refusal{{Adapter: "other", Err: asks}}
			return l
		}},
		"Read":  {read: 2, err: asks},
		"Start": {err: asks},
	} {
		t.Run(name, func(t *testing.T) {
			a := &oddAdapter{Adapter: &coretest.Adapter{Functions: functions()}, odd: o}
			synctest.Test(t, func(t *testing.T) {
				pool, err := core.Open(t.Context(), a, core.Command{},
					&core.Options{Size: 1, Logger: hclog.NewNullLogger()})
				if err != nil {
					t.Fatal(err)
				}
				p.Store(pool)
				a.tries.Store(3)
				a.Crash(0)
				time.Sleep(time.Minute)
				if got, err := core.Execute[int](t.Context(), pool, "echo", 5); name != "Read" &&
					(got != 5 || err != nil) {
					t.Errorf("%d, %v", got, err)
				}
				pool.Stats()
				if err := pool.Close(); err != nil {
					t.Error(err)
				}
				p.Store(nil)
			})
		})
	}
}

// panickingContext panics or ends the goroutine while its call waits. No waiter is left behind.
type panickingContext struct {
	context.Context
	act func()
}

func (c panickingContext) Done() <-chan struct{} { c.act(); return nil }

func TestContextThatPanics(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		go func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) }()
		synctest.Wait()
		for _, act := range []func(){boom, runtime.Goexit} {
			for _, target := range []core.Target{p, p.Session("s")} {
				armed := false
				ctx := panickingContext{t.Context(), func() {
					if armed {
						act()
					}
					armed = p.Stats().Waiting > 0
				}}
				how := outcome(func() {
					armed = true
					_, _ = core.Execute[int](ctx, target, "echo", 1, core.Timeout(-1))
				})
				if how == "returned" {
					t.Errorf("the call %s", how)
				}
			}
		}
		if s := p.Stats(); s.Waiting != 0 {
			t.Errorf("%d callers wait", s.Waiting)
		}
		if got, err := core.Execute[int](t.Context(), p, "echo", 5); got != 5 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
		if s := p.Stats(); s.Running != 0 {
			t.Errorf("%d slots are taken", s.Running)
		}
	})
}

// A worker's last log records are in its WorkerExit, in order with its last output.
func TestWorkerExitQuotesTheLog(t *testing.T) {
	worker := functions()
	worker["log"] = core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		c.Host().Log("info", "reading\nthe disk", nil)
		c.Host().Log("error", "no disk", map[string]any{"exception": "Traceback:\n  File x\nOSError: it is full\n"})
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	a := &coretest.Adapter{Functions: worker}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		time.AfterFunc(time.Second, func() { a.Crash(0) })
		_, err := core.Execute[any](t.Context(), p, "log", nil)
		want := []string{`INFO log: reading\nthe disk`, "ERROR log: no disk (OSError: it is full)"}
		var o *core.WorkerExit
		if !errors.As(err, &o) || !slices.Equal(o.Stderr, want) {
			t.Errorf("%v: %q", err, o.Stderr)
		}
	})
}

// An error raised after the caller has left reaches no caller, so it is logged.
func TestLateErrorIsLogged(t *testing.T) {
	log := newSpy(func(*spy, string) {})
	worker := functions()
	worker["cleanup"] = core.Func(func(ctx context.Context, how string) (any, error) {
		<-ctx.Done()
		if how == "badly, at the same moment" {
			return nil, &core.RemoteError{Type: "OSError", Message: "disk full",
				Cause: &core.RemoteError{Type: "Cancelled"}}
		}
		time.Sleep(time.Millisecond) // the caller has left
		switch how {
		case "well":
			return nil, nil
		case "cancelled":
			return nil, ctx.Err()
		}
		cause := &core.RemoteError{Type: "Cancelled"}
		return nil, &core.RemoteError{Type: "OSError", Message: "disk full", Cause: cause}
	})
	a := &coretest.Adapter{Functions: worker}
	bubble(t, a, core.Options{Size: 1, Logger: log}, func(t *testing.T, p *core.Pool) {
		for how, want := range map[string]int{"well": 0, "cancelled": 0, "badly": 1, "badly, at the same moment": 1} {
			before := countPrefix(log.lines(), "a call failed after it was given up")
			_, err := core.Execute[any](t.Context(), p, "cleanup", how, core.Timeout(time.Second))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			time.Sleep(time.Second) // on the bubble's clock, so that the worker has answered
			synctest.Wait()
			lines := log.lines()
			if n := countPrefix(lines, "a call failed after it was given up") - before; n != want {
				t.Errorf("%s: it was logged %d times", how, n)
			}
			if want == 1 && !strings.Contains(lines[len(lines)-1], "OSError: disk full") {
				t.Errorf("what was logged does not say why: %s", lines[len(lines)-1])
			}
		}
	})
}

// Close waits for a logger that is slow but makes progress. The records arrive in order.
func TestCloseWaitsForASlowLogger(t *testing.T) {
	worker := functions()
	worker["log"] = core.Function{Run: func(_ context.Context, c *core.Incoming) (any, error) {
		for i := range 20 {
			c.Host().Log("info", fmt.Sprintf("record %02d", i), nil)
		}
		return nil, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		log := newSpy(func(*spy, string) { time.Sleep(200 * time.Millisecond) })
		a := &coretest.Adapter{Functions: worker}
		p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := core.Execute[any](t.Context(), p, "log", nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		var got []string
		for _, line := range log.lines() {
			if strings.HasPrefix(line, "record") {
				got = append(got, line[:len("record 00")])
			}
		}
		if len(got) != 20 || !slices.IsSorted(got) {
			t.Errorf("%d records, %q", len(got), got)
		}
	})
}
