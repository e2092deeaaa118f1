package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/adapters/remote"
	"github.com/snakepit-go/snakepit/bench/peers"
	"github.com/snakepit-go/snakepit/bench/peers/ray"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// The names of the subjects beyond one machine. In the bench everything runs on one.
const (
	served   = "remote, a served worker"
	onRay    = "remote, a worker on Ray"
	rayServe = "Ray Serve, over HTTP"
	rayJob   = "Ray job with files and an actor"
	ofRayJob = "Ray actor of a job with files"
	onRayJob = "remote, a job on Ray with a worker"
)

// remoteRows compare workers beyond one machine with a local one, and with Ray's own calls.
var remoteRows = []row{
	{"remote-call", "a call, one caller, p50", "µs", []mode{free}, []subject{
		serial("grpc", target{}),
		serial(served, freely(atMost(1, rayActor))),
		serial(onRay, freely(atMost(1, rayActor))),
		driven(func(c *ray.Cluster, n scale) (float64, error) {
			r, err := c.Calls(1, n.calls)
			return microsecondsIn(r.P50), err
		}),
		fewer(serial(rayServe, target{}), 500),
	}},
	{"remote-callers", "calls of 64 callers, one worker", "calls/s", []mode{free}, []subject{
		together("grpc", 1, target{}),
		together(served, 1, freely(atLeast(1, rayActor))),
		together(onRay, 1, freely(atLeast(1, rayActor))),
		driven(func(c *ray.Cluster, n scale) (float64, error) {
			r, err := c.Calls(64, max(n.burst/slow, 64))
			return r.PerSecond, err
		}),
		together(rayServe, slow, target{}),
	}},
	{"remote-items", "small items of a stream", "items/s", []mode{free}, []subject{
		ourStream("grpc", target{}),
		ourStream(served, freely(atLeast(1, rayActor))),
		ourStream(onRay, freely(atLeast(1, rayActor))),
		driven(func(c *ray.Cluster, n scale) (float64, error) { return c.Items(n.items / slow) }),
		serveStream(),
	}},
	{"remote-start", "a start", "ms", []mode{free}, []subject{
		oneMore("grpc", target{}),
		oneMore(served, target{}),
		timedByRay(rayActor, 5, func(c *ray.Cluster) (time.Duration, error) { return c.Actors(1) }),
		ofJob(),
		oneMore(onRay, freely(atMost(1.3, ofRayJob))),
		timedByRay(rayJob, 3, func(c *ray.Cluster) (time.Duration, error) {
			took, _, err := c.Job()
			return took, err
		}),
		submitted(freely(atMost(1.3, rayJob))),
	}},
}

// driven is a Ray actor whose driver measures itself.
func driven(measure func(c *ray.Cluster, n scale) (float64, error)) subject {
	return subject{name: rayActor, measure: func(b *bed, n scale) (sample, error) {
		c, err := b.cluster()
		if err != nil {
			return sample{}, err
		}
		value, err := measure(c, n)
		return sample{value, unknown}, err
	}}
}

// timedByRay is a start that the driver measures itself.
func timedByRay(name string, times int, measure func(*ray.Cluster) (time.Duration, error)) subject {
	return timed(name, target{}, times, func(b *bed, _ scale) (time.Duration, error) {
		c, err := b.cluster()
		if err != nil {
			return 0, err
		}
		return measure(c)
	})
}

// ofJob is the median start of an actor in a job that was submitted with a directory of files, as workers on Ray are.
func ofJob() subject {
	return subject{name: ofRayJob, measure: func(b *bed, n scale) (sample, error) {
		c, err := b.cluster()
		if err != nil {
			return sample{}, err
		}
		_, took, err := c.Job(slices.Repeat([]int{1}, min(5, n.times))...)
		if err != nil {
			return sample{}, err
		}
		return sample{milliseconds(quantile(took, 0.5)), unknown}, nil
	}}
}

// oneMore adds workers to a pool, one after the other, and measures the median time until the new one is ready.
func oneMore(name string, t target) subject {
	return subject{name: name, target: t, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.open(name, 1)
		if err != nil {
			return sample{}, err
		}
		took := make([]time.Duration, min(5, n.times))
		for i := range took {
			if took[i], err = grown(p, i+2); err != nil {
				break
			}
		}
		return sample{milliseconds(quantile(took, 0.5)), unknown}, errors.Join(err, p.Close())
	}}
}

func grown(p *core.Pool, size int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	begin := time.Now()
	if err := p.Resize(size); err != nil {
		return 0, err
	}
	err := p.WaitReady(ctx, size)
	return time.Since(begin), err
}

// submitted opens a pool of one worker on Ray, and so submits a job.
func submitted(t target) subject {
	return timed(onRayJob, t, 3, func(b *bed, _ scale) (time.Duration, error) {
		if _, err := b.cluster(); err != nil {
			return 0, err
		}
		begin := time.Now()
		p, err := b.open(onRay, 1)
		if err != nil {
			return 0, err
		}
		return time.Since(begin), p.Close()
	})
}

// serveStream measures the items per second of a streamed response of Ray Serve.
func serveStream() subject {
	return subject{name: rayServe, measure: func(b *bed, n scale) (sample, error) {
		s, err := b.peer(rayServe)
		if err != nil {
			return sample{}, err
		}
		items := max(n.items/slow, 1)
		begin := time.Now()
		err = s.(*ray.Serve).Stream(context.Background(), items)
		return sample{float64(items) / time.Since(begin).Seconds(), unknown}, err
	}}
}

// remotePool starts a pool of one worker beyond one machine.
func remotePool(name string) start {
	return func(b *bed) (peers.Peer, error) {
		p, err := b.open(name, 1)
		return pool{p}, err
	}
}

func startServe(b *bed) (peers.Peer, error) {
	c, err := b.cluster()
	if err != nil {
		return nil, err
	}
	return c.Serve()
}

// longest is the time limit for the start of a pool, however large.
const longest = 5 * time.Minute

// cluster returns the Ray of the bed. Workers and actors reserve a hundredth of a processor, so there is room for many.
func (b *bed) cluster() (*ray.Cluster, error) {
	return keep(b, "Ray", func() (*ray.Cluster, error) {
		return ray.StartDashboard(context.Background(), b.python, 2)
	})
}

// backEnd returns the bed's back end that serves workers.
func (b *bed) backEnd() (*backEnd, error) {
	return keep(b, "back end", func() (*backEnd, error) { return startBackEnd() })
}

// open opens a pool on an adapter of this machine or beyond it, and waits until all its workers are ready.
func (b *bed) open(name string, size int) (*core.Pool, error) {
	o := core.Options{Size: size, StartTimeout: longest, StopTimeout: time.Minute} // many workers need time
	switch name {
	case served:
		back, err := b.backEnd()
		if err != nil {
			return nil, err
		}
		return openOn(back.adapter, remote.Served{}, o)
	case onRay:
		c, err := b.cluster()
		if err != nil {
			return nil, err
		}
		return openOn(remote.Ray{Dashboard: c.Dashboard(), CPUs: 0.01},
			python.Elsewhere{FS: workerFiles, Script: "worker.py"}, o)
	}
	return openPool(name, program, o)
}

// backEnd is a process that serves workers of worker.py, by mutual TLS.
type backEnd struct {
	cmd     *exec.Cmd
	stop    context.CancelFunc // interrupts it, and kills it later
	adapter remote.Adapter
}

// addressWriter passes on what a back end prints, and finds where it listens. One goroutine writes.
type addressWriter struct {
	found chan string // gets the address; its buffer has room for it
	text  []byte      // what came before; nil afterwards
}

var listening = regexp.MustCompile(`serving .* at (127\.0\.0\.1:\d+),`)

func (a *addressWriter) Write(p []byte) (int, error) {
	if a.found == nil {
		return os.Stderr.Write(p)
	}
	a.text = append(a.text, p...)
	if m := listening.FindSubmatch(a.text); m != nil {
		a.found <- string(m[1])
		a.found, a.text = nil, nil
	}
	return len(p), nil
}

// startBackEnd starts a back end and returns when it listens. What it prints later goes to this program's standard
// error.
func startBackEnd() (*backEnd, error) {
	directory, err := os.MkdirTemp("", "certificates")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	directory = filepath.Join(directory, "certs")
	if err := remote.WriteCertificates(directory, nil, time.Hour); err != nil {
		return nil, err
	}
	tls, err := remote.LoadCertificates(directory)
	if err != nil {
		return nil, err
	}
	start, err := program.Command()
	if err != nil {
		return nil, err
	}
	// Command starts the worker by a file beside the package. That file runs modules too.
	life, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(life, start.Path, start.Args[0], "-m", "snakepit_bridge.serve", start.Args[1],
		"--listen", "127.0.0.1:0", "--workers", strconv.Itoa(mostWorkers+1), "--certificates", directory,
		"--grace", "1")
	cmd.Env = append(os.Environ(), start.Env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	found := make(chan string, 1)
	said := &addressWriter{found: found}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	b := &backEnd{cmd: cmd, stop: stop}
	select {
	case address := <-found:
		b.adapter = remote.Adapter{Targets: []string{address}, TLS: tls}
		return b, nil
	case <-time.After(time.Minute): // it has ended, or hangs
		err := b.Close()
		return nil, errors.Join(fmt.Errorf("the back end does not listen; it said %q", said.text), err)
	}
}

// PIDs lists the back end, not its workers.
func (b *backEnd) PIDs() []int { return []int{b.cmd.Process.Pid} }

// Close ends the back end.
func (b *backEnd) Close() error {
	b.stop()
	if err := b.cmd.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // it has ended by the interrupt
}
