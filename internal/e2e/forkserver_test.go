//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

const forkingWorker = `
import os, random, sys
with open(sys.argv[1], "a") as file:
    file.write("imported\n")
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def facts():
    return {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "random": random.random(),
            "index": os.environ["INDEX"], "answer": ANSWER}

@worker.command
def leave(code: int):
    os._exit(code)

ANSWER = 1
%s
worker.run()
`

type facts struct {
	PID, Parent, Group, Answer int
	Random                     float64
	Index                      string
}

// forking returns a program that forks its workers, and the file that notes its imports.
func forking(t *testing.T, more string) (program python.Program, imports string) {
	t.Helper()
	imports = filepath.Join(t.TempDir(), "imports")
	program = script(t, File(t, "worker.py", fmt.Sprintf(forkingWorker, more)))
	program.Args, program.ForkServer = []string{imports}, true
	return program, imports
}

func ask(t *testing.T, target snakepit.Target) facts {
	t.Helper()
	got, err := snakepit.Execute[facts](t.Context(), target, "facts", nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// send sends a signal to a process, which must be there.
func send(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%v to process %d: %v", sig, pid, err)
	}
}

func TestForkServer(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		program, imports := forking(t, "")
		f, err := Begin(t, adapter, program, snakepit.Options{
			Size:      4,
			WorkerEnv: func(index int) []string { return []string{"INDEX=" + strconv.Itoa(index)} },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.WaitReady(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		pids, draws := map[int]string{}, map[float64]bool{}
		parent := 0
		for i := range 4 {
			got := ask(t, f.Session(strconv.Itoa(i)))
			if got.Group != got.PID || got.Parent == os.Getpid() || parent != 0 && got.Parent != parent {
				t.Errorf("%+v", got)
			}
			pids[got.PID], draws[got.Random], parent = got.Index, true, got.Parent
		}
		if len(pids) != 4 || len(draws) != 4 {
			t.Errorf("%v %v", pids, draws)
		}
		for _, w := range f.Workers() {
			if i := w.Info(); pids[i.PID] != strconv.Itoa(i.Index) {
				t.Errorf("worker %d has the environment of %q", i.Index, pids[i.PID])
			}
		}
		if text, err := os.ReadFile(imports); err != nil || strings.Count(string(text), "imported") != 1 {
			t.Errorf("%s, %v", text, err)
		}
		// How a worker ends is known.
		_, err = snakepit.Execute[any](t.Context(), f.Session("0"), "leave", Args{"code": 7})
		var exit *snakepit.WorkerExit
		if !errors.As(err, &exit) || exit.ExitCode != 7 || exit.Signal != "" {
			t.Error(err)
		}
		victim := ask(t, f.Session("1")).PID
		send(t, victim, syscall.SIGSEGV)
		Eventually(t, "both are replaced", func() bool { return f.Stats().Lost == 2 && f.Stats().Ready == 4 })
		if log := f.Log.String(); !strings.Contains(log, syscall.SIGSEGV.String()) {
			t.Error(log)
		}
		if text, _ := os.ReadFile(imports); strings.Count(string(text), "imported") != 1 {
			t.Errorf("the replacements were not forked: %s", text)
		}
		// Without the server its workers are lost. Another server takes its place.
		send(t, parent, syscall.SIGKILL)
		Eventually(t, "all are replaced", func() bool { return f.Stats().Lost == 6 && f.Stats().Ready == 4 })
		if got := ask(t, f.Pool); got.Parent == parent {
			t.Errorf("%+v", got)
		}
	})
}

// The end of a server costs its workers, but no failed start.
func TestForkServerEnds(t *testing.T) {
	program, _ := forking(t, "")
	program.Env = append(program.Env, "INDEX=0")
	const size = 8
	f, err := Begin(t, "msgpack", program, snakepit.Options{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	adopt := func(yes uintptr) {
		const subreaper = 36 // PR_SET_CHILD_SUBREAPER
		if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, subreaper, yes, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	defer adopt(0)
	for i := range int64(2) {
		adopt(uintptr(i)) // a host that is the first process of a container has to reap the workers
		server := ask(t, f.Pool).Parent
		workers := f.Workers()
		send(t, server, syscall.SIGKILL)
		Eventually(t, "all are replaced", func() bool {
			s := f.Stats()
			return s.Lost == size*(i+1) && s.Ready == size
		})
		for _, w := range workers {
			pid := w.Info().PID
			if alive(pid) || i == 1 && syscall.Kill(pid, 0) == nil {
				t.Errorf("worker %d is left", pid)
			}
		}
	}
	if n := f.Stats().StartFails; n != 0 {
		t.Errorf("%d starts have failed:\n%s", n, f.Log)
	}
	says := `fork server lost, with its workers: pid=\d+ workers=8 exit="was ended by signal \\"killed\\""`
	if log := f.Log.String(); len(regexp.MustCompile(says).FindAllString(log, -1)) != 2 {
		t.Errorf("the log does not say twice %s:\n%s", says, log)
	}
}

// A server that must not fork any more is replaced. Its workers serve on.
func TestForkServerMustNotForkAnyMore(t *testing.T) {
	program, imports := forking(t, `
import signal, threading
def start(*_): threading.Thread(target=threading.Event().wait, name="late").start()
signal.signal(signal.SIGUSR1, start)
`)
	program.Env = append(program.Env, "INDEX=0")
	f, err := Begin(t, "msgpack", program, snakepit.Options{Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	stays, goes := f.Session("stays"), f.Session("goes")
	old, other := ask(t, stays), ask(t, goes)
	send(t, old.Parent, syscall.SIGUSR1)
	Eventually(t, "the thread has started", func() bool {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", old.Parent))
		return len(tasks) > 1
	})
	send(t, other.PID, syscall.SIGKILL)
	Eventually(t, "it is replaced", func() bool { return f.Stats().Lost == 1 && f.Stats().Ready == 2 })
	if n := f.Stats().StartFails; n != 1 {
		t.Errorf("%d starts have failed", n)
	}
	if got := ask(t, stays); got.PID != old.PID {
		t.Errorf("%+v", got)
	}
	if text, _ := os.ReadFile(imports); strings.Count(string(text), "imported") != 2 {
		t.Errorf("%s", text)
	}
	if log := f.Log.String(); strings.Count(log, "late; a fork would lose them") != 1 ||
		strings.Count(log, "turn the fork server off") != 1 {
		t.Error(log)
	}
	send(t, old.PID, syscall.SIGKILL)
	Eventually(t, "the old server ends, although its thread does not", func() bool { return !alive(old.Parent) })
}

// A worker gets the bytes of its environment, up to a limit.
func TestForkServerEnvironment(t *testing.T) {
	program, _ := forking(t, `
@worker.command
def environ(name: str):
    return os.environb[name.encode()].hex()
`)
	t.Setenv("INHERITED", "caf\xe9")
	options := snakepit.Options{Size: 1, WorkerEnv: func(int) []string { return []string{"INDEX=0", "OWN=\xff<&>"} }}
	f, err := Begin(t, "msgpack", program, options)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"INHERITED": "caf\xe9", "OWN": "\xff<&>"} {
		got, err := snakepit.Execute[string](t.Context(), f.Pool, "environ", Args{"name": name})
		if err != nil || got != fmt.Sprintf("%x", want) {
			t.Errorf("%s is %s, want %x: %v", name, got, want, err)
		}
	}
	large := func(size int) snakepit.Options {
		return snakepit.Options{Size: 1, WorkerEnv: func(int) []string {
			env := []string{"INDEX=0"}
			for i := 0; size > 0; i++ { // the system has a limit for each variable
				part := min(size, 20<<10)
				size -= part
				env = append(env, fmt.Sprintf("LARGE%d=%s", i, strings.Repeat("&", part)))
			}
			return env
		}}
	}
	f, err = Begin(t, "msgpack", program, large(140<<10))
	if err != nil {
		t.Fatal(err)
	}
	ask(t, f.Pool)
	_, err = Begin(t, "msgpack", program, large(160<<10))
	says(t, err, "the environment is too large for a fork server", "the limit is 163840")
}

// A page that several workers share with their server counts in parts.
func TestForkServerSharesMemory(t *testing.T) {
	program, _ := forking(t, `
DATA, OWN = b'x' * (150 << 20), []

@worker.command
def grow():
    OWN.append(b'x' * (150 << 20))
`)
	program.Env = append(program.Env, "INDEX=0")
	var planned atomic.Int32
	f, err := Begin(t, "msgpack", program, snakepit.Options{
		Size: 2, Recycle: snakepit.Recycle{Memory: 120 << 20},
		OnEvent: func(e snakepit.Event) {
			if _, ok := e.(core.ReplacementPlanned); ok {
				planned.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	ask(t, f.Session("stays"))
	grows := f.Session("grows")
	if _, err := snakepit.Execute[any](t.Context(), grows, "grow", nil); err != nil {
		t.Fatal(err)
	}
	// Once the pool has replaced this worker, it has looked at the other one, too.
	Eventually(t, "the one with memory of its own is replaced", func() bool { return f.Stats().Replaced == 1 })
	if n := planned.Load(); n != 1 {
		t.Errorf("%d workers were to be replaced", n)
	}
}

// A server that hangs is replaced when one of its workers ends: it cannot say how.
func TestForkServerStops(t *testing.T) {
	t.Parallel() // it takes some seconds
	program, _ := forking(t, "")
	program.Env = append(program.Env, "INDEX=0")
	f, err := Begin(t, "msgpack", program, snakepit.Options{Size: 1, StopTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	old := ask(t, f.Pool)
	send(t, old.Parent, syscall.SIGSTOP)
	send(t, old.PID, syscall.SIGKILL)
	Eventually(t, "there is another worker", func() bool { return f.Stats().Lost == 1 && f.Stats().Ready == 1 })
	if got := ask(t, f.Pool); got.Parent == old.Parent {
		t.Errorf("%+v", got)
	}
	if log := f.Log.String(); !strings.Contains(log, "did not answer and was killed") {
		t.Error(log)
	}
}

// alive reports whether a process runs. It may be a zombie that init has not reaped.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// A reload reads the program anew, and the old server ends with its last worker.
func TestForkServerReloads(t *testing.T) {
	program, imports := forking(t, "")
	program.Env = append(program.Env, "INDEX=0")
	f, err := Begin(t, "msgpack", program, snakepit.Options{Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	chat := f.Session("chat")
	old := ask(t, chat)
	File(t, program.Script, fmt.Sprintf(forkingWorker, "ANSWER = 2"))
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, f.Pool); got.Answer != 2 || got.Parent == old.Parent {
		t.Errorf("%+v", got)
	}
	if got := ask(t, chat); got.Answer != 1 || got.PID != old.PID {
		t.Errorf("the session has moved: %+v", got)
	}
	if syscall.Kill(old.Parent, 0) != nil {
		t.Error("the server of a live worker has ended")
	}
	chat.Close()
	Eventually(t, "the old server ends", func() bool { return syscall.Kill(old.Parent, 0) != nil })
	File(t, program.Script, fmt.Sprintf(forkingWorker, "1 / 0"))
	if err := f.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "ZeroDivisionError") {
		t.Error(err)
	}
	if got := ask(t, f.Pool); got.Answer != 2 {
		t.Errorf("%+v", got)
	}
	if text, _ := os.ReadFile(imports); strings.Count(string(text), "imported") < 3 {
		t.Errorf("%s", text)
	}
}

// Where a fork is not safe, Open says why.
func TestForkServerRefuses(t *testing.T) {
	const thread = "import threading\n" +
		"threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()"
	for more, words := range map[string]string{
		thread:                           "threads before worker.run() poller",
		"raise ValueError('no weights')": "ValueError no weights worker.py",
		"sys.exit(3)":                    "ended by itself with exit code 3",
	} {
		program, _ := forking(t, more)
		_, err := Begin(t, "msgpack", program, snakepit.Options{Size: 2})
		says(t, err, strings.Fields(words)...)
	}
}
