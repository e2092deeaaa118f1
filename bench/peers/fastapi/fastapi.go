// Package fastapi calls FastAPI on uvicorn over HTTP/1.1 and a Unix socket. README.md says where its documentation
// advises this.
package fastapi

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed server.py
var serverSource []byte

const (
	// connections is the limit of connections to uvicorn. More callers wait for a free one. Without a limit, many
	// callers can overflow the accept queue of uvicorn and their connects fail.
	connections = 128
	// idle is less than the 5 s after which uvicorn closes an idle connection. So no call meets a closing connection.
	idle = 4 * time.Second
	// grace is the time that uvicorn has to end by itself.
	grace = 5 * time.Second
)

// server is a uvicorn process and an HTTP client of it.
type server struct {
	client    http.Client
	transport *http.Transport
	directory string // holds the program and the socket
	cmd       *exec.Cmd
	stop      context.CancelFunc // sends SIGTERM, and SIGKILL after grace
	exited    chan struct{}      // closed when the process has ended and was waited for
	exit      error              // the result of that; read it after exited
}

// Start starts uvicorn and returns when it accepts connections.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	directory, err := os.MkdirTemp("", "fastapi")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(directory, "server.py"), serverSource, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	socket := filepath.Join(directory, "s")
	s := &server{directory: directory, exited: make(chan struct{})}
	s.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     idle,
	}
	s.client.Transport = s.transport

	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.cmd = exec.CommandContext(life, python, "-m", "uvicorn", "server:app", "--app-dir", directory, "--uds", socket,
		"--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = grace
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		stop()
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	go func() {
		s.exit = s.cmd.Wait()
		close(s.exited)
	}()
	if err := s.ready(ctx, socket); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ready waits until the socket accepts a connection.
func (s *server) ready(ctx context.Context, socket string) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.exited:
			return fmt.Errorf("fastapi: uvicorn ended at its start: %w", s.exit)
		case <-ctx.Done():
			return fmt.Errorf("fastapi: uvicorn does not listen: %w", ctx.Err())
		}
	}
}

func (s *server) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://fastapi/echo", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// Read to the end. Otherwise the connection is not used again.
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fastapi: %s: %s", response.Status, text)
	}
	var result map[string]any
	err = json.Unmarshal(text, &result)
	return result, err
}

func (s *server) PIDs() []int { return []int{s.cmd.Process.Pid} }

func (s *server) Close() error {
	// uvicorn waits for connections that are open.
	s.transport.CloseIdleConnections()
	s.stop()
	// The result says only that the process ended by our signal.
	<-s.exited
	return os.RemoveAll(s.directory)
}
