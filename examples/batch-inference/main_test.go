package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
)

// The tests share the user's cache directory and a pool, because scikit-learn takes seconds to import. Each run
// of the tests trains the model and writes the images once, in that directory.
var (
	cache  string
	shared *snakepit.Pool
)

func TestMain(m *testing.M) {
	var err error
	if cache, err = os.MkdirTemp("", ""); err != nil {
		panic(err)
	}
	os.Setenv("XDG_CACHE_HOME", cache) // the variable of Linux
	code := m.Run()
	if shared != nil {
		shared.Close()
	}
	os.RemoveAll(cache)
	os.Exit(code)
}

// open returns the shared pool and its job.
func open(t *testing.T) (*snakepit.Pool, batch) {
	t.Helper()
	if shared == nil {
		adapter, err := snakepit.Adapters("jsonstdio")
		if err != nil {
			t.Fatal(err)
		}
		shared, err = snakepit.OpenWith(t.Context(), adapter, snakepit.PythonFS(files, "worker.py"),
			&snakepit.Options{Size: 2})
		if err != nil && os.Getenv("SNAKEPIT_PYTHON") == "" {
			t.Skipf("SNAKEPIT_PYTHON is not set, and this Python will not do: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	job, err := snakepit.Execute[batch](t.Context(), shared, "prepare", directory(), snakepit.Timeout(2*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return shared, job
}

// directory is where the program keeps its files.
func directory() string { return filepath.Join(cache, "snakepit", "batch-inference") }

// classify runs the program and returns its lines. It sorts the lines about images, because their order varies.
func classify(t *testing.T, args ...string) []string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if strings.ContainsAny(stdout.String(), "\x1b\r") {
		t.Error("what is printed has a bar, though it is for no terminal")
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		if strings.HasPrefix(a, "🧠") && strings.HasPrefix(b, "🧠") {
			return strings.Compare(a, b)
		}
		return strings.Compare(a[:4], b[:4])
	})
	return lines
}

var prediction = regexp.MustCompile(`^🧠 digit-\d{4}-is-\d\.png: \d \((\d+)% confidence\)(, but it is \d)?$`)

func TestOnEachAdapter(t *testing.T) {
	open(t)
	var before []string
	for adapter, workers := range map[string]int{"grpc": 2, "msgpack": 1, "jsonstdio": 2, "auto": 1} {
		t.Run(adapter, func(t *testing.T) {
			lines := classify(t, "-adapter", adapter, "-workers", strconv.Itoa(workers))
			var predictions []string
			for _, line := range lines {
				if prediction.MatchString(line) {
					predictions = append(predictions, line)
				}
			}
			right, predicted, loads := 0, 0, 0
			all := strings.Join(lines, "\n")
			_, accuracy, _ := strings.Cut(all, "🎯 Accuracy: ")
			_, accuracy, _ = strings.Cut(accuracy, "% ")
			if _, err := fmt.Sscanf(accuracy, "(%d of %d)", &right, &predicted); err != nil {
				t.Errorf("accuracy %q: %v", accuracy, err)
			}
			if predicted != 599 || len(predictions) != 599 || right < 570 ||
				right != 599-strings.Count(all, ", but it is") {
				t.Errorf("%d of %d right, %d predictions", right, predicted, len(predictions))
			}
			_, end, _ := strings.Cut(all,
				"🎉 Batch inference complete! 599 predictions; failed: 1; loads of the model: ")
			if _, err := fmt.Sscan(end, &loads); err != nil || loads < 1 || loads > workers {
				t.Errorf("%d workers loaded the model %d times, error %v", workers, loads, err)
			}
			for _, want := range []string{
				"❌ " + filepath.Join(directory(), "held-out", "broken.png") +
					" is no image that can be read: image file is truncated\n",
				fmt.Sprintf("📦 600 images, %d workers on ", workers), "First prediction after ",
			} {
				if !strings.Contains(all, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if before != nil && !slices.Equal(predictions, before) {
				t.Error("the predictions are not those of the adapter before")
			}
			before = predictions
		})
	}
}

// repaint stores a digit in another style: black on white, larger and as JPEG.
func repaint(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	digit, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	inverted := image.NewRGBA(image.Rect(0, 0, 200, 200))
	for x := range 200 {
		for y := range 200 {
			v := 255 - digit.At(x*64/200, y*64/200).(color.Gray).Y
			inverted.Set(x, y, color.Gray{Y: v})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, inverted, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOwnImagesAndModel(t *testing.T) {
	_, job := open(t)
	held, own := filepath.Join(directory(), "held-out"), t.TempDir()
	repaint(t, filepath.Join(held, "digit-0050-is-2.png"), filepath.Join(own, "a.jpg"))
	repaint(t, filepath.Join(held, "digit-1723-is-1.png"), filepath.Join(own, "b.jpg"))
	model := filepath.Join(own, ".mine")
	content, err := os.ReadFile(job.ModelPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(model, content, 0o600); err != nil {
		t.Fatal(err)
	}
	lines := classify(t, "-adapter", "jsonstdio", "-workers", "1", "-model", model, own,
		filepath.Join(held, "digit-0050-is-2.png"))
	for _, want := range []string{
		"📦 3 images, 1 workers on jsonstdio, model " + model, "🧠 a.jpg: 2 (", "🧠 b.jpg: 1 (",
		"🧠 digit-0050-is-2.png: 2 (",
	} {
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("%q is missing in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

func TestBadInput(t *testing.T) {
	open(t)
	empty, text := t.TempDir(), filepath.Join(t.TempDir(), "text.png")
	if err := os.WriteFile(text, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"nowhere.png", 1, "batch-inference: nowhere.png cannot be read: no such file or directory\n"},
		{empty, 1, "batch-inference: the directory " + empty + " has no files; name one that has images\n"},
		{text, 1, "batch-inference: none of the images could be read\n"},
		{"-model nowhere " + text, 1, "batch-inference: the model nowhere cannot be read: No such file or directory\n"},
		{"-model " + text + " " + text, 1, "batch-inference: " + text + " is no model that joblib can load ("},
		{"-workers 0", 2, "batch-inference: -workers is 0, but it must be at least 1; see batch-inference -h\n"},
		{"-adapter nonsense", 2, "batch-inference: -adapter: "},
		{"-nonsense", 2, "flag provided but not defined: -nonsense\n"},
		{"-h", 0, usage},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(test.args)
		if test.code == 1 {
			args = append([]string{"-adapter", "jsonstdio", "-workers", "1"}, args...)
		}
		code := run(t.Context(), args, &stdout, &stderr)
		if code != test.code || !strings.HasPrefix(stderr.String(), test.want) ||
			test.code == 1 && strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, &stderr, test.code, test.want)
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
	open(t)
	before := children(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr := &canceller{text: "🧠", cancel: cancel}, &bytes.Buffer{}
	code := run(ctx, []string{"-adapter", "jsonstdio", "-workers", "2"}, stdout, stderr)
	if code != 130 || stderr.String() != "batch-inference: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	for _, want := range []string{"\n🧠 digit-", "\nEnded early: ", "\n🎯 Accuracy: ", "First prediction after "} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	for _, pid := range children(t) {
		if !slices.Contains(before, pid) {
			t.Errorf("process %s is left", pid)
		}
	}
}

// children returns the child processes of this process, on Linux.
func children(t *testing.T) []string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, thread := range threads {
		if some, err := os.ReadFile(thread); err == nil { // otherwise the thread has ended
			pids = append(pids, strings.Fields(string(some))...)
		}
	}
	return pids
}

// TestMergedStreams leaves the merged sequence early, as a caller may.
func TestMergedStreams(t *testing.T) {
	pool, job := open(t)
	var total Summary
	n := 0
	for _, err := range predict(t.Context(), pool, job, &total) {
		var item *snakepit.ItemError
		if err != nil && !errors.As(err, &item) {
			t.Error(err)
		}
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Errorf("%d predictions before the break", n)
	}
	job.ModelPath = "nowhere"
	n = 0
	for _, err := range predict(t.Context(), pool, job, &total) {
		if n++; err == nil {
			t.Error("a prediction without a model")
		}
	}
	if n != 1 {
		t.Errorf("%d errors, though the first is the last", n)
	}
}
