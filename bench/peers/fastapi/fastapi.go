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
)

// server is a uvicorn process and an HTTP client of it.
type server struct {
	*peers.Server
	client    http.Client
	transport *http.Transport
}

// Start starts uvicorn and returns when it accepts connections.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	process, err := peers.StartServer(python, "server.py", serverSource, syscall.SIGTERM, uvicorn)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return process.Dial(ctx) },
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     idle,
	}
	s := &server{process, http.Client{Transport: transport}, transport}
	conn, err := process.Await(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fastapi: %w", err), s.Close())
	}
	return s, conn.Close()
}

func uvicorn(program, socket string) (args, env []string) {
	return []string{
		"-m", "uvicorn", "server:app", "--app-dir", filepath.Dir(program), "--uds", socket,
		"--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
	}, nil
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

// Close ends uvicorn. It waits for connections that are open.
func (s *server) Close() error {
	s.transport.CloseIdleConnections()
	return s.Server.Close()
}
