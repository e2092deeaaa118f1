//go:build unix

package remote

import (
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
)

// TestConformance runs the suite on workers of a back end that is a process of its own.
func TestConformance(t *testing.T) {
	for name, parts := range map[string][]conformance.Part{
		"TLS": nil, "plain text": {conformance.Adapter}, // a worker takes no notice of TLS
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, name == "TLS", "../../python/conformance_worker.py", "--", "4")
			conformance.Run(t, conformance.Harness{Adapter: b.Adapter, DetectsLoss: true, Parts: parts})
		})
	}
}
