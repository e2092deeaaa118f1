//go:build unix

package msgpack

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

func TestConformance(t *testing.T) {
	t.Run("four at once", func(t *testing.T) {
		conformance.Run(t, conformance.Harness{
			Adapter: damageable{}, Worker: python.Conformance(4), Corrupt: corrupt,
		})
	})
	t.Run("one at a time", func(t *testing.T) { // the adapter is the same
		conformance.Run(t, conformance.Harness{
			Adapter: damageable{}, Worker: python.Conformance(1), Corrupt: corrupt,
			Parts: []conformance.Part{conformance.Worker, conformance.Pool},
		})
	})
}

// damageable is an adapter whose connections corrupt can damage.
type damageable struct{ Adapter }

func (a damageable) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		c := link.Conn.(*conn)
		c.sock = &damaged{socket: c.sock}
	}
	return link, err
}

// corrupt damages what is sent from now on: the length in front of a frame lacks its highest byte.
func corrupt(c core.Conn) error {
	c.(*conn).sock.(*damaged).on.Store(true)
	return nil
}

type damaged struct {
	socket
	on atomic.Bool
}

func (d *damaged) Write(b []byte) (int, error) {
	if !d.on.Load() {
		return d.socket.Write(b)
	}
	_, err := d.socket.Write(b[1:])
	return len(b), err
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: Adapter{}, Worker: python.Conformance(1)})
}
