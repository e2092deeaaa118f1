package jsonstdio

import (
	"io"
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

func TestConformance(t *testing.T) {
	t.Run("four at once", func(t *testing.T) {
		conformance.Run(t, conformance.Harness{
			Adapter: Adapter{}, Worker: python.Conformance(4), Corrupt: corrupt,
		})
	})
	t.Run("one at a time", func(t *testing.T) { // the adapter is the same
		conformance.Run(t, conformance.Harness{
			Adapter: Adapter{}, Worker: python.Conformance(1), Corrupt: corrupt,
			Parts: []conformance.Part{conformance.Worker, conformance.Pool},
		})
	})
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
