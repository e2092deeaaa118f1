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
	"syscall"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed worker.py
var workerSource []byte

// worker is a Python worker and the only connection to it. The worker serves one connection at a time and one call at
// a time on it.
type worker struct {
	*peers.Server
	conn chan *connection // holds the connection while no call uses it
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
	server, err := peers.StartServer(python, "worker.py", workerSource, syscall.SIGINT,
		func(program, socket string) (args, env []string) {
			return []string{program}, []string{"PYPROC_SOCKET_PATH=" + socket}
		})
	if err != nil {
		return nil, err
	}
	w := &worker{server, make(chan *connection, 1)}
	conn, err := server.Await(ctx)
	w.conn <- &connection{Conn: conn}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pyproc: %w", err), w.Close())
	}
	return w, nil
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
		conn, err := w.Dial(ctx)
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

// Close closes the connection and ends the worker.
func (w *worker) Close() error {
	var err error
	if c := <-w.conn; c.Conn != nil {
		err = c.Close()
	}
	return errors.Join(err, w.Server.Close())
}
