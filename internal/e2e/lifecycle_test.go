//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/python"
)

func lifecycle(t *testing.T) python.Program {
	return script(t, filepath.Join("internal", "e2e", "testdata", "lifecycle.py"))
}

// The memory of a worker's descendants counts, also of one in a session of its own. The worker is replaced, and its
// descendants end with it unless they have left its group.
func TestRecycleByMemory(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		for _, command := range []string{"grow", "spawn"} {
			f, err := Begin(t, adapter, lifecycle(t),
				snakepit.Options{Recycle: snakepit.Recycle{Memory: 200 << 20}})
			if err != nil {
				t.Fatal(err)
			}
			chat := f.Session("chat")
			if _, err := snakepit.Execute[int](t.Context(), chat, "add", Args{"n": 1}); err != nil {
				t.Fatal(err)
			}
			if _, err := snakepit.Execute[any](t.Context(), f.Pool, command, Args{"mib": 100}); err != nil {
				t.Fatal(err)
			}
			old := f.Workers()[0]
			child, err := snakepit.Execute[any](t.Context(), f.Pool, command, Args{"mib": 150})
			if err != nil {
				t.Fatal(err)
			}
			Eventually(t, "the worker is replaced", func() bool { return f.Stats().Replaced == 1 })
			if got, err := snakepit.Execute[int](t.Context(), chat, "add", Args{"n": 1}); err != nil || got != 2 {
				t.Errorf("the session has %d, %v", got, err)
			}
			pid, err := snakepit.Execute[int](t.Context(), f.Pool, "pid", nil)
			if err != nil || pid == old.Info().PID {
				t.Errorf("process %d, %v", pid, err)
			}
			chat.Close()
			Eventually(t, "the old worker leaves", func() bool { return len(f.Workers()) == 1 })
			if s := f.Stats(); s.Lost != 0 || s.Restarts != 0 || s.StartFails != 0 {
				t.Errorf("%+v", s)
			}
			if n, ok := child.(int64); ok {
				if p, err := os.FindProcess(int(n)); err == nil {
					_ = p.Kill()
				}
			}
			if log := f.Logged(); !strings.Contains(log, "MiB of memory, and the limit is 200") {
				t.Error(log)
			}
		}
	})
}

// A worker that reaches a limit is lost, and its exit names the limit. Its neighbour has an environment of its own.
func TestLimits(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		o := snakepit.Options{
			Size: 2, Limits: snakepit.Limits{Memory: 200 << 20, OpenFiles: 200, Nice: 3},
			WorkerEnv: func(index int) []string { return []string{fmt.Sprintf("DEVICE=gpu%d", index)} },
		}
		f, err := Begin(t, adapter, lifecycle(t), o)
		if err != nil && strings.Contains(err.Error(), "may not make control groups") {
			t.Log(err)
			o.Limits.Memory = 0
			f, err = Begin(t, adapter, lifecycle(t), o)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for i, id := range []string{"a", "b"} {
			want := fmt.Sprintf("gpu%d", f.Stats().Workers[i].Index)
			got, err := snakepit.Execute[string](t.Context(), f.Session(id), "device", nil)
			if err != nil || got != want {
				t.Errorf("%q, not %q, %v", got, want, err)
			}
		}
		_, err = snakepit.Execute[any](t.Context(), f.Pool, "open_files", nil)
		if !errors.Is(err, snakepit.Exception("OSError")) {
			t.Error(err)
		}
		if o.Limits.Memory == 0 {
			return
		}
		_, err = snakepit.Execute[any](t.Context(), f.Pool, "grow", Args{"mib": 300})
		var exit *snakepit.WorkerExit
		if !errors.As(err, &exit) || exit.Limit != "Limits.Memory (209715200 bytes)" || !exit.OOM {
			t.Error(err)
		}
	})
}

// A reload under load costs no call, and every call afterwards reaches the new program.
func TestReloadUnderLoad(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		f, err := Begin(t, adapter, lifecycle(t), snakepit.Options{Size: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		chat := f.Session("chat")
		before := map[int]bool{}
		for _, w := range f.Workers() {
			before[w.Info().PID] = true
		}
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		var calls atomic.Int64
		for i := range 4 {
			load.Go(func() {
				for n := 1; ctx.Err() == nil; n++ {
					var err error
					switch i {
					case 0:
						var got int
						if got, err = snakepit.Execute[int](t.Context(), chat, "add", Args{"n": 1}); got != n {
							t.Errorf("the session has %d after %d calls", got, n)
						}
					case 1:
						for _, e := range snakepit.ExecuteStream[int](t.Context(), f.Pool, "count", Args{"n": 100}) {
							err = e
						}
					default:
						_, err = snakepit.Execute[int](t.Context(), f.Pool, "pid", nil)
					}
					if err != nil {
						t.Error(err)
						return
					}
					calls.Add(1)
				}
			})
		}
		for range 3 {
			if err := f.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
		stop()
		load.Wait()
		for range 10 {
			if pid, err := snakepit.Execute[int](t.Context(), f.Pool, "pid", nil); err != nil || before[pid] {
				t.Errorf("process %d, %v", pid, err)
			}
		}
		chat.Close()
		Eventually(t, "the old workers leave", func() bool { return len(f.Workers()) == 2 })
		s := f.Stats()
		if s.Replaced != 6 || s.Lost != 0 || s.Restarts != 0 || s.StartFails != 0 || s.Saturated != 0 {
			t.Errorf("%+v", s)
		}
		t.Logf("%d calls during three reloads", calls.Load())
	})
}

// After a Resize, workers that start get their share of the processors for the new size.
func TestThreadsAfterResize(t *testing.T) {
	for _, name := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
		"VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"} {
		t.Setenv(name, "") // restores the variable after the test
		_ = os.Unsetenv(name)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	f := open(t, "jsonstdio", snakepit.Options{Size: 1})
	threads := func(want ...string) { // of one session on each worker
		t.Helper()
		var got []string
		for i := range want {
			s := f.Session(fmt.Sprint(i))
			defer s.Close()
			info, err := snakepit.Execute[map[string]any](t.Context(), s, "info", nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(info["threads"]))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("the workers have %v threads, not %v", got, want)
		}
	}
	resize := func(size int) {
		t.Helper()
		if err := errors.Join(f.Resize(size), f.WaitReady(t.Context(), size)); err != nil {
			t.Fatal(err)
		}
	}
	threads("8")
	resize(4)
	threads("2", "2", "2", "8")
	resize(2)
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the old workers leave", func() bool { return len(f.Workers()) == 2 })
	threads("4", "4")
}

// A change of a module reloads the pool. A broken one leaves the old workers serving, and its traceback is in the log.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	File(t, filepath.Join(dir, "answer.py"), "ANSWER = 1\n")
	File(t, filepath.Join(dir, "worker.py"), `
from snakepit_bridge import Worker
import answer

worker = Worker()

@worker.command
def ask():
    return answer.ANSWER

worker.run()
`)
	f, err := Begin(t, "msgpack", snakepit.Python(filepath.Join(dir, "worker.py")),
		snakepit.Options{Size: 2, Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() int {
		t.Helper()
		got, err := snakepit.Execute[int](t.Context(), f.Pool, "ask", nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := ask(); got != 1 {
		t.Fatal(got)
	}
	File(t, filepath.Join(dir, "answer.py"), "ANSWER = 22\n")
	Eventually(t, "the new answer", func() bool { return f.Stats().Replaced == 2 && ask() == 22 })
	File(t, filepath.Join(dir, "answer.py"), "ANSWER = = 333\n")
	Eventually(t, "the error in the log", func() bool {
		return strings.Contains(f.Log.String(), "cannot be loaded; the old workers serve on") &&
			strings.Contains(f.Log.String(), "ANSWER = = 333")
	})
	if got := ask(); got != 22 {
		t.Error(got)
	}
	File(t, filepath.Join(dir, "answer.py"), "ANSWER = 4444\n")
	Eventually(t, "the corrected answer", func() bool { return f.Stats().Replaced == 4 && ask() == 4444 })
	if s := f.Stats(); s.Lost != 0 || s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
}

// Many workers that import for long do not all start at once.
func TestStartLimit(t *testing.T) {
	dir := t.TempDir()
	program := snakepit.Python(File(t, "worker.py", `
import os, sys
from snakepit_bridge import Worker

mark = os.path.join(sys.argv[1], str(os.getpid()))
open(mark, "x").close()
most = len(os.listdir(sys.argv[1]))
sum(range(1000000))
os.remove(mark)
worker = Worker()

@worker.command
def starting():
    return most

worker.run()
`), dir)
	f, err := Begin(t, "jsonstdio", program, snakepit.Options{Size: 6, StartLimit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		chat := f.Session(string(rune('a' + i))) // each on a worker of its own
		got, err := snakepit.Execute[int](t.Context(), chat, "starting", nil)
		if err != nil || got > 2 {
			t.Errorf("%d at once, %v", got, err)
		}
	}
}
