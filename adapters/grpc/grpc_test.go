package grpc

import (
	"bufio"
	"bytes"
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

// newLauncher returns a launcher whose Launch the test sets. The tests of core test core's own.
func newLauncher(dir string) *core.Launcher {
	return &core.Launcher{Dir: dir, MaxFrame: core.DefaultMaxFrame, HostToken: "host's", WorkerToken: "worker's"}
}

// launches makes a Launcher's Launch of a function that needs no context.
func launches(f func(core.Spec) (*core.Process, error)) func(context.Context, core.Spec) (*core.Process, error) {
	return func(_ context.Context, spec core.Spec) (*core.Process, error) { return f(spec) }
}

// listensAt returns a function for launches: its worker listens at the endpoint.
func listensAt(endpoint string) func(core.Spec) (*core.Process, error) {
	return func(core.Spec) (*core.Process, error) { return &core.Process{Endpoint: endpoint}, nil }
}

// shortDir returns a new directory. Its path is short enough for that of a socket.
func shortDir(tb testing.TB, pattern string) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// interpreter returns the path of a Python with grpcio and protobuf.
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

// peer is a worker in this process. A function of the test serves its Attach.
type peer struct {
	snakepitpb.UnimplementedWorkerServer
	attach func(attachServer) error
	tokens chan []string // the tokens that Attach was shown
}

type attachServer = grpc.BidiStreamingServer[snakepitpb.Batch, snakepitpb.Batch]

func (p *peer) Attach(s attachServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	p.tokens <- md.Get(tokenKey)
	return p.attach(s)
}

// serve returns a peer that listens in a directory of its own, and its launcher.
func serve(tb testing.TB, attach func(attachServer) error) (*core.Launcher, *peer) {
	tb.Helper()
	p := &peer{attach: attach, tokens: make(chan []string, 1)}
	l := newLauncher(shortDir(tb, "sp #?%20 "))
	path := filepath.Join(l.Dir, "0.sock")
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
	l.Launch = launches(listensAt("unix:" + path))
	return l, p
}

// python returns a launcher whose workers run a script. They are killed when the test ends.
func python(tb testing.TB, script string, env ...string) *core.Launcher {
	tb.Helper()
	l := newLauncher(shortDir(tb, "sp"))
	path := interpreter(tb)
	l.Launch = launches(func(spec core.Spec) (*core.Process, error) {
		report, control, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, script)
		cmd.Env = append(os.Environ(),
			"SNAKEPIT_PROTOCOL="+spec.Protocol, "SNAKEPIT_CONTROL_FD=3", "SNAKEPIT_DIR="+l.Dir,
			fmt.Sprintf("SNAKEPIT_MAX_FRAME=%d", l.MaxFrame),
			"SNAKEPIT_HOST_TOKEN="+l.HostToken, "SNAKEPIT_WORKER_TOKEN="+l.WorkerToken)
		cmd.Env = append(append(cmd.Env, spec.Env...), env...)
		cmd.ExtraFiles = []*os.File{control}
		cmd.Stdin = bytes.NewReader(spec.Input)
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
	})
	return l
}

func start(tb testing.TB, a Adapter, l *core.Launcher) *core.Link {
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
