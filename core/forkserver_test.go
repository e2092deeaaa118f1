//go:build linux

package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// forking returns a host whose fork server is a script.
func forking(t *testing.T, script string, timeout time.Duration) *fixture {
	t.Helper()
	cmd := shell(script)
	cmd.Reports, cmd.ForkServer = true, true
	f := newFixture(t, cmd)
	f.opts.StartTimeout = timeout
	return f
}

// An import that hangs ends at the start timeout, and the next start gets another server.
func TestForkServerHangs(t *testing.T) {
	starts := filepath.Join(t.TempDir(), "starts")
	f := forking(t, "echo x >>"+starts+"; exec sleep 1000", 200*time.Millisecond)
	for range 3 {
		_, err := f.fails(t.Context(), Spec{Stdio: true})
		if !strings.Contains(err.Error(), "has not imported the program within the start timeout") {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(starts); err != nil || strings.Count(string(text), "x") != 3 {
		t.Errorf("%q, %v", text, err)
	}
}

// A server that does not answer is replaced, too.
func TestForkServerIsSilent(t *testing.T) {
	starts := filepath.Join(t.TempDir(), "starts")
	f := forking(t, "echo x >>"+starts+`; echo '{}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`, time.Minute)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := f.fails(ctx, Spec{Stdio: true})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(starts); err != nil || strings.Count(string(text), "x") != 2 {
		t.Errorf("%q, %v", text, err)
	}
}

// A start may be given up at any moment. The fixture checks that nothing is left when the host closes.
func TestForkServerIsGivenUp(t *testing.T) {
	for i := range 20 {
		after := time.Duration(i) * 100 * time.Microsecond
		t.Run(after.String(), func(t *testing.T) {
			f := forking(t, "exec sleep 1000", time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			if _, err := f.fails(ctx, Spec{Stdio: true}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// Nothing in a message is believed that is not checked: no process of others is signalled, and nothing panics.
func TestForkServerLies(t *testing.T) {
	fs := &forkServer{
		process: &Process{pid: os.Getpid()}, pending: map[int]chan *forkAnswer{}, children: map[int]*forked{},
	}
	ask := func(number int) chan *forkAnswer {
		c := make(chan *forkAnswer, 1)
		fs.pending[number] = c
		return c
	}
	for i, pid := range []int{1, -1, os.Getpid(), os.Getppid()} {
		c := ask(i + 1)
		message := fmt.Sprintf(`{"started": %d, "pid": %d}`, i+1, pid)
		fs.handle([]byte(message))
		fs.handle([]byte(message))
		if a := <-c; a.worker != nil || a.err == nil {
			t.Errorf("process %d is taken for a worker", pid)
		}
	}
	c := ask(9)
	fs.handle([]byte(`{"failed": 9, "error": "no \u001b[31mluck"}`))
	if a := <-c; a.err == nil || !strings.Contains(a.err.Error(), `no \x1b[31mluck`) {
		t.Error(a.err)
	}
	fs.children[77] = &forked{server: fs, pid: 77, ended: make(chan struct{})}
	for range 2 {
		fs.handle([]byte(`{"exited": 77, "code": 3}`))
	}
	if c := fs.children[77]; !c.isEnded() || c.code != 3 {
		t.Errorf("%+v", c)
	}
}

func FuzzForkReply(f *testing.F) {
	for _, r := range []forkReply{
		{Started: 1, PID: 1}, {Failed: 1, Error: "x"}, {Exited: 7, Code: 3}, {Exited: 7, Signal: 9},
	} {
		message, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		fs := &forkServer{
			process:  &Process{pid: os.Getpid()},
			pending:  map[int]chan *forkAnswer{1: make(chan *forkAnswer, 1)},
			children: map[int]*forked{7: {pid: 7, ended: make(chan struct{})}},
		}
		for range 2 {
			fs.handle(message)
		}
	})
}
