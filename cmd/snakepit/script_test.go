package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the command snakepit of scripts.
func TestMain(m *testing.M) {
	testscript.Main(inProcess{m}, map[string]func(){"snakepit": main})
}

// atOnce makes commands with the race detector end without the second in which it waits for more to report.
const atOnce = "atexit_sleep_ms=0"

// inProcess selects features that every Python has, for the tests in this process.
type inProcess struct{ *testing.M }

func (p inProcess) Run() int {
	for key, value := range map[string]string{
		"SNAKEPIT_ADAPTERS": "jsonstdio", "SNAKEPIT_LOG": "error", "GORACE": atOnce,
	} {
		if err := os.Setenv(key, value); err != nil {
			panic(err)
		}
	}
	return p.M.Run()
}

// TestScripts runs testdata/script. Each script gets worker.py, $PYTHON and $CHECKOUT. $PYTHON is the
// interpreter of SNAKEPIT_PYTHON or PATH. $CHECKOUT is this checkout.
func TestScripts(t *testing.T) {
	python, packages := scriptPython(t)
	checkout, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	goEnv := strings.Split(strings.TrimSpace(outputOf(t, "go", "env", "GOPATH", "GOMODCACHE", "GOCACHE", "GOROOT")),
		"\n")
	cache := t.TempDir()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			for key, value := range map[string]string{
				"PYTHON": python, "SNAKEPIT_PYTHON": python, "CHECKOUT": checkout, "XDG_CACHE_HOME": cache,
				"HOME":   env.WorkDir,
				"GOPATH": goEnv[0], "GOMODCACHE": goEnv[1], "GOCACHE": goEnv[2], "GOROOT": goEnv[3],
				"GOFLAGS": "-mod=mod", "GOPROXY": "off",
				"GONOSUMDB": "*", "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": "", "CONDA_PREFIX": "",
				"GORACE": atOnce,
			} {
				env.Setenv(key, value)
			}
			worker, err := os.ReadFile(filepath.Join("testdata", "worker.py"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "worker.py"), worker, 0o600)
		},
		Condition: func(name string) (bool, error) {
			if name == "packages" { // of development: grpcio, protobuf, msgpack, pytest
				return packages, nil
			}
			return false, errors.New("unknown condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "isjson": isJSON, "host": startHost,
		},
	})
}

// scriptPython returns an interpreter and whether it has the development packages. If SNAKEPIT_PYTHON is set,
// they are required.
func scriptPython(t *testing.T) (path string, packages bool) {
	t.Helper()
	path = os.Getenv("SNAKEPIT_PYTHON")
	if path == "" {
		out, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output()
		if err != nil {
			t.Skipf("no python3 here: %v", err)
		}
		path = string(out)
	}
	out, err := exec.Command(path, "-c", "import grpc, google.protobuf, msgpack, pytest").CombinedOutput()
	if err != nil && os.Getenv("SNAKEPIT_PYTHON") != "" {
		t.Fatalf("SNAKEPIT_PYTHON lacks packages: %s", out)
	}
	return path, err == nil
}

func outputOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// exits runs a command and requires its exit code: exits 3 snakepit doctor.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// isJSON checks that a file holds JSON values and nothing else. A number that follows is the required count:
// isjson stdout 3.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: isjson FILE [COUNT]")
	}
	n := 0
	for d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0]))); ; n++ {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			ts.Fatalf("%s is not JSON: %v", args[0], err)
		}
	}
	if want := append(args, "1")[1]; strconv.Itoa(n) != want {
		ts.Fatalf("%s has %d JSON values, want %s", args[0], n, want)
	}
}

// TestSignals sends real signals to a real process. The worker must end with it.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals there")
	}
	for _, c := range []struct {
		signal syscall.Signal
		code   int
		says   string
	}{{syscall.SIGINT, 130, "snakepit: interrupted\n"}, {syscall.SIGTERM, 143, "snakepit: terminated\n"}} {
		t.Run(c.signal.String(), func(t *testing.T) {
			cmd := exec.Command("snakepit", "stream", filepath.Join("testdata", "worker.py"), "count", "n=1000000000")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			if line, err := lines.ReadString('\n'); err != nil || line != "0\n" {
				t.Errorf("it printed %q, %v: %s", line, err, &stderr)
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, lines); err != nil {
				t.Error(err)
			}
			err = cmd.Wait()
			if cmd.ProcessState.ExitCode() != c.code || !strings.HasSuffix(stderr.String(), c.says) {
				t.Errorf("exit code %d, want %d (%v), stderr: %s", cmd.ProcessState.ExitCode(), c.code, err, &stderr)
			}
		})
	}
}

// A signal also ends a program that waits for its arguments.
func TestSignalWhileReading(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals there")
	}
	for _, command := range []string{"call", "bench"} {
		t.Run(command, func(t *testing.T) {
			cmd := exec.Command("snakepit", command, filepath.Join("testdata", "worker.py"), "echo", "@-")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// This is more than a pipe holds: once it is written, the program is reading.
			if _, err := in.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
				t.Error(err)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
			ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
			defer ended.Stop()
			err = cmd.Wait()
			if cmd.ProcessState.ExitCode() != exitInterrupted || stderr.String() != "snakepit: interrupted\n" {
				t.Errorf("exit code %d (%v), stderr: %s", cmd.ProcessState.ExitCode(), err, &stderr)
			}
		})
	}
}
