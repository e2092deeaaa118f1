package goplugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers/peertest"
)

func python(t testing.TB) string { return peertest.Python(t, "grpc, grpc_health, google.protobuf") }

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
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if len(p.PIDs()) != 0 || alive(pids[0]) {
		t.Errorf("process %d is alive after Close", pids[0])
	}
	if _, err := os.Stat(p.(*peer).directory); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
	peertest.Calls(t, Start, python(t))
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

func BenchmarkCall(b *testing.B) { peertest.Benchmark(b, Start, python(b)) }
