// Command observed shows what a pool tells: traces, metrics, and a page. It makes calls for a while, on each protocol.
// Go calls Python, which calls Go, which calls Python again. An OTLP receiver and a Prometheus, both in this program,
// take what OpenTelemetry sends. At the end it prints one trace and answers an operator's questions.
//
// Start with watch.go: it has what a service needs. receiver.go and prometheus.go stand in for the back ends that you
// have.
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
	"strings"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit"
)

//go:embed worker.py
var files embed.FS

const usage = `Usage: observed [flags]

A pool makes calls for a while. Then its trace and its metrics are printed. With -serve it goes on until
Ctrl-C, and the debug page shows what the workers do.

Example: observed -for 10s -serve localhost:6060

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("observed", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	names := flags.String("adapter", snakepit.Default, "the `protocols` to show, one after the other")
	duration := flags.Duration("for", 3*time.Second, "how `long` to make calls on each of them")
	address := flags.String("serve", "", "go on until Ctrl-C, with the debug page and the metrics at this `address`")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "observed: "+format+"; see observed -h\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return misuse("%q is not a flag", flags.Arg(0))
	}
	if *duration <= 0 {
		return misuse("-for is %s, but it must be positive", *duration)
	}
	for name := range strings.SplitSeq(*names, ",") {
		adapter, err := snakepit.Adapters(name)
		if err != nil {
			return misuse("-adapter: %v", err)
		}
		fmt.Fprintf(stdout, "== %s\n", name)
		w := &watched{adapter: adapter, address: *address, duration: *duration, out: stdout, log: stderr}
		err = w.run(ctx)
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "observed: interrupted")
			return 130
		}
		if err != nil {
			fmt.Fprintln(stderr, "observed:", err)
			return 1
		}
	}
	return 0
}
