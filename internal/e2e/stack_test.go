//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// stuck opens a pool of one worker whose calls do not end.
func stuck(t *testing.T, adapter string, env ...string) *Fixture {
	t.Helper()
	return stuckWith(t, adapter, snakepit.Options{
		CallTimeout: -1, StopTimeout: time.Second, CancelGrace: time.Hour,
	}, env...)
}

func stuckWith(t *testing.T, adapter string, o snakepit.Options, env ...string) *Fixture {
	t.Helper()
	f, err := Begin(t, adapter, script(t, filepath.Join("internal", "e2e", "testdata", "stuck.py"), env...), o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// in returns the fixture for a subtest. Its worker has started.
func (f *Fixture) in(t *testing.T) *Fixture {
	t.Helper()
	if err := f.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return &Fixture{t, f.Pool, f.Log}
}

// start starts a call that does not end. It is cancelled when the test ends.
func (f *Fixture) start(command string) {
	var caller sync.WaitGroup
	f.Cleanup(caller.Wait)
	ctx, cancel := context.WithCancel(f.Context())
	f.Cleanup(cancel)
	caller.Go(func() { _, _ = snakepit.Execute[any](ctx, f.Pool, command, nil) })
}

// runs reports whether a function of stuck.py is the innermost of its program in a thread.
func runs(t *core.StackThread, function string) bool {
	at := slices.IndexFunc(t.Frames, func(f core.TraceFrame) bool { return strings.HasSuffix(f.File, "stuck.py") })
	return at >= 0 && t.Frames[at].Function == function
}

// The stacks say where a call is, whatever it does.
func TestStack(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		pool := stuck(t, adapter)
		for _, command := range []string{"computes", "sleeps", "waits_for_a_lock", "computes_in_c", "waits_in_c"} {
			t.Run(command, func(t *testing.T) {
				f := pool.in(t)
				f.start(command)
				Eventually(t, "the main thread is in the command", func() bool {
					s, err := f.Workers()[0].Stack(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					main, isMain := s.Threads[0], func(t core.StackThread) bool { return t.Main }
					if !main.Main || slices.ContainsFunc(s.Threads[1:], isMain) {
						t.Fatalf("the first thread is not the main thread of\n%s", s)
					}
					bridge := func(t core.StackThread) bool {
						return slices.ContainsFunc(t.Frames, func(f core.TraceFrame) bool {
							return strings.HasSuffix(f.File, "_housekeeper.py") && f.Line > 0
						})
					}
					if !slices.ContainsFunc(s.Threads[1:], bridge) {
						t.Fatalf("the other threads are not in\n%s", s)
					}
					return runs(&main, command)
				})
				if strings.HasSuffix(command, "_in_c") { // no cancellation ends it
					f.lose()
				}
			})
		}
	})
}

// Several goroutines may ask at once. Each gets whole stacks.
func TestStackAtOnce(t *testing.T) {
	f := stuck(t, "msgpack")
	f.start("computes_in_c")
	worker := f.Workers()[0]
	main := func() string {
		s, err := worker.Stack(t.Context())
		if err != nil {
			t.Error(err)
			return ""
		}
		heads := strings.Count(s.Text, " (most recent call first):")
		if len(s.Threads) != heads || heads < 3 || !strings.HasSuffix(s.Text, "\n") {
			t.Errorf("%d threads of %d are read in\n%s", len(s.Threads), heads, s)
		}
		for _, thread := range s.Threads {
			if thread.Main && runs(&thread, "computes_in_c") {
				return s.Text
			}
		}
		return ""
	}
	Eventually(t, "the main thread is in the command", func() bool { return main() != "" })
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if main() == "" {
				t.Error("a text without the command")
			}
		})
	}
	all.Wait()
}

// With several slots, the threads of the calls have names.
func TestStackOfThreads(t *testing.T) {
	f := stuck(t, "msgpack", "TEST_CONCURRENCY=2")
	f.start("sleeps")
	f.start("waits_for_a_lock")
	Eventually(t, "both calls are in the stacks", func() bool {
		s, err := f.Workers()[0].Stack(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, thread := range s.Threads {
			for _, command := range []string{"sleeps", "waits_for_a_lock"} {
				if runs(&thread, command) {
					found[command] = thread.Name
				}
			}
		}
		if len(found) < 2 {
			return false
		}
		for command, name := range found {
			if name != "snakepit-0" && name != "snakepit-1" {
				t.Errorf("%s runs on the thread %q", command, name)
			}
		}
		return true
	})
}

// A worker that can't give its stacks says why.
func TestNoStack(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		f := stuck(t, "msgpack")
		worker := f.Workers()[0]
		pid := worker.Info().PID
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
		Eventually(t, "it is stopped", func() bool {
			_, err := worker.Stack(t.Context())
			return err != nil &&
				strings.Contains(err.Error(), "stopped by a signal or a debugger: let it go on with kill -CONT")
		})
	})
	t.Run("its program has taken the signal", func(t *testing.T) {
		f := stuck(t, "msgpack")
		worker := f.Workers()[0]
		call[any](f, "takes_the_signal", Args{"number": caught(t, worker.Info().PID)})
		f.start("waits_in_c")
		Eventually(t, "it does not answer", func() bool {
			_, err := worker.Stack(t.Context())
			if err == nil {
				return false
			}
			if !errors.Is(err, errors.ErrUnsupported) ||
				!strings.Contains(err.Error(), "has taken its handler of signal") {
				t.Fatal(err)
			}
			return true
		})
		if n := f.Stats().Lost; n != 0 {
			t.Errorf("%d workers are lost", n)
		}
	})
	t.Run("the caller has left", func(t *testing.T) {
		f := stuck(t, "msgpack")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Workers()[0].Stack(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("lost", func(t *testing.T) {
		f := stuck(t, "msgpack")
		worker := f.Workers()[0]
		_ = syscall.Kill(worker.Info().PID, syscall.SIGKILL)
		Eventually(t, "it is lost", func() bool {
			_, err := worker.Stack(t.Context())
			return errors.Is(err, snakepit.ErrWorkerLost)
		})
	})
}

// caught returns the number of the real-time signal that a process handles.
func caught(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "SigCgt:\t")
	set, err := strconv.ParseUint(rest[:16], 16, 64)
	for number := 64; number > 34 && err == nil; number-- {
		if set>>(number-1)&1 == 1 {
			return number
		}
	}
	t.Fatalf("it handles no real-time signal: %s", rest[:16])
	return 0
}

// A worker whose process a shell has started is asked, and not the shell. Its file is gone with its process.
func TestStackBehindAShell(t *testing.T) {
	shell := File(t, "python", "#!/bin/sh\n"+Interpreter(t)+" \"$@\"\nexit $?\n")
	if err := os.Chmod(shell, 0o700); err != nil {
		t.Fatal(err)
	}
	program := snakepit.Python(filepath.Join("internal", "e2e", "testdata", "stuck.py"))
	program.Interpreter = shell
	dir := t.TempDir()
	f, err := Begin(t, "jsonstdio", program, snakepit.Options{
		CallTimeout: -1, StopTimeout: time.Second, CancelGrace: time.Hour, Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	files := func() int {
		paths, err := filepath.Glob(filepath.Join(dir, "*", "stacks.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(paths)
	}
	if n := files(); n != 1 {
		t.Errorf("%d files for stacks", n)
	}
	f.start("waits_in_c")
	worker := f.Workers()[0]
	Eventually(t, "the main thread is in the command", func() bool {
		s, err := worker.Stack(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return runs(&s.Threads[0], "waits_in_c")
	})
	if group, err := syscall.Getpgid(worker.Info().PID); err != nil || group == worker.Info().PID {
		t.Fatalf("the worker leads its group, so this tests nothing: %v", err)
	} else if err := syscall.Kill(-group, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "it is replaced", func() bool { return f.Stats().Lost == 1 && f.Stats().Ready == 1 })
	if n := files(); n != 1 {
		t.Errorf("%d files for stacks, after a loss", n)
	}
}
