package goplugin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

func python(t testing.TB) string {
	python := cmp.Or(os.Getenv("SNAKEPIT_PYTHON"), "python3")
	cmd := exec.Command(python, "-c", "import grpc, grpc_health, google.protobuf")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s has not the packages of bench/peers/goplugin/requirements.txt: %v\n%s", python, err, out)
	}
	return python
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}

func TestCalls(t *testing.T) {
	p, err := Start(t.Context(), python(t))
	if err != nil {
		t.Fatal(err)
	}
	pids := p.PIDs()
	if len(pids) != 1 || !alive(pids[0]) {
		t.Errorf("PIDs() = %v, want one live process", pids)
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
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if len(p.PIDs()) != 0 || alive(pids[0]) {
		t.Errorf("process %d is alive after Close", pids[0])
	}
	if _, err := os.Stat(p.(*peer).directory); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestStartOutlivesItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, python(t))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := p.Call(t.Context(), map[string]any{"a": 5}); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(t.Context(), "/nonexistent/python"); err == nil {
		t.Error("no error without an interpreter")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, python(t)); err == nil {
		t.Error("no error after the end of ctx")
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	silent := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start = %v", err)
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
	if err := p.Close(); err != nil {
		b.Error(err)
	}
}
