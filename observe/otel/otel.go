// Package otel reports the calls and the state of a pool to OpenTelemetry, as traces and metrics. docs/tracing.md lists
// the names of the spans, attributes and metrics.
//
//	stop, err := otel.Observe(pool, nil)
//
// The package is a module of its own, so that only programs that use it depend on OpenTelemetry.
package otel

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	api "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/snakepit-go/snakepit/core"
)

const scope = "github.com/snakepit-go/snakepit/observe/otel"

// Options says where spans and metrics go. A nil field means the default that its comment states.
type Options struct {
	// TracerProvider makes the spans. nil: the global one. That of package trace/noop makes none, at the least cost.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider // nil: the global one
	// Propagator writes the caller's span into a call's metadata, and reads it from the metadata of a function's call.
	// nil: W3C trace context and baggage, also if no global one is set. The Python package knows these two.
	Propagator propagation.TextMapPropagator
}

// Observe reports the calls and the state of pool from now on. A nil opts means the defaults. It makes
//
//   - a client span for each call of a worker, from before the call waits for a worker until its caller has the result
//   - a server span for each call of a function in Options.Functions, a child of the span of the call whose handler
//     calls the function, if the worker passes the trace headers on. The function's context has the span, so a call of
//     the pool is its child
//   - metrics of the calls, the pool and its workers. The state of the pool is read once for each collection
//
// The spans and metrics of two pools with the same Options.Name cannot be told apart.
//
// The report ends with stop, or when the pool is closed. Calls that have begun are reported to their end. Any goroutine
// may call Observe and, more than once, stop. An error says which metric could not be made, and then nothing is
// observed.
func Observe(pool *core.Pool, opts *Options) (stop func(), err error) {
	if opts == nil {
		opts = &Options{}
	}
	tracers, meters, propagator := opts.TracerProvider, opts.MeterProvider, opts.Propagator
	if tracers == nil {
		tracers = api.GetTracerProvider()
	}
	if meters == nil {
		meters = api.GetMeterProvider()
	}
	if propagator == nil {
		propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	o := &observer{
		propagator: propagator,
		pool:       pool,
		poolName:   pool.Name(),
	}
	if _, none := tracers.(noop.TracerProvider); !none {
		o.tracer = tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	}
	o.calls = newCommands(o, trace.SpanKindClient)
	o.functions = newCommands(o, trace.SpanKindServer)
	meter := meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	if err := o.instruments.make(meter); err != nil {
		return nil, err
	}
	registered, err := o.report(meter)
	if err != nil {
		return nil, err
	}
	unobserve := pool.Observe(o)
	stopped := make(chan struct{})
	stop = sync.OnceFunc(func() {
		close(stopped)
		unobserve()
		if err := registered.Unregister(); err != nil { // the metrics keep the pool in memory until then
			api.Handle(err)
		}
	})
	go func() {
		select {
		case <-pool.Closed():
			stop()
		case <-stopped:
		}
	}()
	return stop, nil
}

// observer is the core.Observer of one pool.
type observer struct {
	tracer      trace.Tracer // nil for a provider that makes no spans
	propagator  propagation.TextMapPropagator
	pool        *core.Pool
	poolName    string
	instruments instruments
	calls       *commands
	functions   *commands
	errorTypes  table[string, struct{}] // that metrics have, at most mostErrorTypes
	workers     table[*core.Worker, facts]
	losses      [len(lossCauses)]atomic.Int64
	processors  processorTimes
}

// Call begins a call's span and puts it into the call's metadata.
func (o *observer) Call(ctx context.Context, start *core.CallStart) core.CallObserver {
	c := o.begin(ctx, o.calls, start)
	o.propagator.Inject(c.ctx, (*carrier)(start))
	return c
}

// Function begins the span of a function's call. Its parent is in the call's metadata.
func (o *observer) Function(ctx context.Context, start *core.CallStart) (context.Context, core.CallObserver) {
	ctx = o.propagator.Extract(ctx, (*carrier)(start))
	c := o.begin(ctx, o.functions, start)
	return c.ctx, c
}

// Event counts lost workers.
func (o *observer) Event(e core.Event) {
	if changed, ok := e.(core.StateChanged); ok && changed.To == core.StateDead {
		if exit, ok := changed.Err.(*core.WorkerExit); ok {
			o.losses[slices.Index(lossCauses[:], causeOf(exit))].Add(1)
		}
	}
}

// carrier is the metadata of a call as a carrier of trace headers.
type carrier core.CallStart

// Get returns an entry, or "".
func (c *carrier) Get(key string) string { return (*core.CallStart)(c).Metadata(key) }

// Set adds an entry, unless the caller has set it.
func (c *carrier) Set(key, value string) { (*core.CallStart)(c).SetMetadata(key, value) }

// Keys returns those of W3C that are there. Core does not tell the others.
func (c *carrier) Keys() []string {
	all := []string{"traceparent", "tracestate", "baggage"}
	return slices.DeleteFunc(all, func(key string) bool { return c.Get(key) == "" })
}

// facts are what metrics and spans say of a worker.
type facts struct {
	index   int
	adapter string
}

// factsOf returns the facts of a worker, which are looked up once.
func (o *observer) factsOf(w *core.Worker) facts {
	found, ok := o.workers.get(w)
	if !ok {
		info := w.Info()
		found = facts{info.Index, info.Adapter}
		o.workers.put(w, found, o.living())
	}
	return found
}

// living returns a function that reports whether the pool has a worker now. Tables forget the others.
func (o *observer) living() func(*core.Worker) bool {
	all := o.pool.Workers()
	return func(w *core.Worker) bool { return slices.Contains(all, w) }
}
