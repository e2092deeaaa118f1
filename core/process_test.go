//go:build unix

package core

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

// childMode, if set, makes the test binary one of the children below.
const childMode = "CORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode))
	}
	os.Exit(m.Run())
}

func child(mode string) int {
	switch mode {
	case "describe": // prints environment and descriptors as JSON
		d := description{Env: os.Environ()}
		for fd := range 64 {
			target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err == nil && (strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "socket:")) {
				d.Files = append(d.Files, fd)
			}
		}
		_ = json.NewEncoder(os.Stdout).Encode(d)
	case "escapee": // leaves a child behind that is in a session of its own and holds every descriptor
		c := exec.Command("sleep", "1000")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		for _, name := range []string{"SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD"} {
			if fd, err := strconv.Atoi(os.Getenv(name)); err == nil {
				c.ExtraFiles = append(c.ExtraFiles, os.NewFile(uintptr(fd), name))
			}
		}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "grandchild", c.Process.Pid)
		return 7
	case "long line":
		b := bytes.Repeat([]byte("x"), 1<<20)
		for range 10 {
			_, _ = os.Stdout.Write(b)
		}
		fmt.Println("\nend")
	case "many lines":
		w := bufio.NewWriter(os.Stdout)
		for i := range manyLines {
			fmt.Fprintf(w, "line %06d %s\n", i, strings.Repeat("y", 80))
		}
		_ = w.Flush()
	case "host": // a host that does nothing but have a worker with a child
		h, err := newHost(Command{Path: "sh", Args: []string{"-c", familyScript}}, hostOptions{
			Name: "test", Log: newLogQueue(hclog.New(&hclog.LoggerOptions{Output: os.Stdout, JSONFormat: true})),
		})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if _, err = h.attempt(0).launch(context.Background(), Spec{Protocol: "none"}); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("dir", h.dir)
		select {}
	}
	return 0
}

type description struct {
	Env   []string
	Files []int
}

const manyLines = 50_000

// familyScript prints the ids of a worker and of its child, and waits for ever.
const familyScript = `(exec 3>&-; exec sleep 1000) & echo "family $$ $!"; wait`

// self is the test binary as a child.
func self(mode string) Command {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Command{Path: path, Env: []string{childMode + "=" + mode, "GORACE=atexit_sleep_ms=0"}}
}

func shell(script string) Command { return Command{Path: "sh", Args: []string{"-c", script}} }

// fixture is a host whose log is kept, and which leaves nothing behind.
type fixture struct {
	*host
	t   *testing.T
	log *recorder
}

func newFixture(t *testing.T, cmd Command) *fixture {
	t.Helper()
	_ = readable(t) // the poller's own descriptors come into being
	before, goroutines := openFiles(), goleak.IgnoreCurrent()
	f := &fixture{t: t, log: &recorder{}}
	h, err := newHost(cmd, hostOptions{Name: "test", MaxFrame: 77777, Log: newLogQueue(f.log.logger())})
	if err != nil {
		t.Fatal(err)
	}
	f.host = h
	t.Cleanup(func() {
		h.close()
		if err := h.opts.Log.close(10 * time.Second); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(h.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the private directory is left: %v", err)
		}
		if after := openFiles(); !slices.Equal(before, after) {
			t.Errorf("descriptors before and after:\n%q\n%q", before, after)
		}
		goleak.VerifyNone(t, goroutines)
	})
	return f
}

// launch starts a process that is killed at the end if it still lives.
func (f *fixture) launch(s Spec) *Process {
	f.t.Helper()
	a := f.attempt(2)
	f.t.Cleanup(func() { a.abandon(nil) })
	p, err := a.launch(f.t.Context(), s)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { closeFiles([]*os.File{p.Stdin, p.Stdout}) })
	return p
}

// fails starts a process that must not start.
func (f *fixture) fails(ctx context.Context, s Spec) (*attempt, error) {
	f.t.Helper()
	a := f.attempt(2)
	p, err := a.launch(ctx, s)
	a.abandon(nil)
	if p != nil || err == nil {
		f.t.Fatalf("launched %v, error %v", p, err)
	}
	for _, p := range a.launched {
		mustBeGone(f.t, p.PID())
	}
	return a, err
}

func await(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the process is not done")
	}
}

// eventually polls what the system tells nobody of.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// mustBeGone fails if a child of ours still exists, be it as a zombie.
func mustBeGone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", pid, err)
	}
}

// alive reports whether a process that is no child of ours runs; its zombie is init's business.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return runtime.GOOS != "linux"
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func openFiles() []string {
	var files []string
	for fd := range 256 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			files = append(files, fmt.Sprintf("%d %s", fd, target))
		}
	}
	return files
}

// readable returns a file that a child may inherit.
func readable(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now())
	_ = w.Close()
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// logged waits until the logger has all that a source gave it.
func logged(t *testing.T, s *logSource) {
	t.Helper()
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	if !s.book.await(10*time.Second, func() bool { return s.waiting == 0 }) {
		t.Error("the logger has not got everything")
	}
}

// recorder keeps what is logged to it.
type recorder struct {
	gate chan struct{} // if not nil, logging blocks until it is closed

	mu      sync.Mutex
	records []map[string]any
}

func (r *recorder) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "test", Level: hclog.Trace, JSONFormat: true, Output: r})
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.gate != nil {
		<-r.gate
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
	return len(b), nil
}

func (r *recorder) all() []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// line waits for a message with the prefix and returns its rest.
func (r *recorder) line(t *testing.T, prefix string) string {
	t.Helper()
	var rest string
	eventually(t, "a log record "+prefix, func() bool {
		for _, record := range r.all() {
			if after, ok := strings.CutPrefix(record["@message"].(string), prefix); ok {
				rest = after
				return true
			}
		}
		return false
	})
	return rest
}

func TestExit(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		signal string
	}{
		{"exit 0", 0, ""},
		{"echo oops >&2; echo more; exit 3", 3, ""},
		{"kill -KILL $$", -1, "killed"},
		{"ulimit -c 0; kill -SEGV $$", -1, "segmentation fault"},
		{"kill -TERM $$", -1, "terminated"},
	} {
		t.Run(c.script, func(t *testing.T) {
			p := newFixture(t, shell(c.script)).launch(Spec{Protocol: "none"})
			await(t, p)
			mustBeGone(t, p.PID())
			if code, signal, oom := p.Exit(); code != c.code || signal != c.signal || oom {
				t.Errorf("exit is %d, %q, %v", code, signal, oom)
			}
			if strings.Contains(c.script, "oops") && !slices.Equal(p.lastOutput(time.Time{}), []string{"oops", "more"}) {
				t.Errorf("the last output is %q", p.lastOutput(time.Time{}))
			}
			p.terminate() // of no effect any more
			p.kill()
			if how := p.stop(time.Hour); how != "exited" {
				t.Errorf("stopping it says %q", how)
			}
		})
	}
}

func TestStopExited(t *testing.T) {
	p := newFixture(t, shell("cat")).launch(Spec{Protocol: "none", Stdio: true})
	_ = p.Stdin.Close()
	if how := p.stop(time.Minute); how != "exited" {
		t.Errorf("it says %q", how)
	}
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
}

func TestStopTerminated(t *testing.T) {
	p := newFixture(t, shell("exec sleep 1000")).launch(Spec{Protocol: "none"})
	if how := p.stop(2 * time.Second); how != "terminated" {
		t.Errorf("it says %q", how)
	}
	if _, signal, _ := p.Exit(); signal != "terminated" {
		t.Errorf("the signal is %q", signal)
	}
}

func TestStopKilledByMany(t *testing.T) {
	f := newFixture(t, shell(`trap "" TERM; echo ready; sleep 1000`))
	p := f.launch(Spec{Protocol: "none"})
	f.log.line(t, "ready")
	hows := make(chan string)
	for range 5 {
		go func() { hows <- p.stop(20 * time.Millisecond) }()
	}
	for range 5 {
		if how := <-hows; how != "killed" {
			t.Errorf("it says %q", how)
		}
	}
	mustBeGone(t, p.PID())
	if how := p.stop(time.Hour); how != "killed" {
		t.Errorf("stopping it again says %q", how)
	}
	if _, signal, oom := p.Exit(); signal != "killed" || oom {
		t.Errorf("the signal is %q, out of memory: %v", signal, oom)
	}
}

// A worker's end is the end of its group.
func TestGroupEnds(t *testing.T) {
	f := newFixture(t, shell(familyScript))
	p := f.launch(Spec{Protocol: "none"})
	var worker, grandchild int
	if _, err := fmt.Sscan(f.log.line(t, "family "), &worker, &grandchild); err != nil || worker != p.PID() {
		t.Fatal(worker, p.PID(), err)
	}
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, p)
	mustBeGone(t, worker)
	eventually(t, "the grandchild is gone", func() bool { return !alive(grandchild) })
}

// A grandchild that has left the group and holds every descriptor must not be waited for.
func TestGrandchildHoldsDescriptors(t *testing.T) {
	for _, reports := range []bool{false, true} {
		for _, stdio := range []bool{false, true} {
			t.Run(fmt.Sprintf("reports=%v stdio=%v", reports, stdio), func(t *testing.T) {
				cmd := self("escapee")
				cmd.Reports = reports
				f := newFixture(t, cmd)
				if reports {
					_, err := f.fails(t.Context(), Spec{Protocol: "none", Stdio: stdio})
					if !strings.Contains(err.Error(), "exited with code 7") {
						t.Error(err)
					}
				} else {
					p := f.launch(Spec{Protocol: "none", Stdio: stdio})
					await(t, p)
					if code, _, _ := p.Exit(); code != 7 {
						t.Errorf("the code is %d", code)
					}
				}
				pid, err := strconv.Atoi(f.log.line(t, "grandchild "))
				if err != nil {
					t.Fatal(err)
				}
				if !alive(pid) {
					t.Error("the grandchild was to outlive its parent")
				}
				_ = syscall.Kill(pid, syscall.SIGKILL)
			})
		}
	}
}

// kill -9 of the host ends workers and grandchildren, although neither reads anything. The grandchild has none of the pool's descriptors, and
// what ends first is not always the same.
func TestHostKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a group when its host has gone")
	}
	for range 20 {
		killHost(t)
	}
}

func killHost(t *testing.T) {
	cmd := self("host")
	host := exec.Command(cmd.Path)
	host.Env = append(os.Environ(), cmd.Env...)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Wait() }()
	defer func() { _ = host.Process.Kill() }()
	var worker, grandchild int
	var dir string
	for lines := bufio.NewScanner(out); (worker == 0 || dir == "") && lines.Scan(); {
		if after, ok := strings.CutPrefix(lines.Text(), "dir "); ok {
			dir = after
		}
		if _, after, ok := strings.Cut(lines.Text(), "family "); ok {
			if _, err := fmt.Sscanf(after, "%d %d", &worker, &grandchild); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer func() { _ = os.RemoveAll(dir) }() // nobody is left who could
	if dir == "" || !alive(worker) || !alive(grandchild) {
		t.Fatal("the family is not complete", dir, worker, grandchild)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker is gone", func() bool { return !alive(worker) })
	eventually(t, "the grandchild is gone", func() bool { return !alive(grandchild) })
}

// The end of the thread that Launch was called on must not end the worker.
func TestThreadEnds(t *testing.T) {
	f := newFixture(t, shell("cat"))
	launched := make(chan *Process)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		launched <- f.launch(Spec{Protocol: "none", Stdio: true})
	}()
	p := <-launched
	for range 3 {
		if _, err := p.Stdin.WriteString("hello\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(p.Stdout).ReadString('\n'); line != "hello\n" {
			t.Fatal(line, err)
		}
	}
}

func TestLaunchContract(t *testing.T) {
	t.Setenv("SNAKEPIT_CONN_FD", "99") // as if this were a worker of another host
	t.Setenv("SNAKEPIT_HOST_TOKEN", "the other host's")
	t.Setenv("SNAKEPIT_PYTHON", "kept")
	t.Setenv("CORE_TEST_USER", "user")
	cmd := self("describe")
	cmd.Env = append(cmd.Env, "CORE_TEST_COMMAND=command", "CORE_TEST_BOTH=command")
	cmd.Dir = t.TempDir()
	f := newFixture(t, cmd)
	f.env = mergeEnv([]string{"CORE_TEST_USER=pool"}, f.env)
	var inheritable []int // what whoever started this test left open for everybody
	for fd := 3; fd < 64; fd++ {
		if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 && flags&syscall.FD_CLOEXEC == 0 {
			inheritable = append(inheritable, fd)
		}
	}
	sibling := readable(t)
	_ = f.launch(Spec{Protocol: "none", Files: []*os.File{sibling}}) // its descriptors must not reach the next one

	describe := func(s Spec) (description, map[string]string, *Process) {
		p := f.launch(s)
		var text []byte
		if s.Stdio {
			var err error
			if text, err = io.ReadAll(p.Stdout); err != nil {
				t.Fatal(err)
			}
		}
		await(t, p)
		if !s.Stdio {
			logged(t, p.out.log)
			records := f.log.all()
			text = []byte(records[len(records)-1]["@message"].(string))
			if records[len(records)-1]["worker"] != 2.0 {
				t.Errorf("the line's record is %v", records[len(records)-1])
			}
		}
		var d description
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		d.Files = slices.DeleteFunc(d.Files, func(fd int) bool { return slices.Contains(inheritable, fd) })
		env := map[string]string{}
		for _, e := range d.Env {
			name, value, _ := strings.Cut(e, "=")
			if _, twice := env[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			env[name] = value
		}
		return d, env, p
	}

	for _, c := range []struct {
		name  string
		spec  Spec
		files []int
		want  map[string]string // "*" is anything but empty; "" is absent
	}{
		{"stdio", Spec{Protocol: "jsonstdio", Stdio: true}, []int{0, 1, 2, 3}, map[string]string{
			"SNAKEPIT_PROTOCOL": "jsonstdio", "SNAKEPIT_RUN_ID": f.runID, "SNAKEPIT_WORKER_INDEX": "2", "SNAKEPIT_CONN_FD": "",
			"SNAKEPIT_CONTROL_FD": "", "SNAKEPIT_LIFELINE_FD": "3", "SNAKEPIT_DIR": f.dir, "SNAKEPIT_MAX_FRAME": "77777", "SNAKEPIT_HOST_TOKEN": "",
			"SNAKEPIT_WORKER_TOKEN": "", "SNAKEPIT_PYTHON": "kept", "CORE_TEST_USER": "user", "CORE_TEST_COMMAND": "command",
			"PWD": cmd.Dir,
		}},
		{"files", Spec{Protocol: "msgpack", Files: []*os.File{readable(t), readable(t)}}, []int{1, 2, 3, 4, 5}, map[string]string{
			"SNAKEPIT_PROTOCOL": "msgpack", "SNAKEPIT_CONN_FD": "3", "SNAKEPIT_LIFELINE_FD": "5", "SNAKEPIT_HOST_TOKEN": "",
		}},
		{"dialled", Spec{Protocol: "grpc", Env: []string{"CORE_TEST_BOTH=spec"}}, []int{1, 2, 3}, map[string]string{
			"SNAKEPIT_PROTOCOL": "grpc", "SNAKEPIT_CONN_FD": "", "SNAKEPIT_HOST_TOKEN": "*", "SNAKEPIT_WORKER_TOKEN": "*",
			"CORE_TEST_BOTH": "spec",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, env, _ := describe(c.spec)
			for name, want := range c.want {
				got, there := env[name]
				if want == "*" && got != "" && got != "the other host's" {
					continue
				}
				if got != want || there != (want != "") {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if runtime.GOOS == "linux" && !slices.Equal(d.Files, c.files) {
				t.Errorf("its descriptors are %v, want %v", d.Files, c.files)
			}
			for _, file := range c.spec.Files {
				if err := file.Close(); !errors.Is(err, os.ErrClosed) {
					t.Errorf("a file of the spec is still open: %v", err)
				}
			}
		})
	}
	if a, b := f.attempt(0), f.attempt(0); a.hostToken == b.hostToken || a.hostToken == a.workerToken {
		t.Error("a token is used twice")
	}
}

func TestCannotStart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		cmd  Command
		is   error
		says []string
	}{
		"not in PATH":         {Command{Path: "no-such-python"}, exec.ErrNotFound, []string{"no-such-python", "PATH", "install it"}},
		"no such file":        {Command{Path: "/no/such/python"}, os.ErrNotExist, []string{"/no/such/python", "correct the path"}},
		"directory":           {Command{Path: dir}, nil, []string{dir, "it is a directory"}},
		"not executable":      {Command{Path: write("plain", "#!/bin/sh\n", 0o600)}, os.ErrPermission, []string{"plain", "chmod +x"}},
		"no interpreter":      {Command{Path: write("script", "#!/no/such/sh\n", 0o700)}, os.ErrNotExist, []string{"script", "first line"}},
		"no program":          {Command{Path: write("noise", "noise\n", 0o700)}, syscall.ENOEXEC, []string{"noise", "#!"}},
		"no directory":        {Command{Path: "sh", Dir: "/no/such/dir"}, os.ErrNotExist, []string{"/no/such/dir", "Command.Dir"}},
		"directory is a file": {Command{Path: "sh", Dir: write("file", "", 0o600)}, nil, []string{"file", "not a directory", "Command.Dir"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.cmd)
			file := readable(t)
			a, err := f.fails(t.Context(), Spec{Protocol: "none", Files: []*os.File{file}})
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is no %v", err, c.is)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
			if err := file.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("the spec's file is still open: %v", err)
			}
			if a.output() != nil {
				t.Errorf("it printed %q", a.output())
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		f := newFixture(t, shell("exit"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		file := readable(t)
		if _, err := f.fails(ctx, Spec{Files: []*os.File{file}}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := file.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the spec's file is still open: %v", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		f := newFixture(t, shell("exit"))
		f.close()
		if _, err := f.fails(t.Context(), Spec{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// A relative path with a separator is meant from where the command runs.
func TestRelativePath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "worker"), []byte("#!/bin/sh\npwd\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := newFixture(t, Command{Path: "./worker", Dir: dir}).launch(Spec{})
	await(t, p)
	if !slices.Equal(p.lastOutput(time.Time{}), []string{dir}) {
		t.Errorf("it printed %q", p.lastOutput(time.Time{}))
	}
}

func TestReport(t *testing.T) {
	report := func(what string) Command {
		cmd := shell(what)
		cmd.Reports = true
		return cmd
	}
	for name, script := range map[string]string{
		"line":             `echo '{"endpoint": "unix:/x", "more": 1}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`,
		"line and silence": `echo '{"endpoint": "unix:/x"}' >&$SNAKEPIT_CONTROL_FD; exec 3>&-; exec sleep 1000`,
		"no line feed":     `printf '{"endpoint": "unix:/x"}' >&3; exec 3>&-; exec sleep 1000`,
		"in pieces":        `printf '{"endpoint": ' >&3; printf '"unix:/x"}\n' >&3; exec sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			if p := newFixture(t, report(script)).launch(Spec{}); p.Endpoint != "unix:/x" {
				t.Errorf("the endpoint is %q", p.Endpoint)
			}
		})
	}
	for name, c := range map[string]struct{ script, says string }{
		"exit":       {"echo bad luck >&2; exit 5", "ended before it reported that it can start: it exited with code 5"},
		"signal":     {"kill -KILL $$", `it was ended by signal "killed"`},
		"garbage":    {"echo '{garbage' >&3; exit 6", `unreadable`},
		"and status": {"echo '{garbage' >&3; exit 6", `exited with code 6`},
		"list":       {"echo '[]' >&3; exit 6", `no JSON object but "[]"`},
		"wrong type": {`echo '{"endpoint": 5}' >&3; exit 6`, `unreadable`},
		"empty line": {"echo >&3; exit 6", `no JSON object but ""`},
		"too long":   {"head -c 70000 /dev/zero | tr '\\0' x >&3; exit 6", "longer than 65536 bytes; it exited with code 6"},
		"silence":    {"exec 3>&-; exec sleep 1000", "ended before it reported that it can start: it did not end and was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := newFixture(t, report(c.script)).fails(t.Context(), Spec{Stdio: true})
			if !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrUnavailable) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if name == "exit" && !slices.Equal(a.output(), []string{"bad luck"}) {
				t.Errorf("it printed %q", a.output())
			}
		})
	}
	t.Run("unavailable", func(t *testing.T) {
		_, err := newFixture(t, report(`echo '{"unavailable": "No module named grpc\u001b[2J", "remedy": "pip install grpcio"}' >&3; exec sleep 1000`)).
			fails(t.Context(), Spec{})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), `No module named grpc\x1b[2J; to get it: pip install grpcio`) {
			t.Error(err)
		}
	})
	t.Run("failed", func(t *testing.T) {
		_, err := newFixture(t, report(`echo '{"failed": {"type": "OSError", "message": "no room"}}' >&3; exec sleep 1000`)).fails(t.Context(), Spec{})
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Error() != "OSError: no room" || errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		f := newFixture(t, report("echo ready; exec sleep 1000"))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			f.log.line(t, "ready")
			cancel()
		}()
		if a, err := f.fails(ctx, Spec{}); !errors.Is(err, context.Canceled) || !slices.Equal(a.output(), []string{"ready"}) {
			t.Error(err, a.output())
		}
	})
}

func TestAbandonKeeps(t *testing.T) {
	f := newFixture(t, shell("cat; exit 4"))
	a := f.attempt(0)
	var all []*Process
	for range 3 {
		p, err := a.launch(t.Context(), Spec{Stdio: true})
		if err != nil {
			t.Fatal(err)
		}
		defer closeFiles([]*os.File{p.Stdin, p.Stdout})
		all = append(all, p)
	}
	_ = all[0].Stdin.Close() // it ends by itself
	a.abandon(all[1])
	mustBeGone(t, all[0].PID())
	mustBeGone(t, all[2].PID())
	if code, _, _ := all[0].Exit(); code != 4 {
		t.Errorf("the code of one that was about to end is %d", code)
	}
	if _, signal, _ := all[2].Exit(); signal != "killed" {
		t.Errorf("the signal of the other is %q", signal)
	}
	if all[1].hasExited() {
		t.Error("the one to keep has ended")
	}
	a.abandon(nil)
	mustBeGone(t, all[1].PID())
}

// A line without an end costs no memory and holds nobody up.
func TestLongLine(t *testing.T) {
	f := newFixture(t, self("long line"))
	p := f.launch(Spec{})
	await(t, p)
	logged(t, p.out.log)
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
	logged := 0
	for _, record := range f.log.all() {
		text := record["@message"].(string)
		if len(text) > maxLine {
			t.Errorf("a record has %d bytes", len(text))
		}
		logged += strings.Count(text, "x")
		if bytes, ok := record["bytes"].(float64); ok {
			logged += int(bytes) // dropped and said so
		}
	}
	if logged < 10<<20 || logged > 10<<20+len("\nend") {
		t.Errorf("%d bytes were logged or counted", logged)
	}
	last := p.lastOutput(time.Time{})
	if len(last) != lastLines || last[lastLines-1] != "end" || len(last[0]) > maxLastLine+40 {
		t.Errorf("the last output is %d lines: %q", len(last), last[len(last)-1])
	}
}

// A logger that hangs delays neither the worker nor Done; what it missed is counted.
func TestLoggerHangs(t *testing.T) {
	f := newFixture(t, self("many lines"))
	f.log.gate = make(chan struct{})
	p := f.launch(Spec{})
	await(t, p)
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
	if last := p.lastOutput(time.Time{}); len(last) != lastLines || !strings.HasPrefix(last[lastLines-1], fmt.Sprintf("line %06d", manyLines-1)) {
		t.Errorf("the last output is %q", last)
	}
	close(f.log.gate)
	logged(t, p.out.log)
	lines := 0
	for _, record := range f.log.all() {
		if n, ok := record["count"].(float64); ok {
			lines += int(n)
		} else {
			lines++
		}
	}
	if lines != manyLines {
		t.Errorf("%d lines were logged or counted", lines)
	}
}

// messages is a codec that knows nothing but the texts of log records.
type messages struct{}

func (messages) Name() string                             { return "messages" }
func (messages) Append(dst []byte, _ any) ([]byte, error) { return dst, nil }
func (messages) Decode(b []byte, v any) error {
	v.(*logRecord).Message = string(b)
	return nil
}

// A logger that hangs costs log records, which are counted, and no more memory than they may take.
func TestLogQueueIsBounded(t *testing.T) {
	for name, size := range map[string]int{"many": 100, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			log := &recorder{gate: make(chan struct{})}
			book := newLogQueue(log.logger())
			q := newRecords(book, 2, messages{})
			const sent = 3000
			body := bytes.Repeat([]byte("x"), size)
			for range sent {
				q.put(body)
			}
			book.mu.Lock()
			if n := q.log.bytes; n > logBytes+size {
				t.Errorf("%d bytes are waiting", n)
			}
			book.mu.Unlock()
			close(log.gate)
			if err := book.close(10 * time.Second); err != nil {
				t.Error(err)
			}
			logged := 0
			for _, record := range log.all() {
				if n, ok := record["count"].(float64); ok {
					logged += int(n)
				} else {
					logged++
				}
			}
			if logged != sent {
				t.Errorf("%d records were logged or counted, of %d", logged, sent)
			}
		})
	}
}

// A logger that hangs for ever does not keep the host from closing.
func TestCloseWithHungLogger(t *testing.T) {
	log := &recorder{gate: make(chan struct{})}
	book := newLogQueue(log.logger())
	h, err := newHost(shell("echo hello; echo more"), hostOptions{Name: "test", Log: book})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.attempt(0).launch(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	await(t, p)
	if err := book.close(time.Hour); err == nil || !strings.Contains(err.Error(), "1 log records are lost") {
		t.Errorf("closing the log: %v", err)
	}
	close(log.gate)
	<-book.done
}

func TestOutputFromConnection(t *testing.T) {
	f := newFixture(t, shell("cat"))
	p := f.launch(Spec{Stdio: true})
	p.Output([]byte("hook one\r\nhook \x1b[31mtwo\nhel"))
	f.log.line(t, "hel")
	_ = p.Stdin.Close()
	await(t, p)
	p.Output([]byte("last words")) // read by the adapter when the process was gone
	logged(t, p.out.log)
	want := []string{"hook one", `hook \x1b[31mtwo`, "hel", "last words"}
	if !slices.Equal(p.lastOutput(time.Time{}), want) {
		t.Errorf("the last output is %q", p.lastOutput(time.Time{}))
	}
	var got []string
	for _, record := range f.log.all() {
		got = append(got, record["@message"].(string))
		if record["@level"] != "info" || record["worker"] != 2.0 {
			t.Errorf("a record is %v", record)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
}

func TestPrivateDir(t *testing.T) {
	parent := t.TempDir()
	dir, claim, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = claim.Close(), os.RemoveAll(dir) }()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 80))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	short, other, err := makeTempDir(long)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = other.Close(), os.RemoveAll(short) }()
	if len(short) > maxDir || filepath.Dir(short) != "/tmp" {
		t.Errorf("the shorter directory is %s", short)
	}
	if left, _ := os.ReadDir(long); len(left) != 0 {
		t.Errorf("left in the longer one: %v", left)
	}
	if _, _, err := makeTempDir("/no/such/dir"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "Options.Dir") ||
		!strings.Contains(err.Error(), "/no/such/dir") || strings.Contains(err.Error(), "TMPDIR") {
		t.Error(err)
	}
	t.Setenv("TMPDIR", "/no/such/tmp") // what a program's user can change
	_, _, err = makeTempDir("")
	if err == nil || !strings.HasSuffix(err.Error(), "set TMPDIR to a directory that can be written to") {
		t.Error(err)
	}
}

// What a killed host has left is removed, and nothing else.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	used, claim, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = claim.Close() }()
	left, dead, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close() // as the system does when the process ends
	for _, path := range []string{filepath.Join(left, "0.sock"), filepath.Join(parent, "a-file"), filepath.Join(parent, dirPrefix+"file")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(parent, filepath.Join(parent, dirPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	sweep(parent)
	var names []string
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"a-file", filepath.Base(used), dirPrefix + "file", dirPrefix + "link"}
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("%q are there, not %q", names, want)
	}
}

// A pool that is opened while others sweep the same place gets a directory that is there.
func TestSweepBesideOpen(t *testing.T) {
	parent := t.TempDir()
	stop := make(chan struct{})
	var sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					sweep(parent)
				}
			}
		})
	}
	for range 300 {
		dir, claim, err := claimTempDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil || claim == nil {
			t.Errorf("the directory is gone (%v), or nobody's", err)
		}
		closeFiles([]*os.File{claim})
		_ = os.RemoveAll(dir) // a sweep may have done so
	}
	close(stop)
	sweepers.Wait()
}

func TestNewHostRefuses(t *testing.T) {
	for says, cmd := range map[string]Command{
		"Command.Path":     {Path: "a\x00b"},
		"Command.Args":     {Path: "a", Args: []string{"\x00"}},
		`"novalue"`:        {Path: "a", Env: []string{"novalue"}},
		"Command.Env has ": {Path: "a", Env: []string{"A=\x00"}},
	} {
		if h, err := newHost(cmd, hostOptions{Name: "test"}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v %v", cmd, h, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	h := &host{cmd: Command{Path: "python3", Args: []string{"-u", "my worker.py", ""}}}
	if got := h.command(); got != `python3 -u "my worker.py" ""` {
		t.Error(got)
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=1"}, []string{"B=2", "C=a=b"}, []string{"A="})
	if !slices.Equal(got, []string{"A=", "B=2", "C=a=b"}) {
		t.Error(got)
	}
}

// Numeric libraries share the processors between the workers, unless the user said how many threads each has.
func TestThreadEnv(t *testing.T) {
	for _, name := range threadVars {
		t.Setenv(name, "") // so that it is as before after the test
		_ = os.Unsetenv(name)
	}
	all := func(n int) (env []string) {
		for _, name := range threadVars {
			env = append(env, name+"="+strconv.Itoa(n))
		}
		return env
	}
	if got := threadEnv(nil, 1); !slices.Equal(got, all(runtime.GOMAXPROCS(0))) {
		t.Error(got)
	}
	if got := threadEnv(nil, 1000); !slices.Equal(got, all(1)) {
		t.Error(got)
	}
	if got := threadEnv([]string{threadVars[1] + "=8"}, 1000); got != nil {
		t.Error("set for the command, and yet:", got)
	}
	t.Setenv(threadVars[0], "7")
	if got := threadEnv(nil, 1000); got != nil {
		t.Error("set by the user, and yet:", got)
	}
}

// Each rise of the kernel's count explains one death, and none that was before.
func TestOOMCounter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.events")
	set := func(n int) {
		t.Helper()
		if err := os.WriteFile(path, fmt.Appendf(nil, "low 0\nhigh 7\nmax 9\noom 5\noom_kill %d\noom_group_kill 3\n", n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &oomCounter{path: path}
	set(3)
	first, second := c.base(), c.base()
	if c.claim(first) {
		t.Error("claimed without a rise")
	}
	set(5)
	third := c.base()
	if !c.claim(first) || !c.claim(second) || c.claim(first) {
		t.Error("two rises are two deaths")
	}
	if c.claim(third) {
		t.Error("claimed what was before")
	}
	set(6)
	if !c.claim(third) || c.claim(third) {
		t.Error("one rise is one death")
	}
	if none := (&oomCounter{}); none.base() != 0 || none.claim(0) {
		t.Error("claimed without a counter")
	}
}

// A SIGKILL that we did not send is put down to memory if the kernel counted one, and ours never is.
func TestOOMExit(t *testing.T) {
	f := newFixture(t, shell("echo ready; exec sleep 1000"))
	path := filepath.Join(t.TempDir(), "memory.events")
	count := func(n string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("oom_kill "+n+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count("0")
	f.oom = &oomCounter{path: path}
	ours, kernels := f.launch(Spec{}), f.launch(Spec{})
	count("1")
	ours.kill()
	await(t, ours)
	if _, _, oom := ours.Exit(); oom {
		t.Error("our own SIGKILL is put down to memory")
	}
	if err := syscall.Kill(kernels.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, kernels)
	if _, signal, oom := kernels.Exit(); signal != "killed" || !oom || !strings.Contains(kernels.exit().String(), "memory") {
		t.Errorf("it was ended by %q, out of memory: %v", signal, oom)
	}
}
