package jsonstdio

import (
	"io"
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

func TestConformance(t *testing.T) {
	for name, concurrency := range map[string]int{"one at a time": 1, "four at once": 4} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, conformance.Harness{
				Adapter: Adapter{}, Worker: python.Conformance(concurrency), Corrupt: corrupt,
			})
		})
	}
}

// corrupt changes a byte of each line that is sent from now on.
func corrupt(c core.Conn) error {
	c.(*conn).out = damaged{c.(*conn).out}
	return nil
}

type damaged struct{ io.WriteCloser }

func (d damaged) Write(b []byte) (int, error) {
	b = append([]byte(nil), b...)
	b[0] ^= 0x20
	return d.WriteCloser.Write(b)
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: Adapter{}, Worker: python.Conformance(1)})
}
