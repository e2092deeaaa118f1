package core_test

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// The calls of a Go worker's handler carry the trace headers of its own call, and the metadata of their context.
func TestHostCallsCarryTraceHeaders(t *testing.T) {
	traced := map[string]string{"traceparent": "00-1-2-01", "tracestate": "a=b", "baggage": "k=v"}
	for _, test := range []struct {
		name              string
		served, own, want map[string]string
	}{
		{"none", map[string]string{"secret": "x"}, nil, nil},
		{"the call's", traced, nil, traced},
		{"one", map[string]string{"baggage": "k=v", "secret": "x"}, nil, map[string]string{"baggage": "k=v"}},
		{
			"the call's and others", map[string]string{"traceparent": "00-1-2-01"}, map[string]string{"mine": "1"},
			map[string]string{"traceparent": "00-1-2-01", "mine": "1"},
		},
		{
			"the context's", traced, map[string]string{"traceparent": "00-3-4-01"},
			map[string]string{"traceparent": "00-3-4-01"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got map[string]string
			options := core.Options{Size: 1, Functions: map[string]core.Function{
				"seen": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
					got = c.Metadata
					return nil, nil
				}},
			}}
			a := &coretest.Adapter{Functions: map[string]core.Function{
				"ask": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
					if test.own != nil {
						ctx = core.WithMetadata(ctx, test.own)
					}
					if err := c.Host().Call(ctx, "seen", nil, nil); err != nil {
						return nil, err
					}
					first := got
					for _, err := range c.Host().Stream(ctx, "seen", nil) {
						return nil, err
					}
					if !maps.Equal(first, got) {
						t.Errorf("a call carries %v, a stream %v", first, got)
					}
					return nil, nil
				}},
			}}
			bubble(t, a, options, func(t *testing.T, p *core.Pool) {
				ctx := core.WithMetadata(t.Context(), test.served)
				if _, err := core.Execute[any](ctx, p, "ask", nil); err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(got, test.want) {
					t.Errorf("the handler's call carries %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestHostCallWithBadMetadata(t *testing.T) {
	a := &coretest.Adapter{Functions: map[string]core.Function{
		"ask": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
			ctx = core.WithMetadata(ctx, map[string]string{"k": "\xff"})
			return nil, c.Host().Call(ctx, "seen", nil, nil)
		}},
	}}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		_, err := core.Execute[any](t.Context(), p, "ask", nil)
		if err == nil || !strings.Contains(err.Error(), `"k" is not valid UTF-8`) {
			t.Error(err)
		}
	})
}
