package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// poolClauses is about what a pool on the adapter and the worker gives its callers.
var poolClauses = []clause{
	rule("pool/execute", "Execute returns the decoded result. "+
		"Its error is a *CallError that says what happened, and where.", func(t *trial) {
		p := t.open(core.Options{})
		got, err := core.Execute[string](t.Context(), p, "conformance.echo", args{"value": "v"})
		if got != "v" || err != nil {
			t.Errorf("an echo of \"v\" is %q, %v", got, err)
		}
		_, err = core.Execute[any](t.Context(), p, "conformance.fail", args{"message": "as asked"})
		var call *core.CallError
		var remote *core.RemoteError
		if !errors.As(err, &call) || call.Command != "conformance.fail" || call.Worker < 0 || call.Adapter == "" ||
			!call.MayHaveRun {
			t.Errorf("the error is %#v", err)
		}
		if !errors.As(err, &remote) || remote.Message != "as asked" {
			t.Errorf("the error does not wrap the handler's: %v", err)
		}
	}),
	rule("pool/stream", "ExecuteStream yields every item in order, and failed items as *ItemError. "+
		"Result has the generator's return value.", func(t *trial) {
		p := t.open(core.Options{WindowItems: 5})
		var result struct {
			Sent int `json:"sent"`
		}
		n := 0
		numbers := core.ExecuteStream[int](t.Context(), p, "conformance.count", args{"n": 100}, core.Result(&result))
		for v, err := range numbers {
			if err != nil || v != n {
				t.Fatalf("item %d is %d, %v", n, v, err)
			}
			n++
		}
		if n != 100 || result.Sent != 100 {
			t.Errorf("%d items come, and the result is %+v", n, result)
		}
		var failed []int64
		for _, err := range core.ExecuteStream[int](t.Context(), p, "conformance.mixed", args{"n": 5}) {
			var item *core.ItemError
			if errors.As(err, &item) {
				failed = append(failed, item.Index)
			} else if err != nil {
				t.Fatalf("%v", err)
			}
		}
		if !slices.Equal(failed, []int64{1, 3}) {
			t.Errorf("the failed items are %v", failed)
		}
	}),
	rule("pool/input", "Input streams values to the handler.", func(t *trial) {
		p := t.open(core.Options{})
		numbers := make([]int, 2500)
		want := 0
		for i := range numbers {
			numbers[i], want = i, want+i
		}
		got, err := core.Execute[int](t.Context(), p, "conformance.sum", nil, core.Input(slices.Values(numbers)))
		if got != want || err != nil {
			t.Errorf("the sum is %d, not %d; %v", got, want, err)
		}
	}),
	rule("pool/functions", "Workers call Options.Functions. "+
		"A function returns one result or a stream.", func(t *trial) {
		p := t.open(core.Options{Functions: map[string]core.Function{
			"host.twice": core.Func(func(_ context.Context, n int) (int, error) { return 2 * n, nil }),
			"host.three": core.StreamFunc(func(context.Context, any) iter.Seq2[string, error] {
				return func(yield func(string, error) bool) {
					_ = yield("a", nil) && yield("b", nil) && yield("c", nil)
				}
			}),
		}})
		t.offered(p, "conformance.callback", "conformance.callbacks")
		n, err := core.Execute[int](t.Context(), p, "conformance.callback", args{"name": "host.twice", "value": 21})
		if n != 42 || err != nil {
			t.Errorf("twice 21 is %d, %v", n, err)
		}
		three := args{"name": "host.three", "value": nil}
		got, err := core.Execute[[]string](t.Context(), p, "conformance.callbacks", three)
		if !slices.Equal(got, []string{"a", "b", "c"}) || err != nil {
			t.Errorf("the items of the stream are %v, %v", got, err)
		}
	}),
	rule("pool/session", "The calls of a session go to one worker. "+
		"That worker keeps the session's state.", func(t *trial) {
		p := t.open(core.Options{Size: 2})
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatalf("%v", err)
		}
		s := p.Session("mine")
		if _, err := core.Execute[any](t.Context(), s, "conformance.remember", args{"value": "kept"}); err != nil {
			t.Fatalf("%v", err)
		}
		for range 6 {
			if got, err := core.Execute[any](t.Context(), s, "conformance.remember", nil); got != "kept" || err != nil {
				t.Errorf("the session remembers %v, %v", got, err)
			}
		}
	}),
	rule("cancel/caller", "A call whose context ends returns at once, with the context's error. "+
		"Its slot becomes free again.", func(t *trial) {
		p := t.open(core.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		t.within("a cancelled call", func() {
			if _, err := core.Execute[any](ctx, p, "conformance.wait", nil); !errors.Is(err, context.Canceled) {
				t.Errorf("the error is %v", err)
			}
		})
		t.within("the call after it", func() { t.poolEcho(p) })
	}),
	rule("cancel/deadline", "A call whose time is up returns context.DeadlineExceeded.", func(t *trial) {
		p := t.open(core.Options{CallTimeout: 60 * time.Millisecond})
		// The deadline of the trial's own context would count instead.
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer context.AfterFunc(t.Context(), cancel)()
		defer cancel()
		if _, err := core.Execute[any](ctx, p, "conformance.wait", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		got, err := core.Execute[any](ctx, p, "conformance.echo", "no limit", core.Timeout(-1))
		if got != "no limit" || err != nil {
			t.Errorf("an echo without a limit is %v, %v", got, err)
		}
	}),
	rule("cancel/abandoned", "Breaking out of a stream cancels it. Its slot becomes free again.", func(t *trial) {
		p := t.open(core.Options{WindowItems: 2, CancelGrace: time.Hour}) // only the cancel frees a slot, no grace
		for range 5 {
			for _, err := range core.ExecuteStream[int](t.Context(), p, "conformance.count", args{"n": 1_000_000}) {
				if err != nil {
					t.Fatalf("%v", err)
				}
				break
			}
			t.poolEcho(p)
		}
	}),
	rule("queue/waits", "If all slots are taken, callers wait their turn.", func(t *trial) {
		p := t.open(core.Options{})
		var callers sync.WaitGroup
		for i := range 50 {
			callers.Go(func() {
				got, err := core.Execute[int](t.Context(), p, "conformance.echo", args{"value": i})
				if got != i || err != nil {
					t.Errorf("caller %d gets %d, %v", i, got, err)
				}
			})
		}
		callers.Wait()
	}),
	rule("queue/saturated", "If the queue is full, a caller gets ErrSaturated at once, "+
		"and its call does not run.", func(t *trial) {
		p := t.open(core.Options{Queue: -1, Concurrency: 1})
		free := t.occupy(p)
		_, err := core.Execute[any](t.Context(), p, "conformance.echo", args{"value": 1})
		if !errors.Is(err, core.ErrSaturated) || core.MayHaveRun(err) {
			t.Errorf("the error is %v", err)
		}
		free()
	}),
	rule("queue/deadline", "Waiting counts: if a caller's time is up in the queue, "+
		"it gets context.DeadlineExceeded, and its call does not run.", func(t *trial) {
		p := t.open(core.Options{Concurrency: 1})
		free := t.occupy(p)
		_, err := core.Execute[any](t.Context(), p, "conformance.echo", nil, core.Timeout(50*time.Millisecond))
		if !errors.Is(err, context.DeadlineExceeded) || core.MayHaveRun(err) {
			t.Errorf("the error is %v", err)
		}
		free()
	}),
	rule("loss/once", "When a worker ends, each of its calls gets ErrWorkerLost once, at once, with a WorkerExit. "+
		"The call may have run.", func(t *trial) {
		p := t.open(core.Options{CallTimeout: -1})
		t.noticed(p)
		slots := p.Workers()[0].Info().Slots
		var callers sync.WaitGroup
		check := func(err error) {
			var o *core.WorkerExit
			if !errors.Is(err, core.ErrWorkerLost) || !errors.As(err, &o) || !core.MayHaveRun(err) {
				t.Errorf("the error is %v", err)
			}
		}
		for range slots - 1 {
			callers.Go(func() {
				_, err := core.Execute[any](t.Context(), p, "conformance.wait", nil)
				check(err)
			})
		}
		t.until("the others run", func() bool { return p.Stats().Running == slots-1 })
		t.within("the loss", func() {
			_, err := core.Execute[any](t.Context(), p, "conformance.exit", args{"code": 7})
			check(err)
			var o *core.WorkerExit
			if errors.As(err, &o) && o.PID != 0 && o.ExitCode != 7 {
				t.Errorf("the exit says %v", o)
			}
			callers.Wait()
		})
	}),
	rule("loss/orphan", "A worker is lost when its process has ended, "+
		"even if a child of it still holds the connection.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter}
		p := t.openWith(spy, core.Options{CallTimeout: -1})
		t.noticed(p)
		t.offered(p, "conformance.orphan")
		if len(spy.launched) == 0 {
			t.Skipf("the worker is not a process of this host, so only its connection shows its end")
		}
		if _, err := core.Execute[any](t.Context(), p, "conformance.orphan", args{"holds": true}); err != nil {
			t.Fatalf("%v", err)
		}
		t.within("the loss", func() {
			_, err := core.Execute[any](t.Context(), p, "conformance.exit", args{"code": 7})
			if !errors.Is(err, core.ErrWorkerLost) {
				t.Errorf("the error is %v", err)
			}
		})
		t.poolEcho(p)
	}),
	rule("loss/replaced", "A lost worker is replaced, and the pool goes on.", func(t *trial) {
		p := t.open(core.Options{})
		t.noticed(p)
		t.poolEcho(p)
		_, _ = core.Execute[any](t.Context(), p, "conformance.exit", args{"code": 1}) // is lost
		t.poolEcho(p)
		if s := p.Stats(); s.Lost != 1 || s.Restarts != 1 {
			t.Errorf("Stats says that %d workers were lost and %d replaced", s.Lost, s.Restarts)
		}
	}),
	rule("loss/session", "After the loss of its worker a session's next call gets ErrSessionLost, never fresh state. "+
		"This lasts until Close.", func(t *trial) {
		p := t.open(core.Options{MaxSnapshot: -1})
		t.noticed(p)
		s := p.Session("mine")
		_, _ = core.Execute[any](t.Context(), s, "conformance.remember", args{"value": "gone"})
		_, _ = core.Execute[any](t.Context(), s, "conformance.exit", args{"code": 1}) // is lost
		t.until("the loss is known", func() bool { return p.Stats().Lost == 1 })
		_, err := core.Execute[any](t.Context(), s, "conformance.remember", nil)
		if !errors.Is(err, core.ErrSessionLost) || core.MayHaveRun(err) {
			t.Errorf("the error is %v", err)
		}
		s.Close()
		if got, err := core.Execute[any](t.Context(), s, "conformance.context", nil); err != nil {
			t.Errorf("a new session gets %v, %v", got, err)
		}
	}),
	rule("loss/snapshot", "If the worker gives snapshots, a session survives it: "+
		"its next call finds the state of its last answered call.", func(t *trial) {
		p := t.open(core.Options{})
		t.noticed(p)
		if !slices.Contains(p.Workers()[0].Info().Features, "snapshots") {
			t.Skipf("the worker does not announce snapshots")
		}
		s := p.Session("mine")
		for i := range 3 {
			value := fmt.Sprintf("kept %d times", i)
			_, err := core.Execute[any](t.Context(), s, "conformance.remember", args{"value": value})
			if err != nil {
				t.Fatalf("%v", err)
			}
			_, _ = core.Execute[any](t.Context(), s, "conformance.exit", args{"code": 1}) // is lost
			got, err := core.Execute[any](t.Context(), s, "conformance.remember", nil)
			if err != nil || got != value {
				t.Errorf("after the loss of its worker the session remembers %s, %v", show(got), err)
			}
		}
		s.Close()
		got, err := core.Execute[any](t.Context(), s, "conformance.remember", nil)
		if err != nil || got != nil {
			t.Errorf("a new session remembers %s, %v", show(got), err)
		}
	}),
	rule("start/reason", "If no worker can be started, "+
		"Open returns an error that names the program and what happened.", func(t *trial) {
		if t.h.Worker == nil {
			t.Skipf("the adapter launches no program")
		}
		cmd := t.command()
		cmd.Path += "-that-is-not-there"
		p, err := core.Open(t.Context(), t.h.Adapter, cmd, quiet())
		if err == nil {
			_ = p.Close()
		}
		var start *core.StartError
		if !errors.As(err, &start) || !strings.Contains(err.Error(), "-that-is-not-there") {
			t.Errorf("the error is %v", err)
		}
	}),
	rule("start/overlap", "A replacement starts beside its predecessor, with the same index. "+
		"The predecessor's calls go on.", func(t *trial) {
		p := t.open(core.Options{Size: 1})
		t.noticed(p)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := core.Execute[any](ctx, p, "conformance.wait", nil)
			ended <- err
		}()
		old := p.Workers()[0]
		t.until("the call runs", func() bool {
			h, err := old.Health(t.Context())
			return err == nil && len(h.Running) > 0
		})
		t.within("the reload", func() {
			if err := p.Reload(t.Context()); err != nil {
				t.Fatalf("%v", err)
			}
		})
		t.poolEcho(p)
		if h, err := old.Health(t.Context()); err != nil || len(h.Running) != 1 {
			t.Errorf("the old worker's call does not go on: it says that it runs %v (%v)", h.Running, err)
		}
		if workers := p.Workers(); len(workers) != 2 || workers[0] != old || workers[1].Info().Index != 0 {
			t.Errorf("the pool has the workers %v", workers)
		}
		if s := p.Stats(); s.Lost != 0 || s.Replaced != 1 {
			t.Errorf("Stats says that %d workers were lost and %d replaced", s.Lost, s.Replaced)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the call on the old worker ended with %v", err)
		}
		t.until("the old worker has left", func() bool { return len(p.Workers()) == 1 })
	}),
	rule("start/launcher", "A Launcher has the pool's private directory, mode 0700, the worker's index (a "+
		"replacement has its predecessor's), new tokens and the pool's limit. Launch closes s.Files.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter}
		p := t.openWith(spy, core.Options{Size: 2})
		t.noticed(p)
		if err := p.WaitReady(t.Context(), 0); err != nil {
			t.Fatalf("%v", err)
		}
		info, err := os.Stat(spy.launchers[0].Dir)
		if err != nil || !info.IsDir() || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
			t.Errorf("the directory is %v, %v", info, err)
		}
		_, _ = core.Execute[any](t.Context(), p, "conformance.exit", args{"code": 1}) // is lost
		t.until("the worker is replaced", func() bool { return p.Stats().Restarts == 1 && p.Stats().Ready == 2 })
		spy.mu.Lock()
		defer spy.mu.Unlock()
		indices, tokens := map[int]int{}, map[string]bool{}
		for _, l := range spy.launchers {
			indices[l.Index]++
			if l.Dir != spy.launchers[0].Dir || tokens[l.HostToken] || tokens[l.WorkerToken] ||
				l.HostToken == l.WorkerToken || l.MaxFrame != core.DefaultMaxFrame {
				t.Errorf("a start of worker %d has another's directory, token or limit", l.Index)
			}
			tokens[l.HostToken], tokens[l.WorkerToken] = true, true
		}
		if len(indices) != 2 || indices[0]+indices[1] != 3 {
			t.Errorf("the numbers of starts by index are %v, for two workers and a replacement", indices)
		}
		for _, f := range spy.files {
			if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s is still open after Launch", f.Name())
			}
		}
	}),
	rule("host/hello", "The host answers with its own hello. It has the newest common version, "+
		"the first codec of the host's list that the worker has, and the smaller max_frame.", func(t *trial) {
		tap := &tapped{Adapter: t.h.Adapter}
		p := t.openWith(tap, core.Options{})
		t.poolEcho(p)
		worker, host := tap.frames()[0], tap.frames()[1]
		if worker.sent || worker.Kind != core.KindHello || !host.sent || host.Kind != core.KindHello {
			t.Fatalf("the first frames are %s and %s", worker.Kind, host.Kind)
		}
		var theirs hello
		var ours struct {
			Version     int    `json:"version"`
			Codec       string `json:"codec"`
			MaxFrame    int    `json:"max_frame"`
			Window      window `json:"window"`
			Concurrency int    `json:"concurrency"`
			Calls       int    `json:"calls"`
		}
		if err := errors.Join(json.Unmarshal(worker.Body, &theirs), json.Unmarshal(host.Body, &ours)); err != nil {
			t.Fatalf("%v", err)
		}
		limit := min(theirs.MaxFrame, core.DefaultMaxFrame)
		if tap.link.MaxFrame > 0 {
			limit = min(limit, tap.link.MaxFrame)
		}
		common := func(c core.Codec) bool { return slices.Contains(theirs.Codecs, c.Name()) }
		codec := tap.link.Codecs[slices.IndexFunc(tap.link.Codecs, common)].Name()
		if ours.Version != 1 || ours.Codec != codec || ours.MaxFrame != limit ||
			ours.Window.Items < 1 || ours.Window.Bytes < 1 ||
			ours.Concurrency < 1 || ours.Concurrency > theirs.Concurrency || ours.Calls < 1 {
			t.Errorf("the worker's hello is %s, and the host's is %s", worker.Body, host.Body)
		}
	}),
	rule("host/frames", "The host's ids are odd and strictly increase. It sends items only with "+
		"credit and in a direction that is open. After its bye it opens no call.", func(t *trial) {
		tap := &tapped{Adapter: t.h.Adapter}
		p := t.openWith(tap, core.Options{WindowItems: 3})
		t.poolEcho(p)
		numbers := make([]int, 3000)
		_, err := core.Execute[int](t.Context(), p, "conformance.sum", nil, core.Input(slices.Values(numbers)))
		if err != nil {
			t.Errorf("%v", err)
		}
		_, err = core.Execute[any](t.Context(), p, "conformance.first", nil, core.Input(slices.Values(numbers)))
		if err != nil {
			t.Errorf("%v", err)
		}
		for _, err := range core.ExecuteStream[int](t.Context(), p, "conformance.count", args{"n": 100_000}) {
			if err != nil {
				t.Errorf("%v", err)
			}
			break
		}
		_, _ = core.Execute[any](t.Context(), p, "conformance.wait", nil, core.Timeout(50*time.Millisecond)) // no time
		t.poolEcho(p)
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		tap.judge(t)
	}),
	rule("close/calls", "Close ends every call with ErrClosed. Later calls get it too.", func(t *trial) {
		p := t.open(core.Options{CallTimeout: -1})
		result := make(chan error, 1)
		go func() {
			_, err := core.Execute[any](t.Context(), p, "conformance.wait", nil)
			result <- err
		}()
		t.until("the call runs", func() bool { return p.Stats().Running == 1 })
		t.within("Close", func() {
			if err := p.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := <-result; !errors.Is(err, core.ErrClosed) {
				t.Errorf("the call gets %v", err)
			}
		})
		_, err := core.Execute[any](t.Context(), p, "conformance.echo", nil)
		if !errors.Is(err, core.ErrClosed) || core.MayHaveRun(err) {
			t.Errorf("a later call gets %v", err)
		}
	}),
	ruleAlone("close/nothing-left", "After Close nothing of the pool is left: "+
		"no goroutine and no descriptor.", func(t *trial) {
		t.leavesNothing(func() {
			p := t.open(core.Options{Size: 2})
			t.poolEcho(p)
			if err := p.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}),
	rule("close/shutdown", "Shutdown lets running calls end first.", func(t *trial) {
		p := t.open(core.Options{})
		input := make(chan int)
		give := func(v int) {
			select {
			case input <- v:
			case <-t.Context().Done():
				t.Fatalf("the handler does not read the input")
			}
		}
		result := make(chan error, 1)
		go func() {
			values := func(yield func(int) bool) {
				for {
					select {
					case v, ok := <-input:
						if !ok || !yield(v) {
							return
						}
					case <-t.Context().Done():
						return
					}
				}
			}
			sum, err := core.Execute[int](t.Context(), p, "conformance.sum", nil, core.Input(values))
			if err == nil && sum != 3 {
				err = fmt.Errorf("the sum is %d", sum)
			}
			result <- err
		}()
		give(1)
		ended := make(chan error, 1)
		go func() { ended <- p.Shutdown(t.Context()) }()
		select {
		case err := <-ended:
			t.Errorf("Shutdown returned while a call was running: %v", err)
		case <-time.After(pause):
		}
		give(2)
		close(input)
		if err := <-result; err != nil {
			t.Errorf("the running call gets %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}),
	rule("stats/adapter", "Stats and Info say which adapter each worker runs on, "+
		"and why an earlier one was refused.", func(t *trial) {
		p := t.open(core.Options{})
		names := strings.Split(t.h.Adapter.Name(), ",")
		w := p.Stats().Workers[0]
		at := slices.Index(names, w.Adapter)
		if at < 0 || len(w.Refused) != at || w.State != "ready" {
			t.Errorf("worker 0 is %s on %q, one of %v, and %d adapters were refused",
				w.State, w.Adapter, names, len(w.Refused))
		}
		for _, r := range w.Refused {
			if r.Err == nil {
				t.Errorf("%s was refused without a reason", r.Adapter)
			}
		}
	}),
	rule("stats/health", "Worker.Health asks the worker, also while it is busy.", func(t *trial) {
		p := t.open(core.Options{})
		free := t.occupy(p)
		t.until("Health shows the call", func() bool {
			h, err := p.Workers()[0].Health(t.Context())
			if err != nil {
				t.Fatalf("%v", err)
			}
			return len(h.Running) == 1 && h.Running[0].Name == "conformance.wait"
		})
		free()
	}),
	rule("log/arrives", "A worker's log records reach the pool's logger, "+
		"with level, logger, message and fields.", func(t *trial) {
		logged := &sink{}
		p := t.open(core.Options{Logger: hclog.New(&hclog.LoggerOptions{Output: logged, Level: hclog.Debug})})
		t.offered(p, "conformance.log")
		record := args{"level": "warn", "message": "look here"}
		if _, err := core.Execute[any](t.Context(), p, "conformance.log", record); err != nil {
			t.Fatalf("%v", err)
		}
		t.until("the record is logged", func() bool {
			line := logged.line("look here")
			return strings.Contains(line, "[WARN]") && strings.Contains(line, "answer=42") &&
				strings.Contains(line, "worker=0")
		})
	}),
	rule("log/output", "A worker's printed output reaches the pool's logger.", func(t *trial) {
		logged := &sink{}
		p := t.open(core.Options{Logger: hclog.New(&hclog.LoggerOptions{Output: logged, Level: hclog.Debug})})
		t.offered(p, "conformance.print")
		if p.Stats().Workers[0].PID == 0 || t.h.Worker == nil && p.Workers()[0].Info().Host == "" {
			t.Skipf("the worker is no process that core owns, so its output is not captured")
		}
		text := args{"text": "plain words\n", "times": 1}
		if _, err := core.Execute[any](t.Context(), p, "conformance.print", text); err != nil {
			t.Fatalf("%v", err)
		}
		t.until("it is logged", func() bool { return logged.line("plain words") != "" })
	}),
}

// open opens a pool of one worker if o does not say otherwise.
func (t *trial) open(o core.Options) *core.Pool { return t.openWith(t.h.Adapter, o) }

// openWith is open with an adapter that wraps the one under test.
func (t *trial) openWith(a core.Adapter, o core.Options) *core.Pool {
	t.restsOn(ground...)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Size == 0 {
		o.Size = 1
	}
	p, err := core.Open(t.Context(), a, t.command(), &o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func (t *trial) poolEcho(p *core.Pool) {
	got, err := core.Execute[string](t.Context(), p, "conformance.echo", args{"value": "still there"})
	if got != "still there" || err != nil {
		t.Fatalf("an echo is %q, %v", got, err)
	}
}

// occupy makes a call that goes on until free is called. free waits for its end.
func (t *trial) occupy(p *core.Pool) (free func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() {
		_, err := core.Execute[any](ctx, p, "conformance.wait", nil) // it is cancelled
		ended <- err
	}()
	t.until("a slot is taken", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("conformance.wait has ended by itself: %v", err)
		default:
		}
		return p.Stats().Running == 1
	})
	return func() {
		cancel()
		if err := <-ended; err == nil {
			t.Errorf("conformance.wait has returned a result")
		}
	}
}

// offered skips the clause if the workers do not offer a command.
func (t *trial) offered(p *core.Pool, names ...string) {
	listed := p.Workers()[0].Info().Commands
	for _, name := range names {
		if listed != nil && !slices.ContainsFunc(listed, func(c core.CommandInfo) bool { return c.Name == name }) {
			t.Skipf("the worker does not offer %s", name)
		}
	}
}

// noticed skips the clause if a worker can't be made to end, or if its end would not be noticed.
func (t *trial) noticed(p *core.Pool) {
	t.offered(p, "conformance.exit")
	if p.Stats().Workers[0].PID == 0 && !t.h.DetectsLoss {
		t.Skipf("the adapter does not notice the loss of a worker that core did not launch")
	}
}

// until waits until ok reports true. Another goroutine or process must bring that about.
func (t *trial) until(what string, ok func() bool) {
	for !ok() {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("this does not happen: %s", what)
		}
	}
}

// sink keeps the text that is logged.
type sink struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

// line returns the first line that has the text, or "".
func (s *sink) line(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}
