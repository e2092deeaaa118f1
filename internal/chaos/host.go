//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/adapters/remote"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/fallback"
)

// order is what a host gets on its standard input: what to do in its life.
type order struct {
	Adapter string   `json:"adapter"`
	Life    string   `json:"life"`
	Dir     string   `json:"dir"`    // for the ledger and the log
	Tmp     string   `json:"tmp"`    // for the pool's directory, and for TMPDIR of the workers
	Python  string   `json:"python"` // the interpreter
	GRPC    []string `json:"grpc"`   // what to take away to uninstall grpcio
	Clock   bool     `json:"clock"`
	Fork    bool     `json:"fork"`  // by a fork server
	Keeps   bool     `json:"keeps"` // sessions survive their workers

	// Of the adapter remote.
	Targets      []string `json:"targets"`      // the back ends
	Certificates string   `json:"certificates"` // the directory of their certificates
	Waits        bool     `json:"waits"`        // starts wait for room
	Gentle       bool     `json:"gentle"`       // only faults that cost no call
}

// report is what a host says at its end.
type report struct {
	Faults    map[string]int `json:"faults"`
	FullAfter float64        `json:"full_after"` // seconds from the last fault to a pool of full size
	Stats     snakepit.Stats `json:"stats"`
	Left      []string       `json:"left"` // what is left after Close
}

// fullSize is the pool's size at its begin and at its end. fullTime is how long it may take to come back to it.
const (
	fullSize = 4
	fullTime = 40 * time.Second
)

// addressSpace bounds the memory of a worker, in bytes, if no control group can.
const addressSpace = 4 << 30

// host lives one life: it opens a pool, makes calls while the workers suffer, and closes the pool when its standard
// input ends. It may be killed at any time.
func host() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	book, err := openBook(filepath.Join(o.Dir, "host"))
	if err != nil {
		return err
	}
	files, goroutines := openFiles(), runtime.NumGoroutine()
	l := &load{book: book, life: o.Life}
	if l.pool, err = open(o, l, log); err != nil {
		return err
	}
	fmt.Println("open")
	ctx, stopLoad := context.WithCancel(context.Background())
	harm, stopHarm := context.WithCancel(context.Background())
	f := &faults{load: l, dir: o.Tmp, grpc: o.GRPC, step: o.Clock, gentle: o.Gentle, done: map[string]int{}}
	var running, harming sync.WaitGroup
	for range 12 {
		running.Go(func() { l.run(ctx) })
	}
	for i := range 3 {
		running.Go(func() { l.visit(ctx, fmt.Sprint("session", i)) })
	}
	harming.Go(func() { f.run(harm) })
	_, _ = in.ReadByte() // until the referee closes it
	stopHarm()
	harming.Wait()
	f.calls.Wait()
	r := report{Faults: f.done}
	full, err := l.awaitFull(f.last)
	r.FullAfter = full.Seconds()
	if err != nil {
		r.Left = append(r.Left, err.Error())
	}
	stopLoad()
	running.Wait()
	r.Stats = l.pool.Stats()
	if err := l.pool.Close(); err != nil {
		r.Left = append(r.Left, err.Error())
	}
	r.Left = append(r.Left, left(files, goroutines)...)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// open opens the pool.
func open(o order, l *load, log *os.File) (*snakepit.Pool, error) {
	env := []string{"TMPDIR=" + o.Tmp, "SNAKEPIT_CHAOS=" + o.Life, "CHAOS_LEDGER=" + filepath.Join(o.Dir, "worker")}
	if o.Keeps {
		env = append(env, "CHAOS_SNAPSHOTS=1")
	}
	local := snakepit.Python("internal/chaos/worker.py")
	local.Interpreter, local.ForkServer, local.Env = o.Python, o.Fork, env
	var program snakepit.Program = local
	var adapter core.Adapter
	limits, recycle := snakepit.Limits{Memory: 300 << 20}, snakepit.Recycle{Calls: 500, Age: 5 * time.Second}
	switch o.Adapter {
	case "remote":
		config, err := remote.LoadCertificates(o.Certificates)
		if err != nil {
			return nil, err
		}
		adapter = remote.Adapter{Targets: o.Targets, TLS: config, WaitForRoom: o.Waits}
		program = remote.Served{Env: append(env, "CHAOS_ADDRESS_SPACE="+strconv.Itoa(addressSpace))}
		limits, recycle.Memory = snakepit.Limits{}, 300<<20 // the machine of the back end bounds its workers
	case "chain":
		chain := fallback.New(grpc.Adapter{}, msgpack.Adapter{}, jsonstdio.Adapter{})
		chain.CoolDown = time.Second
		adapter = chain
	default:
		var err error
		if adapter, err = snakepit.Adapters(o.Adapter); err != nil {
			return nil, err
		}
	}
	opts := &snakepit.Options{
		Size: fullSize, MinSize: 2, IdleTime: time.Second, Surge: 2, StartBudget: -1, Queue: 40,
		CallTimeout: 5 * time.Second, StreamTimeout: 5 * time.Second, StartTimeout: 15 * time.Second,
		CancelGrace: 500 * time.Millisecond, StopTimeout: 2 * time.Second, SessionIdle: 5 * time.Second,
		Recycle: recycle, Limits: limits, Wedged: snakepit.WedgedReplace, WedgedAfter: 1500 * time.Millisecond,
		Functions: l.functions(), Dir: o.Tmp,
		Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}),
	}
	if o.Gentle { // the machine may be busy
		opts.Wedged, opts.WedgedAfter = snakepit.WedgedLog, 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pool, err := snakepit.OpenWith(ctx, adapter, program, opts)
	if err != nil && strings.Contains(err.Error(), "control groups") {
		opts.Limits = snakepit.Limits{AddressSpace: addressSpace}
		pool, err = snakepit.OpenWith(ctx, adapter, program, opts)
	}
	return pool, err
}

// awaitFull waits until the pool is back at its full size, without the processes that were killed.
func (l *load) awaitFull(killed []int) (time.Duration, error) {
	begin := time.Now()
	if err := l.pool.Resize(fullSize); err != nil {
		return 0, err
	}
	for {
		// Some callers wait all the time, so the pool grows to its size.
		ready := 0
		for _, w := range l.pool.Stats().Workers {
			if w.State == core.StateReady && !slices.Contains(killed, w.PID) {
				ready++
			}
		}
		if ready >= fullSize {
			return time.Since(begin), nil
		}
		if time.Since(begin) > fullTime {
			stats, _ := json.Marshal(l.pool.Stats())
			return 0, fmt.Errorf("the pool is not back at its size after %s: %s", fullTime, stats)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// left returns what the pool has left behind in this process.
func left(files []string, goroutines int) []string {
	var found []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		found = found[:0]
		if n := runtime.NumGoroutine(); n > goroutines {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			found = append(found, fmt.Sprintf("%d goroutines more: %s", n-goroutines, stacks.String()))
		}
		known := map[string]bool{}
		for _, file := range files {
			known[file] = true
		}
		for _, file := range openFiles() {
			if !known[file] {
				found = append(found, "descriptor "+file)
			}
		}
		if len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
}

// openFiles returns what this process has open.
func openFiles() []string {
	links, _ := filepath.Glob("/proc/self/fd/*")
	var files []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && !strings.HasSuffix(target, "/fd") {
			files = append(files, target)
		}
	}
	return files
}
