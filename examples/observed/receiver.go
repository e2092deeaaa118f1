package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// receiver takes spans by OTLP, as a collector does, and keeps them.
type receiver struct {
	collector.UnimplementedTraceServiceServer

	server  *grpc.Server
	address string

	mu    sync.Mutex // guards spans
	spans []received
}

// received is a span and the program that sent it.
type received struct {
	*otlp.Span

	service string
}

// receive starts a receiver on this machine.
func receive() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{server: grpc.NewServer(), address: l.Addr().String()}
	collector.RegisterTraceServiceServer(r.server, r)
	go func() { _ = r.server.Serve(l) }() // it ends with close
	return r, nil
}

func (r *receiver) close() { r.server.Stop() }

// Export implements the collector's service.
func (r *receiver) Export(
	_ context.Context, request *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		service := attribute(resource.GetResource().GetAttributes(), "service.name")
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				r.spans = append(r.spans, received{span, service})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// attribute returns a text attribute, or "".
func attribute(all []*common.KeyValue, key string) string {
	for _, a := range all {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// trace returns the spans of one trace, the first one first.
func (r *receiver) trace(id string) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []received
	for _, s := range r.spans {
		if hex.EncodeToString(s.TraceId) == id {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b received) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	return all
}

// printTrace prints spans as a tree. A span whose parent is missing is at the left margin.
func printTrace(w io.Writer, spans []received) {
	known := map[string]bool{}
	for _, s := range spans {
		known[string(s.SpanId)] = true
	}
	var show func(parent string, depth int)
	show = func(parent string, depth int) {
		for _, s := range spans {
			own := string(s.ParentSpanId)
			if own != parent && (depth > 0 || known[own]) {
				continue
			}
			took := time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano).Round(10 * time.Microsecond)
			kind := strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"))
			title := strings.Repeat("  ", depth) + s.Name
			fmt.Fprintf(w, "  %-28s %-7s %-10s %9s\n", title, kind, s.service, took)
			show(string(s.SpanId), depth+1)
		}
	}
	show("", 0)
}
