//go:build unix

package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

// misbehaviours lists what workers do to their host and the error that a caller then gets, or nil if no call is
// disturbed. In each case the host goes on, later calls are served, and Close leaves nothing behind.
var misbehaviours = []struct {
	command string
	check   func(t *testing.T, err error)
}{
	{"prints_without_end", nil},
	{"prints_long_lines", nil},
	{"replaces_stdout", nil},
	{"logs_a_flood", nil},
	{"logs_nonsense", nil},
	{"ends_twice", nil},
	{"closes_descriptors", func(t *testing.T, err error) {
		if err != nil { // the connection was one of them
			lost(t, err)
		}
	}},
	{"nests", ofTheCall},
	{"claims_elements", ofTheCall},
	{"writes_garbage", lost},
	{"cuts_a_frame_short", lost},
	{"answers_what_never_was", func(t *testing.T, err error) {
		lost(t, err)
		if !errors.Is(err, snakepit.ErrProtocol) || !strings.Contains(err.Error(), "never used") {
			t.Errorf("it does not say what the worker did: %v", err)
		}
	}},
	{"claims_4_gib", lost},
	{"ignores_credit", func(t *testing.T, err error) {
		lost(t, err)
		if !errors.Is(err, snakepit.ErrProtocol) || !strings.Contains(err.Error(), "without credit") {
			t.Errorf("it does not say what the worker did: %v", err)
		}
	}},
	{"exits_in_a_stream", func(t *testing.T, err error) {
		lost(t, err)
		var o *snakepit.WorkerExit
		if errors.As(err, &o) && o.ExitCode != 5 {
			t.Errorf("it does not say how the worker ended: %v", err)
		}
	}},
	{"segfaults", func(t *testing.T, err error) {
		lost(t, err)
		if !strings.Contains(err.Error(), "segmentation fault") {
			t.Errorf("it does not say how the worker ended: %v", err)
		}
	}},
	{"leaves_a_grandchild", func(t *testing.T, err error) {
		lost(t, err)
		var o *snakepit.WorkerExit
		if errors.As(err, &o) && o.ExitCode != 6 {
			t.Errorf("it does not say how the worker ended: %v", err)
		}
	}},
	{"hangs_in_c", func(t *testing.T, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller gets %v", err)
		}
	}},
}

// ofTheCall checks that only that call fails and the worker goes on.
func ofTheCall(t *testing.T, err error) {
	if err == nil || errors.Is(err, snakepit.ErrWorkerLost) {
		t.Errorf("the caller gets %v", err)
	}
}

func lost(t *testing.T, err error) {
	if !errors.Is(err, snakepit.ErrWorkerLost) || !snakepit.MayHaveRun(err) {
		t.Errorf("the caller gets %v", err)
	}
}

func TestMisbehaviour(t *testing.T) {
	onEach(t, []string{"jsonstdio", "msgpack", "grpc"}, func(t *testing.T, adapter string) {
		a, err := snakepit.Adapters(adapter)
		if err != nil {
			t.Fatal(err)
		}
		program := snakepit.Python(filepath.Join("internal", "e2e", "testdata", "misbehaving.py"))
		program.Interpreter = Interpreter(t)
		l := &Log{}
		pool, err := snakepit.OpenWith(t.Context(), a, program, &snakepit.Options{
			Size: 1, CallTimeout: 20 * time.Second, StreamTimeout: 20 * time.Second,
			CancelGrace: 200 * time.Millisecond, StopTimeout: time.Second,
			WindowItems: 16, Logger: hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Error}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
		}()
		for _, m := range misbehaviours {
			t.Run(m.command, func(t *testing.T) {
				if m.command == "claims_4_gib" && adapter == "jsonstdio" {
					t.Skip("a line claims no length")
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				workers, begin := pool.Stats().Lost, time.Now()
				var in any
				switch m.command {
				case "nests", "claims_elements":
					in = adapter == "jsonstdio"
				}
				opts := []snakepit.CallOption{}
				if m.command == "hangs_in_c" {
					opts = append(opts, snakepit.Timeout(300*time.Millisecond))
				}
				var failure error
				for _, err := range snakepit.ExecuteStream[any](t.Context(), pool, m.command, in, opts...) {
					if err != nil {
						failure = err
					}
				}
				if m.check == nil && failure != nil {
					t.Errorf("the caller gets %v", failure)
				}
				if m.check != nil {
					m.check(t, failure)
				}
				if errors.Is(failure, context.DeadlineExceeded) != (m.command == "hangs_in_c") ||
					time.Since(begin) > 15*time.Second {
					t.Errorf("it took %s, and ended with %v", time.Since(begin), failure)
				}
				if m.command == "hangs_in_c" {
					Eventually(t, "the worker is replaced", func() bool { return pool.Stats().Lost > workers })
				}
				got, err := snakepit.Execute[int](t.Context(), pool, "echo", 7)
				if errors.Is(err, snakepit.ErrWorkerLost) { // the misbehaviour shows only now
					got, err = snakepit.Execute[int](t.Context(), pool, "echo", 7)
				}
				if got != 7 || err != nil {
					t.Errorf("afterwards an echo is %v, %v\n%s", got, err, l)
				}
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
					t.Errorf("%d MiB were allocated", n>>20)
				}
			})
		}
	})
}
