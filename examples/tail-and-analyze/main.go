// Command tail-and-analyze follows log files, each in its own Python worker. It prints the lines that match a
// pattern, with the lines around them. It runs until Ctrl-C.
//
// This file has the flags and the streams. print.go has the output. demo.go has a service that writes a log.
// The Python side starts in worker.py.
package main

import (
	"context"
	"embed"
	"encoding/csv"
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
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

//go:embed worker.py follow.py analysis.py
var files embed.FS

const usage = `Usage: tail-and-analyze [flags] FILE...

Follows log files, through rotation and truncation, and prints the lines that match a pattern, until Ctrl-C.

Example: tail-and-analyze -patterns 'ERROR,FATAL,OutOfMemoryError' -context-lines 3 /var/log/app.log
         tail-and-analyze -demo

`

// arguments are those of tail_and_analyze in Python.
type arguments struct {
	LogPath      string   `json:"log_path"`
	Patterns     []string `json:"patterns"`
	ContextLines int      `json:"context_lines"`
	FromStart    bool     `json:"from_start"`
	Wait         bool     `json:"wait"`
	Once         bool     `json:"once"`
}

// Chunk is an item that a worker streams: a matching line, or a note on the file.
type Chunk struct {
	Severity       string   `json:"severity"`  // "" if the line has none
	Timestamp      string   `json:"timestamp"` // likewise; ISO 8601
	LogLine        string   `json:"log_line"`
	PatternMatched string   `json:"pattern_matched"`
	Message        string   `json:"message"` // the line without its timestamp and severity
	File           string   `json:"file"`
	LineNumber     int      `json:"line_number"`
	DroppedBytes   int      `json:"dropped_bytes"` // of a line that was too long
	ContextBefore  []string `json:"context_before"`
	ContextAfter   []string `json:"context_after"`
	Note           string   `json:"note"`
}

// Summary is the stream's result, once following a file has ended.
type Summary struct {
	IsFinal     bool           `json:"is_final"`
	Lines       int            `json:"lines"`
	Patterns    map[string]int `json:"patterns"`
	Severities  map[string]int `json:"severities"`
	Rotations   int            `json:"rotations"`
	Truncations int            `json:"truncations"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var a arguments
	flags := flag.NewFlagSet("tail-and-analyze", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	names := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	patterns := flags.String("patterns", "ERROR,FATAL,OutOfMemoryError",
		"regular `expressions` of Python; quote one with a comma: 'ERROR,\"a{1,3}\"'")
	flags.IntVar(&a.ContextLines, "context-lines", 3,
		"the `lines` before and after a match to print with it, at most 100")
	flags.BoolVar(&a.FromStart, "from-start", false, "also read the present content of the files, not only new lines")
	flags.BoolVar(&a.Wait, "wait", false, "wait for files that do not exist yet")
	flags.BoolVar(&a.Once, "once", false, "read the present content of the files, and end")
	demo := flags.Bool("demo", false,
		"follow a log that this program writes, rotates and truncates, for some seconds, and check the findings")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "tail-and-analyze: "+format+"; see tail-and-analyze -h\n", args...)
		return 2
	}
	adapter, err := snakepit.Adapters(*names)
	if err != nil {
		return misuse("-adapter: %v", err)
	}
	if a.Patterns, err = csv.NewReader(strings.NewReader(*patterns)).Read(); err != nil ||
		slices.Contains(a.Patterns, "") {
		return misuse("-patterns %q is not a list of regular expressions with commas between", *patterns)
	}
	if a.ContextLines < 0 || a.ContextLines > 100 {
		return misuse("-context-lines is %d, but it must be from 0 to 100", a.ContextLines)
	}
	if a.Once && a.Wait {
		return misuse("-once reads what is there, and -wait waits for what is not: say one of them")
	}
	paths := flags.Args()
	for i, path := range paths {
		if slices.ContainsFunc(paths[:i], func(p string) bool { return filepath.Clean(p) == filepath.Clean(path) }) {
			return misuse("%s is named twice", path)
		}
	}
	var foreign string // a flag that -demo does not allow
	flags.Visit(func(f *flag.Flag) {
		if !slices.Contains([]string{"demo", "adapter", "context-lines"}, f.Name) {
			foreign = f.Name
		}
	})
	session := &session{arguments: a, adapter: adapter, console: &console{out: stdout, many: len(paths) > 1},
		log: stderr}
	switch {
	case *demo && (len(paths) > 0 || foreign != ""):
		return misuse("-demo has a log of its own, and what to look for; it goes with -adapter and -context-lines only")
	case *demo:
		err = session.demo(ctx)
	case len(paths) == 0:
		return misuse("no file is named; name a log file, or say -demo")
	default:
		err = session.follow(ctx, paths)
	}
	if ctx.Err() != nil {
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "tail-and-analyze:", explain(err))
		return 1
	}
	return 0
}

// explain shortens a Python exception to the part that matters to users.
func explain(err error) string {
	var start *snakepit.StartError
	var remote *snakepit.RemoteError
	if !errors.As(err, &start) && errors.As(err, &remote) {
		return remote.Message
	}
	return err.Error()
}

// session follows files and prints the findings.
type session struct {
	arguments
	adapter core.Adapter
	console *console
	log     io.Writer
	observe func(Chunk) // receives each chunk, unless it is nil
}

// endGrace is the time that workers have after Ctrl-C to report their findings.
const endGrace = 5 * time.Second

// follow follows the files until ctx ends or a file can't be followed. Then it prints the summary.
func (s *session) follow(ctx context.Context, paths []string) error {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // this program prints all that matters itself
	}
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	pool, err := snakepit.OpenWith(ctx, s.adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
		Size: len(paths), // a worker does one call at a time, and following a file is a call
		Functions: map[string]snakepit.Function{
			"stopping": snakepit.Func(func(context.Context, any) (bool, error) { return failed.Err() != nil, nil }),
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: s.log, Level: level}),
	})
	if err != nil {
		return err
	}
	defer pool.Close()

	// The calls outlive ctx. Cancelling them would interrupt the workers at once, and findings that are not yet
	// sent would be lost.
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(failed, func() { time.AfterFunc(endGrace, cancel) })()
	var wg sync.WaitGroup
	summaries := make([]Summary, len(paths))
	for i, path := range paths {
		wg.Go(func() {
			if err := s.stream(calls, pool, path, &summaries[i]); err != nil {
				fail(err)
			}
		})
	}
	wg.Wait()
	cause := context.Cause(failed)
	if ctx.Err() != nil {
		cause = nil
	}
	if cause == nil || slices.ContainsFunc(summaries, func(s Summary) bool { return s.Lines > 0 }) {
		s.console.summary(paths, summaries)
	}
	return cause
}

// stream follows one file.
func (s *session) stream(ctx context.Context, pool *snakepit.Pool, path string, summary *Summary) error {
	a := s.arguments
	a.LogPath = path
	for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, "tail_and_analyze", a, snakepit.Timeout(-1),
		snakepit.Result(summary)) {
		if err != nil {
			return err
		}
		s.console.chunk(chunk)
		if s.observe != nil {
			s.observe(chunk)
		}
	}
	return nil
}
