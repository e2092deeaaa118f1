package core_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// These benchmarks measure pool and mux alone: the worker is a Go function in this process. The figures include both
// sides of a call.

func benchPool(b *testing.B, concurrency int) *core.Pool {
	b.Helper()
	a := &coretest.Adapter{Concurrency: concurrency, Functions: map[string]core.Function{
		"echo": core.Func(func(_ context.Context, n int) (int, error) { return n, nil }),
		"count": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			var n int
			if err := c.Decode(&n); err != nil {
				return nil, err
			}
			for i := range n {
				if err := c.Send(ctx, i); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}},
	}}
	log := hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Error})
	p, err := core.Open(b.Context(), a, core.Command{}, &core.Options{Size: 1, Queue: 20000, Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.Error(err)
		}
	})
	return p
}

// BenchmarkExecute measures calls by the number of callers and of slots, on one worker.
func BenchmarkExecute(b *testing.B) {
	for _, bench := range []struct{ callers, slots int }{{1, 1}, {64, 64}, {64, 1}, {10000, 64}, {10000, 1}} {
		b.Run(fmt.Sprintf("callers=%d/slots=%d", bench.callers, bench.slots), func(b *testing.B) {
			p := benchPool(b, bench.slots)
			call := func() {
				if n, err := core.Execute[int](b.Context(), p, "echo", 7); err != nil || n != 7 {
					b.Error(n, err)
				}
			}
			var wg sync.WaitGroup
			var begun atomic.Int64
			begin := make(chan struct{})
			for range bench.callers {
				wg.Go(func() {
					<-begin
					for begun.Add(1) <= int64(b.N) {
						call()
					}
				})
			}
			call()
			runtime.GC()
			b.ReportAllocs()
			b.ResetTimer()
			close(begin)
			wg.Wait()
		})
	}
}

// BenchmarkStream measures the items of one stream.
func BenchmarkStream(b *testing.B) {
	p := benchPool(b, 1)
	b.ReportAllocs()
	b.ResetTimer()
	got := 0
	for n, err := range core.ExecuteStream[int](b.Context(), p, "count", b.N) {
		if err != nil || n != got {
			b.Fatal(n, err)
		}
		got++
	}
	if got != b.N {
		b.Fatalf("%d items instead of %d", got, b.N)
	}
}

// BenchmarkSession measures calls of one session: without snapshots, with those of the worker, and beside both a call
// without a session.
func BenchmarkSession(b *testing.B) {
	for _, bench := range []struct {
		name        string
		maxSnapshot int
		session     bool
	}{{"none", -1, false}, {"plain", -1, true}, {"snapshot", 0, true}} {
		b.Run(bench.name, func(b *testing.B) {
			log := hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Error})
			o := core.Options{Size: 1, MaxSnapshot: bench.maxSnapshot, Logger: log}
			p, err := core.Open(b.Context(), coretest.Conformance(1), core.Command{}, &o)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := p.Close(); err != nil {
					b.Error(err)
				}
			})
			target := core.Target(p)
			if bench.session {
				target = p.Session("s")
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := core.Execute[any](b.Context(), target, "conformance.remember", "value"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// nobody is an Observer that does nothing.
type nobody struct{}

func (nobody) Call(context.Context, *core.CallStart) core.CallObserver { return nobody{} }

func (nobody) Function(ctx context.Context, _ *core.CallStart) (context.Context, core.CallObserver) {
	return ctx, nobody{}
}

func (nobody) Event(core.Event)         {}
func (nobody) Item(core.Direction, int) {}
func (nobody) End(*core.CallEnd)        {}

// BenchmarkObserver measures what the calls of an Observer that does nothing cost.
func BenchmarkObserver(b *testing.B) {
	for _, observed := range []bool{false, true} {
		b.Run(fmt.Sprintf("observed=%t/call", observed), func(b *testing.B) {
			p := benchPool(b, 1)
			if observed {
				defer p.Observe(nobody{})()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := core.Execute[int](b.Context(), p, "echo", 7); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("observed=%t/item", observed), func(b *testing.B) {
			p := benchPool(b, 1)
			if observed {
				defer p.Observe(nobody{})()
			}
			b.ReportAllocs()
			for _, err := range core.ExecuteStream[int](b.Context(), p, "count", b.N) {
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
