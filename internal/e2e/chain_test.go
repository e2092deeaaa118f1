//go:build unix

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/fallback"
	"github.com/snakepit-go/snakepit/python"
)

// These tests run the chain with Python packages that are really installed or really missing.

func (e *Environment) program() python.Program {
	p := snakepit.Python(File(e.T, "worker.py", echoes))
	p.Interpreter = e.Python
	return p
}

func (e *Environment) pip(packages string) string { return e.Python + " -m pip install " + packages }

const (
	grpcPackages    = "'grpcio>=1.50' 'protobuf>=3.20.3'"
	msgpackPackages = "'msgpack>=1.0.3'"
)

// refused checks the Stats of the only worker: its adapter, and the reasons why the adapters before it were refused.
func refused(t *testing.T, pool *snakepit.Pool, adapter string, reasons ...[2]string) {
	t.Helper()
	w := pool.Stats().Workers[0]
	if w.Adapter != adapter || len(w.Refused) != len(reasons) {
		t.Fatalf("it runs on %q, and %v were refused", w.Adapter, w.Refused)
	}
	for i, reason := range reasons {
		says(t, w.Refused[i].Err, reason[1])
		if w.Refused[i].Adapter != reason[0] || !errors.Is(w.Refused[i].Err, snakepit.ErrUnavailable) {
			t.Errorf("%+v", w.Refused[i])
		}
	}
}

func TestChainDegrades(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		installed []string
		adapter   string
		refused   int
	}{
		{[]string{"grpcio", "protobuf", "msgpack"}, "grpc", 0},
		{[]string{"grpcio", "protobuf"}, "grpc", 0}, // with JSON bodies
		{[]string{"grpcio", "msgpack"}, "msgpack", 1},
		{[]string{"protobuf", "msgpack"}, "msgpack", 1},
		{[]string{"protobuf"}, "jsonstdio", 2},
		{nil, "jsonstdio", 2},
	} {
		t.Run("with_"+strings.Join(c.installed, "+"), func(t *testing.T) {
			e := NewEnvironment(t, c.installed...)
			f, err := BeginWith(t, NewChain(), e.program(), snakepit.Options{Size: 4})
			works(t, f, err)
			// A refusal costs the pool one start of an interpreter, not one per worker.
			if n := e.count(); n != 4+c.refused {
				t.Errorf("%d starts for 4 workers and %d refusals", n, c.refused)
			}
			remedies := [][2]string{{"grpc", e.pip(grpcPackages)}, {"msgpack", e.pip(msgpackPackages)}}
			refused(t, f.Pool, c.adapter, remedies[:c.refused]...)
			for _, w := range f.Workers() {
				if i := w.Info(); i.Adapter != c.adapter || len(i.Refused) != c.refused {
					t.Errorf("%+v", i)
				}
			}
			degraded, log := 0, f.Logged()
			for line := range strings.Lines(log) {
				if !strings.Contains(line, "protocol degraded") {
					continue
				}
				degraded++
				if len(line) > 250 || strings.Count(line, "grpc=") != 1 || strings.Contains(line, "unavailable") ||
					strings.Contains(line, "pip") {
					t.Errorf("%d bytes: %s", len(line), line)
				}
				for _, want := range []string{
					"adapter=" + c.adapter,
					" cannot be imported: ModuleNotFoundError: No module named '",
					"msgpack=\"No module named 'msgpack'\"",
				}[:c.refused+1] {
					if !strings.Contains(line, want) {
						t.Errorf("%q is not in %s", want, line)
					}
				}
			}
			for _, remedy := range remedies[:c.refused] {
				if strings.Count(log, remedy[1]) != 1 { // at debug level
					t.Errorf("the log does not say once %q", remedy[1])
				}
			}
			if degraded != min(c.refused, 1) {
				t.Errorf("said %d times in the log", degraded)
			}
		})
	}
}

// A package that is installed but broken counts as missing, also if it ends the interpreter that imports it.
func TestChainBrokenPackage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ grpc, grpcReason, msgpack, msgpackReason string }{
		"raises": {"raise OSError('built for another system')", "OSError: built for another system",
			"version = (0, 5, 6)\ndef unpackb(): pass", "msgpack 0.5.6 is too old"},
		"crashes": {"import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
			"tried the protocol, and was ended by signal",
			"import os; os._exit(7)", "tried the protocol, and exited with code 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := NewEnvironment(t, "protobuf")
			File(t, filepath.Join(e.Site, "grpc", "__init__.py"), c.grpc)
			File(t, filepath.Join(e.Site, "msgpack.py"), c.msgpack)
			f, err := BeginWith(t, NewChain(), e.program(), snakepit.Options{})
			works(t, f, err)
			refused(t, f.Pool, "jsonstdio", [2]string{"grpc", c.grpcReason}, [2]string{"msgpack", c.msgpackReason})
		})
	}
}

// A replaced worker runs on whatever adapter is available then.
func TestChainBetweenRestarts(t *testing.T) {
	t.Parallel()
	e := NewEnvironment(t, "protobuf", "msgpack")
	chain := NewChain()
	chain.CoolDown = 1 // nanosecond: every start tries again
	f, err := BeginWith(t, chain, e.program(), snakepit.Options{})
	works(t, f, err)
	refused(t, f.Pool, "msgpack", [2]string{"grpc", e.pip(grpcPackages)})

	e.install("grpcio")
	replaceWorker(t, f)
	refused(t, f.Pool, "grpc")
	e.uninstall("grpcio")
	e.uninstall("msgpack")
	replaceWorker(t, f)
	refused(t, f.Pool, "jsonstdio", [2]string{"grpc", e.pip(grpcPackages)},
		[2]string{"msgpack", e.pip(msgpackPackages)})
	e.install("msgpack")
	replaceWorker(t, f)
	refused(t, f.Pool, "msgpack", [2]string{"grpc", e.pip(grpcPackages)})
	log := f.Logged()
	if n := strings.Count(log, "protocol restored: worker=0 adapter=grpc"); n != 1 {
		t.Errorf("restored %d times in the log", n)
	}
	if n := strings.Count(log, "protocol degraded"); n != 3 {
		t.Errorf("degraded %d times in the log", n)
	}
}

// replaceWorker kills the pool's worker and waits until another one works.
func replaceWorker(t *testing.T, f *Fixture) {
	t.Helper()
	old := f.Workers()[0].Info().PID
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the worker is replaced", func() bool {
		pid := f.Workers()[0].Info().PID
		return pid != 0 && pid != old
	})
	works(t, f, nil)
}

// Nobody chose the default chain, so its first choice is no warning. A change to another one is.
func TestDefaultChain(t *testing.T) {
	t.Parallel()
	e := NewEnvironment(t, "msgpack")
	chain := NewChain()
	chain.CoolDown, chain.Default = -1, true
	f, err := BeginWith(t, chain, e.program(), snakepit.Options{})
	works(t, f, err)
	e.uninstall("msgpack")
	replaceWorker(t, f)
	log := f.Logged()
	for line, level := range map[string]string{
		"protocol fallback: worker=0 adapter=msgpack grpc=":   "[INFO]",
		"protocol degraded: worker=0 adapter=jsonstdio grpc=": "[WARN]",
	} {
		before, _, found := strings.Cut(log, line)
		if !found || !strings.HasSuffix(before, level+"  snakepit: ") {
			t.Errorf("%q is not in the log at %s", line, level)
		}
	}
	isDefault := os.Getenv("SNAKEPIT_ADAPTERS") == ""
	for names, want := range map[string]bool{"auto": isDefault, snakepit.Default: false, "grpc,jsonstdio": false} {
		a, err := snakepit.Adapters(names)
		if chain, ok := a.(*fallback.Chain); err != nil || !ok && isDefault || ok && chain.Default != want {
			t.Errorf("%s: %+v, %v", names, a, err)
		}
	}
}

// A call that certainly did not run moves to the next worker, whatever adapter that worker runs on.
func TestCallMoves(t *testing.T) {
	t.Parallel()
	e := NewEnvironment(t, "grpcio", "protobuf", "msgpack")
	program := e.program()
	program.Script, _ = filepath.Abs(filepath.Join("internal", "e2e", "testdata", "behaviour.py"))
	f, err := BeginWith(t, NewChain(), program, snakepit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, f.Pool, "grpc")
	running, waiting := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := snakepit.Execute[any](t.Context(), f.Pool, "hang", "sleep")
		running <- err
	}()
	Eventually(t, "a call runs", func() bool { return f.Stats().Running == 1 })
	go func() {
		_, err := snakepit.Execute[any](t.Context(), f.Pool, "echo", Args{"value": 1})
		waiting <- err
	}()
	Eventually(t, "a call waits", func() bool { return f.Stats().Waiting == 1 })
	e.uninstall("grpcio")
	if err := syscall.Kill(f.Workers()[0].Info().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-running; !errors.Is(err, snakepit.ErrWorkerLost) || !snakepit.MayHaveRun(err) {
		t.Error(err)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	refused(t, f.Pool, "msgpack", [2]string{"grpc", e.pip(grpcPackages)})
}

func TestChainFails(t *testing.T) {
	t.Parallel()
	strict := NewChain()
	strict.Strict = true
	for name, c := range map[string]struct {
		adapter core.Adapter
		words   []string
		starts  int
	}{
		"strict": {strict, []string{"strict",
			"grpcio cannot be imported: ModuleNotFoundError: No module named 'grpc'", grpcPackages}, 1},
		"alone": {grpc.Adapter{}, []string{"adapter: grpc", "grpcio cannot be imported", grpcPackages}, 4},
		"all refused": {fallback.New(grpc.Adapter{}, msgpack.Adapter{}),
			[]string{"grpcio cannot be", grpcPackages, "No module named 'msgpack'", msgpackPackages}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			e := NewEnvironment(t, "protobuf")
			_, err := BeginWith(t, c.adapter, e.program(), snakepit.Options{Size: 4})
			says(t, err, append(c.words, e.Python+" -m pip install ")...)
			var start *snakepit.StartError
			if !errors.Is(err, snakepit.ErrUnavailable) || !errors.Is(err, grpc.ErrUnavailable) ||
				!errors.As(err, &start) {
				t.Errorf("%#v", err)
			}
			if n := e.count(); n != c.starts {
				t.Errorf("%d starts, not %d", n, c.starts)
			}
		})
	}
}
