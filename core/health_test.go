package core_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// A pong lists the oldest calls first, at most 64, and counts the rest.
func TestPongListsTheOldest(t *testing.T) {
	const calls = 70
	bubble(t, &coretest.Adapter{Concurrency: calls}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		for range calls {
			go func() { _, _ = core.Execute[any](t.Context(), p, "nap", 600_000, core.Timeout(-1)) }()
			time.Sleep(time.Second) // on the bubble's clock
		}
		h, err := p.Workers()[0].Health(t.Context())
		if err != nil || len(h.Running) != 64 || h.More != calls-64 {
			t.Fatalf("%d calls and %d more, %v", len(h.Running), h.More, err)
		}
		for i, call := range h.Running {
			if want := time.Duration(calls-i) * time.Second; call.For() != want || call.ID != uint64(2*i+1) {
				t.Errorf("call %d is %+v, running for %v", i, call, call.For())
			}
		}
	})
}

// A worker in Go has the stacks of its goroutines.
func TestStackOfAWorkerInGo(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		s, err := p.Workers()[0].Stack(t.Context())
		if err != nil || !strings.Contains(s.String(), "core.Serve") || len(s.Threads) != 0 {
			t.Errorf("%v, and the threads %+v of\n%s", err, s.Threads, s)
		}
	})
}

// asked opens a pool whose worker says of its features what a test wants, and answers a ping as answer says. It answers
// no call.
func asked(t *testing.T, hello map[string]any, answer func(ping core.Frame) (body string)) *core.Worker {
	t.Helper()
	return askedPool(t, hello, answer).Workers()[0]
}

func askedPool(t *testing.T, hello map[string]any, answer func(ping core.Frame) (body string)) *core.Pool {
	t.Helper()
	a := scripted(func(worker *coretest.Conn) {
		said := map[string]any{
			"versions": []int{1}, "codecs": []string{"json"}, "max_frame": 4096, "concurrency": 1,
			"window": map[string]int{"items": 9, "bytes": 99}, "runtime": "own 1", "library": "mine 2",
		}
		for name, value := range hello {
			said[name] = value
		}
		body, err := json.Marshal(said)
		if err == nil {
			err = worker.Write([]core.Frame{{Kind: core.KindHello, Body: body}})
		}
		for err == nil {
			var batch []core.Frame
			batch, err = worker.Read()
			for _, f := range batch {
				if body := answer(f); f.Kind == core.KindPing && body != "" {
					err = worker.Write([]core.Frame{{Kind: core.KindPong, ID: f.ID, Body: []byte(body)}})
				}
			}
		}
	})
	return opened(t, a, core.Options{Size: 1, StopTimeout: time.Millisecond})
}

// Of a worker without the feature, Stack is an error that says so.
func TestStackIsNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worker := asked(t, nil, func(f core.Frame) string {
			if f.Kind == core.KindPing {
				t.Error("it is asked")
			}
			return ""
		})
		_, err := worker.Stack(t.Context())
		if !errors.Is(err, errors.ErrUnsupported) ||
			!strings.Contains(fmt.Sprint(err), "worker 0 (own 1, mine 2) offers no stacks") {
			t.Error(err)
		}
	})
}

func TestStackByPong(t *testing.T) {
	for body, want := range map[string]string{
		`{"running":[],"stacks":"Thread 0x1 (most recent call first):\n  File \"a\", line 2 in b\n"}`: "",
		`{"running":[]}`: "has answered without the stacks that it offers",
		`7`:              "the stacks of worker 0",
	} {
		synctest.Test(t, func(t *testing.T) {
			worker := asked(t, map[string]any{"features": []string{"stacks"}}, func(f core.Frame) string {
				if f.Kind == core.KindPing && f.Name != "stacks" {
					t.Errorf("the ping is called %q", f.Name)
				}
				return body
			})
			s, err := worker.Stack(t.Context())
			switch {
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s gives %+v, %v", body, s, err)
			case want == "" && (err != nil || len(s.Threads) != 1 || s.Threads[0].Frames[0].Line != 2):
				t.Errorf("%s gives %+v, %v", body, s, err)
			}
		})
	}
}

// A worker that does not answer, and is no process of the pool, can't be asked by a signal. Stack waits for a second,
// or for half of the time that its caller has.
func TestStackOfASilentWorker(t *testing.T) {
	for name, c := range map[string]struct {
		hello   map[string]any
		timeout time.Duration
		takes   time.Duration
		says    string
	}{
		"without a signal": {nil, time.Hour, time.Second, "it has announced none, as workers do only on Linux"},
		"with one": {map[string]any{"signal": 58, "main": 1}, 100 * time.Millisecond, 50 * time.Millisecond,
			"it is no process of this pool"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hello := map[string]any{"features": []string{"stacks"}}
				if c.hello != nil {
					hello["stacks"] = c.hello
				}
				worker := asked(t, hello, func(core.Frame) string { return "" })
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				begin := time.Now()
				_, err := worker.Stack(ctx)
				if took := time.Since(begin); !errors.Is(err, errors.ErrUnsupported) ||
					!strings.Contains(fmt.Sprint(err), c.says) || took != c.takes {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// Without a process to look at, a diagnosis says what the ping shows.
func TestDiagnoseByPing(t *testing.T) {
	for want, c := range map[core.Condition]struct {
		pong  string
		takes time.Duration
		says  string
	}{
		core.ConditionIdle: {`{"running":[]}`, 0, "it answers and runs no call"},
		core.ConditionAnswering: {`{"running":[{"id":1,"name":"train","ms":1500}],"more":2}`, 0,
			"it answers and runs calls; train has been running for 1.5s, and 2 more"},
		core.ConditionSilent: {"", time.Second, "it does not answer; look has been running for 3s"},
	} {
		t.Run(string(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := askedPool(t, nil, func(core.Frame) string { return c.pong })
				worker := p.Workers()[0]
				if want == core.ConditionSilent {
					go func() { _, _ = core.Execute[any](t.Context(), p, "look", nil) }()
					time.Sleep(2 * time.Second) // on the bubble's clock
				}
				begin := time.Now()
				d, err := worker.Diagnose(t.Context())
				took := time.Since(begin)
				if err != nil || d.Condition != want || d.String() != c.says || took != c.takes {
					t.Errorf("after %v: %+v, %s, %v", took, d, d, err)
				}
			})
		})
	}
}

func TestDiagnoseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worker := asked(t, nil, func(core.Frame) string { return "7" })
		d, err := worker.Diagnose(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the pong of worker 0: ") {
			t.Errorf("%+v, %v", d, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		worker := asked(t, nil, func(core.Frame) string { return "" })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begin := time.Now()
		d, err := worker.Diagnose(ctx)
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != 300*time.Millisecond {
			t.Errorf("after %v: %+v, %v", took, d, err)
		}
	})
}

func TestDiagnoseALostWorker(t *testing.T) {
	a := &coretest.Adapter{}
	bubble(t, a, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		w := p.Workers()[0]
		a.Crash(0)
		synctest.Wait()
		d, err := w.Diagnose(t.Context())
		if err != nil || d.Condition != core.ConditionGone || d.String() != "its process or its connection has ended" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}
