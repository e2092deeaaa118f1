// Command quickstart is the shortest tour. It calls Python functions for one result, for a stream, and for an
// error with its traceback.
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

//go:generate go -C ../.. run ./cmd/snakepit gen examples/quickstart/worker.py -o examples/quickstart/worker_gen.go

// tour makes the calls. Begin reading here. worker_gen.go has the types and methods.
func tour(ctx context.Context, pool *snakepit.Pool, stdout io.Writer) error {
	worker := NewClient(pool)
	pong, err := worker.Ping(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "ping:", pong)

	for chunk, err := range worker.PingStream(ctx, PingStreamArgs{Count: 5}) {
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, "Received:", chunk.Message)
	}

	sum, err := worker.Compute(ctx, ComputeArgs{Operation: "add", A: 5, B: 3})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "5 + 3 =", sum)

	_, err = worker.Compute(ctx, ComputeArgs{Operation: "divide", A: 1, B: 0})
	var remote *snakepit.RemoteError
	if !errors.As(err, &remote) {
		return errors.Join(errors.New("1 / 0 should have raised an exception in Python"), err)
	}
	fmt.Fprintf(stdout, "\n1 / 0 fails, as it should. The error in Go:\n%v\nand the traceback in Python:\n%s", err,
		remote.Traceback())
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, "Usage: quickstart [flags]\n\nExample: quickstart -adapter msgpack,jsonstdio\n\n")
		flags.PrintDefaults()
	}
	names := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "quickstart: %q is not a flag; see quickstart -h\n", flags.Arg(0))
		return 2
	}
	adapter, err := snakepit.Adapters(*names)
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: -adapter: %v; see quickstart -h\n", err)
		return 2
	}
	pool, err := snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 1})
	if err == nil {
		defer pool.Close()
		err = tour(ctx, pool, stdout)
	}
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "quickstart: interrupted")
		return 130
	case err != nil:
		fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	return 0
}
