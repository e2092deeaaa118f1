package otel_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	grpclib "google.golang.org/grpc"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/observe/otel"
)

// receiver is a collector: it takes spans by OTLP.
type receiver struct {
	collector.UnimplementedTraceServiceServer

	address string

	mu    sync.Mutex
	spans []received
}

// received is a span and the service that it came from.
type received struct {
	*tracepb.Span

	service string
}

// newReceiver returns a receiver that serves until the test ends.
func newReceiver(t *testing.T) *receiver {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{address: listener.Addr().String()}
	server := grpclib.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return r
}

// Export is called by the exporters of both languages.
func (r *receiver) Export(
	_ context.Context, request *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range request.ResourceSpans {
		service := ""
		for _, kv := range of.Resource.Attributes {
			if kv.Key == string(semconv.ServiceNameKey) {
				service = kv.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				r.spans = append(r.spans, received{span, service})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// find returns the span of that name, kind and service. A service of "" is any one.
func (r *receiver) find(t *testing.T, service, kind, name string) received {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.Name == name && (service == "" || s.service == service) &&
			strings.HasSuffix(s.Kind.String(), kind) {
			return s
		}
	}
	t.Fatalf("no span %s of %s with the kind %s among %v", name, service, kind, r.spans)
	return received{}
}

// exporting returns a provider that sends all spans to the receiver.
func exporting(t *testing.T, to *receiver) *sdktrace.TracerProvider {
	exporter, err := otlptracegrpc.New(t.Context(),
		otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(to.address))
	if err != nil {
		t.Fatal(err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("host"))))
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

var adapters = map[string]core.Adapter{
	"grpc": grpc.Adapter{}, "msgpack": msgpack.Adapter{}, "jsonstdio": jsonstdio.Adapter{},
}

// open starts a pool of testdata/worker.py. Its function twice calls the command inner.
func open(t testing.TB, adapter core.Adapter, size int, log io.Writer, args ...string) *core.Pool {
	t.Helper()
	if os.Getenv("SNAKEPIT_PYTHON") == "" {
		t.Skip("SNAKEPIT_PYTHON names no Python with the packages that this test needs")
	}
	var pool *core.Pool
	options := &snakepit.Options{
		Size: size, Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}),
		Functions: map[string]core.Function{
			"twice": core.Func(func(ctx context.Context, n int) (int, error) {
				return core.Execute[int](ctx, pool, "inner", 2*n)
			}),
		},
	}
	pool, err := snakepit.OpenWith(t.Context(), adapter, snakepit.Python("testdata/worker.py", args...), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// observed has the pool observed until the test ends.
func observed(t testing.TB, pool *core.Pool, opts *otel.Options) {
	t.Helper()
	stop, err := otel.Observe(pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// A call goes from Go to Python, from there to a function in Go, and from there to Python again.
func TestOneTrace(t *testing.T) {
	for name, adapter := range adapters {
		for _, sdk := range []bool{true, false} {
			test := name + "/none"
			if sdk {
				test = name + "/sdk"
			}
			t.Run(test, func(t *testing.T) {
				to := newReceiver(t)
				provider := exporting(t, to)
				argument := "none"
				if sdk {
					argument = to.address
				}
				var log lines
				pool := open(t, adapter, 2, &log, argument)
				observed(t, pool, &otel.Options{TracerProvider: provider})
				ctx, root := provider.Tracer("test").Start(t.Context(), "request")
				if got, err := core.Execute[int](ctx, pool, "outer", 20); err != nil || got != 41 {
					t.Fatal(got, err)
				}
				root.End()
				_, failed := core.Execute[int](ctx, pool, "fail", "no such thing")
				if failed == nil {
					t.Fatal("no error")
				}
				if err := provider.ForceFlush(t.Context()); err != nil {
					t.Fatal(err)
				}

				chain := []received{
					to.find(t, "host", "INTERNAL", "request"),
					to.find(t, "host", "CLIENT", "outer"),
					to.find(t, "host", "SERVER", "twice"),
					to.find(t, "host", "CLIENT", "inner"),
				}
				if sdk {
					outer := to.find(t, "worker", "SERVER", "outer")
					inner := to.find(t, "worker", "SERVER", "inner")
					chain = append(slices.Insert(chain, 2, outer), inner)
				}
				for i, span := range chain[1:] {
					if parent := chain[i]; string(span.ParentSpanId) != string(parent.SpanId) ||
						string(span.TraceId) != string(parent.TraceId) {
						t.Errorf("the parent of %s %s is not %s %s",
							span.service, span.Name, parent.service, parent.Name)
					}
				}
				// The record names the span that its handler runs in: its own one, or the caller's.
				at := hex.EncodeToString(chain[1].SpanId)
				if sdk {
					at = hex.EncodeToString(chain[2].SpanId)
				}
				log.wait(t, "outer runs: .*span_id="+at+" trace_id="+hex.EncodeToString(chain[0].TraceId))
				if sdk {
					expectException(t, to.find(t, "worker", "SERVER", "fail"))
				}
				expectException(t, to.find(t, "host", "CLIENT", "fail"))
			})
		}
	}
}

// expectException checks that the span has the exception of the command fail.
func expectException(t *testing.T, span received) {
	t.Helper()
	if span.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || len(span.Events) != 1 {
		t.Fatalf("the span of a failed call is %v", span.Span)
	}
	has := map[string]string{}
	for _, kv := range span.Events[0].Attributes {
		has[kv.Key] = kv.Value.GetStringValue()
	}
	if span.Events[0].Name != "exception" || has["exception.type"] != "ValueError" ||
		has["exception.message"] != "no such thing" ||
		!regexp.MustCompile(`(?s)^Traceback .*worker.py", line \d+, in fail\n.*\nValueError: no such thing\n$`).
			MatchString(has["exception.stacktrace"]) {
		t.Errorf("the event is %v", span.Events[0])
	}
}

func TestLostWorker(t *testing.T) {
	to := newReceiver(t)
	provider := exporting(t, to)
	pool := open(t, msgpack.Adapter{}, 1, io.Discard)
	observed(t, pool, &otel.Options{TracerProvider: provider})
	if _, err := core.Execute[any](t.Context(), pool, "crash", nil); !errors.Is(err, core.ErrWorkerLost) {
		t.Fatal(err)
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := to.find(t, "host", "CLIENT", "crash").Span.String()
	for _, want := range []string{"process.exit.code", "snakepit.WorkerExit", "exited with code 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
}

// lines is a log that tests read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// wait waits until the log matches the pattern.
func (l *lines) wait(t *testing.T, pattern string) {
	t.Helper()
	match := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if match.MatchString(text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log does not match %s:\n%s", pattern, text)
		}
	}
}
