package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
)

// need skips the test if the user's Python lacks a module of the adapter. The Python that SNAKEPIT_PYTHON names
// must have it.
func need(t *testing.T, adapter string) {
	t.Helper()
	module := map[string]string{"grpc": "grpc, google.protobuf", "msgpack": "msgpack"}[adapter]
	if module == "" || os.Getenv("SNAKEPIT_PYTHON") != "" {
		return
	}
	python, err := snakepit.PythonFS(files, "worker.py").Command()
	if err != nil {
		t.Skip("there is no Python:", err)
	}
	if err := exec.Command(python.Path, "-c", "import "+module).Run(); err != nil {
		t.Skipf("%s can't import %s; make install-grpc has a Python that can, for SNAKEPIT_PYTHON", python.Path, module)
	}
}

const whole = `📈 order 1001: 0.9 times what Ann usually pays
📈 order 1002: 1.2 times what Bob usually pays
📈 order 1003: 4.0 times what Eve usually pays
📈 order 1005: 15.2 times what Ann usually pays
⚠️ order 1004: there is no customer "zoe"
✅ scored 4, the most unusual is order 1005
`

func TestOnEachAdapter(t *testing.T) {
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			need(t, adapter)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"-adapter", adapter}, &stdout, &stderr); code != 0 ||
				stdout.String() != whole {
				t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr)
			}
		})
	}
}

func TestMinimum(t *testing.T) {
	for minimum, want := range map[string]string{
		"1000": "📈 order 1003: 4.0 times what Eve usually pays\n✅ scored 1, the most unusual is order 1003\n",
		"+Inf": "✅ there is no order of +Inf or more to score\n",
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"-adapter", "jsonstdio", "-minimum", minimum}, &stdout, &stderr)
		if code != 0 || stdout.String() != want {
			t.Errorf("-minimum %s: exit code %d\n%s%s", minimum, code, &stdout, &stderr)
		}
	}
}

func TestBadInput(t *testing.T) {
	for args, want := range map[string]string{
		"-minimum -5":       "callbacks: -minimum is -5, but it must be at least 0; see callbacks -h\n",
		"-minimum NaN":      "callbacks: -minimum is NaN, but it must be at least 0; see callbacks -h\n",
		"-minimum much":     "invalid value \"much\" for flag -minimum: parse error\n",
		"-adapter nonsense": "callbacks: -adapter: ",
		"-nonsense":         "flag provided but not defined: -nonsense\n",
		"more":              "callbacks: \"more\" is not a flag; see callbacks -h\n",
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 2 ||
			!strings.HasPrefix(stderr.String(), want) {
			t.Errorf("%s: exit code %d, %q; want 2, %q", args, code, &stderr, want)
		}
	}
}

// trigger is a writer that calls do once text has been written to it.
type trigger struct {
	bytes.Buffer
	text string
	do   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.do()
	}
	return w.Buffer.Write(p)
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &trigger{text: "order 1002", do: cancel}
	var stderr bytes.Buffer
	code := run(ctx, []string{"-adapter", "jsonstdio"}, stdout, &stderr)
	want := strings.Join(strings.SplitAfter(whole, "\n")[:2], "") + "scored 2 before the end\n"
	if code != 130 || stdout.String() != want || stderr.String() != "callbacks: interrupted\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, &stderr)
	}
	noChild(t)
}

// noChild fails if this process still has a child process.
func noChild(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	children, err := exec.Command("sh", "-c", "cat /proc/$PPID/task/*/children").Output()
	if err != nil {
		t.Fatal(err)
	}
	if left := strings.Fields(string(children)); len(left) > 1 { // one is the shell
		t.Errorf("processes %v are left", left)
	}
}
