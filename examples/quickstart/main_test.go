package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
)

// needs skips a test if Python lacks a package. If an interpreter is named, it must have the package.
func needs(t *testing.T, adapter string) {
	t.Helper()
	module := map[string]string{"grpc": "grpc", "msgpack": "msgpack"}[adapter]
	if module == "" || os.Getenv("SNAKEPIT_PYTHON") != "" {
		return
	}
	if err := exec.Command("python3", "-c", "import "+module).Run(); err != nil {
		t.Skipf("this test needs the Python package %s; make install-grpc, and SNAKEPIT_PYTHON=.venv/bin/python",
			module)
	}
}

var unpacked = regexp.MustCompile(`"[^"]*[/\\]worker-[0-9a-f]+[/\\]worker.py"`)

// carets are in the tracebacks of Python 3.11 and later.
var carets = regexp.MustCompile(`(?m)^ +[~^]+\n`)

// TestOnEachAdapter compares the output with README.md.
func TestOnEachAdapter(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, readme, _ := strings.Cut(string(page), "```text\n")
	readme, _, _ = strings.Cut(readme, "```")
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			needs(t, adapter)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"-adapter", adapter}, &stdout, &stderr); code != 0 {
				t.Fatalf("exit code %d: %s", code, &stderr)
			}
			spoken := regexp.MustCompile(`worker 0 \((\w+)\)`)
			if s := spoken.FindStringSubmatch(stdout.String()); s == nil || adapter != "auto" && s[1] != adapter {
				t.Errorf("the error is of %q", s)
			}
			got := unpacked.ReplaceAllLiteralString(stdout.String(), unpacked.FindString(readme))
			got = spoken.ReplaceAllLiteralString(got, "worker 0 (grpc)")
			if carets.ReplaceAllString(got, "") != carets.ReplaceAllString(readme, "") {
				t.Errorf("printed:\n%s\nREADME.md has:\n%s", got, readme)
			}
		})
	}
}

// TestBadOperations checks the errors that compute raises for bad arguments.
func TestBadOperations(t *testing.T) {
	pool, err := snakepit.Open(t.Context(), snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, test := range []struct {
		args map[string]any
		want string
	}{
		{map[string]any{"operation": "modulo", "a": 1, "b": 2},
			"ValueError: unknown operation 'modulo'; there are add, subtract, multiply, divide"},
		{map[string]any{"operation": "divide", "a": 1, "b": 0}, "ZeroDivisionError: float division by zero"},
		{map[string]any{"operation": "add", "a": 1},
			"BadArguments: compute() missing argument 'b'"},
		{map[string]any{"operation": "add", "a": 1, "b": "2"}, "BadArguments: b: expected a number, got '2'"},
	} {
		_, err := snakepit.Execute[float64](t.Context(), pool, "compute", test.args)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v; want %q", test.args, err, test.want)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-adapter nonsense", 2, "quickstart: -adapter: "},
		{"more", 2, "quickstart: \"more\" is not a flag; see quickstart -h\n"},
		{"-nonsense", 2, "flag provided but not defined: -nonsense\n"},
		{"-h", 0, "Usage: quickstart [flags]\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
		if code != test.code || !strings.HasPrefix(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %q, %q; want %d, %q", test.args, code, &stdout, &stderr, test.code, test.want)
		}
	}
}

func TestNoPython(t *testing.T) {
	t.Setenv("SNAKEPIT_PYTHON", "nonexistent")
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), nil, &stdout, &stderr)
	if want := "quickstart: python worker: SNAKEPIT_PYTHON is \"nonexistent\": "; code != 1 ||
		!strings.HasPrefix(stderr.String(), want) {
		t.Errorf("exit code %d, %q; want 1, %q", code, &stderr, want)
	}
}

// cancelling is an output that ends the tour after a number of lines.
type cancelling struct {
	bytes.Buffer
	lines  int
	cancel context.CancelFunc
}

func (c *cancelling) Write(p []byte) (int, error) {
	if c.lines--; c.lines == 0 {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr := &cancelling{lines: 3, cancel: cancel}, &bytes.Buffer{}
	if code := run(ctx, nil, stdout, stderr); code != 130 || stderr.String() != "quickstart: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if got := stdout.String(); !strings.Contains(got, "pong 1 of 5") || strings.Contains(got, "5 + 3") {
		t.Errorf("printed %q", got)
	}
}
