package process

import (
	"context"
	"testing"

	"github.com/snakepit-go/snakepit/bench/peers/peertest"
)

func python(t testing.TB) string { return peertest.Python(t, "json") }

func TestCalls(t *testing.T) {
	p, err := Start(t.Context(), python(t))
	if err != nil {
		t.Fatal(err)
	}
	if pids := p.PIDs(); len(pids) != 0 {
		t.Errorf("PIDs() = %v, want none", pids)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	peertest.Calls(t, Start, python(t))
}

func TestCancel(t *testing.T) {
	p, err := Start(t.Context(), python(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Call(ctx, map[string]any{"a": 5}); err == nil {
		t.Error("no error after the end of ctx")
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(t.Context(), "/nonexistent/python"); err == nil {
		t.Error("no error without an interpreter")
	}
}

func BenchmarkCall(b *testing.B) { peertest.Benchmark(b, Start, python(b)) }
