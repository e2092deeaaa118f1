package main

import (
	"fmt"
	"slices"

	"github.com/snakepit-go/snakepit/bench/peers/ray"
)

// mode is where a row runs.
type mode string

const (
	pinned mode = "pinned" // Go and Python share one processor: what the software costs
	free   mode = "free"   // on all processors: what a user sees
)

// row is one comparison. Its subjects are measured in turns, in the same rounds.
type row struct {
	key, name, unit string
	modes           []mode
	subjects        []subject
}

// subject is one thing to measure.
type subject struct {
	name    string
	target  target
	costs   bool   // the sample has the costs of an operation, which can also be traced
	modes   []mode // nil means those of the row
	measure func(b *bed, n scale) (sample, error)
}

// target bounds a subject's value, in one mode.
type target struct {
	in      mode    // "" means that there is no target
	against string  // the subject of the same row to compare with; "" means that bound is in the row's unit
	bound   float64 // of the ratio to that subject
	less    bool    // the bound is from above
	plus    string  // a subject of the same row whose value is allowed on top
}

// sample is one measurement: a value in the row's unit, and what an operation costs.
type sample struct {
	Value float64 `json:"value"`
	Cost  cost    `json:"cost"`
}

// scale is the amount of work in a round.
type scale struct {
	calls   int     // of one caller
	burst   int     // calls of many callers together
	items   int     // of a stream
	firsts  int     // streams, measured to the first item
	large   int     // MiB of large values
	times   int     // starts, cancelled streams and the like
	idle    float64 // seconds
	workers int     // that start or idle, at most
	smaller int     // large values are so many times smaller
	job     job     // for the table of streaming
	trace   bool    // count system calls, instead of time
}

var (
	full = scale{calls: 3000, burst: 30000, items: 100000, firsts: 200, large: 128, times: 20, idle: 5, workers: 64,
		smaller: 1, job: job{Items: 100, Work: 0.02}}
	quick = scale{calls: 50, burst: 640, items: 2000, firsts: 10, large: 1, times: 1, idle: 1, workers: 4,
		smaller: 16, job: job{Items: 10, Work: 0.02}}
)

func scaleOf(o order) scale {
	n := full
	if o.Quick {
		n = quick
	}
	if o.Trace { // strace makes a call many times as slow
		n.calls, n.burst, n.items, n.firsts, n.large = 100, 1280, 5000, 20, 16
	}
	n.trace = o.Trace
	return n
}

var both = []mode{pinned, free}

// atMost and atLeast are targets for the ratio to another subject, on one processor.
func atMost(bound float64, against string) target {
	return target{in: pinned, against: against, bound: bound, less: true}
}

func atLeast(bound float64, against string) target {
	return target{in: pinned, against: against, bound: bound}
}

// below is a target in the row's unit.
func below(bound float64) target { return target{in: free, bound: bound, less: true} }

// freely is the same target without a pinned processor.
func freely(t target) target {
	t.in = free
	return t
}

const (
	megabyte  = 1 << 20
	small     = 1 * megabyte
	big       = 16 * megabyte
	enormous  = 64 * megabyte
	bareStart = "a bare interpreter"
)

var rows = []row{
	{"call", "a call, one caller, p50", "µs", both, []subject{
		serial(msgpackLoop, target{}),
		serial(jsonLoop, target{}),
		serial("msgpack", atMost(1.8, msgpackLoop)),
		serial("jsonstdio", atMost(1.4, jsonLoop)),
		serial("grpc", atMost(0.6, plainGRPC)),
		serial(plainGRPC, target{}),
		serial(fastAPI, target{}),
		serial(pyProc, target{}),
		serial(goPlugin, target{}),
		fewer(serial(oneProcess, target{}), 100),
		actor(1, func(r ray.Result) float64 { return microsecondsIn(r.P50) }),
	}},
	{"callers", "calls of 64 callers, one worker", "calls/s", both, []subject{
		together(msgpackIDs, 1, target{}),
		together("msgpack", 1, atLeast(0.55, msgpackIDs)),
		together("jsonstdio", 1, atLeast(0.45, msgpackIDs)),
		together("grpc", 1, atLeast(10, plainGRPC)),
		together(plainGRPC, slow, target{}),
		together(fastAPI, slow, target{}),
		together(pyProc, slow, target{}),
		together(goPlugin, slow, target{}),
		actor(64, func(r ray.Result) float64 { return r.PerSecond }),
	}},
	{"items", "small items of a stream", "items/s", both, []subject{
		plainStream(),
		ourStream("msgpack", atLeast(10, plainGRPC)),
		ourStream("jsonstdio", atLeast(5, plainGRPC)),
		ourStream("grpc", atLeast(5, plainGRPC)),
	}},
	{"first", "first item of a stream, p50, after 2 ms of rest", "µs", both, []subject{
		rested("msgpack", "msgpack, a call"),
		rested("jsonstdio", "jsonstdio, a call"),
		rested("grpc", "grpc, a call"),
		firstItem("msgpack", atMost(1.3, "msgpack, a call")),
		firstItem("jsonstdio", atMost(1.3, "jsonstdio, a call")),
		firstItem("grpc", atMost(1.3, "grpc, a call")),
	}},
	{"bytes-1", "1 MiB of bytes there and back, p50", "ms", both, largeBytes(small)},
	{"bytes-16", "16 MiB of bytes there and back, p50", "ms", both, largeBytes(big)},
	{"floats-1", "1 MiB of float64 there and back, p50", "ms", both, largeFloats(small)},
	{"floats-16", "16 MiB of float64 there and back, p50", "ms", both, largeFloats(big)},
	{"ping", "slowest ping while 64 MiB go there and back, median of the transfers", "ms", []mode{free}, []subject{
		pings("msgpack", below(20)),
		pings("jsonstdio", below(20)),
		pings("grpc", below(20)),
	}},
	{"start", "16 workers ready", "ms", []mode{free}, []subject{
		bare(bareStart, "", 1),
		bare("16 with the imports of msgpack", "msgpack", 16),
		bare("16 with the imports of jsonstdio", "jsonstdio", 16),
		bare("16 with the imports of grpc", "grpc", 16),
		ready("msgpack", 16, readyTarget("msgpack")),
		ready("jsonstdio", 16, readyTarget("jsonstdio")),
		ready("grpc", 16, readyTarget("grpc")),
	}},
	{"open", "Open of one worker", "ms", []mode{free}, []subject{
		ready("msgpack", 1, below(100)),
		ready("jsonstdio", 1, below(100)),
		ready("grpc", 1, target{}),
	}},
	{"replaced", "from kill -9 of a worker to the next result", "ms", []mode{free}, []subject{
		started("msgpack"), started("jsonstdio"), started("grpc"),
		replaced("msgpack"), replaced("jsonstdio"), replaced("grpc"),
	}},
	{"idle", "CPU time of 64 idle workers and their host, in 5 s", "ms", []mode{free}, []subject{
		idleServer(),
		idle("msgpack", below(10)), idle("jsonstdio", below(10)), idle("grpc", freely(atMost(1.2, idleGRPC))),
	}},
	{"cancel-caller", "from cancel to the caller, p95", "ms", []mode{free}, []subject{
		cancelToCaller("msgpack"), cancelToCaller("jsonstdio"), cancelToCaller("grpc"),
	}},
	{"cancel-handler", "from cancel to the end of a busy handler, p95", "ms", []mode{free}, []subject{
		cancelToHandler("msgpack"), cancelToHandler("jsonstdio"), cancelToHandler("grpc"),
	}},
	{"busy", "two busy workers", "times one", []mode{free}, []subject{
		busy("msgpack"), busy("jsonstdio"), busy("grpc"),
	}},
}

func readyTarget(adapter string) target {
	return target{in: free, against: "16 with the imports of " + adapter, bound: 1.3, less: true, plus: bareStart}
}

// find returns the row of that key.
func find(key string) (row, error) {
	for _, r := range slices.Concat(rows, remoteRows) {
		if r.key == key {
			return r, nil
		}
	}
	return row{}, fmt.Errorf("unknown row %q", key)
}

// rowJob measures one subject once.
func rowJob(b *bed, o order) (any, error) {
	r, err := find(o.Row)
	if err != nil {
		return nil, err
	}
	for _, s := range r.subjects {
		if s.name == o.Subject {
			sample, err := s.measure(b, scaleOf(o))
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", r.name, s.name, err)
			}
			return sample, nil
		}
	}
	return nil, fmt.Errorf("%s has no subject %q", r.name, o.Subject)
}
