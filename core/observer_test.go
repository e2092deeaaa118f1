package core_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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

// witness is an Observer that keeps one line for each thing that it is told.
type witness struct {
	eventLog

	mu    sync.Mutex
	lines []string
	carry map[string]string // metadata that it adds to calls
	bad   string            // the method that panics
}

type witnessKey struct{}

// witnessCall is the spy's observer of one call.
type witnessCall struct {
	spy    *witness
	prefix string
}

func (s *witness) note(method, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	if s.bad == method {
		panic("the spy's " + method)
	}
}

// take returns the lines, and forgets them.
func (s *witness) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return lines
}

func (s *witness) Call(ctx context.Context, c *core.CallStart) core.CallObserver {
	line := "call " + c.Command
	if c.Session != "" {
		line += " session=" + c.Session
	}
	if c.Tenant != "" {
		line += " tenant=" + c.Tenant
	}
	if c.Stream {
		line += " stream"
	}
	if in, ok := ctx.Value(witnessKey{}).(string); ok {
		line += " in=" + in
	}
	for k, v := range s.carry {
		c.SetMetadata(k, v)
	}
	if c.Worker != nil || c.Pool == nil {
		line += " with the wrong worker or pool"
	}
	s.note("Call", "%s", line)
	return &witnessCall{s, c.Command}
}

func (s *witness) Function(ctx context.Context, c *core.CallStart) (context.Context, core.CallObserver) {
	s.note("Function", "function %s of %s k=%s", c.Command, c.Worker, c.Metadata("k"))
	return context.WithValue(ctx, witnessKey{}, c.Command), &witnessCall{s, c.Command}
}

func (s *witness) Event(e core.Event) { s.put(e) }

func (c *witnessCall) Item(to core.Direction, size int) {
	c.spy.note("Item", "%s item to=%d size=%d", c.prefix, to, size)
}

func (c *witnessCall) End(e *core.CallEnd) {
	line := fmt.Sprintf("%s end %s host=%v worker=%v", c.prefix, e.Worker, e.ToHost, e.ToWorker)
	if e.Worker == nil {
		line = c.prefix + " end nowhere"
	}
	if e.Waited > 0 {
		line += " waited=" + e.Waited.String()
	}
	if e.Retries > 0 {
		line += fmt.Sprintf(" retries=%d", e.Retries)
	}
	if e.Left {
		line += " left"
	}
	if e.Err != nil {
		first, _, _ := strings.Cut(e.Err.Error(), "\n")
		line += " err=" + first
	}
	c.spy.note("End", "%s", line)
}

func expectLines(t *testing.T, s *witness, want ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("observed\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestObserverSeesCalls(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := &witness{}
		stop := p.Observe(s)
		ctx := core.WithTenant(t.Context(), "a")
		if _, err := core.Execute[int](ctx, p.Session("s"), "echo", 7); err != nil {
			t.Fatal(err)
		}
		expectLines(t, s, "call echo session=s tenant=a", "echo end worker 0 host={0 1} worker={0 1}")

		if _, err := core.Execute[int](t.Context(), p, "fail", "no"); err == nil {
			t.Fatal("no error")
		}
		lines := s.take()
		if !strings.HasPrefix(lines[1], "fail end worker 0 host={0 ") ||
			!strings.Contains(lines[1], "err=fail on worker 0") {
			t.Error(lines)
		}

		for range core.ExecuteStream[int](t.Context(), p, "count", 2) {
		}
		expectLines(t, s, "call count stream", "count item to=0 size=1", "count item to=0 size=1",
			"count end worker 0 host={2 12} worker={0 1}")

		for range core.ExecuteStream[int](t.Context(), p, "count", 2) {
			break
		}
		lines = s.take()
		if len(lines) != 3 || !strings.HasSuffix(lines[2], " left") {
			t.Error(lines)
		}

		if _, err := core.Execute[int](t.Context(), p, "nothing", nil); !errors.Is(err, core.ErrUnknownCommand) {
			t.Fatal(err)
		}
		if lines = s.take(); len(lines) != 2 || !strings.Contains(lines[1], "worker 0") {
			t.Error(lines)
		}

		stop()
		stop()
		if _, err := core.Execute[int](t.Context(), p, "echo", 7); err != nil {
			t.Fatal(err)
		}
		expectLines(t, s)
	})
}

func TestObserverSeesInput(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := &witness{}
		defer p.Observe(s)()
		in := core.Input(slices.Values([]int{1, 22}))
		if _, err := core.Execute[int](t.Context(), p, "sum", nil, in); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the last item may be told after the end
		got := s.take()
		slices.Sort(got)
		want := []string{
			"call sum", "sum end worker 0 host={0 2} worker={2 3}", "sum item to=1 size=1", "sum item to=1 size=2",
		}
		if !slices.Equal(got, want) {
			t.Error(got)
		}
	})
}

func TestObserverSeesTheQueueAndTheEndOfWaiting(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := &witness{}
		defer p.Observe(s)()
		var both sync.WaitGroup
		both.Go(func() { _, _ = core.Execute[int](t.Context(), p, "nap", 1000) })
		synctest.Wait()
		both.Go(func() {
			if _, err := core.Execute[int](t.Context(), p, "echo", 1); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		calls := p.Calls()
		if len(calls) != 2 || calls[0].Worker+calls[1].Worker != -1 || calls[0].Age != 0 {
			t.Errorf("%+v", calls)
		}
		if _, err := core.Execute[int](t.Context(), p, "echo", 1, core.Timeout(time.Millisecond)); err == nil {
			t.Error("no error")
		}
		both.Wait()
		got := s.take()
		if !slices.Contains(got, "echo end worker 0 host={0 1} worker={0 1} waited=1s") ||
			!slices.ContainsFunc(got, func(line string) bool {
				return strings.HasPrefix(line, "echo end nowhere waited=1ms err=")
			}) {
			t.Error(strings.Join(got, "\n"))
		}
	})
}

// A function's context goes to the pool's calls that it makes, so that traces can nest.
func TestObserverSeesFunctions(t *testing.T) {
	var pool *core.Pool
	o := core.Options{Size: 2, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, n int) (int, error) {
			return core.Execute[int](ctx, pool, "echo", n+1)
		}),
		"hosts": core.StreamFunc(func(_ context.Context, n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					if !yield(i, nil) {
						return
					}
				}
			}
		}),
	}}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		pool = p
		s := &witness{carry: map[string]string{"k": "v"}}
		defer p.Observe(s)()
		if got, err := core.Execute[int](t.Context(), p, "callback", nil); err != nil || got != 21 {
			t.Fatal(got, err)
		}
		got := s.take()
		for i, line := range got { // the worker of the inner call and that of the outer one are any two
			got[i] = strings.NewReplacer("worker 0", "worker n", "worker 1", "worker n").Replace(line)
		}
		slices.Sort(got[4:]) // the function's end and its caller's are told by two goroutines
		want := []string{
			"call callback", "function host of worker n k=", "call echo in=host",
			"echo end worker n host={0 2} worker={0 2}",
			"callback end worker n host={0 2} worker={0 0}", "host end worker n host={0 2} worker={0 2}",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got, err := core.Execute[[]int](t.Context(), p, "callbacks", nil); err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		synctest.Wait()
		items := 0
		for _, line := range s.take() {
			if line == "hosts item to=1 size=1" {
				items++
			}
		}
		if items != 3 {
			t.Errorf("%d items of the function", items)
		}
	})
}

func TestObserverAddsMetadata(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		defer p.Observe(&witness{carry: map[string]string{"k": "spy"}})()
		who := func(ctx context.Context) string {
			got, err := core.Execute[string](ctx, p, "who", nil)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		own := map[string]string{"other": "x"}
		if got := who(core.WithMetadata(t.Context(), own)); got != "spy" || len(own) != 1 {
			t.Error(got, own)
		}
		if got := who(t.Context()); got != "spy" {
			t.Error(got)
		}
		if got := who(core.WithMetadata(t.Context(), map[string]string{"k": "mine"})); got != "mine" {
			t.Error("the caller's own entry was replaced:", got)
		}
	})
}

// Whatever an observer does, the calls go on.
func TestAPanickingObserverHarmsNoCall(t *testing.T) {
	for _, method := range []string{"Call", "Function", "Item", "End"} {
		t.Run(method, func(t *testing.T) {
			var log strings.Builder
			o := core.Options{
				Size: 1, Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
				Functions: map[string]core.Function{
					"host": core.Func(func(_ context.Context, n int) (int, error) { return n + 1, nil }),
				},
			}
			bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
				good := &witness{}
				defer p.Observe(&witness{bad: method})()
				defer p.Observe(good)()
				for range 2 {
					if got, err := core.Execute[int](t.Context(), p, "callback", nil); err != nil || got != 21 {
						t.Fatal(got, err)
					}
				}
				n := 0
				for _, err := range core.ExecuteStream[int](t.Context(), p, "count", 3) {
					if n++; err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if lines := good.take(); n != 3 || len(lines) != 13 {
					t.Errorf("%d items, and the other observer saw %d: %s", n, len(lines), lines)
				}
				if s := p.Stats(); s.Running != 0 || s.Lost != 0 {
					t.Errorf("%+v", s)
				}
			})
			if n := strings.Count(log.String(), "an Observer panicked: the spy's "+method); n != 1 {
				t.Errorf("the panic was logged %d times:\n%s", n, &log)
			}
		})
	}
}

// A call whose caller's code panics still ends for its observers.
func TestObserverSeesTheEndOfAPanickingCaller(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s := &witness{}
		defer p.Observe(s)()
		func() {
			defer func() { _ = recover() }()
			for range core.ExecuteStream[int](t.Context(), p, "count", 3) {
				panic("the consumer's")
			}
		}()
		lines := s.take()
		if len(lines) != 3 || !strings.Contains(lines[2], "count end worker 0") ||
			!strings.Contains(lines[2], "err=the caller's code panicked") {
			t.Error(lines)
		}
	})
}

// sinkWitness also gets the log.
type sinkWitness struct {
	witness

	mu  sync.Mutex
	log []string
}

func (s *sinkWitness) Accept(name string, level hclog.Level, msg string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprint(name, " ", level, " ", msg, " ", args))
}

func TestObserverSeesEventsAndTheLog(t *testing.T) {
	a := &coretest.Adapter{}
	o := core.Options{
		Size: 1, Name: "models", Logger: hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Error}),
	}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		s := &sinkWitness{}
		stop := p.Observe(s)
		call(t, p, "echo", 1)
		a.Crash(0)
		synctest.Wait()
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		states := s.witness.eventLog.lines("StateChanged")
		if len(states) != 3 || !strings.HasPrefix(states[0], "worker 0 is dead: ") || states[2] != "worker 0 is ready" {
			t.Errorf("%q", states)
		}
		s.mu.Lock()
		log := strings.Join(s.log, "\n")
		s.log = nil
		s.mu.Unlock()
		if !strings.Contains(log, "models error worker lost [worker 0 exit ") ||
			!strings.Contains(log, "models debug worker is ready [worker 0 ") {
			t.Error(log)
		}
		stop()
		a.Crash(0)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.witness.eventLog.lines("StateChanged")); n != 3 || len(s.log) > 0 {
			t.Errorf("after stop: %d, %q", n, s.log)
		}
	})
}

// oddWitness cannot be compared: == on two of it panics.
type oddWitness struct {
	*sinkWitness

	_ []int
}

func TestAnObserverNeedNotBeComparable(t *testing.T) {
	a := &coretest.Adapter{}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		first, second := &sinkWitness{}, &sinkWitness{}
		stop := p.Observe(oddWitness{sinkWitness: first})
		defer p.Observe(oddWitness{sinkWitness: second})()
		stop()
		a.Crash(0)
		synctest.Wait()
		for s, wants := range map[*sinkWitness]bool{first: false, second: true} {
			s.mu.Lock()
			if logged := len(s.log) > 0; logged != wants {
				t.Errorf("the log was seen: %t, want %t", logged, wants)
			}
			s.mu.Unlock()
		}
	})
}

// A closed pool has no more to observe, and Observe leaves nothing behind.
func TestObserveAfterClose(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p.Observe(&witness{})()
	})
}

func TestCallsTellsWhatRuns(t *testing.T) {
	var pool *core.Pool
	o := core.Options{Size: 1, Functions: map[string]core.Function{
		"host": core.Func(func(ctx context.Context, _ int) (int, error) {
			_, err := core.Execute[any](ctx, pool.Session("s"), "nap", 1000)
			return 0, err
		}),
	}}
	a := &coretest.Adapter{Concurrency: 4}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		pool = p
		ctx, cancel := context.WithCancel(core.WithTenant(t.Context(), "a"))
		var all sync.WaitGroup
		all.Go(func() { _, _ = core.Execute[any](ctx, p, "wait", nil) })
		time.Sleep(time.Second)
		all.Go(func() { _, _ = core.Execute[int](ctx, p, "callback", nil) })
		time.Sleep(time.Second / 2)
		got := p.Calls()
		var lines []string
		for _, c := range got {
			lines = append(lines, fmt.Sprintf("%s fn=%t s=%s t=%s w=%d age=%s parent=%t", c.Command, c.Function,
				c.Session, c.Tenant, c.Worker, c.Age, c.Parent != 0))
		}
		want := []string{
			"wait fn=false s= t=a w=0 age=1.5s parent=false", "callback fn=false s= t=a w=0 age=500ms parent=false",
			"host fn=true s= t= w=0 age=500ms parent=true", "nap fn=false s=s t= w=0 age=500ms parent=false",
		}
		slices.Sort(lines)
		slices.Sort(want)
		if !slices.Equal(lines, want) {
			t.Errorf("%s", strings.Join(lines, "\n"))
		}
		cancel()
		all.Wait()
		synctest.Wait()
		if got := p.Calls(); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A stream's numbers tell who waits for whom.
func TestCallsTellsOfStreams(t *testing.T) {
	o := core.Options{Size: 1, WindowItems: 4}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		for range core.ExecuteStream[int](t.Context(), p, "count", 100) {
			synctest.Wait()
			c := p.Calls()[0]
			if c.ToHost != (core.Volume{Items: 4, Bytes: 4}) || c.HostCredit.Items != 0 ||
				c.ToWorker != (core.Volume{Bytes: 3}) || c.Cancelled {
				t.Errorf("%+v", c)
			}
			break
		}
	})
}
