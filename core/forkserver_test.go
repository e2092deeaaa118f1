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
	"syscall"
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

// A server that does not answer for some time is replaced, too. The deadline of one start says nothing.
func TestForkServerIsSilent(t *testing.T) {
	starts := filepath.Join(t.TempDir(), "starts")
	f := forking(t, "echo x >>"+starts+`; echo '{}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`, time.Minute)
	for i := range 3 {
		if i == 1 {
			fs := f.servers.current
			fs.mu.Lock()
			fs.asked = fs.asked.Add(-forkSilent)
			fs.mu.Unlock()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
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

// A server may be retired at any moment of its start. It ends in any case.
func TestForkServerIsRetiredWhileItStarts(t *testing.T) {
	f := forking(t, `echo '{}' >&$SNAKEPIT_CONTROL_FD; exec cat <&$SNAKEPIT_CONN_FD`, time.Minute)
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			if fs, err := f.forkServer(ctx); err == nil {
				fs.leave()
			}
		}()
		var fs *forkServer
		eventually(t, "a server starts", func() bool {
			f.servers.mu.Lock()
			defer f.servers.mu.Unlock()
			fs = f.servers.current
			return fs != nil
		})
		select {
		case <-fs.ready:
		case <-time.After(time.Duration(i) * 100 * time.Microsecond):
		}
		cancel()
		<-left
		f.servers.renew()
		select {
		case <-fs.ended:
		case <-time.After(10 * time.Second):
			t.Fatal("a retired server is left")
		}
	}
}

// A server that hangs at its end is killed, and several take no longer than one.
func TestForkServersHangAtTheirEnd(t *testing.T) {
	f := forking(t, `echo '{}' >&$SNAKEPIT_CONTROL_FD; trap "" TERM; while :; do sleep 1000; done`, time.Minute)
	for range 4 {
		fs, err := f.forkServer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.servers.drop(fs)
	}
	start := time.Now()
	f.servers.close()
	if took := time.Since(start); took > 2*forkStop {
		t.Error(took)
	}
}

// A server that ends during a request is replaced at once, but only once for each start.
func TestForkServerEndsDuringARequest(t *testing.T) {
	starts := filepath.Join(t.TempDir(), "starts")
	f := forking(t, "echo x >>"+starts+`; echo '{}' >&$SNAKEPIT_CONTROL_FD
		head -c 1 <&$SNAKEPIT_CONN_FD >/dev/null; echo broken; exit 7`, time.Minute)
	if _, err := f.fails(t.Context(), Spec{Stdio: true}); !errors.Is(err, errForkServerEnded) {
		t.Error(err)
	}
	if text, err := os.ReadFile(starts); err != nil || strings.Count(string(text), "x") != 2 {
		t.Errorf("%q, %v", text, err)
	}
	eventually(t, "the losses are in the log", func() bool {
		lost := 0
		for _, r := range f.log.all() {
			if r["@message"] == "fork server lost, with its workers" && r["@level"] == "error" &&
				r["exit"] == "exited with code 7; its last output: broken" {
				lost++
			}
		}
		return lost == 2
	})
}

// A request that cannot be sent says nothing about the server. Its start fails, and its workers serve on.
func TestForkServerIsNotAsked(t *testing.T) {
	f := forking(t, `echo '{}' >&$SNAKEPIT_CONTROL_FD; exec cat <&$SNAKEPIT_CONN_FD`, time.Minute)
	fs, err := f.forkServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer fs.leave()
	if err := fs.conn.SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	f.env = append(f.env, "LARGE="+strings.Repeat("x", 100<<10))
	for range 2 {
		if _, err := f.fails(t.Context(), Spec{Stdio: true}); !errors.Is(err, syscall.EMSGSIZE) {
			t.Error(err)
		}
		if fs.isSilent() || !fs.asked.IsZero() || f.servers.current != fs || fs.process.hasExited() {
			t.Error("the server is given up")
		}
	}
}

// The server reaps each worker that has ended. If it reads no more, it is replaced.
func TestForkServerReadsNoMore(t *testing.T) {
	f := forking(t, `echo '{}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`, time.Minute)
	fs, err := f.forkServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer fs.leave()
	err = fs.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil { // until there is no room
		_, err = fs.conn.Write([]byte("{}"))
	}
	c := &forked{server: fs, pid: 1 << 30, ended: make(chan struct{})}
	fs.mu.Lock()
	fs.children[c.pid] = c
	fs.mu.Unlock()
	c.release()
	<-fs.ended
}

// Once a server has ended, no worker of it is signalled: its id may be used again.
func TestForkServerEndsBeforeItsWorkers(t *testing.T) {
	f := forking(t, `echo '{}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`, time.Minute)
	fs, err := f.forkServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer fs.leave()
	running := &forked{server: fs, pid: 1 << 30, ended: make(chan struct{})}
	over := &forked{server: fs, pid: 1<<30 + 1, ended: make(chan struct{}), status: exitStatus{code: 3}}
	close(over.ended)
	fs.mu.Lock()
	fs.children[running.pid], fs.children[over.pid] = running, over
	fs.mu.Unlock()
	if !running.guard(func() {}) || !over.guard(func() {}) {
		t.Error("a worker of a live server gets no signal")
	}
	fs.process.kill()
	<-running.ended
	if f.servers.current != nil || !fs.isGone() {
		t.Error("its workers end before it is known to have ended")
	}
	for _, c := range []*forked{running, over} {
		if c.guard(func() { t.Error("signalled") }) {
			t.Error("the id of a lost worker is taken for its own")
		}
	}
	if running.status != (exitStatus{code: -1, signal: killSignal}) || over.status != (exitStatus{code: 3}) {
		t.Errorf("%+v %+v", running.status, over.status)
	}
	<-fs.ended
}

// Nothing in a message is believed that is not checked: a process that is no child of the server is not taken for a
// worker, so it gets no signal later. Nothing panics.
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
	for errno, remedy := range map[syscall.Errno]string{
		0: "", syscall.EMFILE: limitRemedy, syscall.EAGAIN: limitRemedy, syscall.EPERM: "turn the fork server off",
	} {
		c := ask(10)
		fs.handle(fmt.Appendf(nil, `{"failed": 10, "error": "x", "errno": %d}`, errno))
		var remedied *RemedyError
		switch a := <-c; {
		case a.unsafe != (errno == 0), errors.As(a.err, &remedied) != (remedy != ""):
			t.Errorf("%v: %+v", errno, a)
		case remedy != "" && remedied.Remedy != remedy:
			t.Error(a.err)
		}
	}
	fs.children[77] = &forked{server: fs, pid: 77, ended: make(chan struct{})}
	for range 2 {
		fs.handle([]byte(`{"exited": 77, "code": 3}`))
	}
	if c := fs.children[77]; !c.isEnded() || c.status.code != 3 {
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
