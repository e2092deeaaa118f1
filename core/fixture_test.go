//go:build unix

package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

// fixture is a host whose log is recorded. It leaves nothing behind.
type fixture struct {
	*spawner
	t   *testing.T
	log *recorder
}

func newFixture(t *testing.T, cmd Command) *fixture {
	t.Helper()
	_ = readable(t) // creates the poller's own descriptors
	before, goroutines := openFiles(), goleak.IgnoreCurrent()
	f := &fixture{t: t, log: &recorder{}}
	h, err := newSpawner(cmd, spawnerOptions{Name: "test", MaxFrame: 77777, Log: newLogQueue(f.log.logger())})
	if err != nil {
		t.Fatal(err)
	}
	f.spawner = h
	t.Cleanup(func() {
		h.close()
		if err := h.opts.Log.close(10 * time.Second); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(h.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the private directory is left: %v", err)
		}
		if after := openFiles(); !slices.Equal(before, after) {
			t.Errorf("descriptors before and after:\n%q\n%q", before, after)
		}
		goleak.VerifyNone(t, goroutines)
	})
	return f
}

// launch starts a process. It kills the process at the end of the test if it still runs.
func (f *fixture) launch(s Spec) *Process {
	f.t.Helper()
	a := f.attempt(2)
	f.t.Cleanup(func() { a.abandon(nil) })
	p, err := a.launch(f.t.Context(), s)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { closeFiles([]*os.File{p.Stdin, p.Stdout}) })
	return p
}

// fails starts a process and expects the start to fail.
func (f *fixture) fails(ctx context.Context, s Spec) (*attempt, error) {
	f.t.Helper()
	a := f.attempt(2)
	p, err := a.launch(ctx, s)
	a.abandon(nil)
	if p != nil || err == nil {
		f.t.Fatalf("launched %v, error %v", p, err)
	}
	for _, p := range a.launched {
		mustBeGone(f.t, p.PID())
	}
	return a, err
}

func await(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the process is not done")
	}
}

// eventually polls for a condition that the system sends no event for.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// mustBeGone fails if a child of ours still exists, even as a zombie.
func mustBeGone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", pid, err)
	}
}

// alive reports whether a process that is not our child runs. Its zombie is left to init.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return runtime.GOOS != "linux"
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func openFiles() []string {
	var files []string
	for fd := range 256 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			files = append(files, fmt.Sprintf("%d %s", fd, target))
		}
	}
	return files
}

// readable returns a file that a child can inherit.
func readable(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now())
	_ = w.Close()
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// logged waits until the logger has received everything from a source.
func logged(t *testing.T, s *logSource) {
	t.Helper()
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	if !s.queue.await(10*time.Second, func() bool { return s.waiting == 0 }) {
		t.Error("the logger has not got everything")
	}
}

// recorder is a logger that keeps its records.
type recorder struct {
	gate chan struct{} // if not nil, logging blocks until it is closed

	mu      sync.Mutex
	records []map[string]any
}

func (r *recorder) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "test", Level: hclog.Trace, JSONFormat: true, Output: r})
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.gate != nil {
		<-r.gate
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
	return len(b), nil
}

func (r *recorder) all() []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// line waits for a message with the prefix and returns its rest.
func (r *recorder) line(t *testing.T, prefix string) string {
	t.Helper()
	var rest string
	eventually(t, "a log record "+prefix, func() bool {
		for _, record := range r.all() {
			if after, ok := strings.CutPrefix(record["@message"].(string), prefix); ok {
				rest = after
				return true
			}
		}
		return false
	})
	return rest
}
