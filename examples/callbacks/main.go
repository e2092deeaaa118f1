// Command callbacks has Python call Go. A worker scores the orders in this program's database. It queries the
// database through this program and reports its progress.
//
// Start with shop.go: it has the functions that Python calls, and the call. This file has the flags.
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
	"syscall"

	"github.com/snakepit-go/snakepit"
)

//go:embed worker.py
var files embed.FS

const usage = `Usage: callbacks [flags]

A Python worker scores the orders of a database in Go. It calls Go functions to read them.

Example: callbacks -minimum 100 -adapter msgpack

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("callbacks", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	names := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	minimum := flags.Float64("minimum", 0, "the least `amount` of the orders to score")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "callbacks: "+format+"; see callbacks -h\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return misuse("%q is not a flag", flags.Arg(0))
	}
	if !(*minimum >= 0) { // this also rejects NaN
		return misuse("-minimum is %v, but it must be at least 0", *minimum)
	}
	adapter, err := snakepit.Adapters(*names)
	if err != nil {
		return misuse("-adapter: %v", err)
	}

	err = shop.score(ctx, adapter, *minimum, stdout, stderr)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "callbacks: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "callbacks:", explain(err))
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
