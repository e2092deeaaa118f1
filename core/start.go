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

// RawWorker is a worker outside of any pool, over whose link no frame has gone yet. Its methods may be called from any goroutine.
type RawWorker struct {
	*Link
	host    *host
	at      *attempt
	logTime time.Duration // how long Close waits for a slow logger
}

// StartRaw starts one worker with the adapter, outside of any pool, and leaves the connection as the adapter made it: no hello is read or
// written. It is for those who test an adapter or a worker frame by frame, as package conformance does; everybody else uses Open. Of
// the options Name, Dir, MaxFrame, StopTimeout and Logger count. ctx bounds only the start. The error is a *StartError; after it nothing is left
// of the worker.
func StartRaw(ctx context.Context, adapter Adapter, cmd Command, opts *Options) (*RawWorker, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	log, err := poolLogger(&o)
	if err != nil {
		return nil, err
	}
	h, err := newHost(cmd, hostOptions{Name: o.Name, Dir: o.Dir, MaxFrame: o.MaxFrame, Log: newLogQueue(log)})
	if err != nil {
		return nil, err
	}
	at := h.attempt(0)
	link, err := startLink(ctx, adapter, at)
	if err != nil {
		at.abandon(nil)
		h.close()
		_ = h.opts.Log.close(o.StopTimeout) // the error that counts is err
		return nil, startError(ctx, at, err)
	}
	at.abandon(link.Process)
	return &RawWorker{Link: link, host: h, at: at, logTime: o.StopTimeout}, nil
}

// Dir is the worker's private directory, as its adapter had it from Launcher.Dir.
func (s *RawWorker) Dir() string { return s.host.dir }

// Output returns the last lines that the worker printed, the newest last.
func (s *RawWorker) Output() []string { return s.at.output() }

// Close cuts the connection, kills what is left of the worker, and returns when all of it is gone. It may be called again.
func (s *RawWorker) Close() {
	defer func() { // whatever an adapter under test does
		s.host.close()
		_ = s.host.opts.Log.close(s.logTime)
	}()
	if s.Process != nil {
		defer func() {
			s.Process.kill()
			<-s.Process.Done()
		}()
	}
	_ = s.Conn.Close() // nothing is lost that anybody waits for
}

// startError says why a worker could not be started. The attempt has been abandoned.
func startError(ctx context.Context, at *attempt, err error) *StartError {
	e := &StartError{Command: at.host.command(), Adapter: at.adapter, Output: at.output(), Err: err}
	if bad := isolate("the adapter's error", func() error { e.explain(ctx, at); return nil }); bad != nil {
		e.Err = bad
	}
	return e
}

// explain finds out what Err is about.
func (e *StartError) explain(ctx context.Context, at *attempt) {
	err := e.Err
	silent := func(proc *Process, why error) {
		e.Err = fmt.Errorf("%w: it %s before it said hello", ErrWorkerLost, proc.exit())
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
		silent(proc, err) // the adapter saw that nobody was there
	}
	if errors.As(err, new(*reportError)) {
		e.Remedy = at.host.cmd.Remedy
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		cause := context.Cause(ctx)
		var late *RemedyError
		if errors.As(cause, &late) {
			cause, e.Remedy = late.Err, late.Remedy
		}
		e.Err = fmt.Errorf("the worker has not said hello: %w", cause)
	}
	var raised *RemoteError
	if errors.As(e.Err, &raised) && len(raised.Notes) == 0 && len(raised.Frames) > 0 {
		e.Remedy = "correct the program, whose own error this is; the command line above, run by hand, shows the same"
	}
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed)
}
