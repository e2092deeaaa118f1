package main

import (
	"context"
	"fmt"
	"time"
)

// wayColumns are the columns of the table. The names are those of openWay.
var wayColumns = []struct{ name, title string }{
	{"lines", "`exec.Command` with JSON lines"},
	{"http", "HTTP sidecar"},
	{"grpc", "gRPC sidecar"},
	{"library/grpc", "this library"},
}

// waysTable tries each property on each way. It measures a small call in turns.
func waysTable(b *bed, n scale, rounds int, bytes int64) (table, error) {
	t := table{Name: "ways", Header: []string{""}}
	for _, c := range wayColumns {
		t.Header = append(t.Header, c.title)
	}
	for _, trial := range trials {
		cells := []string{trial.name}
		for _, c := range wayColumns {
			v, err := trial.run(b.python, c.name, bytes)
			if err != nil {
				return t, err
			}
			cells = append(cells, v.String())
		}
		t.Rows = append(t.Rows, cells)
	}
	took, err := smallCalls(b, n, rounds)
	if err != nil {
		return t, err
	}
	cells := []string{"p50 of a small call"}
	for _, c := range wayColumns {
		cells = append(cells, fmt.Sprintf("%.0f µs", median(took[c.name])))
	}
	cells[len(cells)-1] += fmt.Sprintf("; on msgpack %.0f, on jsonstdio %.0f", median(took["library/msgpack"]),
		median(took["library/jsonstdio"]))
	t.Rows = append(t.Rows, cells)
	return t, nil
}

// smallCalls measures the median time of a small call on each way, in microseconds, once in each round.
func smallCalls(b *bed, n scale, rounds int) (map[string][]float64, error) {
	took := map[string][]float64{}
	for range rounds {
		for _, name := range []string{"lines", "http", "grpc", "library/grpc", "library/msgpack", "library/jsonstdio"} {
			w, err := b.way(name)
			if err != nil {
				return nil, err
			}
			times := make([]time.Duration, n.calls)
			for i := range times {
				begin := time.Now()
				result, err := w.call(context.Background(), "echo", arguments)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				times[i] = time.Since(begin)
				if m, ok := result.(map[string]any); !ok || len(m) != len(arguments) {
					return nil, fmt.Errorf("%s: the wrong reply: %v", name, result)
				}
			}
			took[name] = append(took[name], microsecondsIn(quantile(times, 0.5)))
		}
	}
	return took, nil
}
