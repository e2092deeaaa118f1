package core_test

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestArgumentsOverTheLimitFailTheirCallAlone(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, MaxFrame: 8192}, func(t *testing.T, p *core.Pool) {
		for range 6 {
			_, err := core.Execute[any](t.Context(), p, "echo", strings.Repeat("x", 10000))
			// 2 bytes are the codec's quotes, 4 the command's name, 256 the allowance for everything else.
			const says = "a frame with the arguments has 10262 bytes, and the limit is 8192; " +
				"raise Options.MaxFrame, or send it in smaller items"
			if !errors.Is(err, core.ErrFrameTooLarge) || !strings.Contains(err.Error(), says) {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute) // on the bubble's clock
		if s := p.Stats(); s.Restarts != 0 {
			t.Errorf("restarts %d lost %d", s.Restarts, s.Lost)
		}
	})
}

func TestAnswersOverTheLimitFailTheirCallAlone(t *testing.T) {
	fs := functions()
	fs["repeat"] = core.Func(func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
	fs["items"] = core.StreamFunc(func(_ context.Context, n int) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			_ = yield("x", nil) && yield(strings.Repeat("x", n), nil)
		}
	})
	bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1, MaxFrame: 8192},
		func(t *testing.T, p *core.Pool) {
			_, err := core.Execute[string](t.Context(), p, "repeat", 10000)
			if !errors.Is(err, core.ErrFrameTooLarge) || !core.MayHaveRun(err) ||
				!strings.Contains(err.Error(), "a frame with the result has 10258 bytes") {
				t.Error(err)
			}
			var n int
			for _, err = range core.ExecuteStream[string](t.Context(), p, "items", 10000) {
				n++
			}
			if n != 2 || !errors.Is(err, core.ErrFrameTooLarge) || !core.MayHaveRun(err) ||
				!strings.Contains(err.Error(), "a frame with the item has 10258 bytes") {
				t.Error(n, err)
			}
			if got, err := core.Execute[string](t.Context(), p, "repeat", 3); err != nil || got != "xxx" {
				t.Error(got, err)
			}
		})
}

func TestStreamEndsAtItsDeadlineAlsoWithItemsWaiting(t *testing.T) {
	fs := functions()
	fs["forever"] = core.Function{Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		for i := 0; ; i++ {
			if err := c.Send(context.Background(), i); err != nil {
				return nil, err
			}
		}
	}}
	bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		n, after := 0, 0
		begin := time.Now()
		for _, err := range core.ExecuteStream[int](t.Context(), p, "forever", nil, core.Timeout(time.Second)) {
			if err != nil {
				t.Log("ended", err, time.Since(begin))
				break
			}
			n++
			time.Sleep(10 * time.Millisecond)
			if time.Since(begin) > time.Second {
				after++
			}
			if after > 3000 {
				break
			}
		}
		if after > 1 {
			t.Errorf("%d items after the deadline, %s", after, time.Since(begin))
		}
	})
}

func TestEachCallOfABusyWorkerMayCallBack(t *testing.T) {
	const n = 200
	host := core.Func(func(_ context.Context, v int) (int, error) {
		time.Sleep(time.Second) // on the bubble's clock, so that all calls run at once
		return v, nil
	})
	o := core.Options{Size: 1, Functions: map[string]core.Function{"host": host}}
	bubble(t, &coretest.Adapter{Concurrency: n}, o, func(t *testing.T, p *core.Pool) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if v, err := core.Execute[int](t.Context(), p, "callback", nil); v != 20 || err != nil {
					t.Error(v, err)
				}
			})
		}
		wg.Wait()
	})
}

// slowWrites makes workers whose connection takes a second to write.
type slowWrites struct{ *coretest.Adapter }

func (a slowWrites) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = slowConn{link.Conn}
	}
	return link, err
}

type slowConn struct{ core.Conn }

func (c slowConn) Write(frames []core.Frame) error {
	time.Sleep(time.Second)
	return c.Conn.Write(frames)
}

// A worker is lost, and the pool has not noticed yet. A call moves to another worker. A call with an input moves too,
// as long as none of its input has been taken.
func TestCallWithAnInputMovesUntilItIsTaken(t *testing.T) {
	a := slowWrites{&coretest.Adapter{Functions: functions(), Concurrency: 3}}
	input := core.Input(func(yield func(int) bool) { _ = yield(2) && yield(3) })
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, Logger: hclog.NewNullLogger()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := core.Execute[any](t.Context(), p, "wait", nil); !errors.Is(err, core.ErrWorkerLost) ||
				!core.MayHaveRun(err) {
				t.Error("the call that was being written:", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := core.Execute[any](t.Context(), p, "sum", nil, input); !errors.Is(err, core.ErrWorkerLost) ||
				core.MayHaveRun(err) {
				t.Error("the call whose input was waiting to be written:", err)
			}
		})
		synctest.Wait()
		a.Crash(0)
		synctest.Wait()
		if v, err := core.Execute[int](t.Context(), p, "sum", nil, input); v != 5 || err != nil {
			t.Error("the call that came next:", v, err)
		}
		wg.Wait()
	})
}

// A consumer that stops holds its slot only until its context ends.
func TestConsumerThatStandsStillGivesItsSlotBack(t *testing.T) {
	for name, items := range map[string]int{"endless": 1 << 40, "all here": 3} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				still, last := make(chan struct{}), make(chan error)
				go func() {
					n := 0
					for v, err := range core.ExecuteStream[int](ctx, p, "count", items, core.Timeout(-1)) {
						if err != nil {
							last <- err
							return
						}
						if v != n {
							t.Error(v, n)
						}
						if n++; n == 1 {
							<-still
						}
					}
					last <- nil
				}()
				synctest.Wait()
				cancel()
				if _, err := core.Execute[any](t.Context(), p, "echo", 1, core.Timeout(3*time.Second)); err != nil {
					t.Error("another caller:", err)
				}
				close(still)
				if err := <-last; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// A long write queue of the host's own input is no reason to end the connection when a worker calls.
func TestCallsComeThroughMuchQueuedInput(t *testing.T) {
	fs := functions()
	fs["late"] = core.Function{Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		time.Sleep(5500 * time.Millisecond)
		var v any
		return v, c.Host().Call(ctx, "host", 1, &v)
	}}
	a := slowWrites{&coretest.Adapter{Functions: fs, Concurrency: 100}}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
			Size: 1, Logger: hclog.NewNullLogger(), CallTimeout: -1,
			Functions: map[string]core.Function{"host": core.Func(func(_ context.Context, n int) (int, error) {
				return n, nil
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := core.Execute[any](t.Context(), p, "late", nil); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(6 * time.Second) // "late" began after a second's write
		for range 80 {
			wg.Go(func() {
				if _, err := core.Execute[int](t.Context(), p, "sum", nil,
					core.Input(slices.Values(make([]int, 1024)))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// sharing makes workers whose connection reads 64 KiB with each frame. The frame's body is part of that buffer.
type sharing struct{ *coretest.Adapter }

func (a sharing) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = sharingConn{link.Conn}
	}
	return link, err
}

type sharingConn struct{ core.Conn }

func (c sharingConn) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	for i := range frames {
		if body := frames[i].Body; len(body) > 0 {
			frames[i].Body = append(make([]byte, 0, 64<<10), body...)
		}
	}
	return frames, err
}

// Small items that wait for a slow consumer do not pin the buffers they came in.
func TestWaitingItemsCostTheirSize(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), sharing{&coretest.Adapter{Functions: functions()}}, core.Command{},
			&core.Options{Size: 1, Logger: hclog.NewNullLogger()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		n, before := 0, heap()
		for _, err := range core.ExecuteStream[int](t.Context(), p, "count", 3000) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 1 {
				synctest.Wait() // a whole window has arrived
				if grown := heap() - before; grown > 4<<20 {
					t.Errorf("a thousand waiting items took %d KiB", grown>>10)
				}
			}
		}
		if n != 3000 {
			t.Error(n)
		}
	})
}

// A call that the handler made may end at the deadline, just before the caller's own timer fires.
func TestDeadlineIsOneAlsoWhenItEndsWhatTheHandlerCalled(t *testing.T) {
	fs := functions()
	fs["asks"] = core.Func(func(context.Context, any) (any, error) {
		time.Sleep(999 * time.Millisecond)
		return nil, &core.RemoteError{
			Type: "RemoteError", Module: "snakepit_bridge", Cause: &core.RemoteError{Type: "Cancelled"},
		}
	})
	bubble(t, &coretest.Adapter{Functions: fs}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		_, err := core.Execute[any](t.Context(), p, "asks", nil, core.Timeout(time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !core.MayHaveRun(err) {
			t.Error(err)
		}
		var remote *core.RemoteError
		if _, err := core.Execute[any](t.Context(), p, "asks", nil, core.Timeout(-1)); !errors.As(err, &remote) {
			t.Error(err)
		}
	})
}

func TestSessionClosedBeforeItHadAWorkerLeavesNothing(t *testing.T) {
	n := 0
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		if n++; n > 1 {
			time.Sleep(2 * time.Second)
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		a.Crash(0)
		synctest.Wait()
		done := make(chan error)
		go func() {
			_, err := core.Execute[any](t.Context(), p.Session("s"), "echo", 1)
			done <- err
		}()
		synctest.Wait()
		p.Session("s").Close()
		t.Log(<-done)
		if s := p.Stats(); s.Sessions != 0 || s.Workers[0].Sessions != 0 {
			t.Errorf("sessions %d, on the worker %d", s.Sessions, s.Workers[0].Sessions)
		}
	})
}

func TestSecondCallOfALostSessionIsToldSo(t *testing.T) {
	n := 0
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		if n++; n > 1 {
			time.Sleep(2 * time.Second)
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		a.Crash(0)
		synctest.Wait()
		one, two := make(chan error, 1), make(chan error, 1)
		go func() { _, err := core.Execute[any](t.Context(), p.Session("s"), "wait", nil); one <- err }()
		synctest.Wait()
		go func() { _, err := core.Execute[any](t.Context(), p.Session("s"), "echo", 1); two <- err }()
		time.Sleep(5 * time.Second) // the first runs
		a.Crash(0)
		t.Log(<-one)
		if err := <-two; !errors.Is(err, core.ErrSessionLost) {
			t.Errorf("the second call: %v", err)
		}
	})
}

func TestClosedSessionIsForgottenWhateverTheQueue(t *testing.T) {
	for name, o := range map[string]core.Options{
		"queue": {Size: 1, Queue: -1}, "no limit": {Size: 1, CallTimeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			var forgot atomic.Int32
			fs := functions()
			fs["snakepit.forget"] = core.Function{Run: func(context.Context, *core.Incoming) (any, error) {
				forgot.Add(1)
				return nil, nil
			}}
			bubble(t, &coretest.Adapter{Functions: fs}, o, func(t *testing.T, p *core.Pool) {
				done := make(chan error, 1)
				go func() { _, err := core.Execute[any](t.Context(), p.Session("s"), "nap", 5000); done <- err }()
				synctest.Wait()
				p.Session("s").Close()
				t.Log(<-done)
				time.Sleep(time.Minute)
				if forgot.Load() != 1 {
					t.Errorf("forgot %d times", forgot.Load())
				}
			})
		})
	}
}

func TestByeLosesTheWorkersSessions(t *testing.T) {
	h := &byeAdapter{Adapter: &coretest.Adapter{Functions: functions()}}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), h, core.Command{}, &core.Options{Size: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		s := p.Session("s")
		if _, err := core.Execute[any](t.Context(), s, "echo", 1); err != nil {
			t.Fatal(err)
		}
		close(h.bye)
		synctest.Wait()
		for range 3 {
			_, err = core.Execute[any](t.Context(), s, "echo", 1)
			t.Log(err)
			if !errors.Is(err, core.ErrSessionLost) {
				t.Errorf("not ErrSessionLost")
			}
			time.Sleep(10 * time.Minute)
		}
		if _, err = core.Execute[any](t.Context(), p, "echo", 1); err != nil {
			t.Error("another caller:", err)
		}
	})
}

type byeAdapter struct {
	*coretest.Adapter
	bye chan struct{}
}

func (b *byeAdapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := b.Adapter.Start(ctx, l)
	if err == nil && b.bye == nil {
		b.bye = make(chan struct{})
		link.Conn = newByeConn(link.Conn, b.bye)
	}
	return link, err
}

type byeConn struct {
	core.Conn
	got chan []core.Frame
	err error
	bye chan struct{}
}

func newByeConn(c core.Conn, bye chan struct{}) *byeConn {
	b := &byeConn{c, make(chan []core.Frame), nil, bye}
	go func() {
		for {
			f, err := c.Read()
			if err != nil {
				b.err = err
				close(b.got)
				return
			}
			b.got <- f
		}
	}()
	return b
}

func (b *byeConn) Read() ([]core.Frame, error) {
	select {
	case f, ok := <-b.got:
		if !ok {
			return nil, b.err
		}
		return f, nil
	case <-b.bye:
		b.bye = nil
		return []core.Frame{{Kind: core.KindBye}}, nil
	}
}

func TestEveryLossIsCounted(t *testing.T) {
	bad := 0
	for range 20 {
		a := &coretest.Adapter{}
		bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
			one, two := make(chan error, 1), make(chan error, 1)
			go func() { _, err := core.Execute[any](t.Context(), p, "wait", nil); one <- err }()
			synctest.Wait()
			go func() { _, err := core.Execute[any](t.Context(), p, "echo", 1); two <- err }()
			synctest.Wait()
			a.Crash(0)
			err := <-one
			if other := <-two; other == nil {
				t.Log("the second call found the replacement")
			}
			if p.Stats().Lost != 1 || !errors.As(err, new(*core.WorkerExit)) {
				if bad++; bad == 1 {
					t.Log(p.Stats().Lost, err)
				}
			}
		})
	}
	if bad > 0 {
		t.Errorf("%d of 20 losses were not noticed", bad)
	}
}
func TestLostSessionIsNotRevivedFromTheQueue(t *testing.T) {
	n := 0
	a := &coretest.Adapter{Before: func(ctx context.Context, _ int) error {
		if n++; n > 1 {
			time.Sleep(2 * time.Second)
		}
		return nil
	}}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		a.Crash(0)
		synctest.Wait()
		got := [3]chan error{make(chan error, 1), make(chan error, 1), make(chan error, 1)}
		for i, c := range []struct {
			to  core.Target
			cmd string
		}{{p.Session("s"), "wait"}, {p, "echo"}, {p.Session("s"), "echo"}} {
			go func() { _, err := core.Execute[any](t.Context(), c.to, c.cmd, nil); got[i] <- err }()
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		a.Crash(0)
		t.Log(<-got[0])
		t.Log(<-got[1])
		if err := <-got[2]; !errors.Is(err, core.ErrSessionLost) {
			t.Errorf("the session's second call: %v", err)
		}
	})
}
