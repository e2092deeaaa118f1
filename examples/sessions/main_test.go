package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
)

const want = `ml_training_ann  Epoch 1: loss=1672.000
ml_training_ann  Epoch 2: loss=394.560
ml_training_ann  y = 17.28x +20.48
ml_training_bob  Epoch 1: loss=377.777
ml_training_bob  Epoch 2: loss=116.247
ml_training_bob  y = 5.33x -11.38
ml_training_ann  Epoch 3: loss=133.747
ml_training_ann  Epoch 4: loss=47.817
ml_training_ann  y = 17.97x +27.85
ml_training_bob  Epoch 3: loss=41.059
ml_training_bob  Epoch 4: loss=14.750
ml_training_bob  y = 5.55x -15.47
`

func TestOnEachAdapter(t *testing.T) {
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			if adapter == "grpc" || adapter == "msgpack" {
				needs(t, adapter)
			}
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"-adapter", adapter, "-epochs", "2"}, &stdout, &stderr); code != 0 {
				t.Fatalf("exit code %d: %s", code, &stderr)
			}
			if got := stdout.String(); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// needs skips the test if Python lacks a package of the adapter. If SNAKEPIT_PYTHON names an interpreter, it
// must have it.
func needs(t *testing.T, adapter string) {
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := snakepit.OpenWith(t.Context(), a, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 1})
	if err != nil {
		if os.Getenv("SNAKEPIT_PYTHON") == "" {
			t.Skipf("%s is unavailable with this Python, and SNAKEPIT_PYTHON is not set: %v", adapter, err)
		}
		t.Fatal(err)
	}
	pool.Close()
}

func TestReadme(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	_, sample, _ := strings.Cut(string(must(os.ReadFile("README.md"))), "```text\n")
	sample, _, _ = strings.Cut(sample, "```")
	for line := range strings.Lines(sample) {
		if line != "…\n" && !strings.Contains(stdout.String(), line) {
			t.Errorf("README.md has a line that is not printed: %s", line)
		}
	}
}

func TestTrainingNeedsAModel(t *testing.T) {
	pool, err := snakepit.Open(t.Context(), snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	data := TrainModelArgs{Points: users[0].points, Epochs: 1}
	for _, err := range NewClient(pool.Session("new")).TrainModel(t.Context(), data) {
		if err == nil || explain(err) != "session new has no model; call initialize_model in it first" {
			t.Errorf("got %v", err)
		}
	}
}

func TestBadInput(t *testing.T) {
	for args, want := range map[string]string{
		"more":              "sessions: \"more\" is not a flag; see sessions -h\n",
		"-epochs -1":        "sessions: -epochs is -1, but it must be at least 1; see sessions -h\n",
		"-epochs many":      "invalid value \"many\" for flag -epochs: parse error\n",
		"-adapter nonsense": "sessions: -adapter: ",
		"-nonsense":         "flag provided but not defined: -nonsense\n",
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 2 ||
			!strings.HasPrefix(stderr.String(), want) {
			t.Errorf("%s: exit code %d, %q; want 2, %q", args, code, &stderr, want)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, &stdout, &stderr); code != 0 ||
		!strings.Contains(stderr.String(), "Example: sessions ") {
		t.Errorf("-h: exit code %d, %q", code, &stderr)
	}
}

// canceller is a standard output that cancels once a text is printed.
type canceller struct {
	bytes.Buffer
	text   string
	cancel func()
}

func (c *canceller) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr := &canceller{text: "Epoch 3", cancel: cancel}, &bytes.Buffer{}
	code := run(ctx, []string{"-epochs", "1000000000", "-adapter", "jsonstdio"}, stdout, stderr)
	begin, _, _ := strings.Cut(want, "ml_training_ann  y")
	if code != 130 || stderr.String() != "sessions: interrupted\n" || !strings.HasPrefix(stdout.String(), begin) {
		t.Errorf("exit code %d, %q\n%.500s", code, stderr, stdout)
	}
	for _, file := range must(filepath.Glob("/proc/self/task/*/children")) {
		if pids := string(must(os.ReadFile(file))); pids != "" {
			t.Errorf("processes are left: %s", pids)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
