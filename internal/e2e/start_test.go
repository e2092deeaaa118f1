//go:build unix

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// These tests check the host's errors for workers that cannot start or start in odd surroundings.

// echoes is the body of a worker that works.
const echoes = `
import os
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def echo(value):
    return value

@worker.command
async def slowly(value):
    return value

@worker.command
def boom():
    raise ValueError("bad")

worker.run()
`

func script(t *testing.T, path string, env ...string) python.Program {
	p := snakepit.Python(path)
	p.Interpreter, p.Env = Interpreter(t), env
	return p
}

// says checks that there is an error and that it contains each of the words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; it should say %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q:\n%v", word, err)
		}
	}
}

func onEach(t *testing.T, adapters []string, test func(t *testing.T, adapter string)) {
	for _, adapter := range adapters {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			t.Parallel()
			test(t, adapter)
		})
	}
}

func TestBrokenScript(t *testing.T) {
	for _, c := range []struct {
		name, text string
		words      []string
	}{
		{"raises", "import sys\nprint('reading the model', file=sys.stderr)\nraise RuntimeError('no model here')",
			[]string{
				"RuntimeError: no model here", "line 3", "raise RuntimeError", "reading the model",
				"worker.py", "correct the program",
			}},
		{"syntax error", "print('never')\ndef f(:\n", []string{"SyntaxError", "worker.py", "line 2"}},
		{"missing module", "import snakes_and_ladders", []string{
			"ModuleNotFoundError: No module named 'snakes_and_ladders'", "line 1",
			"for this interpreter: " + Interpreter(t) + " -m pip install snakes_and_ladders",
		}},
		{"no worker", "x = 1", []string{"worker.py", "Worker"}},
		{"ends by itself", "import sys\nprint('wrong key')\nsys.exit(3)", []string{"exit code 3", "wrong key"}},
		{"exits at once", "import os\nos.write(2, b'out of luck\\n')\nos._exit(7)",
			[]string{"exited with code 7", "out of luck", "run it by hand"}},
		{"is killed", "import os\nprint('what a life', flush=True)\nos.kill(os.getpid(), 9)",
			[]string{`"killed"`, "what a life", "run it by hand"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			onEach(t, andChain, func(t *testing.T, adapter string) {
				_, err := Begin(t, adapter, script(t, File(t, "worker.py", c.text)), snakepit.Options{})
				says(t, err, append(c.words, Interpreter(t))...)
				var start *snakepit.StartError
				if !errors.As(err, &start) {
					t.Fatalf("%T", err)
				}
				if errors.Is(err, snakepit.ErrUnavailable) {
					t.Error("a broken program is taken for a missing protocol")
				}
				if !strings.HasPrefix(adapter, start.Adapter) || start.Adapter == "" {
					t.Errorf("over %q, not %q", start.Adapter, adapter)
				}
			})
		})
	}
}

func TestMissing(t *testing.T) {
	worker := File(t, "worker.py", echoes)
	for name, c := range map[string]struct {
		program snakepit.Program
		words   []string
	}{
		"interpreter": {python.Program{Script: worker, Interpreter: "/nowhere/python3"}, []string{
			"the given interpreter", "/nowhere/python3", "no such file", "name a Python executable",
		}},
		"interpreter in the environment": {
			python.Program{Script: worker, Env: []string{"SNAKEPIT_PYTHON=pythoness"}},
			[]string{"SNAKEPIT_PYTHON", "pythoness", "not found", "name a Python executable"},
		},
		"script": {snakepit.Python("nowhere/worker.py"),
			[]string{"nowhere/worker.py", "no such file", "name an existing file"}},
		"directory": {snakepit.Python(filepath.Dir(worker)),
			[]string{filepath.Dir(worker), "directory", "name the .py file"}},
		"command": {snakepit.Command("/nowhere/worker", "-v"),
			[]string{"command: /nowhere/worker -v", "no such file", "correct the path"}},
		"looked up command": {snakepit.Command("no-such-worker"), []string{
			"command: no-such-worker", "not found", "add its directory to PATH",
		}},
		"not executable": {snakepit.Command(worker), []string{worker, "permission denied", "chmod +x"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			for _, adapter := range adapters {
				_, err := Begin(t, adapter, c.program, snakepit.Options{})
				says(t, err, c.words...)
			}
		})
	}
}

// The chosen interpreter is not one.
func TestNoInterpreter(t *testing.T) {
	worker := File(t, "worker.py", echoes)
	onEach(t, adapters, func(t *testing.T, adapter string) {
		program := python.Program{Script: worker, Env: []string{"SNAKEPIT_PYTHON=false"}}
		_, err := Begin(t, adapter, program, snakepit.Options{})
		says(t, err, "exited with code 1", "use a Python 3.8 or later: /",
			"bin/false, chosen by SNAKEPIT_PYTHON, may be none")
		program = python.Program{Script: worker, Interpreter: "echo"}
		_, err = Begin(t, adapter, program, snakepit.Options{})
		says(t, err, "exited with code 0", "use a Python 3.8 or later: /",
			"bin/echo, chosen by Program.Interpreter, may be none")
	})
}

// The time limit is doubled until the worker gets as far as printing, so slow machines pass too.
func TestNeverSaysHello(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		program := script(t, File(t, "worker.py",
			"import time\nprint('loading the model', flush=True)\ntime.sleep(1000)"))
		for limit := 500 * time.Millisecond; ; limit *= 2 {
			_, err := Begin(t, adapter, program, snakepit.Options{StartTimeout: limit})
			says(t, err, "has not said hello", "start timeout of "+limit.String(), "raise Options.StartTimeout")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if strings.Contains(err.Error(), "loading the model") {
				return
			}
			if limit > time.Minute {
				t.Fatalf("what it printed is not there: %v", err)
			}
		}
	})
}

// A caller whose own deadline comes first gets an error that says so.
func TestOpenEndsWithItsContext(t *testing.T) {
	program := script(t, File(t, "worker.py", "import time\nprint('loading the model', flush=True)\ntime.sleep(1000)"))
	for limit := 500 * time.Millisecond; ; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err := snakepit.Open(ctx, program, &snakepit.Options{Size: 2, Logger: hclog.NewNullLogger()})
		cancel()
		says(t, err, "no worker was ready in time", "worker.py")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, new(*snakepit.StartError)) {
			t.Fatal(err)
		}
		if strings.Contains(err.Error(), "loading the model") {
			return
		}
		if limit > time.Minute {
			t.Fatalf("what it printed is not there: %v", err)
		}
	}
}

// Once Open has returned, its context has no effect on the pool, nor on workers that are still starting.
func TestPoolOutlivesOpensContext(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		a, err := snakepit.Adapters(adapter)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		pool, err := snakepit.OpenWith(ctx, a, script(t, filepath.Join("internal", "e2e", "testdata", "behaviour.py")),
			&snakepit.Options{Size: 2, Logger: hclog.NewNullLogger()})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pool.Close() }()
		if err := pool.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if got, err := snakepit.Execute[int](t.Context(), pool, "echo", Args{"value": 7}); got != 7 || err != nil {
				t.Error(got, err)
			}
		}
		if s := pool.Stats(); s.Lost != 0 || s.StartFails != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Closing an idle pool logs no warning: each worker ends by itself, and none of them is a loss.
func TestCleanEndIsNotLoggedAsACrash(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		a, err := snakepit.Adapters(adapter)
		if err != nil {
			t.Fatal(err)
		}
		l := &Log{}
		pool, err := snakepit.OpenWith(t.Context(), a,
			script(t, filepath.Join("internal", "e2e", "testdata", "behaviour.py")), &snakepit.Options{
				Size: 2, StopTimeout: time.Minute,
				Logger: hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Warn}),
			})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pool.Close() }()
		if err := pool.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := snakepit.Execute[int](t.Context(), pool, "echo", Args{"value": 7}); err != nil {
			t.Error(err)
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		if s := pool.Stats(); s.Lost != 0 || s.Terminated != 0 || l.String() != "" {
			t.Errorf("%+v\n%s", s, l)
		}
	})
}

// raw returns a worker that speaks the protocol without the library. Its arguments say what it does.
func raw(t *testing.T, args ...string) snakepit.Program {
	return snakepit.Command(Interpreter(t),
		append([]string{filepath.Join("internal", "e2e", "testdata", "raw.py")}, args...)...)
}

func TestBadProgram(t *testing.T) {
	for _, c := range []struct {
		args  string
		words []string
	}{
		{"version", []string{"speaks versions [7]", "this host version 1", "same release", "raw 1.2.3"}},
		{"codecs", []string{"codecs [smoke-signals]"}},
		{"limits", []string{"impossible limit", "concurrency 0"}},
		{"no-hello", []string{"first frame is not a hello", "ping"}},
		{"torn-hello", []string{"hello is unreadable"}},
		{"exit", []string{"exited with code 5", "giving up", "run it by hand"}},
		{"refuse", []string{"NoLicence: the licence has run out"}},
		{"garbage", []string{"not a frame", "giving up", "run it by hand"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			onEach(t, []string{"jsonstdio", "msgpack", "grpc,msgpack"}, func(t *testing.T, adapter string) {
				_, err := Begin(t, adapter, raw(t, c.args), snakepit.Options{})
				says(t, err, append(c.words, "raw.py "+c.args)...)
				if errors.Is(err, snakepit.ErrUnavailable) {
					t.Error("a broken program is taken for a missing protocol")
				}
				if !strings.HasPrefix(adapter, "grpc") {
					return
				}
				var start *snakepit.StartError
				if !errors.As(err, &start) || start.Adapter != "msgpack" || len(start.Refused) != 1 ||
					start.Refused[0].Adapter != "grpc" {
					t.Fatalf("%+v", start)
				}
				says(t, start.Refused[0].Err, "where it listens")
				if shown := strings.Contains(err.Error(), "grpc was refused"); shown !=
					errors.Is(err, snakepit.ErrProtocol) {
					t.Errorf("that grpc was refused is said: %v, in\n%v", shown, err)
				}
			})
		})
	}
	_, err := Begin(t, "grpc", raw(t, "serve"), snakepit.Options{})
	says(t, err, "where it listens", "Command.Reports")
	if !errors.Is(err, grpc.ErrUnavailable) {
		t.Error(err)
	}
}

// Output never harms the connection, neither from the script nor from code that runs before it.
func TestPrintsBeforeHello(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		hooks := filepath.Dir(File(t, "hooks/sitecustomize.py",
			"import os\nos.write(1, b'hook\\n{\"kind\":\"end\",')\nos.write(2, b'unfinished hook')"))
		text := "print('printed')\nimport os\nos.write(1, b'written\\n')\n" +
			"os.system('echo by a child; echo by another >&2')" + echoes
		f, err := Begin(t, adapter, script(t, File(t, "worker.py", text), "PYTHONPATH="+hooks), snakepit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := call[string](f, "echo", "hello"); got != "hello" {
			t.Error(got)
		}
		for _, line := range []string{"hook", `{"kind":"end",`, "unfinished hook", "printed", "written", "by a child",
			"by another"} {
			Eventually(t, line+" is in the log", func() bool { return strings.Contains(f.Log.String(), line) })
		}
	})
	f, err := Begin(t, "jsonstdio", raw(t, "chatter"), snakepit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := call[string](f, "echo", "hello"); got != "hello" {
		t.Error(got)
	}
	Eventually(t, "chatter is in the log", func() bool { return strings.Contains(f.Log.String(), "good morning") })
}

func TestUnknownCommand(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		f := open(t, adapter, snakepit.Options{})
		for command, near := range map[string]string{"ecko": "echo", "predictt": "predict", "Count": "count"} {
			_, err := snakepit.Execute[any](t.Context(), f.Pool, command, nil)
			says(t, err, command, "did you mean", near, "did not run")
			if !errors.Is(err, snakepit.ErrUnknownCommand) || snakepit.MayHaveRun(err) {
				t.Error(err)
			}
		}
		_, err := snakepit.Execute[any](t.Context(), f.Pool, "something quite different", nil)
		says(t, err, "something quite different")
		if !errors.Is(err, snakepit.ErrUnknownCommand) {
			t.Error(err)
		}
	})
}

func TestNonsenseOptions(t *testing.T) {
	worker := File(t, "worker.py", echoes)
	for words, o := range map[string]snakepit.Options{
		"Size -3":                  {Size: -3},
		"Size 1000000 1024":        {Size: 1_000_000},
		"Concurrency -1 announces": {Concurrency: -1},
		"MaxFrame 17":              {MaxFrame: 17},
		"MaxFrame 1073741825":      {MaxFrame: 1<<30 + 1},
		"WindowItems -2":           {WindowItems: -2},
		"WindowBytes -5":           {WindowBytes: -5},
		"StartTimeout -1s":         {StartTimeout: -time.Second},
		"CancelGrace -1ns":         {CancelGrace: -1},
		"StopTimeout -1m0s":        {StopTimeout: -time.Minute},
		"MinSize 3 Size 2":         {MinSize: 3, Size: 2},
		"StartLimit -1":            {StartLimit: -1},
		"IdleTime -1s":             {IdleTime: -time.Second},
		"Recycle.Calls -1":         {Recycle: core.Recycle{Calls: -1}},
		"Recycle.Age -1s":          {Recycle: core.Recycle{Age: -time.Second}},
		"Recycle.Idle -1s":         {Recycle: core.Recycle{Idle: -time.Second}},
		"Recycle.Memory 1000000":   {Recycle: core.Recycle{Memory: 1_000_000}},
		"Limits.Memory 9":          {Limits: snakepit.Limits{Memory: 9}},
		"Limits.AddressSpace -1":   {Limits: snakepit.Limits{AddressSpace: -1}},
		"Limits.CPUTime 20ms":      {Limits: snakepit.Limits{CPUTime: 20 * time.Millisecond}},
		"Limits.CPUTime 1.5s":      {Limits: snakepit.Limits{CPUTime: 1500 * time.Millisecond}},
		"Recycle.Memory 33554432": {
			Limits: snakepit.Limits{Memory: 32 << 20}, Recycle: core.Recycle{Memory: 32 << 20},
		},
		"Limits.OpenFiles 3":     {Limits: snakepit.Limits{OpenFiles: 3}},
		"Limits.FileSize -1":     {Limits: snakepit.Limits{FileSize: -1}},
		"Limits.Nice 20":         {Limits: snakepit.Limits{Nice: 20}},
		"WedgedAfter -1s":        {WedgedAfter: -time.Second},
		"Wedged 9":               {Wedged: 9},
		"Warmup Args Command":    {Warmup: core.Warmup{Args: 1}},
		"Functions halve":        {Functions: map[string]snakepit.Function{"halve": {}}},
		"Options.Dir /dev/null/": {Dir: "/dev/null/directory"},
		"Options.Name NUL":       {Name: "a\x00b"},
	} {
		if o.Size == 0 {
			o.Size = 1
		}
		_, err := snakepit.OpenWith(t.Context(), jsonstdio.Adapter{}, script(t, worker), &o)
		says(t, err, strings.Fields(words)...)
	}
	for words, a := range map[string]core.Adapter{
		"PortRange 5 BasePort":        grpc.Adapter{PortRange: 5},
		"BasePort 65530 PortRange 10": grpc.Adapter{BasePort: 65530, PortRange: 10},
		"ConnectTimeout -1s":          grpc.Adapter{ConnectTimeout: -time.Second},
	} {
		_, err := BeginWith(t, a, script(t, worker), snakepit.Options{})
		says(t, err, strings.Fields(words)...)
		if errors.Is(err, snakepit.ErrUnavailable) {
			t.Error("a mistake in the program would be fallen back from:", err)
		}
	}
	_, err := snakepit.Open(t.Context(), nil, nil)
	says(t, err, "no program", `snakepit.Python("worker.py")`)
	_, err = snakepit.OpenWith(t.Context(), nil, script(t, worker), nil)
	says(t, err, "no adapter")
	t.Setenv("SNAKEPIT_ADAPTERS", "grpc,smoke-signals")
	_, err = snakepit.Open(t.Context(), script(t, worker), nil)
	says(t, err, "SNAKEPIT_ADAPTERS", "smoke-signals", "msgpack", "jsonstdio")
	t.Setenv("SNAKEPIT_ADAPTERS", "auto") // many programs have such a flag
	if _, err = snakepit.Adapters("auto"); err != nil {
		t.Error(err)
	}
}

// Each worker imports the program once, however many adapters the chain tries. An error in it is reported once.
func TestImportedOnce(t *testing.T) {
	counting := "import os\nwith open(os.environ['COUNT'], 'a') as f: f.write('imported\\n')\n"
	imports := func(path string) int {
		text, _ := os.ReadFile(path)
		return strings.Count(string(text), "imported")
	}
	t.Run("works", func(t *testing.T) {
		count := filepath.Join(t.TempDir(), "count")
		f, err := Begin(t, snakepit.Default, script(t, File(t, "worker.py", counting+echoes), "COUNT="+count),
			snakepit.Options{Size: 3})
		works(t, f, err)
		if n := imports(count); n != 3 {
			t.Errorf("imported %d times by 3 workers", n)
		}
	})
	t.Run("broken", func(t *testing.T) {
		count := filepath.Join(t.TempDir(), "count")
		f, err := Begin(t, snakepit.Default, script(t, File(t, "worker.py", counting+"1 / 0"), "COUNT="+count),
			snakepit.Options{Size: 3})
		says(t, err, "ZeroDivisionError", "adapter: grpc")
		if n := imports(count); n != 3 {
			t.Errorf("imported %d times by 3 workers", n)
		}
		if n := strings.Count(err.Error()+f.Log.String(), "Traceback (most recent call last)"); n != 1 {
			t.Errorf("reported %d times:\n%v\n%s", n, err, f.Log)
		}
		if strings.Contains(err.Error(), "was refused") {
			t.Error(err)
		}
	})
}

// works calls a worker of echoes in every way that makes the Python side import a module late.
func works(t *testing.T, f *Fixture, err error) {
	t.Helper()
	if err == nil {
		err = f.WaitReady(t.Context(), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, command := range []string{"echo", "slowly"} {
		if got := call[time.Time](f, command, Args{"value": now}); !got.Equal(now) {
			t.Error(got)
		}
	}
	_, err = snakepit.Execute[any](t.Context(), f.Pool, "boom", nil)
	says(t, err, "ValueError: bad")
	if _, err = f.Workers()[0].Health(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLongSocketPath(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("a-directory-with-a-long-name/", 6))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	worker := File(t, "worker.py", echoes)
	for _, adapter := range adapters {
		f, err := Begin(t, adapter, script(t, worker), snakepit.Options{Dir: long})
		works(t, f, err)
	}
	t.Setenv("TMPDIR", long)
	for _, adapter := range adapters {
		f, err := Begin(t, adapter, script(t, worker), snakepit.Options{})
		works(t, f, err)
	}
}

// Only one directory is writable. (/dev/null is not a directory for any user, not even for root.)
func TestOneWritableDirectory(t *testing.T) {
	worker := File(t, "worker.py", echoes)
	for name, env := range map[string]map[string]string{
		"read-only": {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "TMPDIR": "/dev/null/tmp"},
		"unset":     {"HOME": "", "XDG_CACHE_HOME": "", "TMPDIR": "/dev/null/tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			writable := t.TempDir()
			caches := t.TempDir()
			for key, value := range env {
				t.Setenv(key, value)
				if value == "" {
					_ = os.Unsetenv(key)
				}
			}
			for _, adapter := range adapters {
				program := snakepit.Python(worker)
				program.Interpreter, program.Cache = Interpreter(t), writable
				f, err := Begin(t, adapter, program, snakepit.Options{Dir: writable})
				works(t, f, err)
			}
			program := snakepit.Python(worker)
			program.Interpreter = Interpreter(t)
			_, err := Begin(t, "jsonstdio", program, snakepit.Options{Dir: writable})
			says(t, err, "/dev/null", "set TMPDIR")
			program.Cache = caches
			_, err = Begin(t, "jsonstdio", program, snakepit.Options{})
			says(t, err, "/dev/null", "set TMPDIR")
		})
	}
}

func TestOddPlaces(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		t.Run("path", func(t *testing.T) {
			worker := File(t, "Bücher & 'Läden' $HOME/蛇 worker.py", echoes)
			f, err := Begin(t, adapter, script(t, worker), snakepit.Options{Dir: filepath.Dir(worker)})
			works(t, f, err)
		})
		t.Run("namesakes", func(t *testing.T) {
			worker := File(t, "worker.py", echoes)
			for _, name := range []string{"json", "grpc", "msgpack", "google", "queue", "asyncio", "logging",
				"traceback", "datetime", "base64", "inspect"} {
				File(t, filepath.Join(filepath.Dir(worker), name+".py"), "raise RuntimeError('this is mine')")
			}
			f, err := Begin(t, adapter, script(t, worker), snakepit.Options{})
			works(t, f, err)
		})
		t.Run("another bridge", func(t *testing.T) {
			other := File(t, "elsewhere/snakepit_bridge/__init__.py",
				"__version__ = '9.9.9'\nraise RuntimeError('the wrong one')")
			other = filepath.Dir(other)
			program := script(t, File(t, "worker.py", echoes), "PYTHONPATH="+filepath.Dir(other))
			program.Cache = t.TempDir()
			f, err := Begin(t, adapter, program, snakepit.Options{})
			works(t, f, err)
			Eventually(t, "a warning names both copies", func() bool {
				for line := range strings.Lines(f.Log.String()) {
					if strings.Contains(line, "[WARN]") && strings.Contains(line, "serves this worker") {
						return strings.Contains(line, "9.9.9 of "+other) && strings.Contains(line, program.Cache)
					}
				}
				return false
			})
		})
	})
}
