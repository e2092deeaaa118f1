package core_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestShutdownLetsCallsEnd(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		var err error
		done := make(chan struct{})
		go func() {
			_, err = core.Execute[int](t.Context(), p, "nap", 5000)
			close(done)
		}()
		synctest.Wait()
		if e := p.Shutdown(t.Context()); e != nil {
			t.Fatal(e)
		}
		<-done
		if err != nil {
			t.Fatal(err)
		}
		if _, err := core.Execute[any](t.Context(), p, "echo", 1); !errors.Is(err, core.ErrClosed) ||
			core.MayHaveRun(err) {
			t.Fatal(err)
		}
	})
}

// A running call can still call the pool while it shuts down, whether or not a worker is free.
func TestShutdownLetsRunningCallsCall(t *testing.T) {
	for _, busy := range []int{0, 1} {
		var pool *core.Pool
		o := core.Options{Size: 2, Functions: map[string]core.Function{
			"host": core.Func(func(ctx context.Context, n int) (any, error) {
				if busy == 0 {
					time.Sleep(time.Second) // on the bubble's clock; the pool is shutting down by then
				}
				return core.Execute[any](ctx, pool, "echo", n)
			}),
		}}
		bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
			pool = p
			if err := p.WaitReady(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			for range busy {
				wg.Go(func() {
					if _, err := core.Execute[any](t.Context(), p, "nap", 2000); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			wg.Go(func() {
				if v, err := core.Execute[int](t.Context(), p, "callback", nil); v != 20 || err != nil {
					t.Error(v, err)
				}
			})
			synctest.Wait()
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCloseEndsRunningCalls(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		done := make(chan error)
		for range 2 {
			go func() {
				_, err := core.Execute[any](t.Context(), p, "wait", nil)
				done <- err
			}()
		}
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-done; !errors.Is(err, core.ErrClosed) {
				t.Fatal(err)
			}
		}
	})
}
