package conformance

import (
	"cmp"
	"context"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/snakepit-go/snakepit/core"
)

// spy records what an adapter asks of its launcher. It may give the adapter false facts.
type spy struct {
	core.Adapter
	hostToken func(token string) string // changes the token that the adapter shows; nil: unchanged
	refusal   error                     // returned by every Launch if not nil
	maxFrame  int                       // the limit for the adapter, but not for the worker; 0: the true one
	printed   string                    // text in front of what the worker writes to standard output
	memory    chan int64                // if not nil, the pool watches the memory; it gets what a lease tells

	mu        sync.Mutex // guards what follows
	launchers []*core.Launcher
	asked     int             // the number of calls of Launch
	stdio     bool            // the connection is the worker's standard input and output
	launched  []*core.Process // or adopted
	leases    []core.Lease
	files     []*os.File // all Spec.Files
}

func (s *spy) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	watched := *l
	watched.MaxFrame = cmp.Or(s.maxFrame, l.MaxFrame)
	watched.WatchMemory = s.memory != nil
	if s.hostToken != nil {
		watched.HostToken = s.hostToken(l.HostToken)
	}
	watched.Launch = func(ctx context.Context, spec core.Spec) (*core.Process, error) { return s.launch(ctx, l, spec) }
	watched.Adopt = func(ctx context.Context, lease core.Lease) (*core.Process, error) {
		if s.memory != nil {
			lease.Holder = watchedHolder{lease.Holder, s.memory}
		}
		s.mu.Lock()
		s.leases = append(s.leases, lease)
		s.mu.Unlock()
		p, err := l.Adopt(ctx, lease)
		if err == nil {
			s.owns(p)
		}
		return p, err
	}
	s.mu.Lock()
	s.launchers = append(s.launchers, &watched)
	s.mu.Unlock()
	return s.Adapter.Start(ctx, &watched)
}

func (s *spy) launch(ctx context.Context, l *core.Launcher, spec core.Spec) (*core.Process, error) {
	s.mu.Lock()
	s.asked++
	s.files = append(s.files, spec.Files...)
	s.stdio = spec.Stdio
	s.mu.Unlock()
	if s.refusal != nil {
		for _, f := range spec.Files {
			_ = f.Close() // as Launch does in every case; nothing was written
		}
		return nil, s.refusal
	}
	p, err := l.Launch(ctx, spec)
	if err == nil && spec.Stdio && s.printed != "" {
		p.Stdout, err = behind(s.printed, p.Stdout)
	}
	if err == nil {
		s.owns(p)
	}
	return p, err
}

func (s *spy) owns(p *core.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launched = append(s.launched, p)
}

// ForPool hands on what the adapter keeps for a pool.
func (s *spy) ForPool(info core.PoolInfo) core.OwnedAdapter {
	own := &ownedSpy{spy: s}
	if maker, ok := s.Adapter.(core.PoolAdapter); ok {
		own.owned = maker.ForPool(info)
		s.Adapter = own.owned
	}
	return own
}

// ownedSpy is a spy in one pool.
type ownedSpy struct {
	*spy
	owned core.OwnedAdapter // nil: the adapter keeps nothing
}

func (s *ownedSpy) Close(ctx context.Context) error {
	if s.owned == nil {
		return nil
	}
	return s.owned.Close(ctx)
}

// watchedHolder passes the memory on that a lease tells.
type watchedHolder struct {
	core.Holder
	memory chan<- int64
}

func (h watchedHolder) Next() (core.LeaseEvent, error) {
	e, err := h.Holder.Next()
	if e.Memory > 0 {
		select {
		case h.memory <- e.Memory:
		default: // one is enough
		}
	}
	return e, err
}

// behind returns a pipe with the text and then the content of from.
func behind(text string, from *os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(w, io.MultiReader(strings.NewReader(text), from)) // an error means that the reader is gone
		_, _ = w.Close(), from.Close()                                   // nothing is buffered that could be lost
	}()
	return r, nil
}
