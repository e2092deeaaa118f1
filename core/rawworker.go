package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// RawWorker is a worker outside any pool. StartRaw has sent and received no frame on its link. Any goroutine may call
// its methods.
type RawWorker struct {
	*Link
	spawner *spawner
	adapter adapterOf
	at      *attempt
	logTime time.Duration // how long Close waits for a slow logger, and for an adapter that releases what it keeps
}

// StartRaw starts one worker with the adapter, outside any pool. It reads and writes no frame, not even a hello. It
// is for tests of an adapter or a worker frame by frame, such as package conformance. All other programs use Open.
// StartRaw uses the options Name, Dir, MaxFrame, StopTimeout and Logger. ctx bounds only the start. If the start
// fails, the error is a *StartError, and nothing of the worker is left.
func StartRaw(ctx context.Context, adapter Adapter, cmd Command, opts *Options) (*RawWorker, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	log, err := poolLogger(&o)
	if err != nil {
		return nil, err
	}
	logs := newLogQueue(log)
	sp, err := newSpawner(cmd, spawnerOptions{Name: o.Name, Dir: o.Dir, MaxFrame: o.MaxFrame, Log: logs})
	if err != nil {
		_ = logs.close(0) // the log is still empty
		return nil, err
	}
	own, err := forPool(adapter, sp)
	if err != nil {
		sp.close()
		_ = logs.close(o.StopTimeout) // err is what the caller needs to know
		return nil, err
	}
	at := sp.attempt(0)
	link, err := startLink(ctx, own, at)
	if err != nil {
		at.abandon(nil)
		_ = own.close(o.StopTimeout)
		sp.close()
		_ = logs.close(o.StopTimeout) // err is what the caller needs to know
		return nil, startError(ctx, at, err)
	}
	at.abandon(link.Process)
	return &RawWorker{Link: link, spawner: sp, adapter: own, at: at, logTime: o.StopTimeout}, nil
}

// Dir returns the worker's private directory, which its adapter got as Launcher.Dir.
func (w *RawWorker) Dir() string { return w.spawner.dir }

// Output returns the last lines that the worker printed, the newest last.
func (w *RawWorker) Output() []string { return w.at.output() }

// Close closes the connection, kills the worker's process if it still runs, and returns when nothing of the worker is
// left. It may be called again.
func (w *RawWorker) Close() {
	defer func() { // also if the adapter's Close panics
		_ = w.adapter.close(w.logTime)
		w.spawner.close()
		_ = w.spawner.opts.Log.close(w.logTime) // a logger that hangs is no problem of the worker
	}()
	if w.Process != nil {
		defer func() {
			w.Process.kill()
			<-w.Process.Done()
		}()
	}
	_ = w.Conn.Close() // the worker is killed in any case
}

// startError says why a worker could not be started. The attempt has been abandoned.
func startError(ctx context.Context, at *attempt, err error) *StartError {
	e := &StartError{Command: at.spawner.command(), Adapter: at.adapter, Output: at.output(), Err: err}
	if bad := isolate("the adapter's error", func() error { e.explain(ctx, at); return nil }); bad != nil {
		e.Err = bad
	}
	return e
}

// explain fills in the other fields from Err, and makes Err more precise. It calls methods of Err, which may be user
// code.
func (e *StartError) explain(ctx context.Context, at *attempt) {
	err := e.Err
	// silent explains a process that ended before it said hello.
	silent := func(proc *Process, why error) {
		e.Err = fmt.Errorf("%w: it %s before it said hello", ErrWorkerLost, proc.status())
		if errors.Is(why, ErrProtocol) || !isClosed(why) {
			e.Err = fmt.Errorf("%w (%w)", e.Err, why)
		}
		e.Remedy = "run it by hand to see what it prints; a worker has to speak the protocol until it is told to end"
	}
	var chained *StartError
	if errors.As(err, &chained) {
		e.Adapter, e.Refused, e.Err = chained.Adapter, chained.Refused, chained.Err
	}
	var chosen *linkError
	if errors.As(err, &chosen) {
		e.Adapter, e.Refused, e.Err = chosen.link.Adapter, chosen.link.Refused, chosen.err
		var no *helloError
		if proc := chosen.link.Process; proc != nil && errors.As(err, &no) {
			silent(proc, no.err)
		}
	} else if proc := at.exitedEarly(); proc != nil && !errors.Is(err, ErrUnavailable) {
		silent(proc, err) // the adapter failed because the process had ended
	}
	if errors.As(err, new(*reportError)) {
		e.Remedy = at.spawner.cmd.Remedy
	}
	// An adapter that gives a remedy knows what the start waited for.
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && !errors.As(err, new(*RemedyError)) {
		cause := context.Cause(ctx)
		if errors.As(cause, new(*lateError)) {
			e.Remedy = "if its imports are slow, raise Options.StartTimeout"
		}
		what := "the worker has not said hello"
		var warm *warmupError
		if errors.As(err, &warm) {
			what = fmt.Sprintf("the warm-up call %q has not ended", warm.command)
		}
		e.Err = fmt.Errorf("%s: %w", what, cause)
	}
	var raised *RemoteError
	if errors.As(e.Err, &raised) {
		switch hint := raised.takeHint(); {
		case hint != "":
			e.Remedy = hint
		case len(raised.Notes) == 0 && len(raised.Frames) > 0:
			e.Remedy = "correct the program; its own code raised this error"
		}
	}
}

// lateError is why the context of a start has ended: Options.StartTimeout is over.
type lateError struct{ limit time.Duration }

func (e *lateError) Error() string {
	return fmt.Sprintf("%v: not within the start timeout of %s", context.DeadlineExceeded, e.limit)
}

func (e *lateError) Unwrap() error { return context.DeadlineExceeded }

// isClosed reports whether err only says that the connection was closed.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, net.ErrClosed)
}
