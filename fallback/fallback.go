// Package fallback makes one adapter of several. It is a chain that starts each worker with the first available
// protocol.
package fallback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Chain is a core.Adapter that tries its adapters in order. If an adapter's error wraps core.ErrUnavailable, its
// protocol is unavailable here. The chain refuses that adapter: it tries the next one, and launches no worker with
// the refused one until the cool-down is over. If the error wraps core.ErrNoRoom, it tries the next one for this worker
// alone. Any other error is about the worker and is final: the worker would
// fail with every adapter.
//
// While it is unknown whether an adapter is available, one Start finds out, and the others wait for it. When
// it is known, any number of Starts run at once. After the cool-down one Start tries a refused adapter again, and the
// others go on with the one that works.
//
// All pools that share a chain share what it remembers.
type Chain struct {
	// CoolDown is how long the chain remembers a refusal. 0 means 1 min, negative means not at all. It must not
	// change once the chain is in use.
	CoolDown time.Duration
	// Strict restricts the chain to its first adapter: it fails rather than degrades. It must not change once the
	// chain is in use.
	Strict bool
	// Default says that the program did not name these adapters. The pool then logs its first choice at info. It logs
	// every later fallback as a warning. Default must not change once the chain is in use.
	Default bool

	adapters []core.Adapter

	mu       sync.Mutex // guards breakers
	breakers []breaker  // one for each adapter
}

// breaker is the circuit breaker of an adapter. The zero value means that nothing is known, so one Start finds out
// whether the adapter is available, and others wait for it.
type breaker struct {
	works   bool          // the last conclusive Start succeeded
	refused error         // the last conclusive Start was refused with this error; else nil
	until   time.Time     // when a refused adapter is tried again
	probe   chan struct{} // closed when the Start that is finding out has ended; nil if there is none
}

// New returns a chain of the adapters, the preferred one first. It panics if there are none.
func New(adapters ...core.Adapter) *Chain {
	if len(adapters) == 0 {
		panic("fallback.New: no adapters")
	}
	return &Chain{adapters: slices.Clone(adapters), breakers: make([]breaker, len(adapters))}
}

// Parse returns the adapter for a list of names such as "grpc,jsonstdio": a chain of those adapters or, for a single
// name, that adapter itself. known are the adapters that can be named. If a name is unknown, empty or there twice,
// the error lists them.
func Parse(names string, known ...core.Adapter) (core.Adapter, error) {
	list := strings.Split(names, ",")
	adapters := make([]core.Adapter, len(list))
	for i, name := range list {
		list[i] = strings.TrimSpace(name)
		at := slices.IndexFunc(known, func(a core.Adapter) bool { return a.Name() == list[i] })
		problem := ""
		switch {
		case list[i] == "":
			problem = "a name is empty"
		case slices.Contains(list[:i], list[i]):
			problem = fmt.Sprintf("%q is there twice", list[i])
		case at < 0:
			problem = fmt.Sprintf("there is no adapter %q", list[i])
		default:
			adapters[i] = known[at]
			continue
		}
		return nil, fmt.Errorf("the adapter list %q: %s; it is a comma list of %s", names, problem, join(known))
	}
	if len(adapters) == 1 {
		return adapters[0], nil
	}
	return New(adapters...), nil
}

// Name returns the names of the adapters, such as "grpc,msgpack,jsonstdio".
func (c *Chain) Name() string { return join(c.adapters) }

func join(adapters []core.Adapter) string {
	names := make([]string, len(adapters))
	for i, a := range adapters {
		names[i] = a.Name()
	}
	return strings.Join(names, ",")
}

// Start starts one worker with the first available adapter. Link.Adapter is that adapter's name. Link.Refused says
// why each adapter before it was not used. If no adapter is available, the error gives the reason of each. It wraps
// their errors and so core.ErrUnavailable. Any other error is a *core.StartError with the same facts: the adapter,
// and the refusals before it.
func (c *Chain) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	return c.startOn(ctx, l, c.adapters)
}

// ForPool returns the chain for one pool. It shares with all others what the chain remembers.
func (c *Chain) ForPool(info core.PoolInfo) core.OwnedAdapter {
	return &poolChain{Chain: c, owned: ownedBy(info, c.adapters)}
}

// poolChain is a chain whose adapters may keep something for one pool.
type poolChain struct {
	*Chain
	*owned
}

// Start is Chain.Start on the adapters of the pool.
func (p *poolChain) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if p.closed.Load() {
		return nil, errClosed
	}
	return p.startOn(ctx, l, p.owned.adapters)
}

// startOn starts a worker with the first available one of the adapters, which are the chain's or a pool's.
func (c *Chain) startOn(ctx context.Context, l *core.Launcher, adapters []core.Adapter) (*core.Link, error) {
	n := len(adapters)
	if c.Strict {
		n = 1
	}
	var refused []core.Refusal
	for i, a := range adapters[:n] {
		link, err := c.start(ctx, l, a, i, n)
		switch {
		case err == nil:
			if link.Adapter == "" {
				link.Adapter = a.Name()
			}
			link.Refused = append(refused, link.Refused...)
			link.Default = link.Default || c.Default
			return link, nil
		case !isRefusal(ctx, err):
			e, ok := err.(*core.StartError) // of a chain inside this one
			if !ok {
				e = &core.StartError{Adapter: a.Name(), Err: err}
			}
			e.Refused = append(refused, e.Refused...)
			return nil, e
		}
		refused = append(refused, core.Refusal{Adapter: a.Name(), Err: err})
	}
	return nil, &unavailable{c.Strict, refused}
}

// isRefusal reports whether the error says that the adapter's protocol is unavailable. After the end of ctx no error
// says so.
func isRefusal(ctx context.Context, err error) bool {
	return errors.Is(err, core.ErrUnavailable) && ctx.Err() == nil
}

// start starts a worker with the adapter a at i, unless that adapter is known to be refused. n is the number of
// adapters that may be used.
func (c *Chain) start(ctx context.Context, l *core.Launcher, a core.Adapter, i, n int) (*core.Link, error) {
	for {
		d := c.decide(i, n)
		switch {
		case d.refused != nil:
			return nil, d.refused
		case d.wait == nil:
			if d.probes {
				defer c.endProbe(i)
			}
			link, err := a.Start(ctx, l)
			c.record(ctx, i, err)
			return link, err
		}
		select {
		case <-d.wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting to hear whether %s is available: %w",
				a.Name(), context.Cause(ctx))
		}
	}
}

// decision is what a Start does with an adapter. The zero value means: start a worker.
type decision struct {
	refused error           // the adapter is refused for this reason
	wait    <-chan struct{} // another Start is finding out: decide again when this is closed
	probes  bool            // start a worker, and call endProbe afterwards: others wait for this Start
}

// decide decides what a Start does with the adapter at i.
func (c *Chain) decide(i, n int) decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &c.breakers[i]
	switch {
	case b.works:
		return decision{}
	case b.refused != nil && time.Now().Before(b.until):
		return decision{refused: b.refused}
	case b.probe == nil:
		b.probe = make(chan struct{})
		return decision{probes: true}
	case b.refused != nil && slices.ContainsFunc(c.breakers[i+1:n], func(later breaker) bool { return later.works }):
		return decision{refused: b.refused} // a later one works: use that until the probe has ended
	}
	return decision{wait: b.probe}
}

// record records the outcome of a Start. A failure that is not a refusal says nothing about the adapter.
func (c *Chain) record(ctx context.Context, i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &c.breakers[i]
	switch {
	case err == nil, errors.Is(err, core.ErrNoRoom): // it works, but is full
		b.works, b.refused = true, nil
	case isRefusal(ctx, err):
		b.works, b.refused, b.until = false, err, time.Now().Add(c.coolDown())
	}
}

// endProbe lets the Starts that wait for a probe decide again.
func (c *Chain) endProbe(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.breakers[i].probe)
	c.breakers[i].probe = nil
}

func (c *Chain) coolDown() time.Duration {
	if c.CoolDown == 0 {
		return time.Minute
	}
	return c.CoolDown
}

// unavailable says why each adapter was refused.
type unavailable struct {
	strict  bool
	refused []core.Refusal
}

func (e *unavailable) Error() string {
	var b strings.Builder
	if e.strict {
		b.WriteString("the chain is strict")
	} else {
		b.WriteString("no protocol of the chain is available")
	}
	for _, r := range e.refused {
		fmt.Fprintf(&b, "; %s was refused: %v", r.Adapter, r.Err)
	}
	return b.String()
}

func (e *unavailable) Unwrap() []error {
	errs := make([]error, len(e.refused))
	for i, r := range e.refused {
		errs[i] = r.Err
	}
	return errs
}
