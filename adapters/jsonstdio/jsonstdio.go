// Package jsonstdio connects to workers by lines of JSON on their standard input and output. The worker needs only
// these two and JSON. It is the smallest adapter: docs/adapters.md begins with a copy of this file.
package jsonstdio

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
)

// Adapter starts workers whose standard input and output are the connection. The zero value is ready.
type Adapter struct{}

// Name returns "jsonstdio".
func (Adapter) Name() string { return "jsonstdio" }

// Start launches a worker.
func (Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	p, err := l.Launch(ctx, core.Spec{Protocol: "jsonstdio", Stdio: true})
	if err != nil {
		return nil, err
	}
	c := newConn(p.Stdout, p.Stdin, p.LogOutput, l.MaxFrame)
	return &core.Link{Conn: c, Codecs: []core.Codec{json.Codec{}}, Process: p}, nil
}

const (
	chunk    = 64 << 10 // the size of a pipe: larger reads and writes save nothing
	maxPrint = 1 << 20  // the most that may be printed before the first frame, in bytes
)

// conn is a core.Conn of lines. A line is a header and, if there is a body, a tab and the body. The body has no raw
// line feed: the codec's JSON has none.
type conn struct {
	in     io.ReadCloser
	out    io.WriteCloser
	output func([]byte) // takes lines before the first frame
	limit  int          // on Frame.Size

	buf      []byte // buf[:n] is the beginning of a line
	n        int
	begun    bool  // the first frame has arrived
	printed  int   // bytes of lines that were not frames
	readErr  error // returned by every later Read
	batch    []byte
	writeErr error // returned by every later Write
}

func newConn(in io.ReadCloser, out io.WriteCloser, output func([]byte), limit int) *conn {
	return &conn{in: in, out: out, output: output, limit: limit, buf: make([]byte, chunk)}
}

func (c *conn) Read() ([]core.Frame, error) {
	for c.readErr == nil {
		lines, err := c.lines()
		frames := make([]core.Frame, 0, bytes.Count(lines, []byte("\n")))
		for line := range bytes.Lines(lines) {
			f, why := frame.ParseLine(line)
			if why == nil {
				why = frame.CheckSize(&f, c.limit)
			}
			if why == nil {
				frames, c.begun = append(frames, f), true
			} else if err2 := c.stray(line, why); err2 != nil {
				err = err2
				break
			}
		}
		c.readErr = err
		if len(frames) > 0 { // frames before an error are returned first
			return frames, nil
		}
	}
	return nil, c.readErr
}

// stray takes a line that is not a frame. Before the first frame start-up hooks may print. After it such a line is an
// error.
func (c *conn) stray(line []byte, why error) error {
	c.printed += len(line)
	if c.begun || c.printed > maxPrint {
		return fmt.Errorf(
			"%w: the worker's standard output, which is the connection, has what is not a frame (%w): %.64q",
			core.ErrProtocol, why, line)
	}
	if len(bytes.TrimSpace(line)) > 0 {
		c.output(line)
	}
	return nil
}

// lines waits for the end of a line and returns all whole lines that have arrived. The caller owns them, so bodies
// need not be copied. With io.EOF it returns all that is left, perhaps without a line feed at the end.
func (c *conn) lines() ([]byte, error) {
	for {
		if c.n == len(c.buf) {
			tab := bytes.IndexByte(c.buf, '\t')
			if tab < 0 && c.n/6 > c.limit || tab >= 0 && c.n-tab > c.limit { // a byte of a header's text may take six
				return nil, fmt.Errorf("%w: the worker sent more than %d bytes in one line: %.64q",
					core.ErrProtocol, c.limit, c.buf)
			}
			c.buf = append(c.buf, make([]byte, len(c.buf))...) // doubling copies a long line only a few times
		}
		n, err := c.in.Read(c.buf[c.n:])
		feed := bytes.LastIndexByte(c.buf[c.n:c.n+n], '\n') // buf[:c.n] has none
		end := c.n + feed + 1
		c.n += n
		switch {
		case err == io.EOF:
			return c.take(c.n), err
		case feed >= 0:
			return c.take(end), err
		case err != nil:
			return nil, err
		}
	}
}

// take returns the first end bytes of the buffer and keeps the rest. Short lines are copied. For long lines it hands
// over the buffer and makes a new one.
func (c *conn) take(end int) []byte {
	taken, rest := c.buf[:end], c.buf[end:c.n]
	c.n = len(rest)
	if end < chunk {
		taken = bytes.Clone(taken)
	} else {
		c.buf = make([]byte, max(chunk, 2*len(rest)))
	}
	copy(c.buf, rest)
	return taken
}

func (c *conn) Write(frames []core.Frame) error {
	for i := range frames {
		f := &frames[i]
		if len(f.Body) < chunk {
			c.batch = frame.AppendLine(c.batch, f)
		} else { // a large body is written by itself, not copied into the batch
			c.batch = append(frame.AppendJSON(c.batch, f), '\t')
			c.flush()
			c.send(f.Body)
			c.batch = append(c.batch, '\n')
		}
		if len(c.batch) >= chunk {
			c.flush()
		}
	}
	c.flush()
	return c.writeErr
}

func (c *conn) flush() {
	c.send(c.batch)
	c.batch = c.batch[:0]
}

// send writes b, unless a write has failed: then the last line may be incomplete, and nothing can follow it.
func (c *conn) send(b []byte) {
	if c.writeErr == nil && len(b) > 0 {
		_, c.writeErr = c.out.Write(b)
	}
}

func (c *conn) CloseWrite() error { return c.out.Close() }

func (c *conn) Close() error {
	_, _ = c.out.Close(), c.in.Close() // an error means that it was closed before
	return nil
}
