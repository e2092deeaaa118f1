package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// memoryLimit is by how many MiB either process may grow over its idle size.
const memoryLimit = 32

// chunk is the size of the streamed values.
const chunk = 64 << 10

// memoryName is the row's name, for -rows and the table.
const memoryName = "memory, slow consumer"

// growth is what a stream through a consumer ten times slower than its producer does to the two processes, in MiB.
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

// childVariable tells a process of this program that it is to measure memory, and nothing else: what other rows leave behind would
// count as idle size.
const childVariable = "SNAKEPIT_BENCH_MEMORY"

// memory measures one adapter in a process of its own.
func memory(adapter string, bytes int64) (growth, error) {
	self, err := os.Executable()
	if err != nil {
		return growth{}, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childVariable, adapter, bytes))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return growth{}, fmt.Errorf("measuring the memory of %s: %w", adapter, err)
	}
	var g growth
	return g, json.Unmarshal(out, &g)
}

// memoryChild is that process; it prints a growth.
func memoryChild(job string) error {
	var adapter string
	var bytes int64
	if _, err := fmt.Sscan(job, &adapter, &bytes); err != nil {
		return fmt.Errorf("%s=%q: %w", childVariable, job, err)
	}
	g, err := grow(adapter, bytes)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(g)
}

func grow(adapter string, bytes int64) (g growth, err error) {
	pool, err := openPool(adapter)
	if err != nil {
		return g, err
	}
	defer pool.Close()
	if _, err := core.Execute[any](context.Background(), pool, "echo", arguments); err != nil {
		return g, err
	}
	host, worker := os.Getpid(), pool.Workers()[0].Info().PID
	n := int(bytes / chunk)
	g = growth{Adapter: adapter, Streamed: float64(n) * chunk / (1 << 20)}
	if g.HostIdle, err = settled(host); err != nil {
		return g, err
	}
	if g.WorkerIdle, err = settled(worker); err != nil {
		return g, err
	}

	// How fast the producer is is found out by a part of the stream at full speed, which counts for the peak too.
	part := max(n/16, 1)
	alone, err := consume(pool, part, 0)
	if err != nil {
		return g, err
	}
	each := alone / time.Duration(part)
	took, err := consume(pool, n, 10*each)
	if err != nil {
		return g, err
	}
	g.Slower = float64(took) / float64(n) / float64(each)

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

// consume takes n chunks, one in each so long, and returns how long that took.
func consume(pool *core.Pool, n int, each time.Duration) (time.Duration, error) {
	begin, got := time.Now(), 0
	args := map[string]any{"n": n, "size": chunk}
	for b, err := range core.ExecuteStream[[]byte](context.Background(), pool, "produce", args) {
		if err != nil {
			return 0, err
		}
		if len(b) != chunk {
			return 0, fmt.Errorf("item %d has %d bytes instead of %d", got, len(b), chunk)
		}
		got++
		time.Sleep(time.Until(begin.Add(time.Duration(got) * each)))
	}
	if got != n {
		return 0, fmt.Errorf("%d chunks instead of %d", got, n)
	}
	return time.Since(begin), nil
}

// settled returns a process's resident size, its own garbage collected if it is this one, and starts its peak anew.
func settled(pid int) (float64, error) {
	if pid == os.Getpid() {
		debug.FreeOSMemory()
	}
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		return 0, fmt.Errorf("resetting the peak of process %d: %w", pid, err)
	}
	return mebibytes(pid, "VmRSS")
}

// mebibytes reads one of the sizes that Linux keeps of a process; see proc_pid_status(5).
func mebibytes(pid int, field string) (float64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("process %d has no %s", pid, field)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}
