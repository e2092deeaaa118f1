// Package jsonstdio connects to workers by lines of JSON on their standard input and output. It needs nothing of the worker but those
// two and JSON, and it is the smallest adapter: to write your own, copy this directory.
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
	c := newConn(p.Stdout, p.Stdin, p.Output, l.MaxFrame)
	return &core.Link{Conn: c, Codecs: []core.Codec{json.Codec{}}, Process: p}, nil
}

const (
	chunk    = 64 << 10 // what a pipe holds: to read or write more at once saves nothing
	maxPrint = 1 << 20  // what may be printed before the first frame, in bytes
)

// conn is a core.Conn of lines. A line is a header and, if there is a body, a tab and the body, which has no raw line feed because the
// codec's JSON has none.
type conn struct {
	in    io.ReadCloser
	out   io.WriteCloser
	print func([]byte) // takes lines that came before the first frame
	limit int          // of Frame.Size

	buf      []byte // buf[:n] is the beginning of a line
	n        int
	begun    bool  // the first frame has come
	printed  int   // bytes before it
	readErr  error // of every later Read
	batch    []byte
	writeErr error // of every later Write
}

func newConn(in io.ReadCloser, out io.WriteCloser, print func([]byte), limit int) *conn {
	return &conn{in: in, out: out, print: print, limit: limit, buf: make([]byte, chunk)}
}

func (c *conn) Read() ([]core.Frame, error) {
	for c.readErr == nil {
		lines, err := c.lines()
		frames := make([]core.Frame, 0, bytes.Count(lines, []byte("\n")))
		for line := range bytes.Lines(lines) {
			f, why := frame.ParseLine(line)
			if why == nil {
				why = frame.Fits(&f, c.limit)
			}
			if why == nil {
				frames, c.begun = append(frames, f), true
			} else if err2 := c.stray(line, why); err2 != nil {
				err = err2
				break
			}
		}
		c.readErr = err
		if len(frames) > 0 { // what came before an error comes first
			return frames, nil
		}
	}
	return nil, c.readErr
}

// stray takes a line that is not a frame. Before the first frame start-up hooks may print; after it that is an error.
func (c *conn) stray(line []byte, why error) error {
	c.printed += len(line)
	if c.begun || c.printed > maxPrint {
		return fmt.Errorf("%w: the worker's standard output, which is the connection, has what is not a frame (%w): %.64q", core.ErrProtocol, why, line)
	}
	if len(bytes.TrimSpace(line)) > 0 {
		c.print(line)
	}
	return nil
}

// lines waits for the end of a line and returns all lines that have come. They are the caller's, so that bodies need not be copied. With
// io.EOF comes what is left, perhaps without a line feed.
func (c *conn) lines() ([]byte, error) {
	for {
		if c.n == len(c.buf) {
			tab := bytes.IndexByte(c.buf, '\t')
			if tab < 0 && c.n/6 > c.limit || tab >= 0 && c.n-tab > c.limit { // in a header's text one byte may take six
				return nil, fmt.Errorf("%w: the worker sent more than %d bytes in one line: %.64q", core.ErrProtocol, c.limit, c.buf)
			}
			c.buf = append(c.buf, make([]byte, len(c.buf))...) // doubles, so that a long line is copied but a few times
		}
		n, err := c.in.Read(c.buf[c.n:])
		feed := bytes.LastIndexByte(c.buf[c.n:c.n+n], '\n') // what came before has none
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

// take returns the first end bytes of the buffer and keeps the rest. A long line takes the buffer along; shorter ones are copied together.
func (c *conn) take(end int) []byte {
	taken, rest := c.buf[:end], c.buf[end:c.n]
	c.n = len(rest)
	if end < chunk {
		taken = bytes.Clone(taken)
		copy(c.buf, rest)
	} else {
		c.buf = make([]byte, max(chunk, 2*len(rest)))
		copy(c.buf, rest)
	}
	return taken
}

func (c *conn) Write(frames []core.Frame) error {
	for i := range frames {
		f := &frames[i]
		if len(f.Body) < chunk {
			c.batch = frame.AppendLine(c.batch, f)
		} else { // the body goes as it is, not through the batch
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

// send writes b, unless a write has failed: then the last line may be half there, and nothing can follow it.
func (c *conn) send(b []byte) {
	if c.writeErr == nil && len(b) > 0 {
		_, c.writeErr = c.out.Write(b)
	}
}

func (c *conn) CloseWrite() error { return c.out.Close() }

func (c *conn) Close() error {
	_, _ = c.out.Close(), c.in.Close() // an error: it was closed before
	return nil
}
