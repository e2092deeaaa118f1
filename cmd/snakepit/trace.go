package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snakepit-go/snakepit"
)

// steps prints the steps of a call with their times, for --trace.
type steps struct {
	w     io.Writer // nil: no trace
	begun time.Time

	items       int
	first, last time.Time
	gap         time.Duration // the longest between two items
	calling     time.Time
}

func newSteps(on bool, w io.Writer) *steps {
	s := &steps{begun: time.Now()}
	if on {
		s.w = w
	}
	return s
}

// say prints one step.
func (s *steps) say(step, format string, args ...any) {
	now := time.Now()
	if step == "call" {
		s.calling = now
	}
	s.print(now, step, fmt.Sprintf(format, args...))
}

func (s *steps) print(at time.Time, step, text string) {
	if s.w == nil {
		return
	}
	if step == "result" || step == "end" || step == "error" {
		text = fmt.Sprintf("%s%s after the call", text, rounded(at.Sub(s.calling)))
	}
	fmt.Fprintf(s.w, "trace %10s  %-8s %s\n", rounded(at.Sub(s.begun)), step, text)
}

// ready prints the worker's details and the adapters that were refused on the way.
func (s *steps) ready(pool *snakepit.Pool) {
	info := pool.Workers()[0].Info()
	now := time.Now()
	for _, r := range info.Refused {
		s.print(now, "refused", fmt.Sprintf("%s: %v", r.Adapter, r.Err))
	}
	s.print(now, "ready", fmt.Sprintf("%s, codec %s, pid %d, %s, %s", info.Adapter, info.Codec, info.PID, info.Runtime,
		info.Library))
}

// item records an item.
func (s *steps) item() {
	now := time.Now()
	if s.items == 0 {
		s.first = now
		s.print(now, "item", fmt.Sprintf("the first, %s after the call", rounded(now.Sub(s.calling))))
	} else {
		s.gap = max(s.gap, now.Sub(s.last))
	}
	s.items++
	s.last = now
}

// end prints the end of a stream.
func (s *steps) end() {
	now := time.Now()
	if s.items > 1 {
		took := s.last.Sub(s.first)
		s.print(s.last, "items", fmt.Sprintf("%d in %s, longest gap %s", s.items, rounded(took), rounded(s.gap)))
	}
	s.print(now, "end", fmt.Sprintf("%d items, ", s.items))
}

func (s *steps) failed(err error) {
	what := "it may have run"
	if !snakepit.MayHaveRun(err) {
		what = "it did not run"
	}
	if errors.As(err, new(*snakepit.RemoteError)) {
		what = "the handler raised"
	}
	s.print(time.Now(), "error", what+", ")
}

// rounded rounds a duration to about three digits.
func rounded(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 10*unit {
			return d.Round(unit / 10)
		}
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
