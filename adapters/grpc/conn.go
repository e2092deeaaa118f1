package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/snakepit-go/snakepit/core"
)

// batchBytes is the size above which a batch is split. A message delays all that follows it, and is held in memory as
// a whole. But each message costs far more than a frame.
const batchBytes = 1 << 20

// conn is the host's side of an Attach stream.
type conn struct {
	cc       *grpc.ClientConn
	stream   grpc.ClientStream
	cancel   context.CancelFunc
	endpoint string
	dir      string // the pool's own directory
	closed   atomic.Bool
	pace     pace
	readErr  error   // used by the reader only
	writeErr error   // used by the writer only
	in, out  message // used by the reader, and by the writer
}

// Read returns the frames of one message.
func (c *conn) Read() ([]core.Frame, error) {
	for c.readErr == nil {
		if err := c.stream.RecvMsg(&c.in); err != nil {
			c.readErr = c.explain(err)
			break
		}
		if c.in.bad != nil {
			c.readErr = fmt.Errorf("grpc: the worker sent what is not a batch of frames: %w", c.in.bad)
			break
		}
		c.pace.received(c.in.read)
		if len(c.in.frames) > 0 {
			return c.in.frames, nil
		}
	}
	return nil, c.readErr
}

// Write packs the frames into as few messages as batchBytes allows.
func (c *conn) Write(frames []core.Frame) error {
	for len(frames) > 0 && c.writeErr == nil {
		n, size := 1, frames[0].Size()
		for ; n < len(frames); n++ {
			if size += frames[n].Size(); size > batchBytes {
				break
			}
		}
		c.pace.wait(n)
		c.out.frames = frames[:n]
		err := c.stream.SendMsg(&c.out)
		c.out.frames = nil
		if err == io.EOF { // gRPC says that the stream has ended; only the reader learns why
			err = errEnded
		}
		if err != nil {
			c.writeErr = c.explain(err)
		}
		frames = frames[n:]
	}
	return c.writeErr
}

// CloseWrite ends the host's direction of the stream. Frames that were written before are sent first.
func (c *conn) CloseWrite() error {
	if c.writeErr != nil {
		return c.writeErr
	}
	c.writeErr = errors.New("grpc: write after CloseWrite")
	return c.stream.CloseSend()
}

// Close cancels the stream and closes the connection.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.cancel()
	removeSocket(c.endpoint, c.dir)
	return c.cc.Close()
}

var errEnded = errors.New("grpc: the worker has ended the stream")

// explain turns the stream's error into one that says what happened.
func (c *conn) explain(err error) error {
	switch {
	case c.closed.Load():
		return fmt.Errorf("grpc: the connection to the worker: %w", net.ErrClosed)
	case err == io.EOF, err == errEnded:
		return err
	}
	s := status.Convert(err)
	return &streamError{s.Code().String(), s.Message(), err}
}

type streamError struct {
	code, message string
	err           error
}

func (e *streamError) Error() string {
	return fmt.Sprintf("grpc: the stream with the worker has ended: %s (%s)", e.message, e.code)
}
func (e *streamError) Unwrap() error { return e.err }
