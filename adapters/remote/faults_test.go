//go:build unix

package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	workers "github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/core"
)

const script = `
import os, subprocess, sys, time
import snakepit_bridge

worker = snakepit_bridge.Worker()

@worker.command
def echo(value):
    return value

@worker.command
def family():
    child = subprocess.Popen(["sleep", "1000"])
    return [os.getpid(), child.pid]

@worker.command
def wait():
    time.sleep(1000)

@worker.command
def leave(code):
    print("a last word", flush=True)
    os._exit(code)

worker.run()
`

// open opens a pool of served workers.
func open(t *testing.T, a core.Adapter, o core.Options) *core.Pool {
	t.Helper()
	if o.Size == 0 {
		o.Size = 1
	}
	o.Logger = hclog.NewNullLogger()
	cmd, err := Served{}.Command()
	if err != nil {
		t.Fatal(err)
	}
	p, err := core.Open(t.Context(), a, cmd, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// answers waits until the pool answers.
func answers(t *testing.T, p *core.Pool) {
	t.Helper()
	eventually(t, "the pool answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := core.Execute[string](ctx, p, "echo", "hello")
		return got == "hello" && err == nil
	})
}

// family has a worker start a child. It returns the ids of both.
func family(t *testing.T, p *core.Pool) []int {
	t.Helper()
	pids, err := core.Execute[[]int](t.Context(), p, "family", nil)
	if err != nil || len(pids) != 2 {
		t.Fatal(pids, err)
	}
	return pids
}

// gone waits until the processes have ended.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			_, rest, _ := strings.Cut(string(stat), ") ")
			return err != nil && syscall.Kill(pid, 0) != nil || strings.HasPrefix(rest, "Z")
		})
	}
}

// The exit of a worker comes through its lease.
func TestWorkerExits(t *testing.T) {
	p := open(t, serve(t, true, write(t, script)).Adapter, core.Options{})
	pids := family(t, p)
	_, err := core.Execute[any](t.Context(), p, "leave", 3)
	var how *core.WorkerExit
	host, _ := os.Hostname()
	if !errors.As(err, &how) || how.ExitCode != 3 || how.Host != host || how.PID != pids[0] || how.Lost != nil ||
		!strings.Contains(err.Error(), "a last word") {
		t.Errorf("%+v", err)
	}
	gone(t, pids)
	answers(t, p)
	pids = family(t, p)
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pids)
	answers(t, p)
}

// Close of the pool ends the workers and their children.
func TestPoolCloses(t *testing.T) {
	p := open(t, serve(t, true, write(t, script)).Adapter, core.Options{})
	pids := family(t, p)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	gone(t, pids)
}

// The traceback of a worker that can't be imported is in the error of Open.
func TestBrokenWorker(t *testing.T) {
	b := serve(t, true, write(t, "print('loading', flush=True)\nimport no_such_module\n"))
	_, err := core.Open(t.Context(), b.Adapter, core.Command{}, &core.Options{Size: 1, Logger: hclog.NewNullLogger()})
	var start *core.StartError
	if !errors.As(err, &start) || start.Adapter != "remote" ||
		!strings.Contains(err.Error(), "No module named 'no_such_module'") ||
		!strings.Contains(err.Error(), "worker.py\", line 2") || !strings.Contains(err.Error(), "loading") {
		t.Errorf("%v", err)
	}
}

// If the back end is killed, its workers and their children end at once, and the pool says why they were lost. Once the
// back end is there again, so are they.
func TestBackEndIsKilled(t *testing.T) {
	b := serve(t, false, write(t, script))
	p := open(t, b.Adapter, core.Options{StartBudget: -1})
	pids := family(t, p)
	ended := make(chan error, 1)
	go func() {
		_, err := core.Execute[any](t.Context(), p, "wait", nil)
		ended <- err
	}()
	eventually(t, "the call runs", func() bool {
		health, err := p.Workers()[0].Health(t.Context())
		return err == nil && len(health.Running) == 1
	})
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var how *core.WorkerExit
	if err := <-ended; !errors.As(err, &how) || how.Lost == nil {
		t.Errorf("%+v", err)
	}
	gone(t, pids)
	again := serveAt(t, b.Targets[0], false, write(t, script))
	if again.Targets[0] != b.Targets[0] {
		t.Fatal(again.Targets)
	}
	answers(t, p)
}

// hostMode is the variable that makes the test binary a host.
const hostMode = "SNAKEPIT_TEST_REMOTE_HOST"

// If the host is killed, nothing of it stays at the back end.
func TestHostIsKilled(t *testing.T) {
	if address := os.Getenv(hostMode); address != "" {
		p := open(t, Adapter{Targets: []string{address}, Plaintext: true}, core.Options{})
		pids := family(t, p)
		fmt.Printf("family %d %d\n", pids[0], pids[1])
		select {} // until it is killed
	}
	b := serve(t, false, write(t, script), "--workers", "1")
	host := exec.Command(os.Args[0], "-test.run", "^TestHostIsKilled$")
	host.Env = append(os.Environ(), hostMode+"="+b.Targets[0])
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer host.Wait()         //nolint:errcheck // it was killed
	defer host.Process.Kill() //nolint:errcheck // it may have ended
	pids := make([]int, 2)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "family %d %d", &pids[0], &pids[1]); err == nil {
			break
		}
	}
	if pids[1] == 0 {
		t.Fatal("the host does not start")
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, pids)
	answers(t, open(t, b.Adapter, core.Options{})) // its place is free
}

// Nobody without the program's certificate can start a worker, or call one.
func TestStrangers(t *testing.T) {
	b := serve(t, true, write(t, script))
	told := &telling{Adapter: b.Adapter}
	p := open(t, told, core.Options{})
	_, stranger := certified(t)
	for what, config := range map[string]*tls.Config{
		"another certificate": {RootCAs: b.TLS.RootCAs, Certificates: stranger.Certificates},
		"no certificate":      {RootCAs: b.TLS.RootCAs},
	} {
		a := Adapter{Targets: b.Targets, TLS: config}
		_, err := a.Start(t.Context(), &core.Launcher{})
		if err == nil || !strings.Contains(err.Error(), "TLS with the back end") {
			t.Errorf("%s starts a worker: %v", what, err)
		}
	}
	endpoint := p.Workers()[0].Info().Endpoint
	conn, err := tls.Dial("tcp", endpoint, &tls.Config{InsecureSkipVerify: true}) // only to see its certificate
	if err != nil {
		t.Fatal(err)
	}
	shown := conn.ConnectionState().PeerCertificates[0].Raw
	_ = conn.Close()
	other, err := workers.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for what, w := range map[string]workers.Worker{
		"without a certificate": {Certificate: shown},
		"with another one":      {Certificate: shown, Client: other},
		"with the back end's":   {Certificate: shown, Client: &b.TLS.Certificates[0]},
		"that expects another":  {Certificate: other.Certificate[0], Client: other},
		"in plain text":         {},
	} {
		w.Endpoint, w.Token, w.MaxFrame = endpoint, told.token.Load().(string), core.DefaultMaxFrame // the right token
		link, err := w.Connect(t.Context())
		if err == nil { // TLS 1.3 tells a client later that its certificate is refused
			_, err = link.Conn.Read()
			_ = link.Conn.Close()
		}
		if code := status.Code(errors.Unwrap(err)); err == nil || code == codes.FailedPrecondition ||
			code == codes.Unauthenticated || strings.Contains(err.Error(), "has its host already") {
			t.Errorf("a stranger %s gets an answer: %v", what, err)
		}
	}
	answers(t, p)
}

// telling is an adapter that tells the token of its last worker. Its workers have connections of their own.
type telling struct {
	Adapter
	token atomic.Value
}

func (a *telling) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	a.token.Store(l.HostToken)
	return a.Adapter.Start(ctx, l)
}

// ForPool hides Adapter.ForPool.
func (a *telling) ForPool(core.PoolInfo) core.OwnedAdapter { return ownTelling{a} }

type ownTelling struct{ *telling }

func (ownTelling) Close(context.Context) error { return nil }

// proxied is an adapter whose connections to workers pass through a proxy.
type proxied struct {
	Adapter
	proxy *proxy
}

func (p proxied) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	through := *l
	through.Adopt = func(ctx context.Context, lease core.Lease) (*core.Process, error) {
		process, err := l.Adopt(ctx, lease)
		if err == nil {
			process.Endpoint, err = p.proxy.to(process.Endpoint)
		}
		return process, err
	}
	return p.Adapter.Start(ctx, &through)
}

// ForPool hides Adapter.ForPool: each worker has its own connection.
func (p proxied) ForPool(core.PoolInfo) core.OwnedAdapter { return ownProxied{p} }

type ownProxied struct{ proxied }

func (ownProxied) Close(context.Context) error { return nil }

// proxy passes bytes on until it stalls. Then it holds all connections and passes nothing.
type proxy struct {
	t       *testing.T
	stalled atomic.Bool
}

// to returns the address of a listener that leads to an endpoint.
func (p *proxy) to(endpoint string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	p.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", endpoint)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.t.Cleanup(func() { _, _ = near.Close(), far.Close() })
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(p.through(way[0]), way[1])
					_ = way[0].Close()
				}()
			}
		}
	}()
	return listener.Addr().String(), nil
}

// through returns a writer that writes to w until the proxy stalls.
func (p *proxy) through(w io.Writer) io.Writer { return stalling{w, p} }

type stalling struct {
	io.Writer
	p *proxy
}

func (s stalling) Write(b []byte) (int, error) {
	if s.p.stalled.Load() {
		return len(b), nil
	}
	return s.Writer.Write(b)
}

// A worker whose network stalls is replaced if the pool is told to. Its lease still works, so it is ended in order.
func TestNetworkStalls(t *testing.T) {
	b := serve(t, true, write(t, script))
	between := &proxy{t: t}
	p := open(t, proxied{b.Adapter, between}, core.Options{Wedged: core.WedgedReplace, WedgedAfter: time.Second})
	pids := family(t, p)
	between.stalled.Store(true)
	eventually(t, "the worker is lost", func() bool { return p.Stats().Lost == 1 })
	between.stalled.Store(false)
	gone(t, pids)
	answers(t, p)
}

// Silence of a worker's machine ends the connection, whatever the pool does about workers that are silent.
func TestSilentMachine(t *testing.T) {
	t.Parallel() // it waits for the time limits of gRPC
	between := &proxy{t: t}
	p := open(t, proxied{serve(t, true, write(t, script)).Adapter, between}, core.Options{})
	answers(t, p)
	time.Sleep(12 * time.Second) // the pings of a connection that is idle are no attack
	if s := p.Stats(); s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	between.stalled.Store(true)
	eventually(t, "the worker is lost", func() bool { return p.Stats().Lost == 1 })
	between.stalled.Store(false)
	answers(t, p)
}

// A back end that gets a signal tells so, and its workers serve on for a while. So the pool moves to another one
// without a gap.
func TestBackEndEnds(t *testing.T) {
	path := write(t, script)
	first, second := serve(t, false, path, "--grace", "30"), serve(t, false, path)
	a := Adapter{Targets: []string{first.Targets[0], second.Targets[0]}, Plaintext: true}
	p := open(t, a, core.Options{Size: 4})
	if err := p.WaitReady(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all workers are elsewhere", func() bool {
		answers(t, p)
		return p.Stats().Replaced == 2 && p.Stats().Ready == 4
	})
	if s := p.Stats(); s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	if err := first.cmd.Wait(); err != nil { // no lease is left
		t.Error(err)
	}
}

// If there is no other back end, the workers end with theirs, and the pool says so. It goes on with the next.
func TestLastBackEndEnds(t *testing.T) {
	b := serve(t, false, write(t, script))
	p := open(t, b.Adapter, core.Options{StartBudget: -1})
	pids := family(t, p)
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	gone(t, pids)
	eventually(t, "the worker is lost", func() bool { return p.Stats().Lost == 1 })
	serveAt(t, b.Targets[0], false, write(t, script))
	answers(t, p)
}
