//go:build unix

package otel_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notraces "go.opentelemetry.io/otel/trace/noop"

	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
	"github.com/snakepit-go/snakepit/observe/otel"
)

// drop is an exporter that drops all spans.
type drop struct{}

func (drop) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (drop) Shutdown(context.Context) error                             { return nil }

// benchPools open pools of one worker with the command echo.
var benchPools = map[string]func(b *testing.B) *core.Pool{
	"coretest": func(b *testing.B) *core.Pool {
		p, err := core.Open(b.Context(), &coretest.Adapter{Functions: worker}, core.Command{}, &core.Options{
			Size: 1, Logger: hclog.NewNullLogger(),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = p.Close() })
		return p
	},
	"msgpack": func(b *testing.B) *core.Pool { return open(b, msgpack.Adapter{}, 1, io.Discard, "none") },
}

// benchKind is a way to observe a pool.
type benchKind struct {
	name string
	opts *otel.Options // nil: not at all
}

// benchKinds has fresh providers, which share nothing.
var benchKinds = sync.OnceValue(func() []benchKind {
	metrics := func() metric.MeterProvider {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	sampled := func(share float64) trace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithBatcher(drop{}),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))))
	}
	return []benchKind{
		{"none", nil},
		{"metrics", &otel.Options{MeterProvider: metrics(), TracerProvider: notraces.NewTracerProvider()}},
		{"1%", &otel.Options{MeterProvider: metrics(), TracerProvider: sampled(0.01)}},
		{"100%", &otel.Options{MeterProvider: metrics(), TracerProvider: sampled(1)}},
	}
})

// BenchmarkCall measures small calls without an observer, with metrics, and with metrics and traces.
func BenchmarkCall(b *testing.B) {
	for _, name := range slices.Sorted(maps.Keys(benchPools)) {
		for _, bench := range benchKinds() {
			b.Run(name+"/"+bench.name, func(b *testing.B) {
				p := benchPools[name](b)
				if bench.opts != nil {
					observed(b, p, bench.opts)
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := core.Execute[int](b.Context(), p, "echo", 7); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOverhead compares, on one worker, calls without an observer and with each kind. The kinds take turns, so
// that the load of the machine hits all of them alike. For each there is the time of a call, as the median of the
// turns, the processor time of a call in this process and the worker, and by how many percent each is more than without
// an observer.
func BenchmarkOverhead(b *testing.B) {
	const block = 200 // calls of a turn
	for _, name := range slices.Sorted(maps.Keys(benchPools)) {
		b.Run(name, func(b *testing.B) {
			p := benchPools[name](b)
			took, used := map[string][]float64{}, map[string]float64{}
			pid := 0
			if name != "coretest" {
				pid = p.Workers()[0].Info().PID
			}
			for b.Loop() {
				for _, kind := range benchKinds() {
					var stop func()
					if kind.opts != nil {
						var err error
						if stop, err = otel.Observe(p, kind.opts); err != nil {
							b.Fatal(err)
						}
					}
					began, before := time.Now(), processorTime(b, pid)
					for range block {
						if _, err := core.Execute[int](b.Context(), p, "echo", 7); err != nil {
							b.Fatal(err)
						}
					}
					took[kind.name] = append(took[kind.name], float64(time.Since(began))/block)
					used[kind.name] += float64(processorTime(b, pid) - before)
					if stop != nil {
						stop()
					}
				}
			}
			median := func(kind string) float64 {
				slices.Sort(took[kind])
				return took[kind][len(took[kind])/2]
			}
			b.ReportMetric(0, "ns/op")
			for _, kind := range benchKinds() {
				b.ReportMetric(median(kind.name), kind.name+":ns/call")
				b.ReportMetric(100*(median(kind.name)/median("none")-1), kind.name+":%")
				b.ReportMetric(used[kind.name]/float64(b.N*block), kind.name+":cpu-ns/call")
				b.ReportMetric(100*(used[kind.name]/used["none"]-1), kind.name+":cpu-%")
			}
		})
	}
}

// processorTime returns the processor time of this process and of a worker's main thread; 0 where the system does not
// tell it.
func processorTime(b *testing.B, worker int) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	sum := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	if worker != 0 {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", worker)); err == nil {
			ns, _, _ := strings.Cut(string(text), " ")
			n, err := strconv.ParseInt(ns, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(n)
		}
	}
	return sum
}

// BenchmarkItem measures the items of a stream.
func BenchmarkItem(b *testing.B) {
	for _, with := range []string{"none", "metrics"} {
		b.Run(with, func(b *testing.B) {
			send := func(ctx context.Context, c *core.Incoming) (any, error) {
				for i := range b.N {
					if err := c.Send(ctx, i); err != nil {
						return nil, err
					}
				}
				return nil, nil
			}
			items := map[string]core.Function{"items": {Stream: true, Run: send}}
			p, err := core.Open(b.Context(), &coretest.Adapter{Functions: items}, core.Command{}, &core.Options{
				Size: 1, Logger: hclog.NewNullLogger(),
			})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = p.Close() })
			if with == "metrics" {
				observed(b, p, &otel.Options{
					MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
					TracerProvider: notraces.NewTracerProvider(),
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, err := range core.ExecuteStream[int](b.Context(), p, "items", nil) {
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
