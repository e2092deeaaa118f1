//go:build unix

package core

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
	var inheritable []int // descriptors that the parent of this test left inheritable
	for fd := 3; fd < 64; fd++ {
		if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 &&
			flags&syscall.FD_CLOEXEC == 0 {
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
		want  map[string]string // "*" matches any non-empty value; "" means absent
	}{
		{"stdio", Spec{Protocol: "jsonstdio", Stdio: true}, []int{0, 1, 2, 3}, map[string]string{
			"SNAKEPIT_PROTOCOL": "jsonstdio", "SNAKEPIT_RUN_ID": f.runID, "SNAKEPIT_WORKER_INDEX": "2",
			"SNAKEPIT_CONN_FD": "", "SNAKEPIT_CONTROL_FD": "", "SNAKEPIT_LIFELINE_FD": "3", "SNAKEPIT_DIR": f.dir,
			"SNAKEPIT_MAX_FRAME": "77777", "SNAKEPIT_HOST_TOKEN": "",
			"SNAKEPIT_WORKER_TOKEN": "", "SNAKEPIT_PYTHON": "kept",
			"CORE_TEST_USER": "user", "CORE_TEST_COMMAND": "command",
			"PWD": cmd.Dir,
		}},
		{"files", Spec{Protocol: "msgpack", Files: []*os.File{readable(t), readable(t)}}, []int{1, 2, 3, 4, 5},
			map[string]string{
				"SNAKEPIT_PROTOCOL": "msgpack", "SNAKEPIT_CONN_FD": "3", "SNAKEPIT_LIFELINE_FD": "5",
				"SNAKEPIT_HOST_TOKEN": "",
			}},
		{"dialled", Spec{Protocol: "grpc", Env: []string{"CORE_TEST_BOTH=spec"}}, []int{1, 2, 3}, map[string]string{
			"SNAKEPIT_PROTOCOL": "grpc", "SNAKEPIT_CONN_FD": "",
			"SNAKEPIT_HOST_TOKEN": "*", "SNAKEPIT_WORKER_TOKEN": "*",
			"CORE_TEST_BOTH": "spec",
		}},
		{"input", Spec{Protocol: "grpc", Input: []byte("a secret")}, []int{0, 1, 2, 3}, map[string]string{
			"SNAKEPIT_PROTOCOL": "grpc", "SNAKEPIT_HOST_TOKEN": "*",
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
		"not in PATH": {Command{Path: "no-such-python"}, exec.ErrNotFound,
			[]string{"no-such-python", "PATH", "install it"}},
		"no such file": {Command{Path: "/no/such/python"}, os.ErrNotExist,
			[]string{"/no/such/python", "correct the path"}},
		"directory": {Command{Path: dir}, nil, []string{dir, "it is a directory"}},
		"not executable": {Command{Path: write("plain", "#!/bin/sh\n", 0o600)}, os.ErrPermission,
			[]string{"plain", "chmod +x"}},
		"no interpreter": {Command{Path: write("script", "#!/no/such/sh\n", 0o700)}, os.ErrNotExist,
			[]string{"script", "first line"}},
		"no program": {Command{Path: write("noise", "noise\n", 0o700)}, syscall.ENOEXEC,
			[]string{"noise", "#!"}},
		"no directory": {Command{Path: "sh", Dir: "/no/such/dir"}, os.ErrNotExist,
			[]string{"/no/such/dir", "Command.Dir"}},
		"directory is a file": {Command{Path: "sh", Dir: write("file", "", 0o600)}, nil,
			[]string{"file", "not a directory", "Command.Dir"}},
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

// A relative path with a separator is relative to the directory that the command runs in.
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
	_ = all[0].Stdin.Close() // the process ends by itself
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

func TestNewHostRefuses(t *testing.T) {
	for says, cmd := range map[string]Command{
		"Command.Path":     {Path: "a\x00b"},
		"Command.Args":     {Path: "a", Args: []string{"\x00"}},
		`"novalue"`:        {Path: "a", Env: []string{"novalue"}},
		"Command.Env has ": {Path: "a", Env: []string{"A=\x00"}},
	} {
		if h, err := newSpawner(cmd, spawnerOptions{Name: "test"}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v %v", cmd, h, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	h := &spawner{cmd: Command{Path: "python3", Args: []string{"-u", "my worker.py", ""}}}
	if got := h.command(); got != `python3 -u "my worker.py" ""` {
		t.Error(got)
	}
}
