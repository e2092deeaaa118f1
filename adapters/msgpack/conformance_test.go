//go:build unix

package msgpack

import (
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

func TestConformance(t *testing.T) {
	for name, concurrency := range map[string]int{"one at a time": 1, "four at once": 4} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, conformance.Harness{Adapter: Adapter{}, Worker: python.Conformance(concurrency), Corrupt: corrupt})
		})
	}
}

// corrupt damages what is sent from now on: the length in front of a frame comes without its highest byte.
func corrupt(c core.Conn) error {
	c.(*conn).sock = damaged{c.(*conn).sock}
	return nil
}

type damaged struct{ socket }

func (d damaged) Write(b []byte) (int, error) {
	_, err := d.socket.Write(b[1:])
	return len(b), err
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: Adapter{}, Worker: python.Conformance(1)})
}
