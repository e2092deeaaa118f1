package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/python"
)

// TestMain skips the tests if there is no pandas. If an interpreter is named, it must have pandas.
func TestMain(m *testing.M) {
	cmd, err := python.Program{Script: "worker.py"}.Command()
	if err == nil {
		err = exec.Command(cmd.Path, "-c", "import pandas").Run()
	}
	if err != nil && os.Getenv("SNAKEPIT_PYTHON") == "" {
		fmt.Println("skipped: no Python with pandas was found; make install-examples installs it, and "+
			"SNAKEPIT_PYTHON names one:", err)
		return
	}
	os.Exit(m.Run())
}

const table = "id,note,price\n" + `1,"hello, ""world""",2.50
2,"two
lines",3.25

3,stray " quote,1
4
5,x,-1e2
` + `6,"é
",` + "\n"

// store writes a file with the table's rows, n times.
func store(t *testing.T, n int) string {
	path := filepath.Join(t.TempDir(), "table.csv")
	header, rows, _ := strings.Cut(table, "\n")
	if err := os.WriteFile(path, []byte(header+"\n"+strings.Repeat(rows, n)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnEachAdapter(t *testing.T) {
	path := store(t, 50)
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"-csv", path, "-adapter", adapter, "-workers", "2", "-runs", "chain"},
				&stdout, &stderr); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
			}
			for _, want := range []string{
				"200 processed, 150 skipped, 100 errors\n",
				"-100 to 3.25, mean -31.42, sum -4712.5\n",
				"skipped: line 6 has a quote or a carriage return where only a quoted field may have one\n",
				"skipped: line 7 has 1 field, but the header has 3\n",
				"and 90 more malformed rows\n",
			} {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, &stdout)
				}
			}
			last := strings.Fields(stdout.String()[strings.LastIndex(stdout.String(), "\nthe default chain "):])
			if last[4] != "350" || last[len(last)-8] == "" || !strings.Contains(stdout.String(), " yes\npeak memory") {
				t.Errorf("the table ends with %q", last)
			}
		})
	}
}

func TestWithoutGRPC(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-csv", store(t, 50), "-workers", "1", "-runs", "fallback"}, &stdout,
		&stderr); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{"worker 0: jsonstdio, ", "  not grpc: ", "  not msgpack: ", "No module named 'grpc'",
		" yes\npeak memory"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &stdout)
		}
	}
}

func TestBadInput(t *testing.T) {
	path, empty := store(t, 1), filepath.Join(t.TempDir(), "empty.csv")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-csv nowhere.csv", 1, "DIR/nowhere.csv cannot be read: No such file or directory\n"},
		{"-csv .", 1, "DIR is not a regular file; name a CSV file\n"},
		{"-csv " + empty, 1, empty + " is empty; its first line must name the columns\n"},
		{"-csv " + path + " -text prize", 1, path + " has no column 'prize'; it has id, note, price\n"},
		{"-csv " + path + " -operations cleen", 1,
			"there is no operation 'cleen'; there are clean, transform, aggregate; add yours to operations.py\n"},
		{"-chunk-size -5", 2, "-chunk-size is -5, but it must be at least 1; see large-dataset -h\n"},
		{"-runs twice", 2, "-runs has \"twice\"; there are chain,msgpack,json,fallback,kill; see large-dataset -h\n"},
		{"-workers 0", 2, "-workers is 0, but it must be at least 1; see large-dataset -h\n"},
		{"more", 2, "\"more\" is not a flag; see large-dataset -h\n"},
		{"-adapter nonsense", 2, "-adapter: "},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(test.args)
		if test.code == 1 {
			args = append(args, "-adapter", "jsonstdio")
		}
		code := run(t.Context(), args, &stdout, &stderr)
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(stderr.String(), dir, "DIR")
		if code != test.code || !strings.HasPrefix(got, "large-dataset: "+test.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, got, test.code, test.want)
		}
	}
	for args, code := range map[string]int{"-h": 0, "-nonsense": 2} {
		var stderr bytes.Buffer
		if got := run(t.Context(), []string{args}, &bytes.Buffer{}, &stderr); got != code ||
			!strings.Contains(stderr.String(), usage) {
			t.Errorf("%s: exit code %d, %s", args, got, &stderr)
		}
	}
}

// smallWindow opens a pool whose workers cannot run ahead of their consumer.
func smallWindow(t *testing.T) *snakepit.Pool {
	adapter, err := snakepit.Adapters("jsonstdio")
	if err != nil {
		t.Fatal(err)
	}
	options := &snakepit.Options{Size: 2, WindowItems: 1}
	pool, err := snakepit.OpenWith(t.Context(), adapter, snakepit.PythonFS(files, "worker.py"), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func quiet() *screen { return newScreen(&bytes.Buffer{}) }

func TestALostWorkersRangeIsRunAgain(t *testing.T) {
	pool, out := smallWindow(t), quiet()
	j := job{store(t, 100), 1, []string{"clean", "transform", "aggregate"}, []string{}}
	want, err := j.run(t.Context(), pool, out, func(float64, Chunk) {})
	if err != nil {
		t.Fatal(err)
	}
	kill := (&demo{out: out}).killer()
	got, err := j.run(t.Context(), pool, out, kill)
	if err != nil {
		t.Fatal(err)
	}
	if got.reruns != 1 || want.reruns != 0 {
		t.Errorf("%d reruns, without a kill %d", got.reruns, want.reruns)
	}
	if difference := got.differs(want); difference != "" {
		t.Error(difference)
	}
}

func TestInterrupt(t *testing.T) {
	pool, out := smallWindow(t), quiet()
	ctx, cancel := context.WithCancel(t.Context())
	j := job{store(t, 100), 1, []string{"aggregate"}, []string{}}
	result, err := j.run(ctx, pool, out, func(share float64, _ Chunk) {
		if share > 0.5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	rows := result.Stats.Processed + result.Stats.Skipped
	if result.done == 0 || result.done == result.parts || rows == 0 || len(result.Stats.Aggregates) != 1 {
		t.Errorf("%d of %d ranges with %d rows are finished", result.done, result.parts, rows)
	}

	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"-csv", j.FilePath}, &stdout, &stderr); code != 130 ||
		stderr.String() != "large-dataset: interrupted\n" {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
}

func TestEveryDifferenceIsFound(t *testing.T) {
	number, text := 1.5, "a"
	sample := func() *result {
		column := Column{Name: "c", Sum: "1.5", Least: &number, First: &text, Tally: map[string]int64{"a": 1}}
		return &result{Stats: Stats{1, 2, 3, [][]Column{{column}}}, faults: []string{"line 2"}}
	}
	for _, change := range []func(*result){
		func(r *result) { r.Stats.Processed++ },
		func(r *result) { r.Stats.Skipped++ },
		func(r *result) { r.Stats.Errors++ },
		func(r *result) { r.faults = nil },
		func(r *result) { r.faults[0] = "line 3" },
		func(r *result) { r.Stats.Aggregates = nil },
		func(r *result) { r.Stats.Aggregates[0][0].Sum = "2" },
		func(r *result) { r.Stats.Aggregates[0][0].Least = nil },
		func(r *result) { r.Stats.Aggregates[0][0].First = nil },
		func(r *result) { r.Stats.Aggregates[0][0].Tally["a"]++ },
		func(r *result) { r.Stats.Aggregates[0][0].Tally = nil },
	} {
		changed := sample()
		if difference := changed.differs(sample()); difference != "" {
			t.Fatal(difference)
		}
		change(changed)
		if changed.differs(sample()) == "" {
			t.Errorf("no difference in %v", changed.facts())
		}
	}
}

func TestProgressInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newScreen(&out).progress("processing", 1000)
		for i := range int64(4) {
			time.Sleep(time.Second)
			p.update(0, Chunk{ProcessedRows: 60 * (i + 1), MemoryUsageMB: 20, WorkerPID: 7})
			p.update(1, Chunk{ProcessedRows: 10 * (i + 1), MemoryUsageMB: 30 - float64(i), WorkerPID: 8})
		}
		p.update(1, Chunk{}) // its worker was lost
		p.update(1, Chunk{ProcessedRows: 760, MemoryUsageMB: 9, WorkerPID: 8})
		p.end()
		const want = "processing  13 %, 130 of 1,000 rows, 65 rows/s, 30 MiB\n" +
			"processing  20 %, 200 of 1,000 rows, 66 rows/s, 29 MiB\n" +
			"processing 100 %, 1,000 of 1,000 rows, 250 rows/s, 20 MiB\n"
		if got := out.String(); got != want {
			t.Errorf("got:\n%swant:\n%s", got, want)
		}
	})
}

func TestAFileIsNoTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newScreen(file).terminal != nil {
		t.Error("a file has a bar")
	}
}

func TestParallel(t *testing.T) {
	ctx, out := t.Context(), quiet()
	lost := fmt.Errorf("call: %w", snakepit.ErrWorkerLost)

	var calls [3]atomic.Int32
	reruns, err := parallel(ctx, 3, out, func(_ context.Context, i int) error {
		if calls[i].Add(1) < int32(i+1) {
			return lost
		}
		return nil
	})
	if err != nil || reruns != 3 {
		t.Errorf("lost workers: %d reruns, error %v", reruns, err)
	}

	reruns, err = parallel(ctx, 1, out, func(context.Context, int) error { return lost })
	if !errors.Is(err, snakepit.ErrWorkerLost) || reruns != attempts-1 {
		t.Errorf("a range that kills each worker: %d reruns, error %v", reruns, err)
	}

	broken := errors.New("broken")
	_, err = parallel(ctx, 2, out, func(ctx context.Context, i int) error {
		if i == 0 {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) || err.Error() != "range 1 of 2: broken" {
		t.Errorf("got %v", err)
	}
}

func TestPeakMemory(t *testing.T) {
	if mib := peakMemory(); mib < 1 {
		t.Errorf("%f MiB", mib)
	}
}
