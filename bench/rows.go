package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// row is one comparison. Its subjects are measured in turns, in the same rounds.
type row struct {
	name, unit string
	subjects   []subject
}

// subject is one thing to measure. Against names the subject of the same row to compare with. If it is "", the
// subject is itself a floor or a peer. Target bounds the ratio: from above if less is better, otherwise from below.
type subject struct {
	name    string
	against string
	target  float64
	less    bool
	measure func(b *bed, n scale) (float64, error)
}

// scale is the amount of work in a round.
type scale struct {
	calls  int // of one caller
	burst  int // calls of 64 callers together
	items  int // of a stream
	firsts int // streams, measured to the first item
	job    job // for the table of streaming
}

var (
	full  = scale{calls: 3000, burst: 30000, items: 100000, firsts: 200, job: job{Items: 100, Work: 0.02}}
	quick = scale{calls: 300, burst: 3000, items: 5000, firsts: 20, job: job{Items: 10, Work: 0.02}}
)

const (
	atMost  = true
	atLeast = false
)

var rows = []row{
	{"unary, one caller, p50", "µs", []subject{
		{"bare MessagePack loop", "", 0, atMost, serial(loopCall("msgpack_loop"))},
		{"bare JSON lines", "", 0, atMost, serial(loopCall("json_lines"))},
		{"plain grpcio unary", "", 0, atMost, serial(plainCall)},
		{"msgpack", "bare MessagePack loop", 1.5, atMost, serial(ourCall("msgpack"))},
		{"jsonstdio", "bare JSON lines", 1.7, atMost, serial(ourCall("jsonstdio"))},
		{"grpc", "plain grpcio unary", 0.8, atMost, serial(ourCall("grpc"))},
	}},
	{"unary, 64 callers, one worker", "calls/s", []subject{
		{"MessagePack loop with ids", "", 0, atLeast, together(loopCall("msgpack_ids"), 1)},
		{"plain grpcio unary", "", 0, atLeast, together(plainCall, slow)},
		{"msgpack", "MessagePack loop with ids", 0.5, atLeast, together(ourCall("msgpack"), 1)},
		{"jsonstdio", "MessagePack loop with ids", 0.25, atLeast, together(ourCall("jsonstdio"), 1)},
		{"grpc", "plain grpcio unary", 10, atLeast, together(ourCall("grpc"), 1)},
	}},
	{"stream of small items", "items/s", []subject{
		{"plain grpcio stream", "", 0, atLeast, plainStream},
		{"msgpack", "plain grpcio stream", 10, atLeast, ourStream("msgpack")},
		{"jsonstdio", "plain grpcio stream", 5, atLeast, ourStream("jsonstdio")},
		{"grpc", "plain grpcio stream", 5, atLeast, ourStream("grpc")},
	}},
	{"first item of a stream, p50", "µs", []subject{
		{"msgpack unary", "", 0, atMost, serial(ourCall("msgpack"))},
		{"jsonstdio unary", "", 0, atMost, serial(ourCall("jsonstdio"))},
		{"grpc unary", "", 0, atMost, serial(ourCall("grpc"))},
		{"msgpack", "msgpack unary", 1.3, atMost, firstItem("msgpack")},
		{"jsonstdio", "jsonstdio unary", 1.3, atMost, firstItem("jsonstdio")},
		{"grpc", "grpc unary", 1.3, atMost, firstItem("grpc")},
	}},
}

// A caller returns the function that makes one call.
type caller func(b *bed) (func() error, error)

func loopCall(name string) caller {
	return func(b *bed) (func() error, error) { return b.loop(name) }
}

func plainCall(b *bed) (func() error, error) {
	p, err := b.plainGRPC()
	if err != nil {
		return nil, err
	}
	return p.call, nil
}

func ourCall(adapter string) caller {
	return func(b *bed) (func() error, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return nil, err
		}
		return func() error {
			result, err := core.Execute[map[string]any](context.Background(), p, "echo", arguments)
			if err != nil {
				return err
			}
			return check(true, result)
		}, nil
	}
}

// serial measures the median time of a call, in microseconds, one call after the other.
func serial(c caller) func(*bed, scale) (float64, error) {
	return func(b *bed, n scale) (float64, error) {
		call, err := c(b)
		if err != nil {
			return 0, err
		}
		for range n.calls / 10 {
			if err := call(); err != nil {
				return 0, err
			}
		}
		took := make([]time.Duration, n.calls)
		for i := range took {
			begin := time.Now()
			if err := call(); err != nil {
				return 0, err
			}
			took[i] = time.Since(begin)
		}
		return microseconds(took), nil
	}
}

// slow divides the calls and items of a round for a plain gRPC server, so that it does not take most of the time.
const slow = 10

// together measures the calls per second of 64 callers. part divides the calls of a round.
func together(c caller, part int) func(*bed, scale) (float64, error) {
	const callers = 64
	return func(b *bed, n scale) (float64, error) {
		call, err := c(b)
		if err != nil {
			return 0, err
		}
		if err := call(); err != nil {
			return 0, err
		}
		ended, each := make(chan error, callers), max(n.burst/part/callers, 1)
		begin := time.Now()
		for range callers {
			go func() {
				for range each {
					if err := call(); err != nil {
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
}

func plainStream(b *bed, n scale) (float64, error) {
	p, err := b.plainGRPC()
	if err != nil {
		return 0, err
	}
	items := n.items / slow
	begin := time.Now()
	if err := p.stream(items); err != nil {
		return 0, err
	}
	return float64(items) / time.Since(begin).Seconds(), nil
}

func ourStream(adapter string) func(*bed, scale) (float64, error) {
	return func(b *bed, n scale) (float64, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return 0, err
		}
		begin, next := time.Now(), 0
		for i, err := range core.ExecuteStream[int](context.Background(), p, "count", n.items) {
			if err != nil {
				return 0, err
			}
			if i != next {
				return 0, fmt.Errorf("item %d is %d", next, i)
			}
			next++
		}
		if next != n.items {
			return 0, fmt.Errorf("%d items instead of %d", next, n.items)
		}
		return float64(n.items) / time.Since(begin).Seconds(), nil
	}
}

// firstItem measures the median time to the first item, in microseconds. The handlers of the streams continue
// for 2 ms after it.
func firstItem(adapter string) func(*bed, scale) (float64, error) {
	return func(b *bed, n scale) (float64, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return 0, err
		}
		took := make([]time.Duration, 0, n.firsts)
		for range n.firsts {
			begin := time.Now()
			for _, err := range core.ExecuteStream[int](context.Background(), p, "first", 0.002) {
				if err != nil {
					return 0, err
				}
				took = append(took, time.Since(begin))
			}
		}
		if len(took) != n.firsts {
			return 0, fmt.Errorf("%d first items of %d streams", len(took), n.firsts)
		}
		return microseconds(took), nil
	}
}

func microseconds(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}
