//go:build unix

package grpc

import (
	"testing"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	worker "github.com/snakepit-go/snakepit/python"
	"google.golang.org/grpc"
)

func TestConformance(t *testing.T) {
	for name, concurrency := range map[string]int{"one at a time": 1, "four at once": 4} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, conformance.Harness{Adapter: Adapter{}, Worker: worker.Conformance(concurrency), Corrupt: corrupt})
		})
	}
}

// corrupt damages what is sent from now on: each frame has a kind that there is not.
func corrupt(c core.Conn) error {
	c.(*conn).stream = damaged{c.(*conn).stream}
	return nil
}

type damaged struct {
	grpc.BidiStreamingClient[snakepitpb.Batch, snakepitpb.Batch]
}

func (d damaged) Send(b *snakepitpb.Batch) error {
	for _, f := range b.Frames {
		f.Kind = 77
	}
	return d.BidiStreamingClient.Send(b)
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: Adapter{}, Worker: worker.Conformance(1)})
}
