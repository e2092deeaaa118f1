//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// faults does harm to the workers of a pool, one thing after another.
type faults struct {
	load   *load
	dir    string   // the pool's temporary directory
	grpc   []string // the links that make up an installed grpcio, or nil
	step   bool     // may step the system's clock
	gentle bool     // do nothing that costs a call
	done   map[string]int
	last   []int          // the processes that were killed last
	calls  sync.WaitGroup // that do harm
}

// run does harm until ctx is done, and mends it.
func (f *faults) run(ctx context.Context) {
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	type fault struct {
		name string
		do   func(context.Context, *rand.Rand) bool // reports whether it did anything
	}
	all := []fault{
		{"SIGKILL", f.signal(syscall.SIGKILL)},
		{"SIGSEGV", f.signal(syscall.SIGSEGV)},
		{"SIGSTOP", f.signal(syscall.SIGSTOP)},
		{"SIGTERM", f.signal(syscall.SIGTERM)},
		{"fork-server", killParent(f)},
		{"memory", f.command("hogs")},
		{"descriptors", f.command("closes")},
		{"interpreter", f.command("holds")},
		{"output", f.command("prints")},
		{"exit", f.command("exits")},
		{"full-directory", f.fill},
		{"grpc-uninstalled", f.uninstall},
		{"clock", f.clock},
	}
	if f.gentle {
		all = nil
	}
	all = append(all, fault{"reload", f.reload}, fault{"resize", f.resize})
	for ctx.Err() == nil {
		fault := all[r.IntN(len(all))]
		if !fault.do(ctx, r) {
			continue
		}
		f.done[fault.name]++
		pause(ctx, time.Duration(50+r.IntN(400))*time.Millisecond)
	}
	if f.gentle {
		return
	}
	for _, w := range f.load.pool.Stats().Workers { // and all at once
		if w.PID > 0 && w.State != core.StateDead && syscall.Kill(w.PID, syscall.SIGKILL) == nil {
			f.done["SIGKILL"]++
			f.last = append(f.last, w.PID)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// signal sends a signal to a worker.
func (f *faults) signal(sig syscall.Signal) func(context.Context, *rand.Rand) bool {
	return func(_ context.Context, r *rand.Rand) bool {
		workers := f.load.pool.Stats().Workers
		if len(workers) == 0 {
			return false
		}
		w := workers[r.IntN(len(workers))]
		return w.PID > 0 && w.State != core.StateDead && syscall.Kill(w.PID, sig) == nil
	}
}

// killParent kills the fork server of a worker, if it has one.
func killParent(f *faults) func(context.Context, *rand.Rand) bool {
	return func(_ context.Context, r *rand.Rand) bool {
		if r.IntN(3) > 0 { // it costs all workers at once
			return false
		}
		for _, w := range f.load.pool.Stats().Workers {
			if w.PID == 0 || w.State == core.StateDead {
				continue
			}
			if parent := parentOf(w.PID); parent > 1 && parentOf(parent) == os.Getpid() {
				return syscall.Kill(parent, syscall.SIGKILL) == nil
			}
		}
		return false
	}
}

// parentOf returns a process's parent, or 0 if it has ended.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}

// command makes a call that does harm to its worker.
func (f *faults) command(name string) func(context.Context, *rand.Rand) bool {
	return func(context.Context, *rand.Rand) bool {
		f.calls.Go(func() {
			_ = f.load.call(name, func(id string) (string, error) {
				own, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := snakepit.Execute[any](own, f.load.pool, name, args{"id": id})
				return "", err
			})
		})
		return true
	}
}

func (f *faults) reload(ctx context.Context, _ *rand.Rand) bool {
	own, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = f.load.pool.Reload(own) // workers are being killed, so it may fail
	return true
}

func (f *faults) resize(_ context.Context, r *rand.Rand) bool {
	return f.load.pool.Resize(1+r.IntN(6)) == nil
}

// fill fills the pool's directory, if it is a small file system of its own.
func (f *faults) fill(ctx context.Context, _ *rand.Rand) bool {
	if !isMount(f.dir) {
		return false
	}
	path := filepath.Join(f.dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		return false
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = file.Write(block)
	}
	_ = file.Close()
	for i := 0; ; i++ { // and all names
		if os.WriteFile(filepath.Join(f.dir, fmt.Sprint("filler", i)), nil, 0o600) != nil {
			break
		}
	}
	pause(ctx, time.Second)
	fillers, _ := filepath.Glob(path + "*")
	for _, filler := range fillers {
		_ = os.Remove(filler)
	}
	return true
}

// isMount reports whether a directory is the root of a file system.
func isMount(dir string) bool {
	var own, parent syscall.Stat_t
	return syscall.Stat(dir, &own) == nil && syscall.Stat(filepath.Dir(dir), &parent) == nil && own.Dev != parent.Dev
}

// uninstall takes grpcio away for a while.
func (f *faults) uninstall(ctx context.Context, _ *rand.Rand) bool {
	if len(f.grpc) == 0 {
		return false
	}
	for _, link := range f.grpc {
		_ = os.Rename(link, link+".away")
	}
	pause(ctx, 2*time.Second)
	f.install()
	return true
}

// install undoes uninstall.
func (f *faults) install() {
	for _, link := range f.grpc {
		_ = os.Rename(link+".away", link)
	}
}

// clock steps the system's clock by an hour, forth and back.
func (f *faults) clock(ctx context.Context, _ *rand.Rand) bool {
	if !f.step {
		return false
	}
	if stepClock(time.Hour) != nil { // this program may not
		return false
	}
	pause(ctx, 300*time.Millisecond)
	return stepClock(-time.Hour) == nil
}

func stepClock(d time.Duration) error {
	t := syscall.NsecToTimeval(time.Now().Add(d).Round(0).UnixNano())
	return syscall.Settimeofday(&t)
}

// clockStep returns by how much the system's clock was stepped since then.
func clockStep(then time.Time) time.Duration {
	now := time.Now()
	return (now.Round(0).Sub(then.Round(0)) - now.Sub(then)).Round(time.Minute)
}
