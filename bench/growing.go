package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// growingKey is the key of the part that shows what more workers cost.
const growingKey = "remote-growing"

// mostWorkers is the largest pool of that part.
const mostWorkers = 64

// extent is what so many workers of one kind take. share measures memory. A field is -1 where there is no such thing.
type extent struct {
	Subject    string  `json:"subject"`
	Workers    int     `json:"workers"`
	Ready      float64 `json:"ready_seconds"`    // from Open until all workers are ready
	PerSecond  float64 `json:"calls_per_second"` // of 64 callers together
	Host       float64 `json:"host_mib"`         // of the Go program
	Goroutines float64 `json:"goroutines"`       // of the Go program
	BackEnd    float64 `json:"back_end_mib"`
	Worker     float64 `json:"worker_mib"` // one of the workers
	Actor      float64 `json:"actor_mib"`  // one of Ray's actors that hold them
	Head       float64 `json:"head_mib"`   // of Ray's processes gcs_server and dashboard.py
}

// growing measures each number of workers in processes of their own.
func growing(isQuick bool, missing func(name string) bool, say func(part, detail string)) ([]extent, error) {
	points := []int{1, 4, 16, mostWorkers}
	if isQuick {
		points = []int{2}
	}
	var all []extent
	for _, subject := range []string{"grpc", served, onRay, ofRayJob, rayActor} {
		if missing(subject) {
			continue
		}
		for _, n := range points {
			say(growingKey, fmt.Sprintf("%d times %s", n, subject))
			var e extent
			if err := inChild(&e, order{Job: "growing", Subject: subject, Point: n, Quick: isQuick}); err != nil {
				return nil, fmt.Errorf("%d times %s: %w", n, subject, err)
			}
			all = append(all, e)
		}
	}
	return all, nil
}

func growingJob(b *bed, o order) (any, error) {
	e := extent{Subject: o.Subject, Workers: o.Point, PerSecond: -1, Host: -1, Goroutines: -1, BackEnd: -1, Worker: -1,
		Actor: -1, Head: -1}
	if err := os.Setenv(markVariable, fmt.Sprint("growing-", os.Getpid())); err != nil {
		return nil, err
	}
	switch o.Subject { // so that its start is no part of that of the workers
	case served:
		if _, err := b.backEnd(); err != nil {
			return nil, err
		}
	case onRay:
		if _, err := b.cluster(); err != nil {
			return nil, err
		}
	case ofRayJob, rayActor:
		var err error
		e.Ready, err = b.actors(o.Subject, o.Point)
		return e, err
	}
	begin := time.Now()
	p, err := b.open(o.Subject, o.Point)
	if err != nil {
		return nil, err
	}
	e.Ready = time.Since(begin).Seconds()
	return e, errors.Join(e.look(p, scaleOf(o)), p.Close())
}

// actors returns in how many seconds so many of Ray's actors are ready, from the submission of their job if they have
// one.
func (b *bed) actors(subject string, count int) (float64, error) {
	c, err := b.cluster()
	if err != nil {
		return 0, err
	}
	if subject == rayActor {
		took, err := c.Actors(count)
		return took.Seconds(), err
	}
	first, others, err := c.Job(count - 1)
	if err != nil {
		return 0, err
	}
	return (first + others[0]).Seconds(), nil
}

// look measures a pool that is ready.
func (e *extent) look(p *core.Pool, n scale) (err error) {
	const callers = 64
	if _, err := callTogether(pool{p}, callers, callers*10); err != nil {
		return err
	}
	if e.PerSecond, err = callTogether(pool{p}, callers, max(n.burst, callers)); err != nil {
		return err
	}
	e.Goroutines = float64(runtime.NumGoroutine())
	debug.FreeOSMemory()
	if e.Host, err = share(os.Getpid()); err != nil {
		return err
	}
	var workers float64
	for _, pid := range pidsOf(p) {
		size, err := share(pid)
		if err != nil {
			return err
		}
		workers += size
	}
	e.Worker = workers / float64(e.Workers)
	switch e.Subject {
	case served:
		e.BackEnd, _, err = memoryOf("snakepit_bridge.serve")
		return err
	case onRay:
		var actors, gcs, dashboard float64
		var count int
		var errs [4]error
		e.BackEnd, _, errs[0] = memoryOf("snakepit_bridge.ray\x00")
		actors, count, errs[1] = memoryOf("ray::Holder")
		gcs, _, errs[2] = memoryOf("gcs_server\x00")
		dashboard, _, errs[3] = memoryOf("dashboard/dashboard.py")
		e.Actor, e.Head = actors/float64(count), gcs+dashboard
		return errors.Join(errs[:]...)
	}
	return nil
}

// memoryOf adds up the memory, in MiB, of the processes that this program has started since it was marked, directly or
// not, and whose command line contains the text. A zero byte follows each argument there. It also returns how many
// there are; none is an error.
func memoryOf(text string) (sum float64, count int, err error) {
	for _, pid := range marked(markVariable + "=" + os.Getenv(markVariable)) {
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil || !bytes.Contains(line, []byte(text)) { // an ended process has none
			continue
		}
		size, err := share(pid)
		if err != nil {
			return 0, 0, err
		}
		sum += size
		count++
	}
	if count == 0 {
		err = fmt.Errorf("no process has %q in its command line", text)
	}
	return sum, count, err
}

func growingTable(all []extent) table {
	t := table{Name: growingKey, Title: "what workers take, each number once, everything on this machine",
		Header: []string{"", "workers", "all ready, s", "calls/s of 64 callers", "Go, MiB", "goroutines",
			"back end, MiB", "each worker, MiB", "each actor, MiB", "Ray's GCS and dashboard, MiB"}}
	for _, e := range all {
		cells := []string{e.Subject, strconv.Itoa(e.Workers)}
		for _, v := range []float64{e.Ready, e.PerSecond, e.Host, e.Goroutines, e.BackEnd, e.Worker, e.Actor, e.Head} {
			cells = append(cells, known(v))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}
