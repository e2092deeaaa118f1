// Package msgpack connects to workers by MessagePack over an inherited socket. Their standard output stays free for
// printing.
package msgpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
)

// Adapter starts workers that inherit one end of a socket pair. The zero value is ready. On Windows processes inherit
// no sockets: there Start returns an error that wraps core.ErrUnavailable.
type Adapter struct{}

// Name returns "msgpack".
func (Adapter) Name() string { return "msgpack" }

// Start launches a worker.
func (Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	p, err := l.Launch(ctx, core.Spec{Protocol: "msgpack", Files: theirs}) // closes theirs
	if err != nil {
		_ = ours.Close() // its error does not matter: err is returned
		return nil, err
	}
	return &core.Link{
		Conn: newConn(ours, l.MaxFrame), Codecs: []core.Codec{msgpack.Codec{}, json.Codec{}}, Process: p,
	}, nil
}

const (
	slack = 64 << 10 // how many bytes a frame on the wire may have beyond Frame.Size; generous
	chunk = 64 << 10 // how many bytes are read or written at once
	large = 16 << 10 // from this size on, writing a body by itself is cheaper than copying it
)

// socket is what conn needs of a *net.UnixConn.
type socket interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// conn is a core.Conn of frames. The length of each frame goes in front of it.
type conn struct {
	sock  socket
	limit int // on Frame.Size

	buf     []byte // buf[:n] is the beginning of a frame
	n       int
	readErr error // returned by every later Read

	batch    []byte
	parts    net.Buffers // the bytes to write: parts of batch, and large bodies between them
	split    int         // batch[split:] is not in parts yet
	sending  net.Buffers // the part of parts that is being written
	writeErr error       // returned by every later Write
}

func newConn(sock socket, limit int) *conn {
	return &conn{sock: sock, limit: limit, buf: make([]byte, chunk)}
}

func (c *conn) Read() ([]core.Frame, error) {
	if c.readErr != nil {
		return nil, c.readErr
	}
	whole, err := c.receive()
	n := 0
	for rest := whole; len(rest) > 0; n++ {
		rest = rest[4+binary.BigEndian.Uint32(rest):]
	}
	frames := make([]core.Frame, 0, n)
	for len(whole) > 0 {
		size := 4 + int(binary.BigEndian.Uint32(whole))
		f, bad := frame.ParseMsgpack(whole[4:size:size])
		if bad == nil {
			bad = frame.CheckSize(&f, c.limit)
		}
		if bad != nil {
			err = fmt.Errorf("%w: the worker sent what is not a frame (%w): %.64q",
				core.ErrProtocol, bad, whole[4:size])
			break
		}
		frames, whole = append(frames, f), whole[size:]
	}
	c.readErr = err
	if len(frames) > 0 { // frames before an error are returned first
		return frames, nil
	}
	return nil, err
}

// receive waits for the end of a frame and returns all whole frames that have arrived. The caller owns them, so
// bodies need not be copied.
func (c *conn) receive() ([]byte, error) {
	for {
		end, next, err := c.measure()
		switch {
		case end > 0:
			whole := bytes.Clone(c.buf[:end])
			c.n = copy(c.buf, c.buf[end:c.n])
			return whole, nil
		case err != nil:
			return nil, err
		case next > len(c.buf): // a large frame is read into its own memory
			whole := frame.Memory(next)
			n := copy(whole, c.buf[:c.n])
			c.n = 0
			if _, err := io.ReadFull(c.sock, whole[n:]); err != nil {
				return nil, ended(err, true)
			}
			return whole, nil
		}
		n, err := c.sock.Read(c.buf[c.n:])
		if c.n += n; n == 0 && err != nil {
			return nil, ended(err, c.n > 0)
		}
	}
}

// measure returns the end of the whole frames in the buffer, and the size of the frame that follows, or 0 while that
// is unknown. An error is about the frame at end.
func (c *conn) measure() (end, next int, err error) {
	for c.n-end >= 4 {
		size := binary.BigEndian.Uint32(c.buf[end:])
		if size == 0 || int64(size) > int64(c.limit+slack) {
			return end, 0, fmt.Errorf("%w: the worker sent what is not a frame (of %d bytes, the limit is %d): %.64q",
				core.ErrProtocol, size, c.limit, c.buf[end:c.n])
		}
		if next = 4 + int(size); c.n-end < next {
			return end, next, nil
		}
		end += next
	}
	return end, 0, nil
}

// ended returns the error for the end of the connection, inside a frame or between two.
func ended(err error, inside bool) error {
	if errors.Is(err, syscall.ECONNRESET) { // the worker ended with unread input; all that it wrote has been read
		err = io.EOF
	}
	if err == io.EOF && inside {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *conn) Write(frames []core.Frame) error {
	for i := range frames {
		f := &frames[i]
		start := len(c.batch)
		c.batch = frame.AppendMsgpack(append(c.batch, 0, 0, 0, 0), f)
		binary.BigEndian.PutUint32(c.batch[start:], uint32(len(c.batch)-start-4+len(f.Body)))
		if len(f.Body) < large {
			c.batch = append(c.batch, f.Body...)
		} else {
			c.parts = append(c.parts, c.batch[c.split:], f.Body)
			c.split = len(c.batch)
		}
		if len(c.batch) >= chunk {
			c.flush()
		}
	}
	c.flush()
	return c.writeErr
}

// flush writes the batch, unless a write has failed: then the last frame may be incomplete, and nothing can follow it.
func (c *conn) flush() {
	if c.split < len(c.batch) {
		c.parts = append(c.parts, c.batch[c.split:])
	}
	if c.sending = c.parts; c.writeErr == nil {
		_, c.writeErr = c.sending.WriteTo(c.sock) // one system call
	}
	clear(c.parts) // retains no body
	c.batch, c.parts, c.split, c.sending = c.batch[:0], c.parts[:0], 0, nil
}

func (c *conn) CloseWrite() error { return c.sock.CloseWrite() }

func (c *conn) Close() error {
	_ = c.sock.Close() // an error means that it was closed before
	return nil
}
