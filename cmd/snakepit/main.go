// Snakepit calls the commands of a worker from the command line. It also lists and measures them, and examines
// the environment of workers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, end := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		end(signalled{<-signals})
		signal.Stop(signals) // a second signal ends the program at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// signalled is the cause of a context that a signal cancelled.
type signalled struct{ signal os.Signal }

func (s signalled) Error() string {
	if s.signal == os.Interrupt {
		return "interrupted"
	}
	return "terminated"
}

// exitCode returns the code that shells use for the signal: 130 for SIGINT, 143 for SIGTERM.
func (s signalled) exitCode() int {
	if n, ok := s.signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return exitInterrupted
}
