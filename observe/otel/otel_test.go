package otel_test

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
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
	"github.com/snakepit-go/snakepit/observe/otel"
)

// worker has the commands of the tests.
var worker = map[string]core.Function{
	"echo": core.Func(func(_ context.Context, in int) (int, error) { return in, nil }),
	"fail": {Run: func(context.Context, *core.Incoming) (any, error) {
		return nil, &core.RemoteError{Type: "Bad", Module: "shop", Message: "no such thing", Text: "the traceback\n"}
	}},
	"count": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		for i := range 3 {
			if err := c.Send(ctx, i); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}},
	"sum": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		n := 0
		for _, err := range c.Input(ctx) {
			if err != nil {
				return nil, err
			}
			n++
		}
		return n, nil
	}},
	"wait": {Run: func(ctx context.Context, _ *core.Incoming) (any, error) { <-ctx.Done(); return nil, ctx.Err() }},
	"ask": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		var out any
		err := c.Host().Call(ctx, "twice", 21, &out)
		return out, err
	}},
	"headers": {Run: func(_ context.Context, c *core.Incoming) (any, error) { return c.Metadata, nil }},
}

// setup is a pool with a provider of each kind.
type setup struct {
	*testing.T
	pool    *core.Pool
	adapter *coretest.Adapter
	reader  *metric.ManualReader
	spans   *tracetest.InMemoryExporter
	tracer  trace.Tracer
	stop    func()
}

// bubble runs f with an observed pool of size workers in a synctest bubble.
func bubble(t *testing.T, options core.Options, sampler sdktrace.Sampler, f func(s *setup)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &setup{T: t, adapter: &coretest.Adapter{Functions: worker}, reader: metric.NewManualReader()}
		s.spans = tracetest.NewInMemoryExporter()
		options.Logger = hclog.NewNullLogger()
		var err error
		if s.pool, err = core.Open(t.Context(), s.adapter, core.Command{}, &options); err != nil {
			t.Fatal(err)
		}
		traces := sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans), sdktrace.WithSampler(sampler))
		meters := metric.NewMeterProvider(metric.WithReader(s.reader))
		s.tracer = traces.Tracer("test")
		s.stop, err = otel.Observe(s.pool, &otel.Options{TracerProvider: traces, MeterProvider: meters})
		if err != nil {
			t.Fatal(err)
		}
		f(s)
		s.stop()
		if err := s.pool.Close(); err != nil {
			t.Error(err)
		}
	})
}

// metrics returns the metrics as lines such as "snakepit.pool.sessions{snakepit.pool=snakepit} 1". Of a histogram they
// have the count and the sum.
func (s *setup) metrics() []string {
	s.Helper()
	var all metricdata.ResourceMetrics
	if err := s.reader.Collect(s.Context(), &all); err != nil {
		s.Fatal(err)
	}
	var lines []string
	line := func(name string, set attribute.Set, value any) {
		var at []string
		for _, kv := range set.ToSlice() {
			at = append(at, string(kv.Key)+"="+kv.Value.String())
		}
		lines = append(lines, fmt.Sprintf("%s{%s} %v", name, strings.Join(at, ","), value))
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					line(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					line(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					line(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					line(m.Name, p.Attributes, fmt.Sprintf("%d %gs", p.Count, p.Sum))
				}
			default:
				s.Fatalf("%s is a %T", m.Name, data)
			}
		}
	}
	return lines
}

// expect checks that the metrics have the lines.
func (s *setup) expect(want ...string) {
	s.Helper()
	got := s.metrics()
	for _, line := range want {
		if !slices.Contains(got, line) {
			s.Errorf("there is no %s in\n\t%s", line, strings.Join(got, "\n\t"))
		}
	}
}

// span returns the ended span of that name, and forgets all.
func (s *setup) span(name string) tracetest.SpanStub {
	s.Helper()
	defer s.spans.Reset()
	for _, span := range s.spans.GetSpans() {
		if span.Name == name {
			return span
		}
	}
	s.Fatalf("there is no span %s", name)
	return tracetest.SpanStub{}
}

// describe returns a span's attributes, status and events as one line each.
func describe(span tracetest.SpanStub) string {
	list := func(all []attribute.KeyValue) string {
		var texts []string
		for _, kv := range all {
			texts = append(texts, string(kv.Key)+"="+kv.Value.String())
		}
		slices.Sort(texts)
		return strings.Join(texts, " ")
	}
	text := span.SpanKind.String() + " " + list(span.Attributes)
	if span.Status.Code != codes.Unset {
		text += "\n" + span.Status.Code.String() + " " + span.Status.Description
	}
	for _, e := range span.Events {
		text += "\n" + e.Name + " " + list(e.Attributes)
	}
	return text
}

func (s *setup) expectSpan(name, want string) {
	s.Helper()
	if got := describe(s.span(name)); got != want {
		s.Errorf("the span %s is\n%s\nwant\n%s", name, got, want)
	}
}

func TestCall(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		if _, err := core.Execute[int](s.Context(), s.pool.Session("s 1"), "echo", 7); err != nil {
			t.Fatal(err)
		}
		s.expectSpan("echo", "client rpc.method=echo rpc.system.name=snakepit snakepit.adapter=coretest "+
			"snakepit.pool=snakepit snakepit.queue_seconds=0 snakepit.session=s 1 snakepit.to_host.bytes=1 "+
			"snakepit.to_host.items=0 snakepit.to_worker.bytes=1 snakepit.to_worker.items=0 snakepit.worker=0")
		s.expect(
			"rpc.client.call.duration{rpc.method=echo,rpc.system.name=snakepit,snakepit.adapter=coretest,"+
				"snakepit.pool=snakepit,snakepit.worker=0} 1 0s",
			"snakepit.call.bytes{rpc.method=echo,snakepit.direction=to_host,snakepit.pool=snakepit} 1",
			"snakepit.call.bytes{rpc.method=echo,snakepit.direction=to_worker,snakepit.pool=snakepit} 1",
			"snakepit.pool.sessions{snakepit.pool=snakepit} 1",
			"snakepit.pool.size{snakepit.pool=snakepit} 1",
			"snakepit.pool.workers{snakepit.pool=snakepit,snakepit.state=ready} 1",
			"snakepit.pool.workers{snakepit.pool=snakepit,snakepit.state=draining} 0",
			"snakepit.pool.losses{snakepit.cause=oom,snakepit.pool=snakepit} 0",
		)
		for _, line := range s.metrics() {
			if strings.Contains(line, "session=") || strings.Contains(line, "s 1") {
				t.Error("a metric has the session:", line)
			}
		}
	})
}

func TestException(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		for range 2 { // the second call finds what the first one has made
			_, err := core.Execute[int](s.Context(), s.pool, "fail", 7)
			if err == nil {
				t.Fatal("no error")
			}
			span := s.span("fail")
			got := describe(span)
			if !strings.Contains(got, "error.type=shop.Bad") ||
				!strings.Contains(got, "\nError fail on worker 0 (coretest): shop.Bad: no such thing\n") ||
				!strings.HasSuffix(got, "\nexception exception.message=no such thing "+
					"exception.stacktrace=the traceback\n exception.type=shop.Bad") {
				t.Error(got)
			}
		}
		s.expect("rpc.client.call.duration{error.type=shop.Bad,rpc.method=fail,rpc.system.name=snakepit," +
			"snakepit.adapter=coretest,snakepit.pool=snakepit,snakepit.worker=0} 2 0s")
	})
}

func TestStream(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		for range core.ExecuteStream[int](s.Context(), s.pool, "count", nil) {
		}
		if got := describe(s.span("count")); !strings.HasSuffix(got, "snakepit.worker=0\nsnakepit.first_item ") ||
			!strings.Contains(got, "snakepit.to_host.bytes=3 snakepit.to_host.items=3 ") {
			t.Error(got)
		}
		const items = "snakepit.call.items{rpc.method=count,snakepit.direction=to_host,snakepit.pool=snakepit} "
		const bytes = "snakepit.call.bytes{rpc.method=count,snakepit.direction=to_host,snakepit.pool=snakepit} "
		s.expect(items+"3", bytes+"3")

		for range core.ExecuteStream[int](s.Context(), s.pool, "count", nil) {
			s.expect(items+"4", bytes+"4") // while the stream goes on
			break
		}
		if got := describe(s.span("count")); !strings.HasSuffix(got,
			"\nsnakepit.first_item \nsnakepit.cancel snakepit.reason=the caller has left the stream") {
			t.Error(got)
		}
		in := core.Input(slices.Values([]int{1, 22}))
		if _, err := core.Execute[int](s.Context(), s.pool, "sum", nil, in); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the last item may be told after the end
		s.expect("snakepit.call.items{rpc.method=sum,snakepit.direction=to_worker,snakepit.pool=snakepit} 2",
			"snakepit.call.bytes{rpc.method=sum,snakepit.direction=to_worker,snakepit.pool=snakepit} 3")
	})
}

func TestEndOfTheCaller(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		ctx, cancel := context.WithCancel(s.Context())
		time.AfterFunc(2*time.Second, cancel)
		_, err := core.Execute[int](ctx, s.pool, "wait", nil)
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		got := describe(s.span("wait"))
		if !strings.Contains(got, "error.type=cancelled") ||
			!strings.Contains(got, "\nsnakepit.cancel snakepit.reason=wait on worker 0 (coretest): context canceled") {
			t.Error(got)
		}
		_, err = core.Execute[int](s.Context(), s.pool, "wait", nil, core.Timeout(time.Second))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if got := describe(s.span("wait")); !strings.Contains(got, "error.type=timeout") {
			t.Error(got)
		}
		const duration = "rpc.method=wait,rpc.system.name=snakepit,snakepit.adapter=coretest,snakepit.pool=snakepit," +
			"snakepit.worker=0} 1 "
		s.expect("rpc.client.call.duration{error.type=cancelled,"+duration+"2s",
			"rpc.client.call.duration{error.type=timeout,"+duration+"1s")
	})
}

func TestQueue(t *testing.T) {
	bubble(t, core.Options{Size: 1, Queue: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		var group sync.WaitGroup
		group.Go(func() { _, _ = core.Execute[int](s.Context(), s.pool, "wait", nil, core.Timeout(3*time.Second)) })
		synctest.Wait()
		group.Go(func() { _, _ = core.Execute[int](s.Context(), s.pool, "echo", 1) })
		synctest.Wait()
		_, err := core.Execute[int](s.Context(), s.pool, "echo", 1, core.NoWait())
		if !errors.Is(err, core.ErrSaturated) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		const pool = "{snakepit.pool=snakepit} "
		s.expect("snakepit.pool.calls.running"+pool+"1", "snakepit.pool.calls.waiting"+pool+"1",
			"snakepit.pool.calls.saturated"+pool+"1", "snakepit.pool.oldest_wait"+pool+"1",
			// The call had no worker, but one lists the command.
			"rpc.client.call.duration{error.type=saturated,rpc.method=echo,rpc.system.name=snakepit,"+
				"snakepit.pool=snakepit} 1 0s")
		s.spans.Reset()
		group.Wait()
		if got := describe(s.span("echo")); !strings.Contains(got, "snakepit.queue_seconds=3 ") {
			t.Error(got)
		}
		s.expect("snakepit.call.queue.duration{rpc.method=echo,snakepit.pool=snakepit} 1 3s")
	})
}

func TestUnknownCommands(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		for i := range 100 {
			_, err := core.Execute[int](s.Context(), s.pool, fmt.Sprintf("made up %d", i), nil)
			if !errors.Is(err, core.ErrUnknownCommand) {
				t.Fatal(err)
			}
		}
		got := describe(s.span("snakepit"))
		if !strings.Contains(got, "rpc.method=_OTHER rpc.method_original=made up 0 ") {
			t.Error(got)
		}
		s.expect("rpc.client.call.duration{error.type=unknown_command,rpc.method=_OTHER,rpc.system.name=snakepit," +
			"snakepit.adapter=coretest,snakepit.pool=snakepit,snakepit.worker=0} 100 0s")
		for _, line := range s.metrics() {
			if strings.Contains(line, "made up") {
				t.Error(line)
			}
		}
	})
}

func TestLoss(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		time.AfterFunc(time.Second, func() { s.adapter.Crash(0) })
		if _, err := core.Execute[int](s.Context(), s.pool, "wait", nil); !errors.Is(err, core.ErrWorkerLost) {
			t.Fatal(err)
		}
		got := describe(s.span("wait"))
		if !strings.Contains(got, "error.type=worker_lost") ||
			!strings.Contains(got, "exception.type=snakepit.WorkerExit") ||
			!strings.Contains(got, "snakepit.cause=connection") {
			t.Error(got)
		}
		if err := s.pool.WaitReady(s.Context(), 1); err != nil {
			t.Fatal(err)
		}
		s.expect("snakepit.pool.losses{snakepit.cause=connection,snakepit.pool=snakepit} 1",
			"snakepit.pool.restarts{snakepit.pool=snakepit} 1")
	})
}

func TestPropagation(t *testing.T) {
	headers := func(s *setup, ctx context.Context) map[string]string {
		s.Helper()
		got, err := core.Execute[map[string]string](ctx, s.pool, "headers", nil)
		if err != nil {
			s.Fatal(err)
		}
		return got
	}
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		ctx, parent := s.tracer.Start(s.Context(), "parent")
		span := parent.SpanContext()
		got := headers(s, ctx)
		child := s.span("headers")
		want := fmt.Sprintf("00-%s-%s-01", span.TraceID(), child.SpanContext.SpanID())
		if got["traceparent"] != want || len(got) != 1 || child.Parent.SpanID() != span.SpanID() {
			t.Errorf("%v, want %s", got, want)
		}
		own := core.WithMetadata(ctx, map[string]string{"traceparent": "mine", "other": "x"})
		if got := headers(s, own); got["traceparent"] != "mine" || got["other"] != "x" {
			t.Error("the caller's own header was replaced:", got)
		}
		carrier := propagation.MapCarrier{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "tracestate": "a=b",
			"baggage": "k=v",
		}
		both := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
		got = headers(s, both.Extract(s.Context(), carrier))
		if got["baggage"] != "k=v" || got["tracestate"] != "a=b" {
			t.Error(got)
		}
	})
	bubble(t, core.Options{Size: 1}, sdktrace.NeverSample(), func(s *setup) {
		got := headers(s, s.Context())
		if len(s.spans.GetSpans()) != 0 || !strings.HasSuffix(got["traceparent"], "-00") {
			t.Errorf("of a call that is not sampled: %v", got)
		}
	})
}

func TestFunction(t *testing.T) {
	var pool *core.Pool
	functions := map[string]core.Function{
		"twice": core.Func(func(ctx context.Context, n int) (int, error) {
			return core.Execute[int](ctx, pool, "echo", 2*n)
		}),
	}
	options := core.Options{Size: 2, Functions: functions}
	bubble(t, options, sdktrace.AlwaysSample(), func(s *setup) {
		pool = s.pool
		if got, err := core.Execute[int](s.Context(), s.pool, "ask", nil); err != nil || got != 42 {
			t.Fatal(got, err)
		}
		synctest.Wait() // the function's end may be told after the call's
		spans := map[string]tracetest.SpanStub{}
		for _, span := range s.spans.GetSpans() {
			spans[span.Name] = span
		}
		ask, twice, echo := spans["ask"], spans["twice"], spans["echo"]
		if twice.Parent.SpanID() != ask.SpanContext.SpanID() || !twice.Parent.IsRemote() ||
			echo.Parent.SpanID() != twice.SpanContext.SpanID() ||
			echo.SpanContext.TraceID() != ask.SpanContext.TraceID() {
			t.Errorf("ask %v\ntwice of %v\necho of %v", ask.SpanContext, twice.Parent, echo.Parent)
		}
		if got := describe(twice); !strings.HasPrefix(got, "server rpc.method=twice rpc.system.name=snakepit "+
			"snakepit.adapter=coretest snakepit.pool=snakepit ") {
			t.Error(got)
		}
		s.expect("snakepit.function.bytes{rpc.method=twice,snakepit.direction=to_host,snakepit.pool=snakepit} 2")
	})
}

func TestStop(t *testing.T) {
	bubble(t, core.Options{Size: 1}, sdktrace.AlwaysSample(), func(s *setup) {
		s.stop()
		s.stop()
		if _, err := core.Execute[int](s.Context(), s.pool, "echo", 7); err != nil {
			t.Fatal(err)
		}
		if len(s.spans.GetSpans()) > 0 {
			t.Error("a call after stop has a span")
		}
		if got := s.metrics(); len(got) > 0 {
			t.Error("there are metrics after stop:", got)
		}
	})
}
