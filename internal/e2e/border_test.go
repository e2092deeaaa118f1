//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

// These tests cover the border to user code. Each piece of user code, on both sides, misbehaves in each way, on every
// adapter and in every mode of the worker. The damage stays within one call: the host lives, the worker lives, and the
// next call is answered.

// borderPool is a pool of workers of testdata/border.py.
type borderPool struct {
	*snakepit.Pool
	log     *Log
	oneLoop bool                          // user code that hangs in the worker hangs everything that runs there
	lines   atomic.Int64                  // lines that told the logger to act
	hung    atomic.Pointer[chan struct{}] // user code that hangs waits for it; each cell has its own
}

// act misbehaves in the given way, or returns nonsense.
func (p *borderPool) act(how string) string {
	switch how {
	case "panics":
		panic("odd")
	case "exits":
		runtime.Goexit()
	case "hangs":
		<-*p.hung.Load()
	case "calls back":
		p.Stats()
		v, err := snakepit.Execute[string](context.Background(), p, "echo", "called back")
		if err != nil {
			panic(err)
		}
		return v
	}
	return "\xff"
}

// odd is a value, a target and an error, each of whose methods acts.
type odd struct {
	p   *borderPool
	how string
}

func (o *odd) MarshalText() ([]byte, error) { return []byte(o.p.act(o.how)), nil }
func (o *odd) Error() string                { return o.p.act(o.how) }
func (o *odd) Is(error) bool                { o.p.act(o.how); return false }

func (o *odd) UnmarshalText([]byte) error {
	if o.p.act(o.how) == "\xff" {
		return errors.New("nonsense")
	}
	return nil
}

// functions returns the host functions that border.py's ask and asks call: a function, result, error and item for each
// behaviour.
func (p *borderPool) functions() map[string]snakepit.Function {
	all := map[string]snakepit.Function{}
	for _, how := range []string{"panics", "exits", "hangs", "calls back", "returns nonsense"} {
		all["function "+how] = snakepit.Func(func(context.Context, any) (any, error) {
			if text := p.act(how); text != "\xff" {
				return text, nil
			}
			return make(chan int), nil
		})
		all["result "+how] = snakepit.Func(func(context.Context, any) (any, error) { return &odd{p, how}, nil })
		all["error "+how] = snakepit.Func(func(context.Context, any) (any, error) { return nil, &odd{p, how} })
		all["item "+how] = snakepit.StreamFunc(func(context.Context, any) iter.Seq2[any, error] {
			return func(yield func(any, error) bool) { yield(&odd{p, how}, nil) }
		})
	}
	return all
}

// borderCell is one cell of the table. The call's error contains one of the texts, separated by "|"; "" means no error.
type borderCell struct {
	subject, how string
	want         string
}

const deadline = "context deadline exceeded"

var borderCells = []borderCell{
	// In the host, on the caller's goroutine.
	{"arguments", "panics", "panicked: odd"},
	{"arguments", "exits", "ended its goroutine"},
	{"arguments", "hangs", "UTF-8"}, // after it goes on
	{"arguments", "calls back", ""},
	{"arguments", "returns nonsense", "UTF-8"},
	{"target", "panics", "UnmarshalText panicked: odd"},
	{"target", "exits", "ended its goroutine"},
	{"target", "hangs", "nonsense"},
	{"target", "calls back", ""},
	{"target", "returns nonsense", "nonsense"},
	// In the host, on a goroutine of the pool.
	{"input", "panics", "the input panicked: odd"},
	{"input", "exits", "the input called runtime.Goexit"},
	{"input", "hangs", deadline},
	{"input", "calls back", ""},
	{"input", "returns nonsense", "chan int can't be sent"},
	{"input value", "panics", "the input panicked: odd"},
	{"input value", "exits", "the input called runtime.Goexit"},
	{"input value", "hangs", deadline},
	{"input value", "calls back", "TypeError"}, // a text and a number have no sum
	{"input value", "returns nonsense", "UTF-8"},
	{"function", "panics", "panic: odd"},
	{"function", "exits", "runtime.Goexit"},
	{"function", "hangs", deadline},
	{"function", "calls back", ""},
	{"function", "returns nonsense", "chan int can't be sent"},
	{"result", "panics", "panic: odd"},
	{"result", "exits", "runtime.Goexit"},
	{"result", "hangs", deadline},
	{"result", "calls back", ""},
	{"result", "returns nonsense", "BadResult"},
	{"error", "panics", "panic: odd"},
	{"error", "exits", "runtime.Goexit"},
	{"error", "hangs", deadline},
	{"error", "calls back", "odd: called back"},
	{"error", "returns nonsense", `odd: \xff`},
	{"item", "panics", "panic: odd"},
	{"item", "exits", "runtime.Goexit"},
	{"item", "hangs", deadline},
	{"item", "calls back", ""},
	{"item", "returns nonsense", "UTF-8"},
	{"logger", "panics", ""},
	{"logger", "exits", ""},
	{"logger", "hangs", ""},
	{"logger", "calls back", ""},
	// In the worker.
	{"exception", "raises", "OddError"},
	{"exception", "exits", "OddError"},
	{"exception", "interrupts", "OddError"},
	{"exception", "recurses", "OddError"},
	{"exception", "hangs", deadline},
	{"exception", "calls back", "OddError"},
	{"exception", "returns nonsense", "OddError"},
	{"log record", "raises", ""},
	{"log record", "exits", ""},
	{"log record", "interrupts", ""},
	{"log record", "recurses", ""},
	{"log record", "hangs", deadline},
	{"log record", "calls back", ""},
	{"log record", "returns nonsense", ""},
	{"python result", "raises", "value.deep[0]"},
	{"python result", "exits", "SystemExit|value.deep[0]"},
	{"python result", "interrupts", "KeyboardInterrupt|value.deep[0]"},
	{"python result", "recurses", "value.deep[0]"},
	{"python result", "hangs", deadline},
	{"python result", "calls back", ""},
	{"python result", "returns nonsense", ""},
	{"python item", "raises", ""}, // one item fails, and the stream goes on
	{"python item", "exits", "SystemExit|value"},
	{"python item", "interrupts", "KeyboardInterrupt|value"},
	{"python item", "recurses", "value"},
	{"python item", "hangs", deadline},
	{"python item", "calls back", ""},
	{"python item", "returns nonsense", ""},
}

func TestBorder(t *testing.T) {
	for _, mode := range []string{"plain", "threads", "async"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			onEach(t, []string{"jsonstdio", "msgpack", "grpc"}, func(t *testing.T, adapter string) {
				p := openBorder(t, adapter, mode)
				for _, c := range borderCells {
					t.Run(strings.ReplaceAll(c.subject+" "+c.how, " ", "_"), func(t *testing.T) { p.check(t, c) })
				}
				if s := p.Stats(); s.StartFails != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func openBorder(t *testing.T, adapter, mode string) *borderPool {
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	program := snakepit.Python(filepath.Join("internal", "e2e", "testdata", "border.py"))
	program.Interpreter, program.Env = Interpreter(t), []string{"BORDER_MODE=" + mode}
	p := &borderPool{log: &Log{}, oneLoop: mode == "async"}
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})
	logger.RegisterSink(hclog.NewSinkAdapter(&hclog.LoggerOptions{Output: p.log, Level: hclog.Debug}))
	logger.RegisterSink(&borderSink{p})
	p.Pool, err = snakepit.OpenWith(t.Context(), a, program, &snakepit.Options{
		Size: 2, CancelGrace: 200 * time.Millisecond, StopTimeout: 2 * time.Second,
		Logger: logger, Functions: p.functions(),
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the pool's log:\n%s", p.log)
		}
	})
	if err := p.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// borderSink is a logger that acts when a line tells it to.
type borderSink struct{ p *borderPool }

func (s *borderSink) Accept(_ string, _ hclog.Level, msg string, _ ...any) {
	if how, ok := strings.CutPrefix(msg, "logger "); ok {
		s.p.lines.Add(1)
		s.p.act(how)
	}
}

// check makes the cell's call, then another one while the cell's call hangs, and one more afterwards.
func (p *borderPool) check(t *testing.T, c borderCell) {
	hung := make(chan struct{})
	p.hung.Store(&hung)
	before, lines := p.Stats(), p.lines.Load()
	done := make(chan string, 1)
	go func() { // its own goroutine, as a server has for each request
		outcome := "the caller ended its goroutine"
		defer func() {
			if v := recover(); v != nil {
				outcome = fmt.Sprint("the caller panicked: ", v)
			}
			done <- outcome
		}()
		err := p.call(c)
		outcome = ""
		if err != nil {
			outcome = err.Error()
		}
	}()
	if c.subject == "logger" {
		Eventually(t, "the logger has the line", func() bool { return p.lines.Load() > lines })
	}
	if c.how == "hangs" {
		if !p.oneLoop || !c.inWorker() {
			p.echo(t)
		}
		if c.want != deadline {
			close(hung)
		}
	}
	var got string
	select {
	case got = <-done:
	case <-time.After(time.Minute):
		t.Fatal("the call does not return")
	}
	if c.how == "hangs" && c.want == deadline {
		close(hung)
	}
	matches := c.want == "" && got == ""
	for want := range strings.SplitSeq(c.want, "|") {
		matches = matches || want != "" && strings.Contains(got, want)
	}
	if !matches {
		t.Errorf("the call's outcome is %q, not %q", got, c.want)
	}
	Eventually(t, "every slot is free, and a worker that was ended is replaced", func() bool {
		s := p.Stats()
		return s.Running == 0 && s.Ready == 2 && s.Lost == s.Terminated
	})
	if after := p.Stats(); c.how != "hangs" && after.Lost != before.Lost {
		t.Errorf("a worker was lost: %+v", after)
	}
	p.echo(t)
}

// inWorker reports whether the user code runs in the worker.
func (c borderCell) inWorker() bool {
	return slices.Contains([]string{"exception", "log record", "python result", "python item"}, c.subject)
}

func (p *borderPool) echo(t *testing.T) {
	t.Helper()
	if v, err := snakepit.Execute[int](t.Context(), p, "echo", 5); err != nil || v != 5 {
		t.Fatalf("another call: %d, %v", v, err)
	}
}

// call makes the cell's call.
func (p *borderPool) call(c borderCell) error {
	ctx, o := context.Background(), &odd{p, c.how}
	how := strings.TrimPrefix(c.how, "returns ")
	var limit []snakepit.CallOption
	if c.want == deadline {
		limit = append(limit, snakepit.Timeout(300*time.Millisecond))
	}
	execute := func(command string, args any, opts ...snakepit.CallOption) error {
		_, err := snakepit.Execute[any](ctx, p, command, args, append(limit, opts...)...)
		return err
	}
	stream := func(command string, args any, opts ...snakepit.CallOption) error {
		for _, err := range snakepit.ExecuteStream[any](ctx, p, command, args, append(limit, opts...)...) {
			if err != nil && !errors.As(err, new(*snakepit.ItemError)) {
				return err
			}
		}
		return nil
	}
	switch c.subject {
	case "arguments":
		return execute("echo", map[string]any{"value": o})
	case "target":
		return stream("echo", "text", snakepit.Result(o))
	case "input":
		return execute("total", nil, snakepit.Input(func(yield func(any) bool) {
			if yield(1) && p.act(c.how) == "\xff" {
				yield(make(chan int))
			}
		}))
	case "input value":
		return execute("total", nil, snakepit.Input(func(yield func(any) bool) { yield(o) }))
	case "function", "result", "error":
		return execute("ask", c.subject+" "+c.how)
	case "item":
		return execute("asks", c.subject+" "+c.how)
	case "logger":
		return execute("prints", "logger "+c.how)
	case "exception":
		return execute("fails", how)
	case "log record":
		return execute("logs", how)
	case "python result":
		return execute("result", how)
	case "python item":
		return stream("items", how)
	}
	return fmt.Errorf("there is no %s", c.subject)
}
