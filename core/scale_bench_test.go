package core_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// These benchmarks measure costs that must stay flat: the cost of one caller must not depend on the number of callers.

// stalled is an adapter whose workers stop reading when it is on.
type stalled struct {
	*coretest.Adapter
	on   atomic.Bool
	gate chan struct{} // closing it lets them read again
}

func (a *stalled) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = &stalledConn{link.Conn, a}
	}
	return link, err
}

type stalledConn struct {
	core.Conn
	a *stalled
}

func (c *stalledConn) Write(frames []core.Frame) error {
	if c.a.on.Load() {
		<-c.a.gate
	}
	return c.Conn.Write(frames)
}

func waiting(b *testing.B, what string, done func() bool) {
	b.Helper()
	for begin := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			b.Fatalf("still no %s", what)
		}
	}
}

// BenchmarkCancelAll cancels all callers at once, in the pool's queue or in that of a connection whose worker does not
// read. An operation is one caller.
func BenchmarkCancelAll(b *testing.B) {
	for _, where := range []string{"queue", "connection"} {
		for _, n := range []int{1000, 16000} {
			b.Run(fmt.Sprintf("%s/callers=%d", where, n), func(b *testing.B) {
				slots := 1
				if where == "connection" {
					slots = n + 1
				}
				inner := &coretest.Adapter{Functions: functions(), Concurrency: slots}
				a := &stalled{Adapter: inner, gate: make(chan struct{})}
				p, err := core.Open(b.Context(), a, core.Command{}, &core.Options{
					Size: 1, Queue: n + 1, CallTimeout: -1, Logger: hclog.NewNullLogger(),
				})
				if err != nil {
					b.Fatal(err)
				}
				a.on.Store(true)
				var took time.Duration
				for done := 0; done < b.N; done += n {
					ctx, cancel := context.WithCancel(b.Context())
					var wg sync.WaitGroup
					for range n {
						wg.Go(func() { _, _ = core.Execute[any](ctx, p, "wait", nil) })
					}
					waiting(b, "caller waits", func() bool { s := p.Stats(); return s.Running+s.Waiting == n })
					begin := time.Now()
					cancel()
					wg.Wait()
					took += time.Since(begin)
					waiting(b, "slot is free", func() bool { s := p.Stats(); return s.Running+s.Waiting <= slots })
				}
				b.ReportMetric(float64(took.Nanoseconds())/float64((b.N+n-1)/n*n), "ns/caller")
				close(a.gate)
				_ = p.Close()
			})
		}
	}
}

// BenchmarkNewSession makes the first call of a session. The pool's only slot is free, but other callers wait for
// another worker.
func BenchmarkNewSession(b *testing.B) {
	for _, n := range []int{0, 50000} {
		b.Run(fmt.Sprintf("waiters=%d", n), func(b *testing.B) {
			a := &coretest.Adapter{Functions: functions()}
			p, err := core.Open(b.Context(), a, core.Command{}, &core.Options{
				Size: 1, Queue: 1 << 30, CallTimeout: -1, Logger: hclog.NewNullLogger(),
			})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			for range n + 1 {
				wg.Go(func() { _, _ = core.Execute[any](ctx, p, "wait", nil) })
			}
			waiting(b, "caller waits", func() bool { return p.Stats().Waiting == n })
			ended, end := context.WithCancel(b.Context())
			for i := 0; b.Loop(); i++ {
				time.AfterFunc(0, end)
				_, _ = core.Execute[any](ended, p.Session(fmt.Sprint(i)), "wait", nil)
				ended, end = context.WithCancel(b.Context())
			}
			end()
			cancel()
			wg.Wait()
			_ = p.Close()
		})
	}
}

// BenchmarkLoss loses the worker of many sessions. It times the next call to the other worker.
func BenchmarkLoss(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			var worst time.Duration
			for b.Loop() {
				b.StopTimer()
				a := &coretest.Adapter{Functions: functions()}
				o := &core.Options{Size: 2, Logger: hclog.NewNullLogger()}
				p, err := core.Open(b.Context(), a, core.Command{}, o)
				if err != nil {
					b.Fatal(err)
				}
				for i := range n {
					if _, err := core.Execute[int](b.Context(), p.Session(fmt.Sprint(i)), "echo", 1); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				a.Crash(0)
				for lost := false; !lost; {
					begin := time.Now()
					s := p.Stats()
					worst, lost = max(worst, time.Since(begin)), s.Lost == 1
				}
				b.StopTimer()
				_ = p.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(worst.Nanoseconds()), "worst-lock-ns")
		})
	}
}
