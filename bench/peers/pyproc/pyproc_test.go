package pyproc

import (
	"cmp"
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

func TestPeer(t *testing.T) {
	peer := start(t)
	call(t, peer)
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 5 {
				call(t, peer)
			}
		})
	}
	callers.Wait()
	pids := peer.PIDs()
	if len(pids) == 0 {
		t.Error("no process")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d before Close: %v", pid, err)
		}
	}
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is alive after Close", pid)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	peer := start(b)
	for b.Loop() {
		call(b, peer)
	}
	if err := peer.Close(); err != nil {
		b.Error(err)
	}
}

// start skips the test if Python lacks the packages.
func start(t testing.TB) peers.Peer {
	t.Helper()
	python := cmp.Or(os.Getenv("SNAKEPIT_PYTHON"), "python3")
	command := exec.Command(python, "-c", "import pyproc_worker")
	if text, err := command.CombinedOutput(); err != nil {
		t.Skipf("%s lacks the packages of requirements.txt: %v\n%s", python, err, text)
	}
	peer, err := Start(t.Context(), python)
	if err != nil {
		t.Fatal(err)
	}
	return peer
}

func call(t testing.TB, peer peers.Peer) {
	t.Helper()
	result, err := peer.Call(t.Context(), arguments)
	if err != nil {
		t.Error(err)
	} else if !maps.Equal(result, arguments) {
		t.Errorf("got %v, want %v", result, arguments)
	}
}
