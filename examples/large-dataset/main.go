// Command large-dataset computes statistics of a large CSV file on a pool of Python workers with pandas. It
// runs the same job several times: on the default chain of protocols, on MessagePack, on JSON, where gRPC is
// unavailable, and with a worker that is killed midway. Each result is compared with that of one plain pass
// over the file. A difference gives exit code 1.
//
// Start with job.go: it has everything that a program needs for such a job. This file is the demonstration around it.
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
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
	"github.com/snakepit-go/snakepit/python"
)

//go:embed worker.py operations.py progress.py ranges.py reference.py table.py unicode_csv.py
var files embed.FS

const usage = `Usage: large-dataset [flags]

Computes statistics of a CSV file on a pool of Python workers. It makes one run for each protocol and each failure, and
compares each with one plain pass over the file. The default file is the Unicode character database, written from
Python's unicodedata.

Example: large-dataset -csv sales.csv -adapter msgpack,jsonstdio -operations clean,aggregate -runs chain

`

// variant is one run of the demonstration.
type variant struct {
	name, title string
	shows       string // what the run shows, a sentence
	adapters    string
	bare        bool // use a Python without grpcio and msgpack
	kill        bool // kill a worker midway
}

var variants = []variant{
	{
		name: "chain", title: "the default chain",
		shows: "The pool takes the first protocol that works: gRPC, where it is installed.",
	},
	{
		name: "msgpack", title: "MessagePack", adapters: "msgpack",
		shows: "The same program and the same result on another protocol.",
	},
	{
		name: "json", title: "JSON on stdio", adapters: "jsonstdio",
		shows: "The same on a protocol that needs no Python package.",
	},
	{
		name: "fallback", title: "gRPC made unavailable", bare: true,
		shows: "Where a protocol is unavailable, the pool takes the next one and says why.",
	},
	{
		name: "kill", title: "a worker killed midway", kill: true,
		shows: "A lost worker costs its unfinished range, which is run again. The host and the result are unharmed.",
	},
}

// demo holds the flags.
type demo struct {
	job
	adapters string // for snakepit.Adapters
	workers  int
	runs     []variant
	out      *screen
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 if all runs are equal to the reference, 1 for a difference or an error, 2 for
// wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var d demo
	var names []string
	list := func(to *[]string) func(string) error {
		return func(s string) error {
			*to = slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
			return nil
		}
	}
	for _, v := range variants {
		names = append(names, v.name)
	}
	all := strings.Join(names, ",")
	d.Operations, d.TextColumns = []string{"clean", "transform", "aggregate"}, []string{}
	flags := flag.NewFlagSet("large-dataset", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&d.FilePath, "csv", "",
		"the CSV `file`, in UTF-8; its first line names the columns (default: the Unicode database)")
	flags.StringVar(&d.adapters, "adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	flags.IntVar(&d.workers, "workers", 4, "the number of workers")
	flags.IntVar(&d.ChunkSize, "chunk-size", 10_000,
		"the `rows` that an operation gets at once, and between two reports of progress")
	flags.Func("operations", "`what` to do with the rows, in this order; see operations.py (default "+
		"clean,transform,aggregate)", list(&d.Operations))
	flags.Func("text", "the `columns` that hold text, even if they look like numbers", list(&d.TextColumns))
	flags.Func("runs", "`which` of the runs to do (default "+all+")", list(&names))
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
	for _, name := range names {
		i := slices.IndexFunc(variants, func(v variant) bool { return v.name == name })
		if i < 0 {
			return misuse("-runs has %q; there are %s", name, all)
		}
		d.runs = append(d.runs, variants[i])
	}

	d.out = newScreen(stdout)
	err := d.run(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "large-dataset: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "large-dataset:", explain.Error(err))
		return 1
	}
	return 0
}

// run does the reference and then all the runs.
func (d *demo) run(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "large-dataset-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	d.out.printf("== the baseline: one plain pass\n" +
		"One process reads the whole file with Python's csv.reader, without pandas. It checks the results\n" +
		"and does not measure speed: the runs below use pandas.\n")
	reference, bare, err := d.prepare(ctx, temp)
	if err != nil {
		return err
	}
	reference.adapters = "-" // it needs no pool
	table := [][]string{{"run", "adapters", "rows", "time", "rows/s", "memory of a worker", "equal"},
		reference.row("baseline, csv.reader", "-")}
	var failures []error
	for i, v := range d.runs {
		d.out.printf("\n== %s\n%s\n", v.title, v.shows)
		result, err := d.variant(ctx, v, bare)
		if ctx.Err() != nil {
			if result != nil {
				d.out.printf("interrupted: %d of %d ranges were finished\n", result.done, result.parts)
				result.print(d.out)
			}
			return ctx.Err()
		}
		if err != nil {
			d.out.printf("failed: %s\n", explain.Error(err))
			failures = append(failures, fmt.Errorf("%s failed: %s", v.title, explain.Error(err)))
			table = append(table, []string{v.title, "-", "-", "-", "-", "-", "failed"})
			continue
		}
		verdict, difference := "yes", result.differs(reference)
		if i == 0 || difference != "" { // the others are the same
			result.print(d.out)
		}
		if difference != "" {
			verdict = "NO"
			failures = append(failures, fmt.Errorf("%s: the result is not equal to the plain pass: %s", v.title,
				difference))
		}
		table = append(table, result.row(v.title, verdict))
	}
	d.out.printf("\n")
	d.out.table(table)
	d.out.printf("peak memory of this program: %.0f MiB\n", peakMemory())
	if len(failures) == 0 && len(d.runs) > 0 {
		d.out.printf("\n%s\nnext: docs/quickstart.md has a call and a stream, in two files of your own\n",
			d.out.green(conclusion(len(d.runs))))
	}
	return errors.Join(failures...)
}

// conclusion says what the runs have shown, in one sentence.
func conclusion(runs int) string {
	if runs == 1 {
		return "The result of the run is equal to the baseline."
	}
	return fmt.Sprintf("All %d results are equal to the baseline.", runs)
}

// prepare finds the file or has a worker write it, and does the reference. It also creates an interpreter
// without gRPC in temp.
func (d *demo) prepare(ctx context.Context, temp string) (reference *result, bare string, err error) {
	pool, err := d.open(ctx, snakepit.PythonFS(files, "worker.py"), d.adapters, 1)
	if err != nil {
		return nil, "", err
	}
	defer pool.Close()
	if d.FilePath == "" {
		d.out.printf("The file is the Unicode database: a row for each code point, a column for each property.\n")
		d.FilePath, err = d.unicode(ctx, pool)
	} else {
		d.FilePath, err = filepath.Abs(d.FilePath)
	}
	if err != nil {
		return nil, "", err
	}
	if reference, err = d.reference(ctx, pool, d.out); err != nil {
		return nil, "", err
	}
	if slices.ContainsFunc(d.runs, func(v variant) bool { return v.bare }) {
		bare, err = snakepit.Execute[string](ctx, pool, "environment_without_grpc", filepath.Join(temp, "venv"))
	}
	return reference, bare, err
}

// unicode returns the Unicode database's file. A worker writes it the first time.
func (d *demo) unicode(ctx context.Context, pool *snakepit.Pool) (path string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	directory := filepath.Join(cache, "snakepit", "large-dataset")
	var progress *progress // nil if the file already exists
	for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, "write_unicode", directory,
		snakepit.Result(&path)) {
		if err != nil {
			return "", err
		}
		if progress == nil {
			progress = d.out.progress("writing the file", utf8.MaxRune+1)
			defer progress.end()
		}
		progress.update(0, chunk)
	}
	return path, nil
}

// variant does one run.
func (d *demo) variant(ctx context.Context, v variant, bare string) (*result, error) {
	program := snakepit.PythonFS(files, "worker.py")
	if v.bare {
		d.out.printf("Python is a virtual environment without grpcio and msgpack: %s\n", bare)
		program.Interpreter, program.Env = bare, []string{"PYTHONPATH="}
	}
	if v.adapters == "" {
		v.adapters = d.adapters
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
	result, err := d.job.run(ctx, pool, d.out, observe)
	if result != nil {
		result.adapters = adapters(pool)
	}
	if v.kill && err == nil && result.reruns == 0 {
		d.out.printf("nothing was lost: the file is too small to kill a worker while it is busy\n")
	}
	return result, err
}

// killer kills a worker once a third of the rows is done and less than half of the worker's range, so that some
// work is lost.
func (d *demo) killer() func(float64, Chunk) {
	var once sync.Once
	return func(share float64, c Chunk) {
		if share < 1.0/3 || c.ProgressPercent > 50 {
			return
		}
		once.Do(func() {
			d.out.printf("killing process %d\n", c.WorkerPID)
			if worker, err := os.FindProcess(c.WorkerPID); err != nil || worker.Kill() != nil {
				d.out.printf("process %d could not be killed\n", c.WorkerPID)
			}
		})
	}
}

// open starts a pool without time limits: a large file takes long.
func (d *demo) open(ctx context.Context, program python.Program, names string, size int) (*snakepit.Pool, error) {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // this program prints all that matters itself
	}
	options := &snakepit.Options{
		Size: size, CallTimeout: -1, StreamTimeout: -1, Queue: partsPerWorker * size,
		Logger: hclog.New(&hclog.LoggerOptions{Output: d.out, Level: level}),
	}
	adapter, err := snakepit.Adapters(names)
	if err != nil {
		return nil, err
	}
	return snakepit.OpenWith(ctx, adapter, program, options)
}

// verdict prints the protocols of the workers, and why better ones are unavailable.
func (d *demo) verdict(pool *snakepit.Pool) {
	var refusals []string
	for _, w := range pool.Workers() {
		info := w.Info()
		d.out.printf("%s: %s, pid %d, %s\n", w, info.Adapter, info.PID, info.Runtime)
		for _, r := range info.Refused {
			if line := fmt.Sprintf("  not %s: %v\n", r.Adapter, r.Err); !slices.Contains(refusals, line) {
				refusals = append(refusals, line)
			}
		}
	}
	d.out.printf("%s", strings.Join(refusals, ""))
}

// adapters names the adapters of a pool's workers.
func adapters(pool *snakepit.Pool) string {
	var names []string
	for _, w := range pool.Stats().Workers {
		if w.Adapter != "" && !slices.Contains(names, w.Adapter) {
			names = append(names, w.Adapter)
		}
	}
	return strings.Join(names, ",")
}
