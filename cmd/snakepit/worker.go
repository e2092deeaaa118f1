package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// worker holds the flags that control how a worker starts.
type worker struct {
	adapter string
	python  string
	start   time.Duration
	debug   debugger
}

const aboutAdapter = "adapter to use, or several to try in order, such as msgpack,jsonstdio; auto is " +
	"$SNAKEPIT_ADAPTERS, else " +
	snakepit.Default

func (o *worker) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.adapter, "adapter", "auto", aboutAdapter)
	cmd.Flags().StringVar(&o.python, "python", "",
		"Python interpreter (default: an active or local virtual environment, else python3)")
	cmd.Flags().DurationVar(&o.start, "start-timeout", 0, "time limit of the worker's start (default 1m)")
	complete(cmd, o)
}

// adapters parses the value of --adapter.
func adapters(names string) (core.Adapter, error) {
	adapter, err := snakepit.Adapters(names)
	if err != nil && names != "auto" { // otherwise the error names the variable
		err = fmt.Errorf("--adapter: %w", err)
	}
	return adapter, err
}

// isPython reports whether a worker is a Python file. Any other worker is an executable.
func isPython(worker string) bool { return filepath.Ext(worker) == ".py" }

// program resolves the command-line argument WORKER.
func (o *worker) program(word string) (snakepit.Program, error) {
	if isPython(word) {
		script := snakepit.Python(word)
		script.Interpreter, script.Debug = o.python, o.debug.address
		return script, nil
	}
	if err := executable(word); err != nil {
		return nil, runError{fmt.Errorf("%w: %w", errNoWorker, err)}
	}
	return snakepit.Command(word), nil
}

// open starts a pool of one worker. opts may be nil.
func (o *worker) open(
	ctx context.Context, word string, opts *snakepit.Options, stderr io.Writer,
) (*snakepit.Pool, error) {
	adapter, err := adapters(o.adapter)
	if err != nil {
		return nil, err
	}
	log := &held{w: stderr}
	own := snakepit.Options{}
	if opts != nil {
		own = *opts
	}
	own.Size, own.Logger = 1, logger(log)
	pool, err := o.openWith(ctx, adapter, word, &own, stderr)
	log.end(err == nil || os.Getenv("SNAKEPIT_LOG") != "") // otherwise the error contains the worker's last output
	return pool, err
}

// held holds the log back while a worker starts, because the error of a failed start says the same. It holds it
// no longer than patience.
type held struct {
	w io.Writer

	mu    sync.Mutex // guards the fields below
	text  []byte
	timer *time.Timer
	ended bool
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return h.w.Write(p)
	}
	if h.timer == nil {
		h.timer = time.AfterFunc(patience, func() { h.end(true) })
	}
	h.text = append(h.text, p...)
	return len(p), nil
}

// end writes the held text, if wanted. Later text is written at once.
func (h *held) end(wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
	}
	if wanted && !h.ended {
		// If standard error fails, the error has no other place to go.
		_, _ = h.w.Write(h.text)
	}
	h.ended = true
}

// openWith starts a pool on an adapter.
func (o *worker) openWith(ctx context.Context, adapter core.Adapter, word string, opts *snakepit.Options,
	stderr io.Writer) (*snakepit.Pool, error) {
	if o.start < 0 {
		return nil, fmt.Errorf("--start-timeout is %s; it has to be positive", o.start)
	}
	program, err := o.program(word)
	if err != nil {
		return nil, err
	}
	opts.StartTimeout = o.start
	stop := func() {}
	if o.debug.address != "" {
		noLimits(opts)
	} else {
		stop = waiting(stderr, word, "--start-timeout")
	}
	pool, err := snakepit.OpenWith(ctx, adapter, program, opts)
	stop()
	if err != nil {
		var late *snakepit.StartError
		if errors.As(err, &late) && errors.Is(err, context.DeadlineExceeded) {
			own := *late
			own.Remedy = slowStart
			err = &own
		}
		return nil, runError{fmt.Errorf("%w could be started: %w", errNoWorker, err)}
	}
	return pool, nil
}

// patience is how long a worker may start before the user sees a message.
const patience = 5 * time.Second

// waiting tells the user after a while that a worker has not said hello. stop ends that and may be called again.
func waiting(stderr io.Writer, word, limit string) (stop func()) {
	var mu sync.Mutex
	timer := time.AfterFunc(patience, func() {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(stderr, "snakepit: still waiting for %s to say hello; %s sets the limit\n", word, limit)
	})
	return func() {
		timer.Stop()
		mu.Lock() // stop waits until a line is complete
		defer mu.Unlock()
	}
}

// executable returns an error in command-line terms if the worker, which is not a Python file, can't be started.
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
		return fmt.Errorf("%s is a directory; %s", worker, what)
	case filepath.Base(worker) == worker && info.Mode()&0o111 != 0:
		return fmt.Errorf("%s is not in PATH; for the file in this directory use .%c%s", worker, filepath.Separator,
			worker)
	default:
		return fmt.Errorf("%s is not executable; %s", worker, what)
	}
}

// logger is the pool's default logger with less output. The error of a call already says how its worker was
// lost. For one call the adapter does not matter. SNAKEPIT_LOG can ask for both. A nil logger lets the pool
// report what is wrong in SNAKEPIT_LOG.
func logger(w io.Writer) hclog.Logger {
	log := &hclog.LoggerOptions{Level: hclog.Info, Output: w}
	text := os.Getenv("SNAKEPIT_LOG")
	if text != "" {
		log.Level = hclog.LevelFromString(text)
	}
	if log.Level == hclog.NoLevel {
		return nil
	}
	quiet := new(hclog.ExcludeByMessage)
	quiet.Add("worker lost")
	if text == "" || log.Level > hclog.Info {
		quiet.Add("protocol degraded")
		quiet.Add("protocol fallback")
	}
	log.Exclude = quiet.Exclude
	return hclog.New(log)
}

// commandInfo returns the command's entry in the worker's hello. ok is false if the hello does not list it.
func commandInfo(pool *snakepit.Pool, command string) (info core.CommandInfo, ok bool) {
	commands := pool.Workers()[0].Info().Commands
	i := slices.IndexFunc(commands, func(c core.CommandInfo) bool { return c.Name == command })
	if i < 0 {
		return core.CommandInfo{}, false
	}
	return commands[i], true
}

// closing closes the pool at the end of a command. It reports the pool's error if there is no other.
func closing(pool *snakepit.Pool, err *error) {
	if closeErr := pool.Close(); *err == nil && closeErr != nil {
		*err = runError{closeErr}
	}
}

// reserved reports whether the protocol itself reserves the name of a command.
func reserved(name string) bool { return strings.HasPrefix(name, "snakepit.") }
