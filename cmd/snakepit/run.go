package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	codecjson "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
)

// Exit codes, as the help states them.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNoWorker
	exitTimeout
	exitLost
	exitInterrupted = 130
)

const about = `Snakepit starts one worker and calls one of its commands.

WORKER is a Python file (.py) or another executable that speaks Snakepit's protocol, by --adapters jsonstdio if only on standard input and output. Arguments KEY=VALUE are keyword arguments; a value is JSON,
or else text: n=5 is a number, n='"5"' and name=Ann are text. One argument without a key is the argument as JSON: an object becomes
keyword arguments, anything else one positional argument.

Results go to standard output as JSON, one a line, with the tags of docs/protocol.md for what JSON lacks, such as {"$bytes": "..."}.
Errors, with the Python traceback, and the log go to standard error. SNAKEPIT_LOG=info or debug shows more of the log, such as which adapter is
used and why no earlier one.

Exit codes:
  0    it worked
  1    the handler raised, its result can't be sent or printed, or items of the stream failed
  2    wrong usage, or an argument that can't be sent
  3    no worker could be started
  4    the time limit passed
  5    the worker was lost
  130  interrupted`

// run is the whole program, apart from the process around it. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use: "snakepit", Short: "Call the commands of a worker", Long: about, SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Version:           version(), Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(versionCommand(), callCommand(), streamCommand(), conformanceCommand())
	root.SetHelpCommand(helpCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	stderr = &locked{w: stderr}
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		err = errors.New("interrupted")
	}
	printError(stderr, err)
	return code
}

// noCommand refuses what the root command gets if it is none of the others.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	near := ""
	if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
		near = "did you mean " + names[0] + "? "
	}
	return fmt.Errorf("there is no command %q; %ssee %s --help", args[0], near, cmd.CommandPath())
}

// workerAndCommand is what call and stream need at least.
func workerAndCommand(cmd *cobra.Command, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s needs WORKER and COMMAND; see %s --help", cmd.Name(), cmd.CommandPath())
	}
	return nil
}

// locked is standard error, which the log and the commands write to.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// started marks errors from the call itself: everything before is wrong usage.
type started struct{ error }

func (s started) Unwrap() error { return s.error }

func exitCode(ctx context.Context, err error) int {
	var start *snakepit.StartError
	switch {
	case !errors.As(err, new(started)):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &start), errors.Is(err, snakepit.ErrCrashLoop), errors.Is(err, errNoWorker):
		return exitNoWorker
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, snakepit.ErrWorkerLost):
		return exitLost
	case errors.As(err, new(*snakepit.RemoteError)), errors.Is(err, errItems), errors.Is(err, errOutput), errors.Is(err, errClauses):
		return exitFailed
	default:
		return exitUsage
	}
}

var (
	errNoWorker = errors.New("no worker")
	errItems    = errors.New("items of the stream failed")
	errOutput   = errors.New("standard output cannot be written to")
)

// flagNames are what errors of the library call by the names of Go.
var flagNames = strings.NewReplacer("Program.Interpreter", "--python", "a larger Options.StartTimeout", "a longer --start-timeout",
	"Command.Path", "WORKER")

// printError prints an error, and the traceback of what the worker raised.
func printError(w io.Writer, err error) {
	var remote *snakepit.RemoteError
	if errors.As(err, new(*snakepit.StartError)) || !errors.As(err, &remote) || len(remote.Frames) == 0 {
		text := err.Error()
		if errors.Is(err, errNoWorker) {
			text = flagNames.Replace(text)
		}
		fmt.Fprintf(w, "snakepit: %s\n", text)
		return
	}
	fmt.Fprintf(w, "%ssnakepit: %v\n", remote.Traceback(), err)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printLine(cmd.OutOrStdout(), []byte(version())) },
	}
}

// version is a line.
func version() string {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return fmt.Sprintf("snakepit %s, protocol 1, %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Print the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(cmd.Root(), args)
			}
			return found.Help()
		},
	}
}

// options are the flags of call and stream.
type options struct {
	adapters string
	python   string
	timeout  time.Duration
	start    time.Duration
}

func (o *options) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.adapters, "adapters", "", "adapters to try, in order (default $SNAKEPIT_ADAPTERS, else "+snakepit.Default+")")
	cmd.Flags().StringVar(&o.python, "python", "", "Python interpreter (default: an active or local virtual environment, else python3)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "time limit of the call, such as 90s; negative means none (default 30s, stream 5m)")
	cmd.Flags().DurationVar(&o.start, "start-timeout", 0, "time limit of the worker's start (default 1m)")
}

// patience is how long a worker may take to start before the user is told what is being waited for.
const patience = 5 * time.Second

// open starts the worker.
func (o *options) open(ctx context.Context, worker string, stderr io.Writer) (*snakepit.Pool, error) {
	adapter, err := o.adapter()
	if err != nil {
		return nil, err
	}
	if o.start < 0 {
		return nil, fmt.Errorf("--start-timeout is %s; it has to be positive", o.start)
	}
	program := snakepit.Command(worker)
	if filepath.Ext(worker) == ".py" {
		script := snakepit.Python(worker)
		script.Interpreter = o.python
		program = script
	} else if err := executable(worker); err != nil {
		return nil, started{fmt.Errorf("%w: %w", errNoWorker, err)}
	}
	opened := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-opened:
		case <-time.After(patience):
			fmt.Fprintf(stderr, "snakepit: still waiting for %s to say hello; --start-timeout bounds it\n", worker)
		}
	})
	pool, err := snakepit.OpenWith(ctx, adapter, program, &snakepit.Options{Size: 1, StartTimeout: o.start, Logger: logger(stderr)})
	close(opened)
	wg.Wait()
	if err != nil {
		return nil, started{fmt.Errorf("%w could be started: %w", errNoWorker, err)}
	}
	return pool, nil
}

func (o *options) adapter() (core.Adapter, error) {
	names, source := o.adapters, "--adapters"
	if names == "" {
		names, source = os.Getenv("SNAKEPIT_ADAPTERS"), "SNAKEPIT_ADAPTERS"
	}
	if names == "" {
		names = snakepit.Default
	}
	adapter, err := snakepit.Adapters(names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return adapter, nil
}

// executable says in the words of a command line why a worker that is no Python file can't be started.
func executable(worker string) error {
	if _, err := exec.LookPath(worker); err == nil {
		return nil
	}
	const what = "a worker is a .py file or an executable"
	switch info, err := os.Stat(worker); {
	case err != nil && filepath.Base(worker) == worker:
		return fmt.Errorf("%s: no such file, nor a program in PATH; %s", worker, what)
	case err != nil:
		return fmt.Errorf("%s: no such file; %s", worker, what)
	case info.IsDir():
		return fmt.Errorf("%s is a folder; %s", worker, what)
	case filepath.Base(worker) == worker && info.Mode()&0o111 != 0:
		return fmt.Errorf("%s is not in PATH; for the file in this folder say .%c%s", worker, filepath.Separator, worker)
	default:
		return fmt.Errorf("%s is not executable; %s", worker, what)
	}
}

// logger is what a pool has by default, but for one call the adapter does not matter: it is said only where SNAKEPIT_LOG asks for so much.
// nil leaves it to the pool to say what is wrong in SNAKEPIT_LOG.
func logger(w io.Writer) hclog.Logger {
	log := &hclog.LoggerOptions{Level: hclog.Info, Output: w}
	text := os.Getenv("SNAKEPIT_LOG")
	if text != "" {
		log.Level = hclog.LevelFromString(text)
	}
	switch quiet := new(hclog.ExcludeByMessage); {
	case log.Level == hclog.NoLevel:
		return nil
	case text == "" || log.Level > hclog.Info:
		quiet.Add("protocol degraded")
		log.Exclude = quiet.Exclude
	}
	return hclog.New(log)
}

func callCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "call WORKER COMMAND [KEY=VALUE...]", Short: "Call a command and print its result", Long: about, Args: workerAndCommand,
		Example: "  snakepit call worker.py add a=5 b=3\n  snakepit call worker.py say '\"hello\"' --adapters jsonstdio",
	}
	o.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		arg, err := parseArgs(args[2:])
		if err != nil {
			return err
		}
		pool, err := o.open(cmd.Context(), args[0], cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer closing(pool, &err)
		if streams(pool, args[1]) {
			return fmt.Errorf("%s sends a stream: use snakepit stream", args[1])
		}
		result, err := snakepit.Execute[any](cmd.Context(), pool, args[1], arg, snakepit.Timeout(o.timeout))
		if err != nil {
			return started{err}
		}
		return printJSON(cmd.OutOrStdout(), result)
	}
	return cmd
}

func streamCommand() *cobra.Command {
	var o options
	var withResult bool
	cmd := &cobra.Command{
		Use: "stream WORKER COMMAND [KEY=VALUE...]", Short: "Call a command and print each item that it sends", Long: about,
		Args: workerAndCommand, Example: "  snakepit stream worker.py train epochs=3 --result",
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&withResult, "result", false, "after the items, print the stream's result (a generator's return value)")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		arg, err := parseArgs(args[2:])
		if err != nil {
			return err
		}
		pool, err := o.open(cmd.Context(), args[0], cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer closing(pool, &err)
		var result any
		failed := 0
		for item, err := range snakepit.ExecuteStream[any](cmd.Context(), pool, args[1], arg, snakepit.Timeout(o.timeout), snakepit.Result(&result)) {
			var one *snakepit.ItemError
			switch {
			case errors.As(err, &one):
				failed++
				printError(cmd.ErrOrStderr(), err)
			case err != nil:
				return started{err}
			default:
				if err := printJSON(cmd.OutOrStdout(), item); err != nil {
					return err
				}
			}
		}
		if withResult {
			if err := printJSON(cmd.OutOrStdout(), result); err != nil {
				return err
			}
		}
		if failed > 0 {
			return started{fmt.Errorf("%w: %d", errItems, failed)}
		}
		return nil
	}
	return cmd
}

// streams reports whether the worker says that a command streams.
func streams(pool *snakepit.Pool, command string) bool {
	return slices.ContainsFunc(pool.Workers()[0].Info().Commands, func(c core.CommandInfo) bool { return c.Name == command && c.Stream })
}

// closing closes the pool at the end of a command, and has its error reported if there is no other.
func closing(pool *snakepit.Pool, err *error) {
	if closeErr := pool.Close(); *err == nil && closeErr != nil {
		*err = started{closeErr}
	}
}

// parseArgs turns the arguments of a command line into the argument of a call.
func parseArgs(args []string) (any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	if len(args) == 1 {
		if err := syntax(args[0]); err == nil {
			return parseValue(args[0])
		} else if strings.HasPrefix(args[0], "{") || strings.HasPrefix(args[0], "[") || strings.HasPrefix(args[0], `"`) {
			return nil, fmt.Errorf("argument %s is broken JSON: %w", args[0], err)
		}
	}
	named := make(map[string]any, len(args))
	for _, arg := range args {
		key, text, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("argument %q is not KEY=VALUE; a single argument may also be JSON", arg)
		}
		if _, twice := named[key]; twice {
			return nil, fmt.Errorf("argument %s is given twice", key)
		}
		if syntax(text) != nil {
			named[key] = text
			continue
		}
		value, err := parseValue(text)
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", key, err)
		}
		named[key] = value
	}
	return named, nil
}

// syntax returns what is wrong with JSON, or nil.
func syntax(text string) error {
	var raw json.RawMessage
	return json.Unmarshal([]byte(text), &raw)
}

// parseValue decodes JSON with the tags that results are printed with.
func parseValue(text string) (v any, err error) {
	err = codecjson.Codec{}.Decode([]byte(text), &v)
	return v, err
}

// printJSON prints one value as one line.
func printJSON(w io.Writer, v any) error {
	line, err := codecjson.Codec{}.Append(nil, v)
	if err != nil {
		return started{fmt.Errorf("printing the result: %w", err)}
	}
	line, err = sortKeys(line)
	if err != nil {
		return started{fmt.Errorf("printing the result: %w", err)}
	}
	return printLine(w, line)
}

func printLine(w io.Writer, line []byte) error {
	if _, err := w.Write(line); err != nil {
		return started{fmt.Errorf("%w: %w", errOutput, err)}
	}
	return nil
}

// sortKeys gives JSON its keys in order and a line feed at its end, so that equal results are equal text. Numbers stay as they are.
func sortKeys(line []byte) ([]byte, error) {
	in := json.NewDecoder(bytes.NewReader(line))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	err := out.Encode(v)
	return b.Bytes(), err
}
