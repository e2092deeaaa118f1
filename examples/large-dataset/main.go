// Command large-dataset runs one job, statistics of a large CSV file, on a pool of Python workers: first on the default chain of protocols,
// then on MessagePack, on JSON, where gRPC can't be had, and with a worker that is killed midway. Each time the results are compared
// with those of one plain pass over the file, and a difference is exit code 1.
//
// Start with job.go: it has all that a program needs to do such a job. This file is the demonstration around it.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/python"
)

//go:embed worker.py operations.py progress.py ranges.py reference.py unicode_csv.py
var files embed.FS

const usage = `Usage: large-dataset [flags]

Computes statistics of a CSV file on a pool of Python workers, once for each protocol and failure that there is to show, and compares each
run with one plain pass over the file. Without -csv the file is the Unicode character database, written from Python's unicodedata.

Example: large-dataset -csv sales.csv -adapter msgpack,jsonstdio -operations clean,aggregate -once

`

// demo is what the flags say.
type demo struct {
	job
	adapters string // for snakepit.Adapters
	workers  int
	once     bool
	console  *console
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 if all runs were equal to the reference, 1 if not or if something failed, 2 for wrong flags, 130 when ctx
// ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	d := demo{console: newConsole(stdout)}
	flags := flag.NewFlagSet("large-dataset", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&d.FilePath, "csv", "", "the CSV `file`, in UTF-8; its first line names the columns (default: the Unicode database)")
	flags.StringVar(&d.adapters, "adapter", "auto", "the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	flags.IntVar(&d.workers, "workers", 4, "the number of workers")
	flags.IntVar(&d.ChunkSize, "chunk-size", 10_000, "the `rows` between two reports of progress")
	operations := flags.String("operations", strings.Join(knownOperations, ","), "what to do with the rows, in this order; see README.md")
	flags.BoolVar(&d.once, "once", false, "do only the first run")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "large-dataset: "+format+"; see large-dataset -h\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return misuse("%q is not a flag", flags.Arg(0))
	}
	if d.workers < 1 {
		return misuse("-workers is %d, but it must be at least 1", d.workers)
	}
	if _, err := snakepit.Adapters(d.adapters); err != nil {
		return misuse("-adapter: %v", err)
	}
	if d.ChunkSize < 1 {
		return misuse("-chunk-size is %d, but it must be at least 1", d.ChunkSize)
	}
	d.Operations = strings.Split(*operations, ",")
	for i, name := range d.Operations {
		switch {
		case !slices.Contains(knownOperations, name):
			return misuse("-operations has %q; there are %s", name, strings.Join(knownOperations, ","))
		case slices.Contains(d.Operations[:i], name):
			return misuse("-operations has %q twice", name)
		}
	}

	err := d.run(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "large-dataset: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "large-dataset:", explain(err))
		return 1
	}
	return 0
}

// explain leaves out of an exception in Python what only its programmer wants to know.
func explain(err error) string {
	var start *snakepit.StartError
	var remote *snakepit.RemoteError
	if !errors.As(err, &start) && errors.As(err, &remote) {
		return remote.Message
	}
	return err.Error()
}

// variant is one of the demonstration's runs.
type variant struct {
	name     string
	adapters string
	bare     bool // with a Python that has no packages
	kill     bool // with a worker killed midway
}

// run does the reference and then all the runs.
func (d demo) run(ctx context.Context) error {
	variants := []variant{
		{name: "the default chain"},
		{name: "MessagePack", adapters: "msgpack"},
		{name: "JSON on stdio", adapters: "jsonstdio"},
		{name: "gRPC made unavailable", bare: true},
		{name: "a worker killed midway", kill: true},
	}
	if d.adapters != "auto" {
		variants[0].name = d.adapters
	}
	if d.once {
		variants = variants[:1]
	}
	temp, err := os.MkdirTemp("", "large-dataset-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	var table [][]any
	d.console.printf("== one plain pass, to compare with\n")
	reference, bare, err := d.prepare(ctx, temp)
	if err != nil {
		return err
	}
	table = append(table, reference.row("one plain pass", "-"))
	var failures []error
	for i, v := range variants {
		d.console.printf("\n== %s\n", v.name)
		if v.adapters == "" {
			v.adapters = d.adapters
		}
		result, err := d.variant(ctx, v, bare)
		if ctx.Err() != nil {
			if result != nil {
				d.console.printf("interrupted: %d of %d ranges were finished\n", result.done, result.ranges)
				result.print(d.console)
			}
			return err
		}
		if err != nil {
			d.console.printf("failed: %s\n", explain(err))
			failures = append(failures, fmt.Errorf("%s failed: %s", v.name, explain(err)))
			table = append(table, []any{v.name, "-", "-", "-", "-", "-", "failed"})
			continue
		}
		result.report(d.console)
		verdict, difference := "yes", result.differs(reference)
		if i == 0 || difference != "" { // the others are the same
			result.print(d.console)
		}
		if difference != "" {
			verdict = "NO"
			d.console.printf("NOT equal to the plain pass: %s\n", difference)
			failures = append(failures, fmt.Errorf("%s: the result is not equal to the plain pass: %s", v.name, difference))
		}
		table = append(table, result.row(v.name, verdict))
	}
	d.console.printf("\n")
	d.console.table([]any{"run", "adapters", "rows", "time", "rows/s", "a worker takes", "equal"}, table)
	d.console.printf("peak memory of this program: %.0f MiB\n", peakMemory())
	return errors.Join(failures...)
}

// prepare finds the file, or has it written, and does the reference. It also makes an interpreter without packages, in temp.
func (d *demo) prepare(ctx context.Context, temp string) (*result, string, error) {
	pool, err := d.open(ctx, snakepit.PythonFS(files, "worker.py"), d.adapters, 1)
	if err != nil {
		return nil, "", err
	}
	defer pool.Close()
	if d.FilePath == "" {
		d.FilePath, err = d.unicode(ctx, pool)
	} else {
		d.FilePath, err = filepath.Abs(d.FilePath)
	}
	if err != nil {
		return nil, "", err
	}
	data, err := snakepit.Execute[dataset](ctx, pool, "open_dataset", d.job)
	if err != nil {
		return nil, "", err
	}
	d.console.printf("%s: %s, %s\n", d.FilePath, size(data.End), some(int64(len(data.Columns)), "column"))
	if len(data.Columns) == 1 && strings.ContainsAny(data.Columns[0], ";\t|") {
		d.console.printf("note: its header %s is one column, because it has no comma; other separators are not known here\n", short(data.Columns[0]))
	}
	reference, err := d.reference(ctx, pool, data, d.console)
	if err != nil {
		return nil, "", err
	}
	reference.report(d.console)
	var bare string
	if !d.once {
		bare, err = snakepit.Execute[string](ctx, pool, "empty_environment", filepath.Join(temp, "venv"))
	}
	return reference, bare, err
}

// unicode returns the Unicode database's file; a worker writes it the first time.
func (d *demo) unicode(ctx context.Context, pool *snakepit.Pool) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	progress := newProgress(d.console, "writing the file", 0)
	defer progress.end()
	var path string
	folder := filepath.Join(cache, "snakepit", "large-dataset")
	for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, "write_unicode", folder, snakepit.Result(&path)) {
		if err != nil {
			return "", err
		}
		progress.total = chunk.TotalRows
		progress.update(0, chunk)
	}
	return path, nil
}

// variant does one run and prints its results.
func (d demo) variant(ctx context.Context, v variant, bare string) (*result, error) {
	program := snakepit.PythonFS(files, "worker.py")
	if v.bare {
		d.console.printf("Python is a new virtual environment without packages: %s\n", bare)
		program.Interpreter, program.Env = bare, []string{"PYTHONPATH="}
	}
	pool, err := d.open(ctx, program, v.adapters, d.workers)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.WaitReady(ctx, 0); err != nil {
		return nil, err
	}
	d.verdict(pool)
	observe := func(float64, Chunk) {}
	if v.kill {
		observe = d.killer()
	}
	result, err := d.job.run(ctx, pool, d.console, observe)
	if result != nil {
		result.adapters = adapters(pool)
	}
	if v.kill && err == nil && result.reruns == 0 {
		d.console.printf("nothing was lost: the file is too small to kill a worker while it is busy\n")
	}
	return result, err
}

// killer kills a worker when a third of the rows is done, and its range not half, so that there is something to lose.
func (d demo) killer() func(float64, Chunk) {
	var once sync.Once
	return func(share float64, c Chunk) {
		if share < 1.0/3 || c.ProgressPercent > 50 {
			return
		}
		once.Do(func() {
			d.console.printf("killing process %d\n", c.WorkerPID)
			if worker, err := os.FindProcess(c.WorkerPID); err != nil || worker.Kill() != nil {
				d.console.printf("process %d could not be killed\n", c.WorkerPID)
			}
		})
	}
}

// open starts a pool that has no time limits: a large file takes as long as it takes.
func (d demo) open(ctx context.Context, program python.Program, names string, size int) (*snakepit.Pool, error) {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // what matters is printed below
	}
	options := &snakepit.Options{
		Size: size, CallTimeout: -1, StreamTimeout: -1, Queue: rangesPerWorker * size,
		Logger: hclog.New(&hclog.LoggerOptions{Output: d.console, Level: level}),
	}
	adapter, err := snakepit.Adapters(names)
	if err != nil {
		return nil, err
	}
	return snakepit.OpenWith(ctx, adapter, program, options)
}

// verdict prints what each worker speaks, and why nothing better.
func (d demo) verdict(pool *snakepit.Pool) {
	var refusals []string
	for _, w := range pool.Workers() {
		info := w.Info()
		d.console.printf("%s: %s, pid %d, %s\n", w, info.Adapter, info.PID, info.Runtime)
		for _, r := range info.Refused {
			if line := fmt.Sprintf("  not %s: %v\n", r.Adapter, r.Err); !slices.Contains(refusals, line) {
				refusals = append(refusals, line)
			}
		}
	}
	d.console.printf("%s", strings.Join(refusals, ""))
}

// adapters names what a pool's workers speak.
func adapters(pool *snakepit.Pool) string {
	var names []string
	for _, w := range pool.Stats().Workers {
		if w.Adapter != "" && !slices.Contains(names, w.Adapter) {
			names = append(names, w.Adapter)
		}
	}
	return strings.Join(names, ",")
}
