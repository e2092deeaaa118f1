package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/snakepit-go/snakepit"
)

// cache is the user's cache directory in these tests. The digits are written there.
var cache string

func TestMain(m *testing.M) {
	var err error
	if cache, err = os.MkdirTemp("", ""); err != nil {
		panic(err)
	}
	os.Setenv("XDG_CACHE_HOME", cache) // the variable of Linux
	code := m.Run()
	os.RemoveAll(cache)
	os.Exit(code)
}

// needs skips the test if Python lacks the packages. If SNAKEPIT_PYTHON names an interpreter, it must have them.
func needs(t *testing.T) {
	t.Helper()
	pool, err := snakepit.Open(t.Context(), snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 1})
	if err == nil {
		pool.Close()
	} else if os.Getenv("SNAKEPIT_PYTHON") == "" {
		t.Skipf("SNAKEPIT_PYTHON is not set, and this Python will not do: %v", err)
	} else {
		t.Fatal(err)
	}
}

// train runs the program. It returns the output and the saved model.
func train(t *testing.T, args ...string) (printed string, model []byte) {
	t.Helper()
	directory := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append([]string{"-out", directory, "-epochs", "8"}, args...), &stdout,
		&stderr); code != 0 {
		t.Fatalf("exit code %d: %s\n%s", code, &stderr, &stdout)
	}
	if strings.ContainsAny(stdout.String(), "\x1b\r") {
		t.Error("what is printed has a bar, though it is for no terminal")
	}
	model, err := os.ReadFile(filepath.Join(directory, "mlp-best.npz"))
	if err != nil {
		t.Fatal(err)
	}
	curves, err := os.ReadFile(filepath.Join(directory, "curves.png"))
	if err != nil {
		t.Fatal(err)
	}
	if picture, err := png.Decode(bytes.NewReader(curves)); err != nil || picture.Bounds().Dx() != 1000 {
		t.Errorf("the picture of the curves: %v", err)
	}
	return strings.ReplaceAll(stdout.String(), directory, "OUT"), model
}

// number returns the number that follows a text.
func number(t *testing.T, printed, text string) (n float64) {
	t.Helper()
	_, rest, _ := strings.Cut(printed, text)
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Errorf("%q is followed by no number: %v", text, err)
	}
	return n
}

func TestOnEachAdapter(t *testing.T) {
	needs(t)
	var epochs string
	var model []byte
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			printed, m := train(t, "-adapter", adapter)
			for _, want := range []string{
				"📦 1259 samples to train on, 269 to validate, 269 to test; " +
					"64 features, 10 classes, 4810 parameters\n" +
					"📈 Epoch 1/8:\n   Train: loss=",
				"💾 Model saved: OUT/mlp-best.npz\n🖼  Curves: OUT/curves.png\n", " on 2 workers over ",
				"; shards trained again: 0\n",
			} {
				if !strings.Contains(printed, want) {
					t.Errorf("%q is missing in\n%s", want, printed)
				}
			}
			best, tested := number(t, printed, "Best accuracy: "), number(t, printed, "Loaded again and tested: ")
			if best < 0.9 || best > 1 || tested < 0.9 || tested > 1 {
				t.Errorf("accuracy %v, in the test %v", best, tested)
			}
			lines, _, _ := strings.Cut(printed, "⏱")
			if epochs == "" {
				epochs, model = lines, m
			}
			if lines != epochs || !bytes.Equal(m, model) {
				t.Errorf("it is not what the adapter before came to:\n%s\n%s", lines, epochs)
			}
		})
	}
}

func TestKilledWorkersChangeNothing(t *testing.T) {
	needs(t)
	_, want := train(t, "-adapter", "msgpack", "-workers", "3")
	printed, got := train(t, "-adapter", "msgpack", "-workers", "3", "-kill")
	if !bytes.Equal(got, want) {
		t.Error("the model is another one")
	}
	for _, want := range []string{
		"💥 Epoch 2 of shard 1 is done again: ", "💥 Another coordinator goes on after epoch ",
		"; shards trained again: 1\n",
	} {
		if strings.Count(printed, want) != 1 {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
	if n := strings.Count(printed, "📈 Epoch "); n != 8 {
		t.Errorf("%d epochs are printed, not 8:\n%s", n, printed)
	}
}

// setUp returns trainers on JSON and an epoch to train.
func setUp(t *testing.T, size int) (*trainers, step) {
	needs(t)
	adapter, err := snakepit.Adapters("jsonstdio")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := snakepit.OpenWith(t.Context(), adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
		Size: size, WindowItems: 1, Logger: logger(t.Output()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	o := options{job: job{
		ModelConfig:    modelConfig{"mlp", 1, 8},
		TrainingConfig: trainingConfig{Epochs: 1, BatchSize: 32, LearningRate: 0.1, HalveEvery: 1, Patience: 1},
	}, workers: size, cache: filepath.Join(cache, "snakepit", "distributed-training")}
	data, err := o.open(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.WaitReady(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	o.DatasetPath = data.DatasetPath
	parameters := snakepit.Array{DType: "<f8", Shape: []int{data.Parameters}, Data: make([]byte, 8*data.Parameters)}
	return &trainers{pool: pool, job: o.job, printf: t.Logf}, step{Epoch: 1, LearningRate: 0.1, Parameters: parameters}
}

func kill(t *testing.T, pid int) {
	if process, err := os.FindProcess(pid); err != nil || process.Kill() != nil {
		t.Errorf("process %d could not be killed", pid)
	}
}

func TestALostShardGetsTheNewWorker(t *testing.T) {
	trainers, step1 := setUp(t, 2)
	trainers.observe = func(step, int, doing) {}
	var want, got []trained
	for part, err := range trainers.train(t.Context(), step1) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, part)
	}
	var once sync.Once
	trainers.observe = func(_ step, shard int, d doing) {
		if shard == 1 {
			once.Do(func() { kill(t, d.WorkerPID) })
		}
	}
	for part, err := range trainers.train(t.Context(), step1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part)
	}
	if len(got) != 2 || got[0].Samples+got[1].Samples != 1259 || !reflect.DeepEqual(got, want) {
		t.Error("the epoch came to something else")
	}
	for _, w := range trainers.pool.Stats().Workers {
		if w.Sessions != 1 {
			t.Errorf("worker %d has %d shards, not 1", w.Index, w.Sessions)
		}
	}
	if n := trainers.again.Load(); n != 1 {
		t.Errorf("shards were trained again %d times, not once", n)
	}
}

func TestAShardThatKillsEachWorkerIsGivenUp(t *testing.T) {
	trainers, step1 := setUp(t, 1)
	trainers.observe = func(_ step, _ int, d doing) { kill(t, d.WorkerPID) }
	for _, err := range trainers.train(t.Context(), step1) {
		if !errors.Is(err, snakepit.ErrWorkerLost) ||
			!strings.HasPrefix(err.Error(), "shard 1: train_shard on worker 0 (jsonstdio): ") {
			t.Errorf("got %v", err)
		}
	}
	if n := trainers.again.Load(); n != attempts-1 {
		t.Errorf("the shard was trained again %d times", n)
	}
}

func TestEarlyStop(t *testing.T) {
	needs(t)
	printed, _ := train(t, "-adapter", "jsonstdio", "-workers", "1", "-epochs", "100", "-patience", "2",
		"-halve-every", "1")
	best := int(number(t, printed, "⏹  Stopped early: no epoch was better than "))
	for _, want := range []string{fmt.Sprintf("📈 Epoch %d/100:", best+2), "   LR: 0.05\n", "   LR: 0.025\n",
		"   LR: 0.0125\n"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
	if strings.Contains(printed, fmt.Sprintf("📈 Epoch %d/100:", best+3)) {
		t.Errorf("it went on after epoch %d:\n%s", best+2, printed)
	}
}

func TestBadInput(t *testing.T) {
	needs(t)
	directory := t.TempDir()
	empty, text := filepath.Join(directory, "empty.npz"), filepath.Join(directory, "text.npz")
	for path, content := range map[string]string{empty: "", text: "X,y\n1,2\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"nowhere.npz", 1, "the data set nowhere.npz cannot be read: No such file or directory\n"},
		{empty, 1, empty + " is no .npz file of plain arrays; numpy.savez(file, X=..., y=...) writes one\n"},
		{text, 1, text + " is no .npz file of plain arrays; numpy.savez(file, X=..., y=...) writes one\n"},
		{"-architecture transformer", 1, "there is no architecture 'transformer'; there is mlp\n"},
		{"-workers 1 -learning-rate 1e300", 1, "the training diverged in epoch "},
		{"-out " + text, 1, "the directory for the model cannot be made: mkdir " + text + ": not a directory\n"},
		{"-epochs -1", 2, "-epochs is -1, but it must be at least 1; see distributed-training -h\n"},
		{"-workers 0", 2, "-workers is 0, but it must be at least 1; see distributed-training -h\n"},
		{"-learning-rate -0.1", 2, "-learning-rate is -0.1, but it must be above 0; see distributed-training -h\n"},
		{"a.npz b.npz", 2, "2 data sets are named, but one can be trained on; see distributed-training -h\n"},
		{"-adapter nonsense", 2, "-adapter: "},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(test.args)
		if test.code == 1 {
			args = append([]string{"-adapter", "jsonstdio", "-out", directory}, args...)
		}
		code := run(t.Context(), args, &stdout, &stderr)
		if got := stderr.String(); code != test.code || !strings.HasPrefix(got, "distributed-training: "+test.want) ||
			strings.Count(got, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, got, test.code, test.want)
		}
	}
	for args, want := range map[string]int{"-nonsense": 2, "-h": 0} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{args}, &stdout, &stderr); code != want ||
			!strings.Contains(stderr.String(), "Example: ") {
			t.Errorf("%s: exit code %d, %q", args, code, &stderr)
		}
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
	needs(t)
	directory := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr := &canceller{text: "Epoch 3/", cancel: cancel}, &bytes.Buffer{}
	code := run(ctx, []string{"-adapter", "jsonstdio", "-out", directory, "-epochs", "100000", "-patience", "100000"},
		stdout, stderr)
	if code != 130 || stderr.String() != "distributed-training: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	end := "; the best model until then: " + filepath.Join(directory, "mlp-best.npz") + "\n"
	if !strings.HasSuffix(stdout.String(), end) {
		t.Errorf("%q is missing at the end of\n%s", end, stdout)
	}
	if _, err := os.Stat(filepath.Join(directory, "mlp-best.npz")); err != nil {
		t.Error(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if pids, err := os.ReadFile(thread); err == nil && len(bytes.TrimSpace(pids)) > 0 {
			t.Errorf("processes are left: %s", pids)
		}
	}
	if entries, err := os.ReadDir(directory); err != nil || slices.ContainsFunc(entries, os.DirEntry.IsDir) {
		t.Errorf("unfinished files are left: %v %v", entries, err)
	}
}
