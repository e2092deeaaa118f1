//go:build unix

package grpc

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	worker "github.com/snakepit-go/snakepit/python"
	"google.golang.org/grpc"
)

func TestConformance(t *testing.T) {
	t.Run("four at once", func(t *testing.T) {
		conformance.Run(t, conformance.Harness{
			Adapter: damageable{}, Worker: worker.Conformance(4), Corrupt: corrupt,
		})
	})
	t.Run("one at a time", func(t *testing.T) { // the adapter is the same
		conformance.Run(t, conformance.Harness{
			Adapter: damageable{}, Worker: worker.Conformance(1), Corrupt: corrupt,
			Parts: []conformance.Part{conformance.Worker, conformance.Pool},
		})
	})
}

// TestConformanceOnPorts runs the suite over TLS. The clauses about a worker are left out: it takes no notice of TLS.
func TestConformanceOnPorts(t *testing.T) {
	a := Adapter{BasePort: freeRange(t, 200), PortRange: 199}
	conformance.Run(t, conformance.Harness{
		Adapter: damageable{a}, Worker: worker.Conformance(4), Corrupt: corrupt,
		Parts: []conformance.Part{conformance.Adapter, conformance.Pool},
	})
}

// damageable is an adapter whose connections corrupt can damage.
type damageable struct{ Adapter }

func (a damageable) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		c := link.Conn.(*conn)
		c.stream = &damaged{ClientStream: c.stream}
	}
	return link, err
}

// corrupt damages what is sent from now on: each frame gets a kind that does not exist.
func corrupt(c core.Conn) error {
	c.(*conn).stream.(*damaged).on.Store(true)
	return nil
}

type damaged struct {
	grpc.ClientStream
	on atomic.Bool
}

func (d *damaged) SendMsg(m any) error {
	if d.on.Load() {
		sent := *m.(*message)
		sent.frames = slices.Clone(sent.frames)
		for i := range sent.frames {
			sent.frames[i].Kind = 77
		}
		m = &sent
	}
	return d.ClientStream.SendMsg(m)
}

func BenchmarkConformance(b *testing.B) {
	for name, a := range map[string]Adapter{"unix": {}, "ports": {BasePort: freeRange(b, 200), PortRange: 199}} {
		b.Run(name, func(b *testing.B) {
			conformance.RunBenchmarks(b, conformance.Harness{Adapter: a, Worker: worker.Conformance(1)})
		})
	}
}
