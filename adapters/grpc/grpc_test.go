package grpc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/core"
)

// launcher starts what test says. Core's own launcher is tested there.
type launcher struct {
	dir      string
	maxFrame int // 0 means the default
	launch   func(spec core.Spec) (*core.Process, error)
}

func (l *launcher) Launch(_ context.Context, spec core.Spec) (*core.Process, error) {
	return l.launch(spec)
}

func (l *launcher) MaxFrame() int {
	if l.maxFrame == 0 {
		return core.DefaultMaxFrame
	}
	return l.maxFrame
}
func (l *launcher) Dir() string         { return l.dir }
func (l *launcher) Index() int          { return 0 }
func (l *launcher) HostToken() string   { return "host's" }
func (l *launcher) WorkerToken() string { return "worker's" }

// shortDir is a folder whose path is short enough for a socket's.
func shortDir(tb testing.TB, pattern string) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// interpreter is a Python with grpcio and protobuf.
func interpreter(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("SNAKEPIT_PYTHON"); path != "" {
		return path
	}
	path, err := filepath.Abs("../../.venv/bin/python")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if testing.Short() {
			tb.Skip("needs a Python with grpcio: run make dev-setup, or set SNAKEPIT_PYTHON")
		}
		tb.Fatalf("no Python with grpcio: run make dev-setup, or set SNAKEPIT_PYTHON, or test with -short (%v)", err)
	}
	return path
}

// peer is a worker in this process that serves Attach with a function.
type peer struct {
	snakepitpb.UnimplementedWorkerServer
	attach func(attachServer) error
	tokens chan []string // what Attach was shown
}

type attachServer = grpc.BidiStreamingServer[snakepitpb.Batch, snakepitpb.Batch]

func (p *peer) Attach(s attachServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	p.tokens <- md.Get(tokenKey)
	return p.attach(s)
}

// serve returns the launcher of a peer that listens in a folder of its own.
func serve(tb testing.TB, attach func(attachServer) error) (*launcher, *peer) {
	tb.Helper()
	p := &peer{attach: attach, tokens: make(chan []string, 1)}
	l := &launcher{dir: shortDir(tb, "sp #?%20 ")}
	path := filepath.Join(l.dir, "0.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	snakepitpb.RegisterWorkerServer(server, p)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	tb.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	})
	l.launch = func(core.Spec) (*core.Process, error) { return &core.Process{Endpoint: "unix:" + path}, nil }
	return l, p
}

// python launches a script as a worker; it is killed when the test ends.
func python(tb testing.TB, script string, env ...string) *launcher {
	tb.Helper()
	l := &launcher{dir: shortDir(tb, "sp")}
	path := interpreter(tb)
	l.launch = func(spec core.Spec) (*core.Process, error) {
		report, control, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, script)
		cmd.Env = append(os.Environ(), "SNAKEPIT_PROTOCOL="+spec.Protocol, "SNAKEPIT_CONTROL_FD=3", "SNAKEPIT_DIR="+l.dir,
			fmt.Sprintf("SNAKEPIT_MAX_FRAME=%d", l.MaxFrame()), "SNAKEPIT_HOST_TOKEN="+l.HostToken(), "SNAKEPIT_WORKER_TOKEN="+l.WorkerToken())
		cmd.Env = append(append(cmd.Env, spec.Env...), env...)
		cmd.ExtraFiles = []*os.File{control}
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		err = cmd.Start()
		_ = control.Close()
		if err != nil {
			return nil, err
		}
		tb.Cleanup(func() {
			_ = cmd.Process.Kill() // usually gone already
			_ = cmd.Wait()
		})
		var r struct{ Endpoint, Unavailable, Remedy string }
		line, err := bufio.NewReader(report).ReadBytes('\n')
		_ = report.Close()
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("the worker's report: %w", err)
		}
		if r.Unavailable != "" {
			return nil, fmt.Errorf("%w: %s; %s", core.ErrUnavailable, r.Unavailable, r.Remedy)
		}
		return &core.Process{Endpoint: r.Endpoint}, nil
	}
	return l
}

func start(tb testing.TB, a Adapter, l *launcher) *core.Link {
	tb.Helper()
	link, err := a.Start(tb.Context(), l)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = link.Conn.Close() })
	return link
}

func readN(tb testing.TB, c core.Conn, n int) []core.Frame {
	tb.Helper()
	var all []core.Frame
	for len(all) < n {
		frames, err := c.Read()
		if err != nil {
			tb.Fatalf("after %d of %d frames: %v", len(all), n, err)
		}
		all = append(all, frames...)
	}
	return all
}
