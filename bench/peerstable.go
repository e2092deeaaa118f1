package main

import (
	"context"
	"fmt"
)

// wayColumns are the columns of the table. The names are those of openWay.
var wayColumns = []struct{ name, title string }{
	{"lines", "`exec.Command` with JSON lines"},
	{"http", "HTTP sidecar"},
	{"grpc", "gRPC sidecar"},
	{"library/grpc", "this library"},
}

// smallCall compares single calls of its subjects. The library runs on each adapter.
var smallCall = row{name: "p50 of a small call", unit: "µs", subjects: []subject{
	{name: "lines", measure: serial(wayCall("lines"))},
	{name: "http", measure: serial(wayCall("http"))},
	{name: "grpc", measure: serial(wayCall("grpc"))},
	{name: "library/grpc", measure: serial(wayCall("library/grpc"))},
	{name: "library/msgpack", measure: serial(wayCall("library/msgpack"))},
	{name: "library/jsonstdio", measure: serial(wayCall("library/jsonstdio"))},
}}

func wayCall(name string) caller {
	return func(b *bed) (func() error, error) {
		w, err := b.way(name)
		if err != nil {
			return nil, err
		}
		return func() error {
			result, err := w.call(context.Background(), "echo", arguments)
			if err != nil {
				return err
			}
			m, ok := result.(map[string]any)
			return check(ok, m)
		}, nil
	}
}

// peersTable tries each property on each way. It measures a small call in turns.
func peersTable(b *bed, n scale, rounds int, bytes int64) (table, error) {
	t := table{Name: "peers", Header: []string{""}}
	for _, c := range wayColumns {
		t.Header = append(t.Header, c.title)
	}
	for _, trial := range trials {
		cells := []string{trial.name}
		for _, c := range wayColumns {
			a, err := trial.run(b.python, c.name, bytes)
			if err != nil {
				return t, err
			}
			cells = append(cells, a.String())
		}
		t.Rows = append(t.Rows, cells)
	}
	took, err := smallCall.rounds(b, n, rounds)
	if err != nil {
		return t, err
	}
	cells := []string{smallCall.name}
	for _, c := range wayColumns {
		cells = append(cells, fmt.Sprintf("%.0f µs", median(took[c.name])))
	}
	cells[len(cells)-1] += fmt.Sprintf("; on msgpack %.0f, on jsonstdio %.0f", median(took["library/msgpack"]),
		median(took["library/jsonstdio"]))
	t.Rows = append(t.Rows, cells)
	for _, adapter := range adapters {
		cells := []string{"the same, this library on " + adapter + " being 1"}
		for _, c := range wayColumns[:3] {
			cells = append(cells, fmt.Sprintf("%.2f", ratio(took[c.name], took["library/"+adapter])))
		}
		t.Rows = append(t.Rows, append(cells, "1"))
	}
	return t, nil
}
