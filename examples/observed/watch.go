package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/observe/otel"
)

// watched is a pool whose traces and metrics are looked at.
type watched struct {
	adapter  core.Adapter
	address  string
	duration time.Duration
	out, log io.Writer

	pool *snakepit.Pool
}

// run opens the pool, makes calls, and prints what was seen.
func (w *watched) run(ctx context.Context) (err error) {
	// Where spans go. A service has the address in OTEL_EXPORTER_OTLP_ENDPOINT.
	spans, err := receive()
	if err != nil {
		return err
	}
	defer spans.close()
	client, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(spans.address), otlptracegrpc.WithInsecure())
	if err != nil {
		return err
	}
	name := resource.NewSchemaless(semconv.ServiceName("observed"))
	traces := trace.NewTracerProvider(trace.WithBatcher(client), trace.WithResource(name))
	defer func() { err = errors.Join(err, traces.Shutdown(context.WithoutCancel(ctx))) }()

	// Where metrics come from.
	registry := prometheus.NewRegistry()
	scraped, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		return err
	}
	metrics := metric.NewMeterProvider(metric.WithReader(scraped))

	worker := snakepit.PythonFS(files, "worker.py")
	worker.Env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + spans.address}
	w.pool, err = snakepit.OpenWith(ctx, w.adapter, worker, &snakepit.Options{
		Name: "quotes", Size: 2, Functions: map[string]snakepit.Function{"rate": snakepit.Func(w.rate)},
		Logger: hclog.New(&hclog.LoggerOptions{Output: w.log, Level: hclog.Error}),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.pool.Close()) }()
	stop, err := otel.Observe(w.pool, &otel.Options{TracerProvider: traces, MeterProvider: metrics})
	if err != nil {
		return err
	}
	defer stop()

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/debug/snakepit/", snakepit.Debug(w.pool))
	l, err := net.Listen("tcp", cmp.Or(w.address, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	service := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = service.Serve(l) }() // it ends with Close
	defer func() { err = errors.Join(err, service.Close()) }()
	prometheus, err := startPrometheus(l.Addr().String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, prometheus.close()) }()

	if w.address != "" {
		fmt.Fprintf(w.out, "  the page: http://%s/debug/snakepit/\n  the metrics: http://%[1]s/metrics\n", l.Addr())
	}
	tracer := traces.Tracer("observed")
	requestCtx, request := tracer.Start(ctx, "request")
	if _, err := w.quote(requestCtx, "tea"); err != nil {
		return err
	}
	request.End()
	if err := w.load(ctx, prometheus); err != nil {
		return err
	}
	if err := traces.ForceFlush(ctx); err != nil {
		return err
	}
	fmt.Fprintln(w.out, "one request:")
	printTrace(w.out, spans.trace(request.SpanContext().TraceID().String()))
	fmt.Fprintln(w.out, "what Prometheus knows:")
	if err := prometheus.printAnswers(ctx, w.out, questions); err != nil {
		return err
	}
	if w.address != "" {
		fmt.Fprintln(w.out, "Ctrl-C ends it")
		<-ctx.Done()
	}
	return nil
}

// quote asks Python for a price.
func (w *watched) quote(ctx context.Context, item string) (float64, error) {
	return snakepit.Execute[float64](ctx, w.pool, "quote", map[string]string{"item": item, "currency": "CHF"})
}

// rate is the function that Python calls. It calls Python again, in the trace of its caller: ctx carries the span.
func (w *watched) rate(ctx context.Context, currency string) (float64, error) {
	return snakepit.Execute[float64](ctx, w.pool, "convert", map[string]string{"currency": currency})
}

// load makes calls of several kinds, some of which fail. One ends its worker.
func (w *watched) load(ctx context.Context, known *server) error {
	const streamed = `sum(rpc_client_call_duration_seconds_count{rpc_method="prices"})`
	streams := 0
	end := time.Now().Add(w.duration)
	for i := 0; (time.Now().Before(end) || i < fewestRounds) && ctx.Err() == nil; i++ {
		if _, err := w.quote(ctx, "coffee"); err != nil && !errors.Is(err, snakepit.ErrWorkerLost) {
			return err
		}
		if i%20 == 0 {
			_, err := snakepit.Execute[float64](ctx, w.pool, "convert", map[string]string{"currency": "GBP"})
			if !errors.Is(err, snakepit.Exception("KeyError")) {
				return fmt.Errorf("an unknown currency should be a KeyError: %w", err)
			}
		}
		if i%50 == 0 {
			for _, err := range snakepit.ExecuteStream[float64](ctx, w.pool, "prices", map[string]int{"count": 20}) {
				if err != nil {
					return err
				}
			}
			if streams++; streams == 1 { // a rate needs a first value, too
				if err := known.await(ctx, streamed, streams); err != nil {
					return err
				}
			}
		}
		if i == 30 {
			fmt.Fprintln(w.out, "  a worker ends itself, so that there is something to find")
			_, err := snakepit.Execute[any](ctx, w.pool, "crash", nil)
			if !errors.Is(err, snakepit.ErrWorkerLost) {
				return fmt.Errorf("a crash should be the loss of a worker: %w", err)
			}
		}
	}
	return known.await(ctx, streamed, streams)
}

// fewestRounds has every kind of call.
const fewestRounds = 60
