package core

import (
	"context"
)

// Started is a worker outside of any pool, over whose link no frame has gone yet. Its methods may be called from any goroutine.
type Started struct {
	*Link
	host *host
	at   *attempt
}

// Start starts one worker with the adapter, outside of any pool, and leaves the connection as the adapter made it: no hello is read or
// written. It is for those who test an adapter or a worker frame by frame, as package conformance does; everybody else uses Open. Of
// the options Name, Dir, StopTimeout and Logger count. ctx bounds only the start. The error is a *StartError; after it nothing is left
// of the worker.
func Start(ctx context.Context, adapter Adapter, cmd Command, opts *Options) (*Started, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	log, err := poolLogger(&o)
	if err != nil {
		return nil, err
	}
	h, err := newHost(cmd, hostOptions{Name: o.Name, Dir: o.Dir, StopTimeout: o.StopTimeout, Logger: log})
	if err != nil {
		return nil, err
	}
	at := h.attempt(0, log)
	link, err := adapter.Start(ctx, at)
	if err != nil {
		at.abandon(nil)
		h.close()
		return nil, &StartError{Command: h.command(), Adapter: adapter.Name(), Output: at.output(), Err: err}
	}
	at.abandon(link.Process)
	return &Started{Link: link, host: h, at: at}, nil
}

// Dir is the worker's private folder, as its adapter had it from Launcher.Dir.
func (s *Started) Dir() string { return s.at.Dir() }

// Output returns the last lines that the worker printed, the newest last.
func (s *Started) Output() []string { return s.at.output() }

// Close cuts the connection, kills what is left of the worker, and returns when all of it is gone. It may be called again.
func (s *Started) Close() {
	_ = s.Conn.Close() // nothing is lost that anybody waits for
	if s.Process != nil {
		s.Process.kill()
		<-s.Process.Done()
	}
	s.host.close()
}
