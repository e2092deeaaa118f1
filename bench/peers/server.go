package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// grace is the time that a server has to end by itself.
const grace = 5 * time.Second

// Server is a process of Python that listens on a Unix socket. Any number of goroutines may call its methods.
type Server struct {
	socket    string
	directory string // holds the program and the socket
	cmd       *exec.Cmd
	stop      context.CancelFunc // sends the signal, and SIGKILL after grace
	exited    chan struct{}      // closed when the process has ended and was waited for
	exit      error              // the result of that; read it after exited
}

// StartServer stores the program in a directory of its own and starts an interpreter with the arguments and variables
// that command returns for the path of the program and that of the socket. Close sends the signal to the process. The
// process need not listen yet when StartServer returns.
func StartServer(python, name string, program []byte, signal os.Signal,
	command func(program, socket string) (args, env []string)) (*Server, error) {
	directory, err := os.MkdirTemp("", "peer")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(directory, name)
	if err := os.WriteFile(path, program, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	s := &Server{socket: filepath.Join(directory, "s"), directory: directory, exited: make(chan struct{})}
	life, stop := context.WithCancel(context.Background())
	s.stop = stop
	args, env := command(path, s.socket)
	s.cmd = exec.CommandContext(life, python, args...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(signal) }
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
	return s, nil
}

// Dial connects to the server.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", s.socket)
}

// Await connects to the server as soon as it listens.
func (s *Server) Await(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := s.Dial(ctx)
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.exited:
			return nil, fmt.Errorf("the server ended at its start: %w", s.exit)
		case <-ctx.Done():
			return nil, fmt.Errorf("the server does not listen: %w", ctx.Err())
		}
	}
}

// PIDs lists the process.
func (s *Server) PIDs() []int { return []int{s.cmd.Process.Pid} }

// Close ends the process and removes its directory.
func (s *Server) Close() error {
	s.stop()
	<-s.exited // the result says only that the process ended by our signal
	return os.RemoveAll(s.directory)
}
