package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit"
)

// column aggregates values in the simplest way.
func column(values []string) Column {
	c := Column{Name: "c", Sum: new(big.Rat), Tally: map[string]int64{}}
	for _, value := range values {
		if value == "" {
			c.Empty++
			continue
		}
		if n, ok := new(big.Rat).SetString(value); ok {
			c.Numbers++
			c.Sum.Add(c.Sum, n)
			if c.Least == nil || n.Cmp(c.Least) < 0 {
				c.Least = n
			}
			if c.Greatest == nil || n.Cmp(c.Greatest) > 0 {
				c.Greatest = n
			}
		} else {
			c.Texts++
			if c.First == nil || value < *c.First {
				c.First = &value
			}
			if c.Last == nil || value > *c.Last {
				c.Last = &value
			}
			c.Longest = max(c.Longest, int64(utf8.RuneCountInString(value)))
		}
		c.Tally[value]++
	}
	if len(c.Tally) > tallyLimit {
		c.Tally = nil
	}
	return c
}

// partOf has a fault for each value.
func partOf(values []string) *part {
	n := int64(len(values))
	return &part{
		Stats:    Stats{Processed: n, Skipped: 2 * n, Errors: n, Columns: []Column{column(values)}},
		faults:   values[:min(len(values), faultsKept)],
		reported: n,
	}
}

func TestMergedPartsEqualTheWhole(t *testing.T) {
	value := rapid.OneOf(
		rapid.SampledFrom([]string{"", "a", "é", "\U0001f600", "\uffff", "0.1", "-7", "1e30"}),
		rapid.StringMatching(`[a-z]{0,3}|-?[0-9]{1,3}(\.[0-9])?`),
	)
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(value, 0, 600).Draw(t, "values")
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(values)), 0, 5).Draw(t, "cuts")
		slices.Sort(cuts)
		var parts []*part
		first := 0
		for _, cut := range append(cuts, len(values)) {
			parts = append(parts, partOf(values[first:cut]))
			first = cut
		}
		if difference := merge(parts).differs(merge([]*part{partOf(values)})); difference != "" {
			t.Fatal(difference)
		}
	})
}

func TestUnfinishedPartsAreLeftOut(t *testing.T) {
	got := merge([]*part{nil, partOf([]string{"a"}), nil})
	if got.done != 1 || got.ranges != 3 || got.Processed != 1 {
		t.Errorf("%d of %d ranges, %d rows", got.done, got.ranges, got.Processed)
	}
}

func TestEveryDifferenceIsFound(t *testing.T) {
	text, number := "other", big.NewRat(1, 3)
	for what, change := range map[string]func(*result){
		"processed rows":         func(r *result) { r.Processed++ },
		"skipped rows":           func(r *result) { r.Skipped++ },
		"errors":                 func(r *result) { r.Errors++ },
		"reported errors":        func(r *result) { r.reported++ },
		"the first errors":       func(r *result) { r.faults = []string{"line 3"} },
		"columns":                func(r *result) { r.Columns = nil },
		"column \"c\", name":     func(r *result) { r.Columns[0].Name = "d" },
		"column \"c\", empty":    func(r *result) { r.Columns[0].Empty++ },
		"column \"c\", numbers":  func(r *result) { r.Columns[0].Numbers++ },
		"column \"c\", sum":      func(r *result) { r.Columns[0].Sum = number },
		"column \"c\", least":    func(r *result) { r.Columns[0].Least = nil },
		"column \"c\", greatest": func(r *result) { r.Columns[0].Greatest = number },
		"column \"c\", texts":    func(r *result) { r.Columns[0].Texts++ },
		"column \"c\", first":    func(r *result) { r.Columns[0].First = &text },
		"column \"c\", last":     func(r *result) { r.Columns[0].Last = nil },
		"column \"c\", longest":  func(r *result) { r.Columns[0].Longest++ },
		"column \"c\", tally":    func(r *result) { r.Columns[0].Tally["a"]++ },
	} {
		values := []string{"", "a", "b", "5"}
		changed := merge([]*part{partOf(values)})
		change(changed)
		if got := changed.differs(merge([]*part{partOf(values)})); !strings.HasPrefix(got, what) {
			t.Errorf("%s: found %q", what, got)
		}
	}
}

func TestProgressInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&console{out: &out}, "processing", 1000)
		for i := range int64(4) {
			time.Sleep(time.Second)
			p.update(0, Chunk{ProcessedRows: 60 * (i + 1), MemoryUsageMB: 20, WorkerPID: 7})
			p.update(1, Chunk{ProcessedRows: 10 * (i + 1), MemoryUsageMB: 30 - float64(i), WorkerPID: 8})
		}
		p.update(1, Chunk{}) // its worker was lost
		p.update(1, Chunk{ProcessedRows: 760, MemoryUsageMB: 9, WorkerPID: 8})
		p.end()
		const want = "processing 13.0 %, 130 of 1,000 rows, 65 rows/s, 30 MiB\n" +
			"processing 20.0 %, 200 of 1,000 rows, 66 rows/s, 29 MiB\n" +
			"processing 100.0 %, 1,000 of 1,000 rows, 250 rows/s, 20 MiB\n"
		if got := out.String(); got != want {
			t.Errorf("got:\n%swant:\n%s", got, want)
		}
	})
}

func TestProgressOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := &console{out: &out, live: true}
		p := newProgress(c, "processing", 1000)
		time.Sleep(time.Second)
		p.update(0, Chunk{ProcessedRows: 15, MemoryUsageMB: 20, WorkerPID: 7})
		c.printf("a line\n")
		p.update(0, Chunk{ProcessedRows: 30, MemoryUsageMB: 20, WorkerPID: 7})
		p.end()
		c.printf("the end\n")
		const first, second = "processing 1.5 %, 15 of 1,000 rows, 15 rows/s, 20 MiB", "processing 3.0 %, 30 of 1,000 rows, 30 rows/s, 20 MiB"
		want := clearLine + first + clearLine + "a line\n" + first + clearLine + second + clearLine + "the end\n"
		if got := out.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAFileIsNoTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newConsole(file).live {
		t.Error("a file has a live line")
	}
}

func TestParallel(t *testing.T) {
	ctx, out := t.Context(), &console{out: &bytes.Buffer{}}
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

const table = "id,note,price\n" + `1,"hello, ""world""",2.50
2,"two
lines",3.25

3,stray " quote,1
4
5,x,-1e2
` + `6,"é
",` + "\n"

// store writes a file that has the table's rows n times.
func store(t *testing.T, n int) string {
	path := filepath.Join(t.TempDir(), "table.csv")
	header, rows, _ := strings.Cut(table, "\n")
	if err := os.WriteFile(path, []byte(header+"\n"+strings.Repeat(rows, n)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheProgram(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"-csv", store(t, 50), "-adapter", "jsonstdio", "-workers", "2", "-once"}
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{
		"200 processed, 150 skipped, 100 errors\n",
		"sum -4712.5; ",
		"skipped: line 6 has a quote or a carriage return where only a quoted field may have one\n",
		"skipped: line 7 has 1 field, but the header has 3\n",
		"and 90 more malformed rows\n",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &stdout)
		}
	}
	last := strings.Fields(stdout.String()[strings.LastIndex(stdout.String(), "\njsonstdio "):])
	if got := []string{last[1], last[2], last[7]}; !slices.Equal(got, []string{"jsonstdio", "350", "yes"}) {
		t.Errorf("the table ends with %q", last)
	}
}

func TestWhatIsWrongIsSaidInASentence(t *testing.T) {
	path := store(t, 1)
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-csv nowhere.csv", 1, "large-dataset: DIR/nowhere.csv cannot be read: No such file or directory\n"},
		{"-csv .", 1, "large-dataset: DIR is not a regular file; name a CSV file\n"},
		{"-csv " + path + " -chunk-size -5", 2, "large-dataset: -chunk-size is -5, but it must be at least 1; see large-dataset -h\n"},
		{"-operations cleen", 2, "large-dataset: -operations has \"cleen\"; there are clean,transform,aggregate; see large-dataset -h\n"},
		{"-operations=", 2, "large-dataset: -operations has \"\"; there are clean,transform,aggregate; see large-dataset -h\n"},
		{"-operations clean,clean", 2, "large-dataset: -operations has \"clean\" twice; see large-dataset -h\n"},
		{"-workers 0", 2, "large-dataset: -workers is 0, but it must be at least 1; see large-dataset -h\n"},
		{"more", 2, "large-dataset: \"more\" is not a flag; see large-dataset -h\n"},
		{"-adapter nonsense", 2, "large-dataset: -adapter: "},
		{"-nonsense", 2, "flag provided but not defined: -nonsense\n"},
		{"-h", 0, usage},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(test.args)
		if args[0] == "-csv" {
			args = append(args, "-adapter", "jsonstdio")
		}
		code := run(t.Context(), args, &stdout, &stderr)
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(stderr.String(), dir, "DIR"); code != test.code || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, got, test.code, test.want)
		}
	}
}

func TestSmallFiles(t *testing.T) {
	for content, want := range map[string][]string{
		"a;b\n": {"table.csv: 4 bytes, 1 column\n", "note: its header \"a;b\" is one column", "\n0 rows in ", "0 rows/s\n", "  -"},
		"a,b\n1,x\n" + strings.Repeat("2", 1100) + "\n": {
			"table.csv: 1.1 kB, 2 columns\n", "\n2 rows in ", " at most\n", "1 processed, 1 skipped, 1 error\n", "1 text  ", "skipped: line 3 has 1 field, but",
		},
	} {
		path := filepath.Join(t.TempDir(), "table.csv")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"-csv", path, "-adapter", "jsonstdio", "-workers", "1", "-once"}, &stdout, &stderr); code != 0 {
			t.Errorf("exit code %d: %s", code, &stderr)
		}
		for _, part := range want {
			if !strings.Contains(stdout.String(), part) {
				t.Errorf("%q is missing in:\n%s", part, &stdout)
			}
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

func TestALostWorkersRangeIsRunAgain(t *testing.T) {
	pool, out := smallWindow(t), &console{out: &bytes.Buffer{}}
	j := job{FilePath: store(t, 100), ChunkSize: 1, Operations: []string{"clean", "transform", "aggregate"}}
	want, err := j.run(t.Context(), pool, out, func(float64, Chunk) {})
	if err != nil {
		t.Fatal(err)
	}
	kill := demo{console: out}.killer()
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

func TestAnInterruptKeepsWhatIsFinished(t *testing.T) {
	pool, out := smallWindow(t), &console{out: &bytes.Buffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	j := job{FilePath: store(t, 100), ChunkSize: 1, Operations: []string{"aggregate"}}
	result, err := j.run(ctx, pool, out, func(share float64, _ Chunk) {
		if share > 0.5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if result.done == 0 || result.done == result.ranges || result.rows() == 0 {
		t.Errorf("%d of %d ranges with %d rows are finished", result.done, result.ranges, result.rows())
	}
}

func TestPeakMemory(t *testing.T) {
	if mib := peakMemory(); mib < 1 {
		t.Errorf("%f MiB", mib)
	}
}
