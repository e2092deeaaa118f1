// Package fallback makes one adapter of several: a chain that starts each worker with the first protocol that is available there.
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

// Chain is a core.Adapter that tries its adapters in order. An adapter that says that its protocol cannot be had here, by an error that
// wraps core.ErrUnavailable, is refused: the next one is tried, and for the cool-down no worker is launched for it again. Any other error
// is about the worker, which would fail with each of them, and is final.
//
// As long as it is not known whether an adapter is available, one Start finds out and the others wait for its verdict; when it is known, any
// number of them start workers at once. After the cool-down one Start tries again what was refused, while others go on with what works.
//
// What a chain remembers, it remembers for all pools that share it.
type Chain struct {
	// CoolDown is how long a refusal is remembered. 0 means 1 min, negative means not at all. It is not to change once the chain is in use.
	CoolDown time.Duration
	// Strict means to fail rather than to degrade: only the first adapter is used. It is not to change once the chain is in use.
	Strict bool

	adapters []core.Adapter

	mu       sync.Mutex // guards verdicts
	verdicts []verdict  // one for each adapter
}

// verdict is what a chain knows of an adapter. Its zero value is nothing.
type verdict struct {
	works   bool          // the last Start that showed anything succeeded
	refused error         // or was refused, with this error
	until   time.Time     // when to try again what was refused
	probing chan struct{} // closed when the Start that is finding out has done so; nil if there is none
}

// New returns a chain of the adapters, the preferred one first. It panics if there are none.
func New(adapters ...core.Adapter) *Chain {
	if len(adapters) == 0 {
		panic("fallback.New: no adapters")
	}
	return &Chain{adapters: slices.Clone(adapters), verdicts: make([]verdict, len(adapters))}
}

// Parse returns what a list of names such as "grpc,jsonstdio" stands for: a chain of those adapters or, for a single name, that adapter
// itself. known are the adapters that can be named. A name that is unknown, empty or there twice is an error that lists them.
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

// Start starts one worker with the first available adapter. Link.Adapter is that adapter's name, and Link.Refused says why each one
// before it was not used. If there is none, the error says why for each, and wraps those errors and so core.ErrUnavailable. Any other
// error is a *core.StartError that has the same facts.
func (c *Chain) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	n := len(c.adapters)
	if c.Strict {
		n = 1
	}
	var refused []core.Refusal
	for i, a := range c.adapters[:n] {
		link, err := c.start(ctx, l, i, n)
		switch {
		case err == nil:
			if link.Adapter == "" {
				link.Adapter = a.Name()
			}
			link.Refused = append(refused, link.Refused...)
			return link, nil
		case !isRefusal(ctx, err):
			e, ok := err.(*core.StartError) // of a chain in this one
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

// isRefusal reports whether the adapter said that its protocol cannot be had. When the caller has gone, or its time is over, nothing that
// was seen says so.
func isRefusal(ctx context.Context, err error) bool {
	return errors.Is(err, core.ErrUnavailable) && ctx.Err() == nil
}

// start starts a worker with the adapter at i of the n that may be used, unless that is known to be in vain.
func (c *Chain) start(ctx context.Context, l *core.Launcher, i, n int) (*core.Link, error) {
	for {
		probe, wait, err := c.enter(i, n)
		switch {
		case err != nil:
			return nil, err
		case wait == nil:
			if probe != nil {
				defer c.leave(i, probe)
			}
			link, err := c.adapters[i].Start(ctx, l)
			c.learn(ctx, i, err)
			return link, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting to hear whether %s is available: %w", c.adapters[i].Name(), context.Cause(ctx))
		}
	}
}

// enter decides what a Start may do with the adapter at i: nothing, for the reason in err; wait for another Start's verdict, and ask again;
// else start a worker, and call leave then if probe is not nil, because others wait for the verdict.
func (c *Chain) enter(i, n int) (probe, wait chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &c.verdicts[i]
	switch {
	case v.works:
		return nil, nil, nil
	case v.refused != nil && time.Now().Before(v.until):
		return nil, nil, v.refused
	case v.probing == nil:
		v.probing = make(chan struct{})
		return v.probing, nil, nil
	case v.refused != nil && slices.ContainsFunc(c.verdicts[i+1:n], func(later verdict) bool { return later.works }):
		return nil, nil, v.refused // until it is known to be better again, the later one will do
	}
	return nil, v.probing, nil
}

// learn remembers what a Start has shown. One that failed for another reason than a refusal has shown nothing.
func (c *Chain) learn(ctx context.Context, i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &c.verdicts[i]
	switch {
	case err == nil:
		v.works, v.refused = true, nil
	case isRefusal(ctx, err):
		v.works, v.refused, v.until = false, err, time.Now().Add(c.coolDown())
	}
}

func (c *Chain) leave(i int, probe chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verdicts[i].probing = nil
	close(probe)
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
