package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers"
)

// metered runs do, which makes ops operations and returns a value, and adds what an operation costs. Under a trace
// only the system calls are known.
func metered(n scale, ops int, pids []int, do func() (float64, error)) (s sample, err error) {
	run := func() error {
		s.Value, err = do()
		return err
	}
	if !n.trace {
		s.Cost, err = costOf(ops, pids, run)
		return s, err
	}
	s.Cost = unknown
	s.Cost.GoCalls, s.Cost.PyCalls, err = systemCalls(ops, pids, run)
	return s, err
}

// call makes one small call and checks its result.
func call(p peers.Peer) error {
	result, err := p.Call(context.Background(), arguments)
	if err == nil && len(result) != len(arguments) {
		err = fmt.Errorf("the wrong reply: %v", result)
	}
	return err
}

// serial measures the median time of a call, one call after the other.
func serial(name string, t target) subject {
	return subject{name: name, target: t, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.peer(name)
		if err != nil {
			return sample{}, err
		}
		for range max(n.calls/10, 1) {
			if err := call(p); err != nil {
				return sample{}, err
			}
		}
		took := make([]time.Duration, n.calls)
		return metered(n, n.calls, p.PIDs(), func() (float64, error) {
			for i := range took {
				begin := time.Now()
				if err := call(p); err != nil {
					return 0, err
				}
				took[i] = time.Since(begin)
			}
			return microsecondsIn(quantile(took, 0.5)), nil
		})
	}}
}

// fewer makes at most so many calls, and a tenth under a trace.
func fewer(s subject, most int) subject {
	measure := s.measure
	s.measure = func(b *bed, n scale) (sample, error) {
		n.calls = min(n.calls, most)
		if n.trace {
			n.calls = max(n.calls/10, 1)
		}
		return measure(b, n)
	}
	return s
}

// rested measures the median time of a call after a rest of 2 ms.
func rested(name, title string) subject {
	return subject{name: title, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.peer(name)
		if err != nil {
			return sample{}, err
		}
		took := make([]time.Duration, n.firsts)
		return metered(n, n.firsts, p.PIDs(), func() (float64, error) {
			for i := range took {
				time.Sleep(2 * time.Millisecond)
				begin := time.Now()
				if err := call(p); err != nil {
					return 0, err
				}
				took[i] = time.Since(begin)
			}
			return microsecondsIn(quantile(took, 0.5)), nil
		})
	}}
}

// slow divides the calls and items of a round for slow subjects, so that they do not take most of the time.
const slow = 10

// together measures the calls per second of 64 callers. part divides the calls of a round.
func together(name string, part int, t target) subject {
	const callers = 64
	return subject{name: name, target: t, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.peer(name)
		if err != nil {
			return sample{}, err
		}
		if _, err := callTogether(p, callers, callers); err != nil { // open the connections
			return sample{}, err
		}
		each := max(n.burst/part/callers, 1)
		return metered(n, callers*each, p.PIDs(), func() (float64, error) {
			return callTogether(p, callers, each*callers)
		})
	}}
}

// callTogether divides calls among callers and returns the calls per second.
func callTogether(p peers.Peer, callers, calls int) (perSecond float64, err error) {
	ended, each := make(chan error, callers), calls/callers
	begin := time.Now()
	for range callers {
		go func() {
			for range each {
				if err := call(p); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range callers {
		err = errors.Join(err, <-ended)
	}
	return float64(each*callers) / time.Since(begin).Seconds(), err
}

// quantile sorts took and returns the value below which that part of it is.
func quantile(took []time.Duration, part float64) time.Duration {
	slices.Sort(took)
	return took[min(int(float64(len(took))*part), len(took)-1)]
}

func microsecondsIn(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
