package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what one operation costs both sides. A field is -1 if it was not or could not be measured.
type cost struct {
	GoCPU     float64 `json:"go_cpu_us"`
	PythonCPU float64 `json:"python_cpu_us"`
	Allocs    float64 `json:"go_allocations"`
	GoCalls   float64 `json:"go_system_calls"`
	PyCalls   float64 `json:"python_system_calls"`
}

var unknown = cost{-1, -1, -1, -1, -1}

// costOf runs do, which makes n operations, and returns the cost of one. The processes of Python are those of pids,
// and those that do starts and waits for.
func costOf(n int, pids []int, do func() error) (cost, error) {
	before := used{workers: usedBy(pids)} // reading this takes time that is not part of the operations
	before.readHost()
	if err := do(); err != nil {
		return unknown, err
	}
	var after used
	after.readHost()
	after.workers = usedBy(pids)
	each := func(before, after float64) float64 {
		if before < 0 || after < 0 {
			return -1
		}
		return (after - before) / float64(n)
	}
	return cost{
		GoCPU: each(before.host, after.host), PythonCPU: each(before.workers, after.workers),
		Allocs: each(before.allocs, after.allocs), GoCalls: -1, PyCalls: -1,
	}, nil
}

// used is what processes have used since they started: microseconds of CPU time, and allocations in Go.
type used struct{ host, workers, allocs float64 }

// readHost reads what this process has used.
func (u *used) readHost() {
	var self unix.Rusage
	if u.host = -1; unix.Getrusage(unix.RUSAGE_SELF, &self) == nil {
		u.host = microsecondsOf(self)
	}
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap) // package runtime/metrics lags behind by some hundred allocations
	u.allocs = float64(heap.Mallocs)
}

// usedBy returns what processes, and all children that have ended, have used, or -1.
func usedBy(pids []int) float64 {
	var children unix.Rusage
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &children) != nil {
		return -1
	}
	sum := microsecondsOf(children)
	for _, pid := range pids {
		ran, err := processorTime(pid)
		if err != nil {
			return -1
		}
		sum += float64(ran.Nanoseconds()) / 1000
	}
	return sum
}

func microsecondsOf(u unix.Rusage) float64 {
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1000
}

// processorTime reads the time that a process has run, with its threads that have ended; see the description of process
// clocks in Linux, include/linux/posix-timers.h. Other systems do not know the clock.
func processorTime(pid int) (time.Duration, error) {
	const clockOfProcess = 2 // CPUCLOCK_SCHED
	var ran unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|clockOfProcess), &ran); err != nil {
		return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
	}
	return time.Duration(ran.Nano()), nil
}

// systemCalls runs do, which makes n operations, under strace and returns the system calls of one, in Go and in
// Python. They are -1 if strace is missing or may not watch.
func systemCalls(n int, pids []int, do func() error) (host, workers float64, err error) {
	hostTrace, hostErr := startTrace(os.Getpid())
	workersTrace, workersErr := startTrace(pids...)
	err = do()
	count := func(t *trace, failed error) float64 {
		if failed != nil {
			return -1
		}
		return t.stop() / float64(n)
	}
	return count(hostTrace, hostErr), count(workersTrace, workersErr), err
}

// trace is an strace(1) that counts the system calls of running processes.
type trace struct {
	cmd  *exec.Cmd
	path string
}

func startTrace(pids ...int) (*trace, error) {
	file, err := os.CreateTemp("", "bench")
	if err != nil {
		return nil, err
	}
	t := &trace{path: file.Name()}
	if err := file.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(t.path))
	}
	args := []string{"-f", "-c", "-e", "trace=%desc,%network", "-o", t.path}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	t.cmd = exec.Command("strace", args...)
	stderr, err := t.cmd.StderrPipe()
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process to trace")
	}
	if err == nil {
		err = t.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(t.path))
	}
	said := make([]byte, 0, 4096)
	for strings.Count(string(said), "attached") < len(pids) {
		n, err := stderr.Read(said[len(said):cap(said)])
		if said = said[:len(said)+n]; err != nil || len(said) == cap(said) {
			t.stop()
			return nil, fmt.Errorf("strace: %s", said)
		}
	}
	return t, nil
}

// stop ends the trace and returns the number of system calls, or -1.
func (t *trace) stop() float64 {
	_ = t.cmd.Process.Signal(unix.SIGINT) // it has ended by itself if it could not attach
	_ = t.cmd.Wait()                      // it ends by the signal
	text, err := os.ReadFile(t.path)
	if err = errors.Join(err, os.Remove(t.path)); err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		// percent, seconds, microseconds a call, calls, perhaps errors, "total"
		if f := strings.Fields(line); len(f) > 4 && f[len(f)-1] == "total" {
			if calls, err := strconv.ParseFloat(f[3], 64); err == nil {
				return calls
			}
		}
	}
	return -1
}
