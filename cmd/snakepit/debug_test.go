//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// TestRunByHand attaches a worker that is started by hand, and another one after its loss.
func TestRunByHand(t *testing.T) {
	needsPackages(t)
	socket := filepath.Join(t.TempDir(), "attach")
	starts := func() *exec.Cmd {
		cmd := exec.Command("snakepit", "run", filepath.Join("testdata", "worker.py"), "--socket", socket)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := starts() // before the program waits
	pool, err := snakepit.Attach(t.Context(), socket, &snakepit.Options{
		Size: 9, CallTimeout: time.Nanosecond, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	add := func(ctx context.Context) error {
		n, err := snakepit.Execute[int](ctx, pool, "add", map[string]int{"a": 1, "b": 2})
		if err == nil && n != 3 {
			t.Errorf("1 + 2 = %d", n)
		}
		return err
	}
	if err := add(t.Context()); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pool.Workers()[0].Info().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := first.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitLost {
		t.Error(err)
	}
	second := starts()
	if err := add(t.Context()); err != nil && !errors.Is(err, snakepit.ErrWorkerLost) {
		t.Error(err)
	}
	if err := add(t.Context()); err != nil {
		t.Error(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if err := second.Wait(); err != nil {
		t.Error("the worker's end with the program is an error:", err)
	}
}

// TestRunByHandInTerminal has a worker read what is typed, as pdb does, and ends it by Ctrl-C.
func TestRunByHandInTerminal(t *testing.T) {
	needsPackages(t)
	dir := t.TempDir()
	socket, script := filepath.Join(dir, "attach"), filepath.Join(dir, "worker.py")
	const program = `from snakepit_bridge import Worker

worker = Worker()


@worker.command
def ask() -> str:
    return input("? ")


if __name__ == "__main__":
    worker.run()
`
	if err := os.WriteFile(script, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command("snakepit", "run", script, "--socket", socket)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("tea\n"), &output, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pool, err := snakepit.Attach(t.Context(), socket, &snakepit.Options{Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := snakepit.Execute[string](t.Context(), pool, "ask", nil); err != nil || said != "tea" {
		t.Error(said, err)
	}
	// Ctrl-C reaches both. This one reaches the worker alone, as one does that runs without the command.
	if err := syscall.Kill(pool.Workers()[0].Info().PID, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitLost {
		t.Error(err)
	}
	if output.String() != "? " {
		t.Errorf("%q", &output)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

// TestReplay loses a worker in the middle of a call, and makes the call again on a new one.
func TestReplay(t *testing.T) {
	python, _ := scriptPython(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "worker.py")
	const program = `
import os
from snakepit_bridge import Worker
worker = Worker()

@worker.command
def sum_up(ctx, first: int, k: str):
    total = first + sum(ctx.input)
    if os.environ.get("BROKEN"):
        os._exit(3)
    return [total, k, ctx.metadata["who"], ctx.session.id]

worker.run()
`
	if err := os.WriteFile(script, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	worker := snakepit.Python(script)
	worker.Interpreter, worker.Env = python, []string{"BROKEN=1"}
	adapter, err := snakepit.Adapters("jsonstdio")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := snakepit.OpenWith(t.Context(), adapter, worker, &snakepit.Options{
		Size: 1, Logger: hclog.NewNullLogger(),
		Recorder: snakepit.Recorder{Dir: filepath.Join(dir, "recordings"), Bodies: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := snakepit.WithMetadata(t.Context(), map[string]string{"who": "ann"})
	values := snakepit.Input(func(yield func(int) bool) { _ = yield(20) && yield(22) })
	_, err = snakepit.Execute[any](ctx, pool.Session("s"), "sum_up", map[string]any{"first": 1, "k": "v"}, values)
	var exit *core.WorkerExit
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := pool.Close(); err != nil { // it waits for the file
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.Command("snakepit", append([]string{"replay"}, args...)...).CombinedOutput()
		return fmt.Sprintf("%s%v", out, err)
	}
	listed := run(exit.Recording, "--list")
	for _, want := range []string{"exited with code 3", "CALL  COMMAND  SESSION", "1     sum_up   s", "no answer"} {
		if !strings.Contains(listed, want) {
			t.Errorf("the list lacks %q:\n%s", want, listed)
		}
	}
	got := run(exit.Recording, script, "--adapter", "jsonstdio", "--python", python)
	if got != `[43,"v","ann","s"]`+"\n<nil>" {
		t.Error(got)
	}
	for want, args := range map[string][]string{
		"the recording has no call 99": {exit.Recording, script, "--call", "99"},
		"replay needs WORKER":          {exit.Recording},
		"no such file":                 {"nothing.snakepit", "--list"},
		"is not a recording":           {script, "--list"},
	} {
		if got := run(args...); !strings.Contains(got, want) || !strings.HasSuffix(got, "exit status 2") {
			t.Errorf("%q: %s", args, got)
		}
	}
}

// TestDebugger stops a call at a breakpoint, as an editor does, and lets it go on after the usual limits.
func TestDebugger(t *testing.T) {
	python, _ := scriptPython(t)
	if exec.Command(python, "-c", "import debugpy").Run() != nil {
		t.Skip("the interpreter has no debugpy, which stops the worker here; make test installs it from Python 3.10 on")
	}
	script, err := filepath.Abs(filepath.Join("testdata", "worker.py"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	line := 1 + bytes.Count(text[:bytes.Index(text, []byte("    return a + b"))], []byte("\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command("snakepit", "call", script, "add", "a=1", "b=2", "--debug="+address,
		"--adapter", "jsonstdio", "--python", python)
	cmd.Stderr = &said
	result, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := attachDebugger(t, address)
	d.ask("initialize", map[string]any{"adapterID": "test", "pathFormat": "path"})
	d.send("attach", map[string]any{"justMyCode": false})
	d.await("event", "initialized")
	d.ask("setBreakpoints", map[string]any{
		"source": map[string]any{"path": script}, "breakpoints": []map[string]any{{"line": line}},
	})
	d.ask("configurationDone", nil)
	stopped := d.await("event", "stopped")
	thread := stopped["body"].(map[string]any)["threadId"]
	frames := d.ask("stackTrace", map[string]any{"threadId": thread})["body"].(map[string]any)["stackFrames"].([]any)
	if top := frames[0].(map[string]any); top["name"] != "add" || top["line"] != float64(line) {
		t.Error(top)
	}
	d.ask("continue", map[string]any{"threadId": thread})
	out, err := io.ReadAll(result)
	if err = errors.Join(err, cmd.Wait()); err != nil || string(out) != "3\n" {
		t.Errorf("%q, %v\n%s", out, err, &said)
	}
	if !strings.HasPrefix(said.String(), "snakepit: the worker waits for a debugger at "+address) {
		t.Error(&said)
	}
}

// debugClient speaks the Debug Adapter Protocol, https://microsoft.github.io/debug-adapter-protocol/.
type debugClient struct {
	*testing.T

	conn net.Conn
	in   *bufio.Reader
	seq  int
}

// attachDebugger connects to a debugger. Nothing tells when it listens, so it tries again and again.
func attachDebugger(t *testing.T, address string) *debugClient {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return &debugClient{T: t, conn: conn, in: bufio.NewReader(conn)}
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func (d *debugClient) send(command string, arguments map[string]any) {
	d.Helper()
	d.seq++
	body, err := json.Marshal(map[string]any{
		"seq": d.seq, "type": "request", "command": command, "arguments": arguments,
	})
	if err == nil {
		_, err = fmt.Fprintf(d.conn, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	if err != nil {
		d.Fatal(err)
	}
}

// ask sends a request and returns its response.
func (d *debugClient) ask(command string, arguments map[string]any) map[string]any {
	d.Helper()
	d.send(command, arguments)
	return d.await("response", command)
}

// await returns the next message of a kind with a name. It skips others.
func (d *debugClient) await(kind, name string) map[string]any {
	d.Helper()
	for {
		length := 0
		for {
			line, err := d.in.ReadString('\n')
			if err != nil {
				d.Fatalf("waiting for %s %s: %v", kind, name, err)
			}
			if line = strings.TrimSpace(line); line == "" {
				break
			}
			if value, found := strings.CutPrefix(line, "Content-Length: "); found {
				if length, err = strconv.Atoi(value); err != nil {
					d.Fatal(err)
				}
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(d.in, body); err != nil {
			d.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil {
			d.Fatal(err)
		}
		if m["type"] == kind && (m["event"] == name || m["command"] == name) {
			if m["success"] == false {
				d.Fatalf("%s", body)
			}
			return m
		}
	}
}

// needsPackages skips a test without the packages of development.
func needsPackages(t *testing.T) {
	t.Helper()
	python, packages := scriptPython(t)
	if !packages {
		t.Skip("the interpreter has no msgpack, which a worker that is started by hand speaks; make test installs it")
	}
	t.Setenv("SNAKEPIT_PYTHON", python)
}
