package fastapi

import (
	"testing"

	"github.com/snakepit-go/snakepit/bench/peers/peertest"
)

const modules = "fastapi, httptools, uvicorn, uvloop"

func TestPeer(t *testing.T) {
	python := peertest.Python(t, modules)
	p, err := Start(t.Context(), python)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.PIDs()) == 0 {
		t.Error("no process")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	peertest.Calls(t, Start, python)
}

func BenchmarkCall(b *testing.B) { peertest.Benchmark(b, Start, peertest.Python(b, modules)) }
