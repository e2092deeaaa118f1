package core

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Warmup is a call that the pool makes itself. The zero value is none.
type Warmup struct {
	Command string
	Args    any // as in Execute
}

// warmupError is the error of the warm-up call.
type warmupError struct {
	command string
	err     error
}

func (e *warmupError) Error() string { return fmt.Sprintf("the warm-up call %q: %v", e.command, e.err) }
func (e *warmupError) Unwrap() error { return e.err }

// warmUp makes the call of Options.Warmup on a worker that is not ready yet. It drops the result, and all items.
func (w *Worker) warmUp(ctx context.Context, c *connected, m *mux) error {
	warm := w.pool.opts.Warmup
	if warm.Command == "" {
		return nil
	}
	if err := m.callOnce(ctx, warm, c.hello.Commands); err != nil {
		return &warmupError{warm.Command, err}
	}
	return nil
}

// callOnce makes the warm-up call. known are the worker's commands, or nil if it does not list them.
func (m *mux) callOnce(ctx context.Context, warm Warmup, known []CommandInfo) error {
	if known != nil && !slices.ContainsFunc(known, func(i CommandInfo) bool { return i.Name == warm.Command }) {
		return ErrUnknownCommand
	}
	f := Frame{Name: warm.Command, Flags: NoInput}
	if err := checkText(&f); err != nil {
		return err
	}
	err := isolate("an argument", func() (err error) {
		f.Body, err = encodeArguments(m.terms.codec, warm.Args)
		return err
	})
	if err != nil {
		return err
	}
	s, err := m.open(f, time.Time{}, nil, nil)
	if err != nil {
		return err
	}
	for _, err := range s.items(ctx) {
		if ctx.Err() != nil {
			s.abandon("the worker's start was called off")
			return err
		}
	}
	_, err = s.outcome()
	return err
}
