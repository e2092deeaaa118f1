// Package pyproc calls a Python worker of pyproc in its own protocol: JSON with a length prefix over a Unix socket.
// The Go side is ours. README.md says why and how it compares.
package pyproc

import (
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed worker.py
var workerSource []byte

// grace is the time that the worker has to end by itself.
const grace = 5 * time.Second

// worker is a Python worker and the only connection to it. The worker serves one connection at a time and one call at
// a time on it.
type worker struct {
	conn      chan *connection // holds the connection while no call uses it
	socket    string
	directory string // holds the program and the socket
	cmd       *exec.Cmd
	stop      context.CancelFunc // sends SIGINT, and SIGKILL after grace
	exited    chan struct{}      // closed when the process has ended and was waited for
	exit      error              // the result of that; read it after exited
}

// connection is closed and dialled anew after a call that did not read its reply.
type connection struct {
	net.Conn        // nil after such a call
	id       uint64 // of the last request
}

type request struct {
	ID     uint64         `json:"id"`
	Method string         `json:"method"`
	Body   map[string]any `json:"body"`
}

type response struct {
	ID    uint64         `json:"id"`
	OK    bool           `json:"ok"`
	Body  map[string]any `json:"body"`
	Error string         `json:"error"`
}

// Start starts a worker and connects to it.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	directory, err := os.MkdirTemp("", "pyproc")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(directory, "worker.py")
	if err := os.WriteFile(script, workerSource, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &worker{
		conn:      make(chan *connection, 1),
		socket:    filepath.Join(directory, "s"),
		directory: directory,
		cmd:       exec.CommandContext(life, python, script),
		stop:      stop,
		exited:    make(chan struct{}),
	}
	w.cmd.Env = append(os.Environ(), "PYPROC_SOCKET_PATH="+w.socket)
	w.cmd.Cancel = func() error { return w.cmd.Process.Signal(syscall.SIGINT) }
	w.cmd.WaitDelay = grace
	w.cmd.Stderr = os.Stderr
	if err := w.cmd.Start(); err != nil {
		stop()
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	go func() {
		w.exit = w.cmd.Wait()
		close(w.exited)
	}()
	conn, err := w.connect(ctx)
	w.conn <- &connection{Conn: conn}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// connect dials until the worker listens.
func (w *worker) connect(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := w.dial(ctx)
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.exited:
			return nil, fmt.Errorf("pyproc: the worker ended at its start: %w", w.exit)
		case <-ctx.Done():
			return nil, fmt.Errorf("pyproc: the worker does not listen: %w", ctx.Err())
		}
	}
}

func (w *worker) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", w.socket)
}

func (w *worker) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	var c *connection
	select {
	case c = <-w.conn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { w.conn <- c }()
	if c.Conn == nil {
		conn, err := w.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.Conn = conn
	}
	reply, err := c.call(ctx, args)
	if err != nil {
		_ = c.Close() // err is what the caller needs to know
		c.Conn = nil
		return nil, errors.Join(ctx.Err(), err)
	}
	if !reply.OK {
		return nil, fmt.Errorf("pyproc: %s", reply.Error)
	}
	return reply.Body, nil
}

// call returns an error if it did not read a whole reply to its request.
func (c *connection) call(ctx context.Context, args map[string]any) (*response, error) {
	// The end of ctx closes the connection, as pyproc does it.
	conn := c.Conn
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the call then fails
	c.id++
	body, err := json.Marshal(request{c.id, "echo", args})
	if err == nil {
		err = write(conn, body)
	}
	if err == nil {
		body, err = read(conn)
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		return nil, err
	}
	var reply response
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, err
	}
	if reply.ID != c.id {
		return nil, fmt.Errorf("pyproc: request %d got the reply to request %d: %s", c.id, reply.ID, reply.Error)
	}
	return &reply, nil
}

// write sends the length and the body in two writes, as pyproc does it.
func write(w io.Writer, body []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body)))); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

// read receives the length and the body in two reads, as pyproc does it.
func read(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(r, body)
	return body, err
}

func (w *worker) PIDs() []int { return []int{w.cmd.Process.Pid} }

func (w *worker) Close() error {
	var err error
	if c := <-w.conn; c.Conn != nil {
		err = c.Close()
	}
	w.stop()
	// The result says only that the process ended by our signal.
	<-w.exited
	return errors.Join(err, os.RemoveAll(w.directory))
}
