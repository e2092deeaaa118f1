package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// memoryLimit is the limit, in MiB, on the growth of either process over its idle size.
const memoryLimit = 32

// chunk is the size of the streamed values.
const chunk = 64 << 10

// growth is the growth of the two processes, in MiB, during a stream whose consumer is ten times slower than
// its producer.
type growth struct {
	Adapter    string  `json:"adapter"`
	Streamed   float64 `json:"streamed_mib"`
	Slower     float64 `json:"times_slower"`
	HostIdle   float64 `json:"host_idle_mib"`
	HostPeak   float64 `json:"host_growth_at_peak_mib"`
	HostEnd    float64 `json:"host_growth_at_end_mib"`
	WorkerIdle float64 `json:"worker_idle_mib"`
	WorkerPeak float64 `json:"worker_growth_at_peak_mib"`
	WorkerEnd  float64 `json:"worker_growth_at_end_mib"`
}

// memory measures one adapter in a process of its own.
func memory(adapter string, bytes int64) (g growth, err error) {
	err = inChild(&g, order{Job: "memory", Adapter: adapter, Bytes: bytes})
	return g, err
}

func memoryJob(b *bed, o order) (any, error) {
	pool, err := b.pool(o.Adapter)
	if err != nil {
		return nil, err
	}
	if _, err := core.Execute[any](context.Background(), pool, "echo", arguments); err != nil {
		return nil, err
	}
	n := int(o.Bytes / chunk)
	var slower float64
	g, err := grow(pool.Workers()[0].Info().PID, func() error {
		slower, err = slowly(10, n, func(n int, each func()) error { return consume(pool, n, each) })
		return err
	})
	g.Adapter, g.Streamed, g.Slower = o.Adapter, float64(n)*chunk/(1<<20), slower
	return g, err
}

// grow measures the growth of this process and a worker while do runs.
func grow(worker int, do func() error) (g growth, err error) {
	host := os.Getpid()
	if g.HostIdle, err = settled(host); err != nil {
		return g, err
	}
	if g.WorkerIdle, err = settled(worker); err != nil {
		return g, err
	}
	if err := do(); err != nil {
		return g, err
	}
	for _, p := range []struct {
		pid             int
		idle, peak, end *float64
	}{{host, &g.HostIdle, &g.HostPeak, &g.HostEnd}, {worker, &g.WorkerIdle, &g.WorkerPeak, &g.WorkerEnd}} {
		if *p.peak, err = mebibytes(p.pid, "VmHWM"); err != nil {
			return g, err
		}
		debug.FreeOSMemory()
		if *p.end, err = mebibytes(p.pid, "VmRSS"); err != nil {
			return g, err
		}
		*p.peak -= *p.idle
		*p.end -= *p.idle
	}
	return g, nil
}

// slowly streams n chunks through a consumer that is the given number of times slower than the producer. It
// returns the actual factor. A part of the stream at full speed measures the producer's speed. That part also
// counts for the peak.
func slowly(times, n int, stream func(n int, each func()) error) (slower float64, err error) {
	part := max(n/16, 1)
	begin := time.Now()
	if err := stream(part, func() {}); err != nil {
		return 0, err
	}
	alone := time.Since(begin) / time.Duration(part)
	begin = time.Now()
	got := 0
	err = stream(n, func() {
		got++
		time.Sleep(time.Until(begin.Add(time.Duration(got*times) * alone)))
	})
	return float64(time.Since(begin)) / float64(n) / float64(alone), err
}

// consume receives n chunks and calls each for every one.
func consume(pool *core.Pool, n int, each func()) error {
	got := 0
	for b, err := range core.ExecuteStream[[]byte](context.Background(), pool, "produce",
		map[string]any{"n": n, "size": chunk}) {
		if err != nil {
			return err
		}
		if len(b) != chunk {
			return fmt.Errorf("item %d has %d bytes instead of %d", got, len(b), chunk)
		}
		got++
		each()
	}
	if got != n {
		return fmt.Errorf("%d chunks instead of %d", got, n)
	}
	return nil
}

// settled returns the resident size of a process and resets its peak. If it is this process, it first collects garbage.
func settled(pid int) (float64, error) {
	if pid == os.Getpid() {
		debug.FreeOSMemory()
	}
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		return 0, fmt.Errorf("resetting the peak of process %d: %w", pid, err)
	}
	return mebibytes(pid, "VmRSS")
}

// mebibytes reads one of the sizes that Linux keeps for a process; see proc_pid_status(5).
func mebibytes(pid int, field string) (float64, error) { return sizeIn("status", pid, field) }

// share returns the resident size of a process, in MiB. A page that several processes share counts in parts; see Pss in
// proc_pid_smaps(5).
func share(pid int) (float64, error) { return sizeIn("smaps_rollup", pid, "Pss") }

func sizeIn(file string, pid int, field string) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("process %d has no %s", pid, field)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}
