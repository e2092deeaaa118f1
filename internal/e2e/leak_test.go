//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// A pool leaves nothing behind.

// busy is the body of a worker that is hard to end.
const busy = `
import os, re, subprocess
from snakepit_bridge import Worker

worker = Worker()

def holder(**how):
    fds = [int(fd) for fd in os.listdir("/proc/self/fd")]
    fds = [fd for fd in fds if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")]
    return subprocess.Popen(["sleep", "1000"], pass_fds=fds, **how).pid

@worker.command
def breed():
    holder()
    return holder(start_new_session=True)

@worker.command
def forever():
    i = 0
    while True:
        yield i
        i += 1

@worker.command
def stuck():
    re.match("(a+)+$", "a" * 60 + "b")  # holds the interpreter in C for years

@worker.command
def stubborn(ctx):
    ctx.call("gate")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

@worker.command
def gated(ctx):
    return ctx.call("gate")

@worker.command
def gated_stream(ctx):
    yield 1
    yield ctx.call("gate")
    return "all"

worker.run()
`

// openFiles lists this process's descriptors.
func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("only Linux lists descriptors: ", err)
	}
	var files []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "/proc/") {
			files = append(files, e.Name()+" "+target)
		}
	}
	slices.Sort(files)
	return files
}

// family returns the ids of all processes that a pool of that name started, and of their descendants.
func family(t *testing.T, name string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("only Linux lists processes: ", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ") // an ended process that is not reaped yet has none
		if bytes.Contains(env, []byte("SNAKEPIT_RUN_ID="+name+"-")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// empty checks that a directory is empty.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

// gate is a worker function that waits for the test.
type gate struct{ entered, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}, 16), make(chan struct{})} }

func (g *gate) functions() map[string]snakepit.Function {
	return map[string]snakepit.Function{"gate": snakepit.Func(func(ctx context.Context, _ any) (string, error) {
		g.entered <- struct{}{}
		select {
		case <-g.open:
			return "through", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})}
}

// confined opens a pool with a name and a single directory of the test's own. The end of the test does not close it.
func confined(t *testing.T, adapter string, o snakepit.Options) (f *Fixture, name, dir string) {
	t.Helper()
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{}
	dir = t.TempDir()
	name = fmt.Sprintf("leak-%d-%s", os.Getpid(),
		strings.ToLower(strings.NewReplacer("/", "-", "+", "x").Replace(t.Name())))
	o.Name, o.Dir, o.Logger = name, dir, hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
	pool, err := snakepit.OpenWith(t.Context(), a, script(t, File(t, "worker.py", busy)), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the pool's log:\n%s", l)
		}
	})
	return &Fixture{t, pool, l}, name, dir
}

func TestNothingIsLeft(t *testing.T) {
	for _, adapter := range andChain {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			_ = exec.CommandContext(t.Context(), "true").Run() // opens what the runtime keeps open
			files, goroutines := openFiles(t), goleak.IgnoreCurrent()
			f, name, dir := confined(t, adapter, snakepit.Options{Size: 2, StopTimeout: 20 * time.Second})
			if err := f.WaitReady(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			var escaped []int // in their own sessions: the pool cannot know that they are its own
			breed := func() {
				pid := call[int](f, "breed", nil)
				t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
				escaped = append(escaped, pid)
			}
			breed()
			for v, err := range snakepit.ExecuteStream[int](t.Context(), f.Pool, "forever", nil) {
				if err != nil {
					t.Fatal(err)
				}
				if v == 100 {
					break
				}
			}
			// During an exec, a process has no environment for a moment.
			Eventually(t, "there are two workers and two of their children", func() bool {
				return len(family(t, name)) == 4
			})
			// One worker is lost and replaced, and its children end with it.
			if err := syscall.Kill(f.Workers()[0].Info().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			Eventually(t, "the worker is replaced", func() bool { s := f.Stats(); return s.Lost == 1 && s.Ready == 2 })
			breed()
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if _, err := snakepit.Execute[any](t.Context(), f.Pool, "breed", nil); snakepit.MayHaveRun(err) ||
				!errors.Is(err, snakepit.ErrClosed) {
				t.Error(err)
			}
			left := family(t, name)
			if slices.Sort(left); !slices.Equal(left, slices.Sorted(slices.Values(escaped))) {
				t.Errorf("processes %d are left, not just %d", left, escaped)
			}
			empty(t, dir)
			if after := openFiles(t); !slices.Equal(files, after) {
				t.Errorf("descriptors before and after:\n%q\n%q", files, after)
			}
			goleak.VerifyNone(t, goroutines)
		})
	}
}

// A failed start leaves nothing behind either.
func TestNothingIsLeftOfAFailure(t *testing.T) {
	for _, adapter := range andChain {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			_ = exec.CommandContext(t.Context(), "true").Run()
			files, goroutines := openFiles(t), goleak.IgnoreCurrent()
			dir := t.TempDir()
			program := script(t, File(t, "worker.py",
				"import subprocess\nsubprocess.Popen(['sleep', '1000'], close_fds=False)\n1 / 0"))
			name := fmt.Sprintf("failure-%d-%s", os.Getpid(), adapter)
			_, err := Begin(t, adapter, program, snakepit.Options{Name: name, Dir: dir, Size: 2})
			says(t, err, "ZeroDivisionError")
			if pids := family(t, name); len(pids) > 0 {
				t.Errorf("processes %d are left", pids)
			}
			empty(t, dir)
			if after := openFiles(t); !slices.Equal(files, after) {
				t.Errorf("descriptors before and after:\n%q\n%q", files, after)
			}
			goleak.VerifyNone(t, goroutines)
		})
	}
}

// hostMode makes the test binary a host that will be killed. Its value lists what it does, adapter, script, name,
// directory and interpreter.
const hostMode = "SNAKEPIT_TEST_HOST"

func TestMain(m *testing.M) {
	if mode := os.Getenv(hostMode); mode != "" {
		fmt.Println(host(strings.Split(mode, "|")))
		os.Exit(1)
	}
	if err := os.Chdir(filepath.Join("..", "..")); err != nil {
		panic(err)
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		// These tests mostly wait for processes.
		if err := f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// host opens a pool and does what its arguments say. It returns only on an error.
func host(args []string) error {
	adapter, err := snakepit.Adapters(args[1])
	if err != nil {
		return err
	}
	program := snakepit.Python(args[2])
	program.Interpreter = args[5]
	o := &snakepit.Options{
		Size: 2, Name: args[3], Dir: args[4], Surge: 2, StartLimit: 4,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Error}),
	}
	if args[0] == "changes" {
		o.OnEvent = func(e snakepit.Event) {
			if s, ok := e.(core.StateChanged); ok && s.To == core.StateStarting {
				fmt.Println("a worker starts")
			}
		}
	}
	ctx := context.Background()
	pool, err := core.Open(ctx, adapter, Must(program.Command()), o)
	if err != nil {
		return err
	}
	if err := pool.WaitReady(ctx, 0); err != nil {
		return err
	}
	if args[0] == "changes" {
		return changes(ctx, pool)
	}
	return stays(ctx, pool)
}

// stays leaves one worker idle and gets the other one stuck in C.
func stays(ctx context.Context, pool *core.Pool) error {
	escaped, err := snakepit.Execute[int](ctx, pool, "breed", nil)
	if err != nil {
		return err
	}
	fmt.Println("escaped", escaped)
	_, err = snakepit.Execute[any](ctx, pool, "stuck", nil, snakepit.Timeout(-1))
	return err
}

// changes reloads the pool again and again, and resizes it meanwhile.
func changes(ctx context.Context, pool *core.Pool) error {
	failed := make(chan error)
	go func() {
		for size := 2; ; size = 6 - size {
			if err := errors.Join(pool.Resize(size), pool.WaitReady(ctx, size)); err != nil {
				failed <- err
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		default:
			if err := pool.Reload(ctx); err != nil {
				return err
			}
		}
	}
}

// startHost starts this test binary as a host. It returns the process and its standard output.
func startHost(t *testing.T, does, adapter, script, name, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Must(os.Executable()))
	cmd.Env = append(os.Environ(),
		hostMode+"="+strings.Join([]string{does, adapter, script, name, dir, Interpreter(t)}, "|"))
	cmd.Stderr = os.Stderr
	out := Must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// kill -9 of the host ends its workers, even one that is stuck in C, and the processes that they started. The next pool
// in the same place removes their directory. It harms no other pool there, nor does the kill.
func TestHostKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a group when its host has gone")
	}
	for i, adapter := range andChain {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			name, dir := fmt.Sprintf("killed-%d-%d", os.Getpid(), i), t.TempDir()
			neighbour, err := Begin(t, adapter, script(t, filepath.Join("internal", "e2e", "testdata", "lifecycle.py")),
				snakepit.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			pid := call[int](neighbour, "pid", nil)
			cmd, out := startHost(t, "stays", adapter, File(t, "worker.py", busy), name, dir)
			var escaped int
			_, err = fmt.Fscanf(out, "escaped %d\n", &escaped)
			if err == nil {
				defer func() { _ = syscall.Kill(escaped, syscall.SIGKILL) }()
				Eventually(t, "the family is complete", func() bool { return len(family(t, name)) == 4 })
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if err != nil {
				t.Fatal(err)
			}
			Eventually(t, "all are gone but the one that nobody could know", func() bool {
				return slices.Equal(family(t, name), []int{escaped})
			})

			pool, err := snakepit.OpenWith(t.Context(), Must(snakepit.Adapters("jsonstdio")),
				script(t, File(t, "worker.py", busy)), &snakepit.Options{
					Size: 1, Dir: dir, Logger: hclog.NewNullLogger(),
				})
			if err != nil {
				t.Fatal(err)
			}
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
			if got := call[int](neighbour, "pid", nil); got != pid || neighbour.Stats().Lost != 0 {
				t.Errorf("a neighbour's worker was process %d and is %d", pid, got)
			}
			if err := neighbour.Close(); err != nil {
				t.Error(err)
			}
			empty(t, dir)
		})
	}
}

// breeds is the body of a worker that starts a child when it is imported.
const breeds = `
import subprocess
from snakepit_bridge import Worker

subprocess.Popen(["sleep", "1000"])
worker = Worker()

@worker.command
def echo(value):
    return value

worker.run()
`

// kill -9 of a host that reloads and resizes its pool leaves no process, whatever was starting or leaving.
func TestHostKilledDuringChanges(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a group when its host has gone")
	}
	starts := map[string]int{"jsonstdio": 7, "msgpack": 10, "grpc": 15} // the first two are the pool's own
	onEach(t, adapters, func(t *testing.T, adapter string) {
		name := fmt.Sprintf("changing-%d-%s", os.Getpid(), adapter)
		cmd, out := startHost(t, "changes", adapter, File(t, "worker.py", breeds), name, t.TempDir())
		lines := bufio.NewScanner(out)
		for n := 0; n < starts[adapter] && lines.Scan(); n++ {
			if lines.Text() != "a worker starts" {
				t.Error(lines.Text())
			}
		}
		before := len(family(t, name))
		_ = cmd.Process.Kill()
		killed := time.Now()
		_ = cmd.Wait()
		Eventually(t, "all are gone", func() bool { return len(family(t, name)) == 0 })
		t.Logf("%d processes were gone %s after the kill", before, time.Since(killed))
		if before < 4 {
			t.Errorf("only %d processes were there before the kill", before)
		}
	})
}

func TestShutdown(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		g := newGate()
		f, name, dir := confined(t, adapter, snakepit.Options{Size: 2, Functions: g.functions()})
		if err := f.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		unary, stream, done := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() {
			got, err := snakepit.Execute[string](t.Context(), f.Pool, "gated", nil)
			if err == nil && got != "through" {
				err = errors.New(got)
			}
			unary <- err
		}()
		go func() {
			var got []any
			var all string
			for v, err := range snakepit.ExecuteStream[any](t.Context(), f.Pool, "gated_stream", nil,
				snakepit.Result(&all)) {
				if err != nil {
					stream <- err
					return
				}
				got = append(got, v)
			}
			if text := fmt.Sprintf("%v %s", got, all); text != "[1 through] all" {
				stream <- errors.New(text)
			}
			close(stream)
		}()
		<-g.entered
		<-g.entered
		go func() { done <- f.Shutdown(t.Context()) }()
		Eventually(t, "no new calls are taken", func() bool {
			_, err := snakepit.Execute[any](t.Context(), f.Pool, "no such command", nil)
			return errors.Is(err, snakepit.ErrClosed) && !snakepit.MayHaveRun(err)
		})
		select {
		case err := <-done:
			t.Fatal("it did not wait: ", err)
		default:
		}
		close(g.open)
		for what, c := range map[string]chan error{"call": unary, "stream": stream, "Shutdown": done} {
			if err := <-c; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if pids := family(t, name); len(pids) > 0 {
			t.Errorf("processes %d are left", pids)
		}
		empty(t, dir)
	})
}

// Close, and a Shutdown whose context ends, end every call, however busy or stubborn.
func TestCloseWhileBusy(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		g := newGate()
		f, name, dir := confined(t, adapter,
			snakepit.Options{Size: 3, StopTimeout: 2 * time.Second, Functions: g.functions()})
		if err := f.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		first, ends := make(chan struct{}), make(chan error, 3)
		go func() {
			n := 0
			for _, err := range snakepit.ExecuteStream[int](t.Context(), f.Pool, "forever", nil) {
				if err != nil {
					ends <- err
				}
				if n++; n == 1 {
					close(first)
				}
			}
		}()
		for _, command := range []string{"stubborn", "stuck"} {
			go func() {
				_, err := snakepit.Execute[any](t.Context(), f.Pool, command, nil)
				ends <- err
			}()
		}
		<-first
		<-g.entered
		Eventually(t, "all three run", func() bool { return f.Stats().Running == 3 })
		close(g.open)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := f.Shutdown(ctx) // returns an error if something had not ended in time
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "3 calls were still running") ||
			strings.Contains(err.Error(), "not returned") {
			t.Error(err)
		}
		for range 3 {
			if err := <-ends; !errors.Is(err, snakepit.ErrClosed) {
				t.Error(err)
			}
		}
		if pids := family(t, name); len(pids) > 0 {
			t.Errorf("processes %d are left", pids)
		}
		empty(t, dir)
	})
}
