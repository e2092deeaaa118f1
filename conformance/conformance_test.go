package conformance_test

import (
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestConformance(t *testing.T) {
	for name, concurrency := range map[string]int{"one at a time": 1, "four at once": 4} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, conformance.Harness{Adapter: coretest.Conformance(concurrency), DetectsLoss: true})
		})
	}
}

func BenchmarkConformance(b *testing.B) {
	conformance.RunBenchmarks(b, conformance.Harness{Adapter: coretest.Conformance(1)})
}
