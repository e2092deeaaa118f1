// Snakepit calls the commands of a worker from the command line, shows and measures them, and examines what they run on.
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
		signal.Stop(signals) // a second one ends the program at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// signalled is why the context of a program that got a signal has ended.
type signalled struct{ signal os.Signal }

func (s signalled) Error() string {
	if s.signal == os.Interrupt {
		return "interrupted"
	}
	return "terminated"
}

// exitCode is what shells make of the signal: 130 for SIGINT, 143 for SIGTERM.
func (s signalled) exitCode() int {
	if n, ok := s.signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return exitInterrupted
}
