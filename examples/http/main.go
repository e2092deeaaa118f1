// Command http is a small web service. It streams the items of a Python generator to browsers as server-sent
// events. It cancels the generator when the browser leaves.
//
// Start with service.go. This file has the rest of a service: flags, the pool, and a clean end.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

//go:embed worker.py
var files embed.FS

const usage = `Usage: http [flags]

Serves a page where a Python generator counts primes, and the routes /primes?limit=N, /factor?n=N and /healthz.

Example: http -addr 127.0.0.1:0 -workers 4 -adapter msgpack,jsonstdio

`

// goodbye is how long a service that ends waits for browsers to receive the last events.
const goodbye = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run serves until ctx ends. It returns the exit code: 0 after a clean end, 1 if something failed, 2 for wrong flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	addr := flags.String("addr", "127.0.0.1:8080", "the `address` to listen on; port 0 takes a free one")
	names := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	workers := flags.Int("workers", 2,
		"the number of workers: as many calls run at once, as many wait, and more are rejected")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "http: "+format+"; see http -h\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return misuse("%q is not a flag", flags.Arg(0))
	}
	if *workers < 1 {
		return misuse("-workers is %d, but it must be at least 1", *workers)
	}
	if _, err := snakepit.Adapters(*names); err != nil {
		return misuse("-adapter: %v", err)
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: stderr, Level: hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))})
	if err := serve(ctx, *addr, *names, *workers, logger, stdout); err != nil {
		fmt.Fprintln(stderr, "http:", explain(err))
		return 1
	}
	return 0
}

// serve serves until ctx ends. Then it accepts no new requests, ends the open streams with an event, and stops
// the workers.
func serve(ctx context.Context, addr, names string, workers int, logger hclog.Logger, stdout io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr", err)
	}
	defer listener.Close()
	pool, err := open(ctx, names, options(workers, logger))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer pool.Close()

	s := newService(pool, logger)
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: logger.StandardLogger(nil)}
	server.RegisterOnShutdown(s.close)
	// Browsers open unused connections in advance. Shutdown would wait 5 s for them.
	var unused sync.Map
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if unused.Delete(c); state == http.StateNew {
			unused.Store(c, nil)
		}
	}
	server.RegisterOnShutdown(func() {
		unused.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
	})
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(stdout, "shutting down")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // cut off a browser that does not read
	}
	return pool.Shutdown(ctx) // cancelled calls get time to clean up in Python
}

func options(workers int, logger hclog.Logger) *snakepit.Options {
	return &snakepit.Options{
		Size:          workers,
		Queue:         workers,
		CallTimeout:   5 * time.Second,
		StreamTimeout: 10 * time.Minute,
		// A slow browser slows Python down. Python runs at most this far ahead, plus the buffers of the network.
		WindowItems: 16,
		Logger:      logger,
	}
}

func open(ctx context.Context, names string, options *snakepit.Options) (*snakepit.Pool, error) {
	adapter, err := snakepit.Adapters(names)
	if err != nil {
		return nil, err
	}
	return snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), options)
}
