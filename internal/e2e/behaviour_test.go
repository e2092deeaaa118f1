//go:build unix

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// This table lists behaviours that every adapter, and the chain, must show with real Python processes.

var adapters = []string{"jsonstdio", "msgpack", "grpc"}

// andChain are the adapters and a chain, for what a chain could break.
var andChain = append(slices.Clip(adapters), "grpc,msgpack,jsonstdio")

func open(t *testing.T, adapter string, o snakepit.Options, env ...string) *Fixture {
	t.Helper()
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	program := snakepit.Python(filepath.Join("internal", "e2e", "testdata", "behaviour.py"))
	program.Interpreter, program.Env = Interpreter(t), env
	f, err := BeginWith(t, a, program, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, f.Log)
	}
	return f
}

func call[Out any](f *Fixture, command string, args any, opts ...snakepit.CallOption) Out {
	f.Helper()
	out, err := snakepit.Execute[Out](f.Context(), f.Pool, command, args, opts...)
	if err != nil {
		f.Fatalf("%s: %v", command, err)
	}
	return out
}

// behaviours share one pool for each adapter, unless they name options or an environment. Those that are alone need a
// pool of their own, because the calls of others would be seen.
var behaviours = []struct {
	name  string
	opts  snakepit.Options
	env   []string
	alone bool
	check func(f *Fixture)
}{
	{name: "unary", check: func(f *Fixture) {
		if got := call[float64](f, "add", struct {
			A int     `json:"a"`
			B float64 `json:"b"`
		}{5, 3.5}); got != 8.5 {
			f.Error(got)
		}
		if got := call[float64](f, "predict", 3); got != 7 {
			f.Error("a service's method:", got)
		}
		if got := call[float64](f, "anap", 0.0); got != 0 {
			f.Error("async:", got)
		}
	}},
	{name: "values", check: func(f *Fixture) {
		now := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
		for _, v := range []any{
			nil, true, int64(-5), int64(1<<53 + 1), uint64(math.MaxUint64), 5.0, 0.1, math.Inf(1),
			math.Copysign(0, -1), "üñ\u0000\t\n😀",
			[]byte{0, 255, 10}, []any{int64(1), 1.0, "x", nil},
			map[string]any{"$bytes": "no tag", "a": map[string]any{}}, now,
			map[string]any{"$bytes": "x"},
		} {
			got := call[any](f, "echo", Args{"value": v})
			if !reflect.DeepEqual(got, v) {
				f.Errorf("%#v came back as %#v", v, got)
			}
		}
		if got := call[any](f, "echo", Args{"value": math.NaN()}); !math.IsNaN(got.(float64)) {
			f.Error(got)
		}
		a := core.Array{DType: "<f8", Shape: []int{2, 1}, Data: make([]byte, 16)}
		if got := call[core.Array](f, "echo", Args{"value": a}); !reflect.DeepEqual(got, a) {
			f.Errorf("%#v", got)
		}
		if _, err := snakepit.Execute[int8](f.Context(), f.Pool, "echo", Args{"value": 300}); err == nil ||
			!strings.Contains(err.Error(), "300") {
			f.Error(err)
		}
		big := bytes.Repeat([]byte{7}, 8<<20)
		if got := call[[]byte](f, "echo", Args{"value": big}); !bytes.Equal(got, big) {
			f.Error("8 MiB came back changed")
		}
	}},
	{name: "stream", check: func(f *Fixture) {
		var result struct {
			Sent int `json:"sent"`
		}
		n := 0
		for v, err := range snakepit.ExecuteStream[int](f.Context(), f.Pool, "count", Args{"n": 5000},
			snakepit.Result(&result)) {
			if err != nil || v != n {
				f.Fatal(v, err)
			}
			n++
		}
		if n != 5000 || result.Sent != 5000 {
			f.Fatal(n)
		}
		n = 0
		for v, err := range snakepit.ExecuteStream[int](f.Context(), f.Pool, "acount", 10) {
			if err != nil || v != n {
				f.Fatal(v, err)
			}
			n++
		}
		if _, err := snakepit.Execute[any](f.Context(), f.Pool, "count", 3); err == nil || snakepit.MayHaveRun(err) {
			f.Error("Execute of a stream:", err)
		}
		for v, err := range snakepit.ExecuteStream[float64](f.Context(), f.Pool, "add", Args{"a": 1, "b": 2}) {
			if v != 3 || err != nil {
				f.Error(v, err)
			}
		}
	}},
	{name: "result", check: func(f *Fixture) {
		var result map[string]int
		for range snakepit.ExecuteStream[int](f.Context(), f.Pool, "count", 2, snakepit.Result(&result)) {
		}
		if result["sent"] != 2 {
			f.Error(result)
		}
		// The only item of a command that does not stream is its result. Each has memory of its own.
		big, got := bytes.Repeat([]byte{7}, 1<<20), []byte(nil)
		for v, err := range snakepit.ExecuteStream[[]byte](f.Context(), f.Pool, "echo", Args{"value": big},
			snakepit.Result(&got)) {
			if err != nil {
				f.Fatal(err)
			}
			clear(v)
		}
		if !bytes.Equal(got, big) {
			f.Error("a change of the item has changed the result")
		}
	}},
	{name: "item error", check: func(f *Fixture) {
		var good []int
		var bad []string
		for v, err := range snakepit.ExecuteStream[int](f.Context(), f.Pool, "mixed", nil) {
			var item *snakepit.ItemError
			switch {
			case errors.As(err, &item):
				bad = append(bad, err.Error())
			case err != nil:
				f.Fatal(err)
			default:
				good = append(good, v)
			}
		}
		if !slices.Equal(good, []int{0, 2, 4}) ||
			!slices.Equal(bad, []string{"item 1: ValueError: odd 1", "item 3: ValueError: odd 3"}) {
			f.Error(good, bad)
		}
	}},
	{name: "input stream", check: func(f *Fixture) {
		numbers := make([]int, 5000)
		want := 0
		for i := range numbers {
			numbers[i] = i
			want += i
		}
		if got := call[int](f, "total", nil, snakepit.Input(slices.Values(numbers))); got != want {
			f.Error(got, want)
		}
		n := 0
		for v, err := range snakepit.ExecuteStream[int](f.Context(), f.Pool, "doubled", nil,
			snakepit.Input(slices.Values(numbers))) {
			if err != nil || v != 2*n {
				f.Fatal(v, err)
			}
			n++
		}
		if n != len(numbers) {
			f.Error(n)
		}
	}},
	{name: "callback", check: func(f *Fixture) {
		if got := call[int](f, "callback", 41); got != 42 {
			f.Error(got)
		}
		if got := call[[]int](f, "callbacks", 3000); len(got) != 3000 || got[2999] != 2999 {
			f.Error(len(got))
		}
	}},
	{name: "session", opts: snakepit.Options{Size: 2}, check: func(f *Fixture) {
		type state struct {
			ID    string            `json:"id"`
			Value *int              `json:"value"`
			Meta  map[string]string `json:"meta"`
			PID   int               `json:"pid"`
		}
		s := f.Session("user-42")
		ctx := snakepit.WithMetadata(f.Context(), map[string]string{"tenant": "a"})
		first, err := snakepit.Execute[state](ctx, s, "remember", 7)
		if err != nil || first.ID != "user-42" || first.Meta["tenant"] != "a" {
			f.Fatal(first, err)
		}
		again, err := snakepit.Execute[state](f.Context(), s, "remember", nil)
		if err != nil || again.Value == nil || *again.Value != 7 || again.PID != first.PID {
			f.Fatal(again, err)
		}
		_, err = snakepit.Execute[any](f.Context(), s, "die", "signal")
		if !errors.Is(err, snakepit.ErrWorkerLost) {
			f.Fatal(err)
		}
		if _, err = snakepit.Execute[state](f.Context(), s, "remember", nil); !errors.Is(err, snakepit.ErrSessionLost) {
			f.Fatal(err)
		}
		s.Close()
		fresh, err := snakepit.Execute[state](f.Context(), s, "remember", nil)
		if err != nil || fresh.Value != nil {
			f.Fatal(fresh, err)
		}
		if _, err = snakepit.Execute[state](f.Context(), s, "remember", 1); err != nil {
			f.Fatal(err)
		}
		s.Close() // the next session may get the same worker, which must have forgotten
		for range 2 {
			if fresh, err = snakepit.Execute[state](f.Context(), s, "remember", nil); err != nil || fresh.Value != nil {
				f.Fatal(fresh, err)
			}
		}
	}},
	{name: "concurrency", env: []string{"TEST_CONCURRENCY=4"}, check: func(f *Fixture) {
		for _, command := range []string{"meet", "ameet"} { // they return when four run at once
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if _, err := snakepit.Execute[any](f.Context(), f.Pool, command, nil); err != nil {
						f.Errorf("%s: %v", command, err)
					}
				})
			}
			wg.Wait()
		}
	}},
	{name: "cancel", check: func(f *Fixture) {
		pid := call[Args](f, "info", nil)["pid"]
		ways := []string{"python", "sleep", "socket", "lock", "process"}
		for _, how := range append(ways, "async") {
			ctx, cancel := context.WithCancel(f.Context())
			done := make(chan error, 1)
			go func() {
				var err error
				if how == "async" {
					_, err = snakepit.Execute[any](ctx, f.Pool, "ahang", nil)
				} else {
					_, err = snakepit.Execute[any](ctx, f.Pool, "hang", how)
				}
				done <- err
			}()
			Eventually(f.T, "the call runs", func() bool { return f.Stats().Running == 1 })
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				f.Errorf("%s: %v", how, err)
			}
			// The next call is not affected and runs in the same process.
			if got := call[Args](f, "info", nil)["pid"]; got != pid {
				f.Errorf("%s: the worker was replaced", how)
			}
		}
	}},
	{name: "cancelled handlers clean up", alone: true, check: func(f *Fixture) {
		for _, how := range []string{"sleep", "python"} {
			ctx, cancel := context.WithTimeout(f.Context(), 300*time.Millisecond)
			_, err := snakepit.Execute[any](ctx, f.Pool, "hang", how)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				f.Error(err)
			}
		}
		if got := call[[]string](f, "was_cleaned", nil); !slices.Contains(got, "sleep") {
			f.Error(got)
		}
	}},
	{name: "deadline", check: func(f *Fixture) {
		left := call[*float64](f, "left", nil, snakepit.Timeout(20*time.Second))
		if left == nil || *left <= 0 || *left > 20 {
			f.Error(left)
		}
		if left = call[*float64](f, "left", nil, snakepit.Timeout(-1)); left != nil {
			f.Error(*left)
		}
		if _, err := snakepit.Execute[any](f.Context(), f.Pool, "hang", "sleep",
			snakepit.Timeout(100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			f.Error(err)
		}
	}},
	{name: "a handler that swallows its cancellation", opts: snakepit.Options{
		CancelGrace: 200 * time.Millisecond, StopTimeout: 2 * time.Second,
	}, check: func(f *Fixture) {
		pid := call[Args](f, "info", nil)["pid"]
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "swallow", 1000.0, snakepit.Timeout(100*time.Millisecond))
		if !errors.Is(err, context.DeadlineExceeded) {
			f.Error(err)
		}
		if got := call[Args](f, "info", nil, snakepit.Timeout(time.Minute))["pid"]; got == pid {
			f.Error("the worker was not replaced")
		}
	}},
	{name: "an exception's type, data and traceback", check: func(f *Fixture) {
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "order", Args{"item": "tea"})
		for _, name := range []snakepit.Exception{"OutOfStock", "__main__.OutOfStock", "Refused", "LookupError"} {
			if !errors.Is(err, name) {
				f.Errorf("%v is no %s", err, name)
			}
		}
		if errors.Is(err, snakepit.Exception("KeyError")) {
			f.Error("the cause matches")
		}
		var remote *snakepit.RemoteError
		if !errors.As(err, &remote) || remote.Error() != "OutOfStock: there is no tea" ||
			!slices.Equal(remote.Bases, []string{"Refused", "LookupError", "Exception"}) {
			f.Fatalf("%v, %+v", err, remote)
		}
		var data struct {
			Item  string  `json:"item"`
			Left  uint8   `json:"left"`
			Price float64 `json:"price"`
			Photo []byte  `json:"photo"`
			Large uint64  `json:"large"`
		}
		if err := remote.Data(&data); err != nil || data.Item != "tea" || data.Left != 3 || data.Price != 4.5 ||
			string(data.Photo) != "\x00\xff" || data.Large != 1<<63 {
			f.Errorf("%+v, %v", data, err)
		}
		var narrow struct {
			Large int64 `json:"large"`
		}
		if err := remote.Data(&narrow); err == nil || errors.Is(err, snakepit.ErrNoData) {
			f.Error(err)
		}
		trace := remote.Traceback()
		if !strings.HasPrefix(trace, "KeyError: 'tea'\n\nThe above exception was the direct cause of the following ") ||
			!strings.HasSuffix(trace, "\nOutOfStock: there is no tea\n") ||
			!strings.Contains(trace, "behaviour.py\", line ") || strings.Contains(trace, "snakepit_bridge") {
			f.Errorf("%s", trace)
		}
		if err := remote.Cause.Data(new(any)); !errors.Is(err, snakepit.ErrNoData) {
			f.Error(err)
		}
		items := Args{"items": []string{"milk"}}
		for _, err := range snakepit.ExecuteStream[any](f.Context(), f.Pool, "orders", items) {
			var item *snakepit.ItemError
			var data map[string]string
			if !errors.As(err, &item) || !errors.As(err, &remote) {
				f.Fatal(err)
			}
			if err := remote.Data(&data); err != nil || data["item"] != "milk" {
				f.Errorf("%v, %v", data, err)
			}
		}
		_, err = snakepit.Execute[any](f.Context(), f.Pool, "unsendable_data", nil)
		if !errors.As(err, &remote) || !errors.Is(remote.Data(new(any)), snakepit.ErrNoData) ||
			len(remote.Notes) != 1 ||
			!strings.HasPrefix(remote.Notes[0], "its snakepit_data can't be sent: value.x: ") ||
			!strings.HasSuffix(remote.Traceback(), "\n"+remote.Notes[0]+"\n") {
			f.Errorf("%v, %+v", err, remote)
		}
	}},
	{name: "a Go error's data", check: func(f *Fixture) {
		got := call[[]any](f, "asks", "tea")
		if want := []any{"error", "looking: sold out", Args{"item": "tea"}}; !reflect.DeepEqual(got, want) {
			f.Errorf("%v", got)
		}
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "lets_out", "tea")
		var remote *snakepit.RemoteError
		if !errors.As(err, &remote) || remote.Module != "snakepit_bridge" || remote.Type != "RemoteError" {
			f.Fatalf("%v", err)
		}
		var data map[string]string
		if err := remote.Cause.Data(&data); err != nil || data["item"] != "tea" {
			f.Errorf("%v, %v", data, err)
		}
		if !strings.HasSuffix(remote.Traceback(), "snakepit_bridge.RemoteError: error: looking: sold out\n") {
			f.Errorf("%s", remote.Traceback())
		}
	}},
	{name: "error", check: func(f *Fixture) {
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "boom", nil)
		var remote *snakepit.RemoteError
		if !errors.As(err, &remote) || remote.Type != "ValueError" || remote.Message != "bad operand" ||
			remote.Cause == nil || remote.Cause.Type != "KeyError" {
			f.Fatal(err)
		}
		last := remote.Frames[len(remote.Frames)-1]
		if last.Function != "boom" || !strings.HasSuffix(last.File, "behaviour.py") ||
			!strings.Contains(last.Source, "raise ValueError") || last.Line == 0 {
			f.Errorf("%+v", last)
		}
		if !snakepit.MayHaveRun(err) {
			f.Error("an exception proves that it ran")
		}
		for command, want := range map[string]string{"ecko": "did you mean echo?", "unspeakable": "items[1]"} {
			if _, err = snakepit.Execute[any](f.Context(), f.Pool, command, nil); err == nil ||
				!strings.Contains(err.Error(), want) {
				f.Errorf("%s: %v", command, err)
			}
		}
		if _, err = snakepit.Execute[any](f.Context(), f.Pool, "add", Args{"a": 1}); !errors.As(err, &remote) ||
			remote.Type != core.TypeBadArguments || snakepit.MayHaveRun(err) {
			f.Error(err)
		}
	}},
	{name: "a frame over the limit", opts: snakepit.Options{MaxFrame: 1 << 20}, check: func(f *Fixture) {
		big := make([]byte, 2<<20)
		if _, err := snakepit.Execute[any](f.Context(), f.Pool, "echo", Args{"value": big}); snakepit.MayHaveRun(err) ||
			!errors.Is(err, snakepit.ErrFrameTooLarge) {
			f.Error(err)
		}
		for _, err := range snakepit.ExecuteStream[any](f.Context(), f.Pool, "count", Args{"n": 1, "size": 2 << 20}) {
			if !errors.Is(err, snakepit.ErrFrameTooLarge) || !snakepit.MayHaveRun(err) {
				f.Error(err)
			}
		}
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "blob", Args{"size": 2 << 20})
		if !errors.Is(err, snakepit.ErrFrameTooLarge) || !snakepit.MayHaveRun(err) {
			f.Error(err)
		}
		says(f.T, err, "a frame with the result has",
			"and the limit is 1048576; raise Options.MaxFrame, or send it in smaller items")
		call[any](f, "echo", Args{"value": 1})
	}},
	{name: "a frame over the default limit", opts: snakepit.Options{MaxFrame: 128 << 20, CallTimeout: -1},
		check: func(f *Fixture) {
			n := core.DefaultMaxFrame/3 + 1
			if f.Workers()[0].Info().Adapter == "jsonstdio" {
				n = n * 3 / 4 // base64 makes a third more of it
			}
			big := bytes.Repeat([]byte{1, 2, 3}, n)
			if got := call[[]byte](f, "echo", Args{"value": big}); !bytes.Equal(got, big) {
				f.Errorf("%d bytes came back as %d, or changed", len(big), len(got))
			}
		}},
	{name: "a printing handler", check: func(f *Fixture) {
		if got := call[string](f, "noisy", nil); got != "quiet" {
			f.Error(got)
		}
		for _, want := range []string{"printed", "written to 1", "written to 2", "from a child", "and its errors",
			"from C"} {
			Eventually(f.T, want+" is in the log", func() bool {
				return strings.Contains(f.Log.String(), want)
			})
		}
		Eventually(f.T, "the log record is in the log", func() bool {
			return strings.Contains(f.Log.String(), "[WARN]  snakepit.app.noise: logged") ||
				strings.Contains(f.Log.String(), "answer=42")
		})
	}},
	{name: "the last output of a killed worker", alone: true, check: func(f *Fixture) {
		call[any](f, "noisy", nil)
		Eventually(f.T, "an earlier call's output is in the log", func() bool {
			return strings.Contains(f.Log.String(), "from C")
		})
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "die", "words")
		var o *snakepit.WorkerExit
		if !errors.As(err, &o) || !slices.Equal(o.Stderr, []string{"last words"}) {
			f.Errorf("%+v, %v", o, err)
		}
	}},
	{name: "killed worker", check: func(f *Fixture) {
		for how, want := range map[string]string{"exit": "code 3", "signal": "killed", "orphan": "code 4"} {
			_, err := snakepit.Execute[any](f.Context(), f.Pool, "die", how)
			var o *snakepit.WorkerExit
			if !errors.Is(err, snakepit.ErrWorkerLost) || !errors.As(err, &o) || !strings.Contains(err.Error(), want) ||
				!snakepit.MayHaveRun(err) {
				f.Errorf("%s: %v", how, err)
				continue
			}
			Eventually(f.T, "the process is gone", func() bool {
				p, err := os.FindProcess(o.PID)
				return err != nil || p.Signal(syscall.Signal(0)) != nil
			})
			call[any](f, "echo", Args{"value": 1})
		}
	}},
	{name: "slow consumer", env: []string{"TEST_CONCURRENCY=2"}, check: func(f *Fixture) {
		n := 0
		for _, err := range snakepit.ExecuteStream[any](f.Context(), f.Pool, "count", Args{"n": 400, "size": 100_000}) {
			if err != nil {
				f.Fatal(err)
			}
			if n++; n == 1 { // the stream stands still and delays no other call
				for range 20 {
					if _, err := f.Workers()[0].Health(f.Context()); err != nil {
						f.Fatal(err)
					}
					call[any](f, "echo", Args{"value": 1})
				}
			}
		}
		if n != 400 {
			f.Error(n)
		}
	}},
	{name: "environment", check: func(f *Fixture) {
		got := call[struct {
			Threads string   `json:"threads"`
			Tokens  []string `json:"tokens"`
			Main    bool     `json:"main"`
		}](f, "info", nil)
		if got.Threads == "" || len(got.Tokens) > 0 || !got.Main {
			f.Errorf("%+v", got)
		}
		i := f.Workers()[0].Info()
		if i.PID == 0 || i.Adapter == "" || !strings.HasPrefix(i.Runtime, "cpython") || len(i.Commands) < 10 {
			f.Errorf("%+v", i)
		}
	}},
}

// sharedFunctions are the functions of the pool that behaviours share.
var sharedFunctions = map[string]snakepit.Function{
	"plus_one": snakepit.Func(func(_ context.Context, n int) (int, error) { return n + 1, nil }),
	"numbers": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		var n int
		err := c.Decode(&n)
		for i := 0; i < n && err == nil; i++ {
			err = c.Send(ctx, i)
		}
		return nil, err
	}},
	"stock": snakepit.Func(func(_ context.Context, item string) (int, error) {
		return 0, fmt.Errorf("looking: %w", soldOutError{item})
	}),
}

func TestBehaviour(t *testing.T) {
	for _, adapter := range andChain {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			shared := open(t, adapter, snakepit.Options{Functions: sharedFunctions})
			for _, b := range behaviours {
				if b.opts.MaxFrame > core.DefaultMaxFrame && strings.Contains(adapter, ",") {
					continue // it takes long, and a chain adds nothing to the frames of its adapter
				}
				t.Run(strings.ReplaceAll(b.name, " ", "_"), func(t *testing.T) {
					if !b.alone && b.env == nil && reflect.ValueOf(b.opts).IsZero() {
						b.check(&Fixture{t, shared.Pool, shared.Log})
					} else {
						b.check(open(t, adapter, b.opts, b.env...))
					}
				})
			}
		})
	}
}

func TestAdaptersAgree(t *testing.T) {
	if _, err := snakepit.Adapters("grpc,carrier-pigeon"); err == nil ||
		!strings.Contains(fmt.Sprint(err), "jsonstdio") {
		t.Error(err)
	}
}

type soldOutError struct{ item string }

func (soldOutError) Error() string       { return "sold out" }
func (e soldOutError) SnakepitData() any { return Args{"item": e.item} }
