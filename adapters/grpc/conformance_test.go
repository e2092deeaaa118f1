//go:build unix

package grpc

import (
	"context"
	"sync/atomic"
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
			conformance.Run(t, conformance.Harness{
				Adapter: damageable{}, Worker: worker.Conformance(concurrency), Corrupt: corrupt,
			})
		})
	}
}

// damageable is an adapter whose connections corrupt can damage.
type damageable struct{ Adapter }

func (a damageable) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		c := link.Conn.(*conn)
		c.stream = &damaged{BidiStreamingClient: c.stream}
	}
	return link, err
}

// corrupt damages what is sent from now on: each frame gets a kind that does not exist.
func corrupt(c core.Conn) error {
	c.(*conn).stream.(*damaged).on.Store(true)
	return nil
}

type damaged struct {
	grpc.BidiStreamingClient[snakepitpb.Batch, snakepitpb.Batch]
	on atomic.Bool
}

func (d *damaged) Send(b *snakepitpb.Batch) error {
	if d.on.Load() {
		for _, f := range b.Frames {
			f.Kind = 77
		}
	}
	return d.BidiStreamingClient.Send(b)
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: Adapter{}, Worker: worker.Conformance(1)})
}
