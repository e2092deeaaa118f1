package process

import (
	"cmp"
	"context"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
)

func python(t testing.TB) string {
	python := cmp.Or(os.Getenv("SNAKEPIT_PYTHON"), "python3")
	if out, err := exec.Command(python, "-c", "import json").CombinedOutput(); err != nil {
		t.Fatalf("%s does not run: %v\n%s", python, err, out)
	}
	return python
}

func TestCalls(t *testing.T) {
	p, err := Start(t.Context(), python(t))
	if err != nil {
		t.Fatal(err)
	}
	args := map[string]any{"operation": "add", "a": 5.0, "b": 3.0}
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 5 {
				if result, err := p.Call(t.Context(), args); err != nil || !maps.Equal(result, args) {
					t.Errorf("Call(%v) = %v, %v", args, result, err)
				}
			}
		})
	}
	callers.Wait()
	if pids := p.PIDs(); len(pids) != 0 {
		t.Errorf("PIDs() = %v, want none", pids)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
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

func BenchmarkCall(b *testing.B) {
	p, err := Start(b.Context(), python(b))
	if err != nil {
		b.Fatal(err)
	}
	args := map[string]any{"operation": "add", "a": 5, "b": 3}
	for b.Loop() {
		if _, err := p.Call(b.Context(), args); err != nil {
			b.Fatal(err)
		}
	}
}
