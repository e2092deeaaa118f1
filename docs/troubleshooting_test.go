//go:build unix

package docs_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/internal/e2e"
	"github.com/snakepit-go/snakepit/python"
)

var update = flag.Bool("update", false, "write what was really said into docs/troubleshooting.md")

// These tests provoke each message on the page of symptoms. The message must equal the one on the page.

const shop = `import os
import time

from snakepit_bridge import ItemError, Worker

worker = Worker()

@worker.command
def price(item: str) -> int:
    return {"tea": 4, "milk": 1}[item]

@worker.command
def prices():
    yield {"item": "tea", "price": 4}
    yield {"item": "milk", "price": "cheap"}

@worker.command
def parse(lines: list):
    for line in lines:
        try:
            yield int(line)
        except ValueError as error:
            yield ItemError(error)

@worker.command
def stock():
    return {"shelves": [{"tea": 4}, {"tea": object()}]}

@worker.command
def photo(size: int) -> bytes:
    return bytes(size)

@worker.command
def wait(seconds: float):
    time.sleep(seconds)

@worker.command
def count(ctx) -> int:
    ctx.session.state["n"] = ctx.session.state.get("n", 0) + 1
    return ctx.session.state["n"]

@worker.command
def crash():
    print("counting the stock", flush=True)
    os.kill(os.getpid(), 9)

@worker.command
def hoard():
    print("reading it all", flush=True)
    return len([bytearray(1 << 20) for _ in range(1 << 20)])

worker.run()
`

// symptoms provoke the message of a section, by the section's anchor.
var symptoms = map[string]func(s *shopper) string{
	"protocol-degraded": func(s *shopper) string {
		s.python = e2e.NewEnvironment(s.T, "protobuf", "msgpack").Python
		f, err := e2e.BeginWith(s.T, e2e.NewChain(), s.program(shop), snakepit.Options{})
		if err != nil || f.WaitReady(s.Context(), 0) != nil {
			return fmt.Sprint(err, f.Log)
		}
		for line := range strings.Lines(f.Logged()) {
			if strings.Contains(line, "[WARN]") {
				return line
			}
		}
		return fmt.Sprint(err, f.Log)
	},
	"grpcio-is-missing": func(s *shopper) string {
		s.python = e2e.NewEnvironment(s.T, "protobuf", "msgpack").Python
		return s.startWith(grpc.Adapter{}, shop)
	},
	"a-package-is-there-and-does-not-work": func(s *shopper) string {
		e := e2e.NewEnvironment(s.T, "protobuf", "msgpack")
		s.python = e.Python
		e2e.File(s.T, filepath.Join(e.Site, "grpc", "__init__.py"),
			"raise ImportError('libstdc++.so.6: cannot open shared object file')")
		pool := s.open(shop, snakepit.Options{})
		return fmt.Sprint(pool.Stats().Workers[0].Refused[0].Err)
	},
	"no-port-is-free": func(s *shopper) string {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.Fatal(err)
		}
		defer taken.Close()
		port := taken.Addr().(*net.TCPAddr).Port
		return strings.ReplaceAll(s.startWith(grpc.Adapter{BasePort: port}, shop), fmt.Sprint(port), "50051")
	},
	"the-worker-is-not-ready-in-time": func(s *shopper) string {
		for limit := 2 * time.Second; ; limit *= 2 { // until the worker prints, however slow the machine
			_, err := e2e.BeginWith(s.T, e2e.NewChain(),
				s.program("import time\nprint('loading the model', flush=True)\ntime.sleep(1000)"),
				snakepit.Options{StartTimeout: limit})
			if text := fmt.Sprint(err); strings.Contains(text, "loading") || limit > time.Minute {
				return text
			}
		}
	},
	"a-syntax-error-in-the-worker": func(s *shopper) string {
		return s.start("worker = 1\ndef price(item:\n    return 1\n")
	},
	"a-module-of-the-workers-own-is-missing": func(s *shopper) string { return s.start("import snakes_and_ladders\n") },
	"the-file-has-no-worker": func(s *shopper) string {
		return s.start("def price(item):\n    return 1\n")
	},
	"the-interpreter-is-not-there": func(s *shopper) string {
		s.python = "/opt/shop/venv/bin/python"
		return s.start(shop)
	},
	"the-interpreter-is-not-python": func(s *shopper) string {
		s.python = "false"
		return regexp.MustCompile(`(/usr)?/bin/false`).ReplaceAllString(s.start(shop), "/usr/bin/false")
	},
	"no-python-at-all": func(s *shopper) string {
		for _, name := range []string{"SNAKEPIT_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX"} {
			s.Setenv(name, "")
		}
		s.Setenv("PATH", s.dir)
		s.python = ""
		_, err := snakepit.Open(s.Context(), s.program(shop), nil)
		return fmt.Sprint(err)
	},
	"the-worker-file-is-not-there": func(s *shopper) string {
		s.Chdir(s.dir)
		_, err := snakepit.Open(s.Context(), snakepit.Python("worker.py"), nil)
		return fmt.Sprint(err)
	},
	"an-unknown-adapter": func(s *shopper) string {
		s.Setenv("SNAKEPIT_ADAPTERS", "grpc,mesgpack")
		_, err := snakepit.Open(s.Context(), s.program(shop), nil)
		return fmt.Sprint(err)
	},
	"the-cache-directory-cannot-be-written": func(s *shopper) string {
		for _, name := range []string{"HOME", "XDG_CACHE_HOME", "TMPDIR"} {
			s.Setenv(name, "/dev/null")
		}
		program := s.program(shop)
		program.Cache = ""
		_, err := snakepit.Open(s.Context(), program, nil)
		return fmt.Sprint(err)
	},
	"unknown-command":        func(s *shopper) string { return s.fails("prize", "tea") },
	"execute-of-a-generator": func(s *shopper) string { return s.fails("prices", nil) },
	"wrong-arguments": func(s *shopper) string {
		return strings.Join([]string{
			s.fails("price", e2e.Args{"name": "tea"}), s.fails("price", nil), s.fails("price", 5),
		}, "\n")
	},
	"the-handler-raised": func(s *shopper) string {
		_, err := snakepit.Execute[int](s.Context(), s.shop(), "price", "ink")
		var remote *snakepit.RemoteError
		if !errors.As(err, &remote) {
			s.Fatal(err)
		}
		return err.Error() + "\n\n" + remote.Traceback()
	},
	"the-result-does-not-fit-the-go-type": func(s *shopper) string {
		type price struct {
			Price int `json:"price"`
		}
		for _, err := range snakepit.ExecuteStream[price](s.Context(), s.shop(), "prices", nil) {
			if err != nil {
				return err.Error()
			}
		}
		return ""
	},
	"one-item-of-a-stream-failed": func(s *shopper) string {
		for _, err := range snakepit.ExecuteStream[int](s.Context(), s.shop(), "parse",
			e2e.Args{"lines": []string{"7", "seven"}}) {
			if err != nil {
				return err.Error()
			}
		}
		return ""
	},
	"the-result-cannot-be-sent": func(s *shopper) string { return s.fails("stock", nil) },
	"a-value-is-too-large":      func(s *shopper) string { return s.fails("photo", 100<<20) },
	"timed-out": func(s *shopper) string {
		return s.fails("wait", 60, snakepit.Timeout(200*time.Millisecond))
	},
	"pool-saturated": func(s *shopper) string {
		pool := s.open(shop, snakepit.Options{Queue: -1})
		ctx, cancel := context.WithCancel(s.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = snakepit.Execute[any](ctx, pool, "wait", 60)
		}()
		defer func() { cancel(); <-ended }()
		e2e.Eventually(s.T, "a call runs", func() bool { return pool.Stats().Running == 1 })
		_, err := snakepit.Execute[any](s.Context(), pool, "price", "tea")
		return fmt.Sprint(err)
	},
	"worker-lost": func(s *shopper) string {
		_, err := snakepit.Execute[any](s.Context(), s.open(shop, snakepit.Options{}), "crash", nil)
		return fmt.Sprint(err)
	},
	"worker-lost-memory-ran-out": outOfMemory,
	"session-lost": func(s *shopper) string {
		pool := s.open(shop, snakepit.Options{})
		session := pool.Session("user-7")
		_, err := snakepit.Execute[int](s.Context(), session, "count", nil)
		if err != nil {
			s.Fatal(err)
		}
		_, err = snakepit.Execute[any](s.Context(), session, "crash", nil)
		if !errors.Is(err, snakepit.ErrWorkerLost) {
			s.Fatal(err)
		}
		_, err = snakepit.Execute[int](s.Context(), session, "count", nil)
		return fmt.Sprint(err)
	},
	"workers-keep-failing-to-start": func(s *shopper) string {
		program := s.program(shop)
		f, err := e2e.Begin(s.T, "jsonstdio", program, snakepit.Options{})
		if err != nil {
			s.Fatal(err)
		}
		e2e.File(s.T, program.Script, "import snakes_and_ladders\n")
		_, err = snakepit.Execute[any](s.Context(), f.Pool, "crash", nil)
		if !errors.Is(err, snakepit.ErrWorkerLost) {
			s.Fatal(err)
		}
		_, err = snakepit.Execute[any](s.Context(), f.Pool, "price", "tea", snakepit.Timeout(-1))
		return fmt.Sprint(err)
	},
	"pool-closed": func(s *shopper) string {
		pool := s.open(shop, snakepit.Options{})
		if err := pool.Close(); err != nil {
			s.Fatal(err)
		}
		_, err := snakepit.Execute[any](s.Context(), pool, "price", "tea")
		return fmt.Sprint(err)
	},
}

// shopper is a user with a worker file in their own directory.
type shopper struct {
	*testing.T
	dir    string
	usual  string // the Python with every package
	python string // the Python to use
	cache  string // of all, so that the bridge is compiled once

	shopDir string                // the directory of shop's worker
	shop    func() *snakepit.Pool // a pool of all, for calls that fail and do not harm their worker
}

func (s *shopper) program(text string) python.Program {
	p := snakepit.Python(e2e.File(s.T, filepath.Join(s.dir, "worker.py"), text))
	p.Cache = s.cache
	if s.python != "" {
		p.Env = []string{"SNAKEPIT_PYTHON=" + s.python}
	}
	return p
}

// startWith opens a pool, expects that to fail, and returns the error.
func (s *shopper) startWith(a core.Adapter, text string) string {
	_, err := e2e.BeginWith(s.T, a, s.program(text), snakepit.Options{})
	return fmt.Sprint(err)
}

func (s *shopper) start(text string) string { return s.startWith(e2e.NewChain(), text) }

func (s *shopper) open(text string, o snakepit.Options) *snakepit.Pool {
	f, err := e2e.BeginWith(s.T, e2e.NewChain(), s.program(text), o)
	if err != nil {
		s.Fatal(err)
	}
	return f.Pool
}

// fails makes a call, expects it to fail, and returns the error.
func (s *shopper) fails(command string, args any, opts ...snakepit.CallOption) string {
	_, err := snakepit.Execute[any](s.Context(), s.shop(), command, args, opts...)
	return fmt.Sprint(err)
}

// shown is a message as the page shows it: with the paths of a service, and without the parts that differ between runs.
func (s *shopper) shown(text string) string {
	if strings.HasPrefix(s.python, os.TempDir()) { // an environment of this test
		text = strings.ReplaceAll(text, s.python, "/srv/shop/.venv/bin/python3")
	}
	for of, is := range map[string]string{
		s.usual: "/srv/shop/.venv/bin/python3", s.cache: "/srv/shop/cache", s.dir: "/srv/shop", s.shopDir: "/srv/shop",
	} {
		text = strings.ReplaceAll(text, of, is)
	}
	return strings.TrimRight(text, "\n") + "\n"
}

func TestTroubleshooting(t *testing.T) {
	// The path is absolute because one of the symptoms changes the working directory.
	page := e2e.Must(filepath.Abs(filepath.Join("docs", "troubleshooting.md")))
	shows := map[string]*block{}
	for _, s := range sections(t, "troubleshooting") {
		if blocks := s.take("text"); len(blocks) > 0 {
			shows[s.slug] = blocks[0]
		}
	}
	usual, cache := e2e.Interpreter(t), t.TempDir()
	common := &shopper{T: t, dir: t.TempDir(), usual: usual, python: usual, cache: cache}
	open := sync.OnceValue(func() *snakepit.Pool { return common.open(shop, snakepit.Options{}) })
	for slug, provoke := range symptoms {
		if shows[slug] == nil {
			t.Errorf("the page has no section %s with a message", slug)
			continue
		}
		t.Run(slug, func(t *testing.T) {
			s := &shopper{t, t.TempDir(), usual, usual, cache, common.dir, open}
			got := s.shown(provoke(s))
			want := shows[slug].text
			if masked(got) == masked(want) {
				return
			}
			if !*update {
				t.Fatalf("it is really\n%s\nand the page shows\n%s", got, want)
			}
			text := readPage(t, page)
			at := strings.Index(text, headingOf(t, text, slug))
			before, after, _ := strings.Cut(text[at:], "```text\n"+want+"```")
			writeFile(t, page, text[:at]+before+"```text\n"+got+"```"+after)
		})
	}
}

// headingOf returns the heading with that anchor.
func headingOf(t *testing.T, page, slug string) string {
	for _, m := range headings.FindAllString(page, -1) {
		if slugOf(strings.TrimLeft(m, "# ")) == slug {
			return m + "\n"
		}
	}
	t.Fatalf("no heading for %s", slug)
	return ""
}

// outOfMemory runs its own host in a control group with little memory, if this machine allows it.
func outOfMemory(s *shopper) string {
	group, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		group, limit = "/sys/fs/cgroup", "memory.max"
	}
	group = filepath.Join(group, fmt.Sprintf("snakepit-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		s.Skip("needs a control group of its own to run out of memory in:", err)
	}
	defer os.Remove(group)
	if err := os.WriteFile(filepath.Join(group, limit), []byte("300000000"), 0o600); err != nil {
		s.Skip("needs a control group with a memory limit:", err)
	}
	for name, limit := range map[string]string{"memory.swap.max": "0", "memory.memsw.limit_in_bytes": "300000000"} {
		_ = os.WriteFile(filepath.Join(group, name), []byte(limit), 0o600) // only exists with swap
	}
	host := exec.CommandContext(s.Context(), "sh", "-c",
		`echo $$ >"$GROUP/cgroup.procs" && exec "$0" -test.run '^TestOutOfMemoryHost$' -test.v`, os.Args[0])
	host.Env = append(os.Environ(), "GROUP="+group, "SNAKEPIT_TEST_HOARD="+s.program(shop).Script,
		"SNAKEPIT_PYTHON="+s.python)
	out, err := host.CombinedOutput()
	_, text, ok := strings.Cut(string(out), "HOARD: ")
	if text, _, _ = strings.Cut(text, "\n"); !ok {
		s.Fatalf("%v\n%s", err, out)
	}
	return text
}

// TestOutOfMemoryHost is the host in the control group. On its own it does nothing.
func TestOutOfMemoryHost(t *testing.T) {
	worker := os.Getenv("SNAKEPIT_TEST_HOARD")
	if worker == "" {
		t.Skip("is run by TestTroubleshooting")
	}
	pool, err := snakepit.Open(t.Context(), snakepit.Python(worker),
		&snakepit.Options{Size: 1, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pool.Close() }()
	_, err = snakepit.Execute[int](t.Context(), pool, "hoard", nil, snakepit.Timeout(-1))
	fmt.Printf("HOARD: %v\n", err)
}
