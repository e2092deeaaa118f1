package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// RunBenchmarks measures the cost of the adapter and one worker together: a call, calls at once, items of a stream,
// and a megabyte there and back. Compare only figures of one run.
func RunBenchmarks(b *testing.B, h Harness) {
	b.Helper()
	if err := h.check(); err != nil {
		b.Fatal(err)
	}
	var cmd core.Command
	if h.Worker != nil {
		var err error
		if cmd, err = h.Worker.Command(); err != nil {
			b.Fatal(err)
		}
	}
	pool, err := core.Open(b.Context(), h.Adapter, cmd, &core.Options{
		Size: 1, Queue: 10_000, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := pool.Close(); err != nil {
			b.Error(err)
		}
	}()
	ctx := context.WithoutCancel(b.Context()) // without a deadline, like that of most callers
	echo := func(b *testing.B, v []byte) {
		got, err := core.Execute[[]byte](ctx, pool, "conformance.echo", args{"value": v})
		if err != nil || len(got) != len(v) {
			b.Errorf("an echo of %d bytes: %d bytes, %v", len(v), len(got), err)
		}
	}

	b.Run("call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			echo(b, []byte("sixteen bytes..."))
		}
	})
	b.Run("calls at once", func(b *testing.B) {
		const callers = 64
		b.ReportAllocs()
		work := make(chan struct{})
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range work {
					echo(b, []byte("sixteen bytes..."))
				}
			})
		}
		for b.Loop() {
			work <- struct{}{}
		}
		close(work)
		all.Wait()
	})
	b.Run("item", func(b *testing.B) {
		b.ReportAllocs()
		const n = 1000
		left := 0
		var next func() (int, error, bool)
		stop := func() {}
		for b.Loop() {
			if left == 0 {
				stop()
				next, stop = iter.Pull2(core.ExecuteStream[int](ctx, pool, "conformance.count", args{"n": n}))
				left = n
			}
			if _, err, ok := next(); err != nil || !ok {
				b.Fatal(fmt.Errorf("item %d: %w", n-left, err))
			}
			left--
		}
		stop()
	})
	b.Run("megabyte", func(b *testing.B) {
		v := make([]byte, 1<<20)
		_, err := core.Execute[[]byte](ctx, pool, "conformance.echo", args{"value": v})
		if errors.Is(err, core.ErrFrameTooLarge) {
			b.Skip("frames are smaller here")
		}
		b.SetBytes(2 << 20)
		b.ReportAllocs()
		for b.Loop() {
			echo(b, v)
		}
	})
}
