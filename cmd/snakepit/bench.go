package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

const aboutBench = `Bench calls one command of a worker repeatedly on each adapter. It prints the times of calls and the
calls per second side by side. For a stream it also measures the first item and the items per second.

The adapters take turns, in many short rounds, so that a busy machine slows each of them alike.
Calls before the first round are not counted, because they load modules and models. If an adapter is
unavailable, the reason is printed. --adapter auto measures each adapter of the chain, not only the
first. A call or an item that fails ends the measurement.
`

// rounds is the number of turns of each adapter, if no call takes longer than a round.
const rounds = 10

// longest is the upper limit of the histogram. A longer time is recorded as this limit.
const longest = time.Hour

// bench holds the flags.
type bench struct {
	call
	duration    time.Duration
	concurrency int
	workers     int
	json        bool
}

// lane is one adapter: its pool and its measurements.
type lane struct {
	name    string
	pool    *snakepit.Pool
	refused error

	mu      sync.Mutex // guards the fields below
	latency *hdr.Histogram
	first   *hdr.Histogram // streams only: the time to the first item
	items   int64
	took    time.Duration // the sum of all rounds
}

func benchCommand() *cobra.Command {
	var b bench
	cmd := &cobra.Command{
		Use:   "bench WORKER COMMAND [KEY=VALUE | JSON | @FILE]...",
		Short: "Measure a command on each adapter, side by side",
		Long:  aboutBench + aboutArguments + "\n" + exitCodes,
		Args:  words("WORKER", "COMMAND"),
		Example: `  snakepit bench worker.py add a=5 b=3
  snakepit bench worker.py predict features=@features.json --adapter grpc,msgpack --duration 10s ` +
			`--concurrency 8 --workers 4`,
	}
	b.worker.register(cmd)
	cmd.Flags().DurationVar(&b.timeout, "timeout", 0,
		"time limit of each call, such as 90s; negative means none (default 30s, stream 5m)")
	cmd.Flags().DurationVar(&b.duration, "duration", 3*time.Second, "how long to measure each adapter")
	cmd.Flags().IntVar(&b.concurrency, "concurrency", 1, "how many calls are made at once")
	cmd.Flags().IntVar(&b.workers, "workers", 1, "how many worker processes there are")
	cmd.Flags().BoolVar(&b.json, "json", false, "print the figures as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		arg, err := b.check(cmd, args)
		if err != nil {
			return err
		}
		lanes, err := b.lanes(cmd, args[0])
		defer func() {
			for _, l := range lanes {
				if l.pool != nil {
					closing(l.pool, &err)
				}
			}
		}()
		if err != nil {
			return err
		}
		info, _ := commandInfo(open(lanes)[0].pool, args[1])
		if err := b.measure(cmd, open(lanes), args[1], arg, info.Stream); err != nil {
			return runError{err}
		}
		r := b.report(lanes, args, info.Stream)
		if b.json {
			return printIndented(cmd.OutOrStdout(), r)
		}
		return write(cmd.OutOrStdout(), r.String())
	}
	return cmd
}

// check refuses flags and arguments that make no sense.
func (b *bench) check(cmd *cobra.Command, args []string) (any, error) {
	switch {
	case b.duration <= 0:
		return nil, fmt.Errorf("--duration is %s; it has to be positive", b.duration)
	case b.concurrency < 1:
		return nil, fmt.Errorf("--concurrency is %d; it has to be at least 1", b.concurrency)
	case b.workers < 1:
		return nil, fmt.Errorf("--workers is %d; it has to be at least 1", b.workers)
	}
	return readArgs(cmd.Context(), args[2:], cmd.InOrStdin())
}

// lanes opens a pool on each adapter. The caller closes the returned lanes, also after an error.
func (b *bench) lanes(cmd *cobra.Command, word string) (lanes []*lane, err error) {
	chain, err := adapters(b.adapter)
	if err != nil {
		return nil, err
	}
	var refused []string
	for name := range strings.SplitSeq(chain.Name(), ",") {
		one, err := adapters(name)
		if err != nil {
			return lanes, err
		}
		l := &lane{name: name, latency: hdr.New(1, int64(longest), 3), first: hdr.New(1, int64(longest), 3)}
		opts := &snakepit.Options{Size: b.workers, Queue: b.concurrency, Logger: logger(cmd.ErrOrStderr())}
		l.pool, err = b.openWith(cmd.Context(), one, word, opts, cmd.ErrOrStderr())
		switch {
		case errors.Is(err, core.ErrUnavailable):
			l.refused = err
			why, _ := explain(err)
			refused = append(refused, name+": "+why)
		case err != nil:
			return lanes, err
		}
		lanes = append(lanes, l)
		if l.pool != nil {
			if err := l.pool.WaitReady(cmd.Context(), 0); err != nil {
				return lanes, runError{fmt.Errorf("%w could be started: %w", errNoWorker, err)}
			}
		}
	}
	if len(open(lanes)) == 0 {
		return lanes, runError{fmt.Errorf("%w: no adapter is available: %s; snakepit doctor says what to do",
			errNoWorker, strings.Join(refused, "; "))}
	}
	return lanes, nil
}

// open returns the lanes that can be measured.
func open(lanes []*lane) []*lane {
	var there []*lane
	for _, l := range lanes {
		if l.pool != nil {
			there = append(there, l)
		}
	}
	return there
}

// measure lets the adapters take turns until each has used its time.
func (b *bench) measure(cmd *cobra.Command, lanes []*lane, command string, arg any, stream bool) error {
	bar := newProgressBar(cmd, false)
	defer bar.end(false)
	bar.show(command, 0)
	for _, l := range lanes { // warm up every worker, if the calls take turns too
		for range b.workers {
			if err := b.once(cmd.Context(), l, command, arg, stream, false); err != nil {
				return err
			}
		}
	}
	for turn := range rounds {
		for i := range lanes {
			l := lanes[(turn+i)%len(lanes)] // rotate, so that no adapter is always first
			if l.took < b.duration {
				if err := b.round(cmd.Context(), l, command, arg, stream,
					max(0, b.duration*time.Duration(turn+1)/rounds-l.took)); err != nil {
					return err
				}
			}
			bar.show(command+" "+l.name, float64(turn*len(lanes)+i+1)/float64(rounds*len(lanes)))
		}
	}
	return nil
}

// round makes calls on one adapter for the duration d. Each caller makes at least one.
func (b *bench) round(ctx context.Context, l *lane, command string, arg any, stream bool, d time.Duration) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	begun := time.Now()
	var callers sync.WaitGroup
	for range b.concurrency {
		callers.Go(func() {
			for {
				if err := b.once(ctx, l, command, arg, stream, true); err != nil {
					stop(err) // the first one counts
					return
				}
				if time.Since(begun) >= d {
					return
				}
			}
		})
	}
	callers.Wait()
	l.took += time.Since(begun)
	return context.Cause(ctx)
}

// once makes one call and records it.
func (b *bench) once(ctx context.Context, l *lane, command string, arg any, stream, record bool) error {
	begun := time.Now()
	var first time.Duration
	items := int64(0)
	if stream {
		for _, err := range snakepit.ExecuteStream[any](ctx, l.pool, command, arg, snakepit.Timeout(b.timeout)) {
			if err != nil { // also an error of a single item: a call that fails early is no measurement
				return err
			}
			if items++; items == 1 {
				first = time.Since(begun)
			}
		}
	} else if _, err := snakepit.Execute[any](ctx, l.pool, command, arg, snakepit.Timeout(b.timeout)); err != nil {
		return err
	}
	took := time.Since(begun)
	if !record {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.items += items
	if items > 0 {
		if err := l.first.RecordValue(int64(min(first, longest))); err != nil {
			return err
		}
	}
	return l.latency.RecordValue(int64(min(took, longest)))
}
