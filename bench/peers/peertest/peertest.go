// Package peertest has the test that each peer has to pass.
package peertest

import (
	"cmp"
	"context"
	"maps"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/snakepit-go/snakepit/bench/peers"
)

// arguments holds floats, for that is how JSON numbers come back.
var arguments = map[string]any{"operation": "add", "a": 5.0, "b": 3.0}

// Python returns the interpreter of SNAKEPIT_PYTHON, or python3. It skips the test unless that has the modules, such as
// "fastapi, uvicorn": the library needs none of them, so a checkout works without the packages of a peer.
func Python(t testing.TB, modules string) string {
	t.Helper()
	python := cmp.Or(os.Getenv("SNAKEPIT_PYTHON"), "python3")
	if text, err := exec.Command(python, "-c", "import "+modules).CombinedOutput(); err != nil {
		t.Skipf("%s lacks packages of requirements.txt; make bench-peers installs them: %v\n%s", python, err, text)
	}
	return python
}

// Calls lets 64 goroutines call a peer and closes it. Each call has to return its arguments, and no process of the peer
// may be left.
func Calls(t *testing.T, start peers.Start, python string) {
	t.Helper()
	peer := open(t, start, python)
	call(t, peer)
	pids := peer.PIDs()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d before Close: %v", pid, err)
		}
	}
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 5 {
				call(t, peer)
			}
		})
	}
	callers.Wait()
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is alive after Close", pid)
		}
	}
}

// Benchmark measures calls that one goroutine makes.
func Benchmark(b *testing.B, start peers.Start, python string) {
	b.Helper()
	peer := open(b, start, python)
	for b.Loop() {
		call(b, peer)
	}
	if err := peer.Close(); err != nil {
		b.Error(err)
	}
}

func open(t testing.TB, start peers.Start, python string) peers.Peer {
	t.Helper()
	peer, err := start(t.Context(), python)
	if err != nil {
		t.Fatal(err)
	}
	return peer
}

func call(t testing.TB, peer peers.Peer) {
	t.Helper()
	result, err := peer.Call(context.Background(), arguments)
	if err != nil {
		t.Error(err)
	} else if !maps.Equal(result, arguments) {
		t.Errorf("got %v, want %v", result, arguments)
	}
}
