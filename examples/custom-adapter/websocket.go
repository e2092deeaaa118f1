// Package websocket is an adapter that lives outside of Snakepit: it carries frames over WebSocket, to a worker that it launches or to
// one that already runs, perhaps on another machine. It is an example to copy; docs/adapters.md goes through it. The Python side is
// websocket_transport.py.
//
// A message holds frames, each as a line of package frame. WebSocket's own closing handshake ends both directions at once. So
// the host, whose side ends first, ends it by an empty message; the worker, which has the last word, by the closing handshake.
package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/coder/websocket"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
)

// Adapter connects to workers over WebSocket. The zero value launches them, each on a Unix socket of its own.
type Adapter struct {
	// URL is that of a worker that already runs, such as "wss://gpu.example.com/worker". A worker serves one host, once, so a pool
	// of more than one worker needs something behind the URL that has as many. "" means to launch workers.
	URL string
	// Token is what the worker at URL wants to see: its SNAKEPIT_HOST_TOKEN.
	Token string
}

// Name returns "websocket".
func (Adapter) Name() string { return "websocket" }

// Start launches a worker unless there is a URL, and dials it.
func (a Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link := &core.Link{Codecs: []core.Codec{codec.Codec{}}}
	endpoint, token := a.URL, a.Token
	if a.URL == "" {
		process, err := l.Launch(ctx, core.Spec{Protocol: "websocket_transport:WebSocket"})
		if err != nil {
			return nil, err // it wraps core.ErrUnavailable if the worker's interpreter lacks the transport or what that imports
		}
		if process.Endpoint == "" {
			return nil, &core.UnavailableError{Reason: "the worker's report does not say where it listens"}
		}
		endpoint, token = process.Endpoint, l.HostToken
		defer os.Remove(filepath.Join(l.Dir, filepath.Base(endpoint))) // nobody else is to dial it, and a killed worker can't do it
		link.Process, link.Token = process, l.WorkerToken
	}
	ws, err := dial(ctx, endpoint, token)
	if err != nil {
		return nil, fmt.Errorf("connecting to the worker at %s: %w", endpoint, err)
	}
	ws.SetReadLimit(6*int64(l.MaxFrame) + 2*batchBytes) // JSON writes a byte of text as six at most
	link.Conn = &conn{ws: ws, limit: l.MaxFrame}
	return link, nil
}

// dial connects to "unix:PATH", as a launched worker reports it, or to a URL.
func dial(ctx context.Context, endpoint, token string) (*websocket.Conn, error) {
	transport := &http.Transport{DisableKeepAlives: true} // a refused handshake leaves no idle connection behind
	if path, isUnix := strings.CutPrefix(endpoint, "unix:"); isUnix {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		endpoint = "ws://worker"
	}
	ws, _, err := websocket.Dial(ctx, endpoint, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	return ws, err
}

const batchBytes = 1 << 20 // a message of this size takes no more frames

// conn is a core.Conn. Its methods need no lock: one goroutine reads, one writes, and websocket.Conn takes a CloseNow from any.
type conn struct {
	ws       *websocket.Conn
	limit    int    // of a frame's Size
	readErr  error  // of every later Read
	writeErr error  // of every later Write
	out      []byte // the message that is being made
}

func (c *conn) Read() ([]core.Frame, error) {
	var frames []core.Frame
	for len(frames) == 0 && c.readErr == nil {
		_, message, err := c.ws.Read(context.Background())
		switch {
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
			c.readErr = io.EOF
		case errors.Is(err, io.EOF): // without a closing handshake: the worker has died
			c.readErr = io.ErrUnexpectedEOF
		case err != nil:
			c.readErr = err
		default:
			frames, c.readErr = c.parse(message)
		}
	}
	return frames, c.readErr
}

// parse returns the frames of a message. Any bytes are frames or an error.
func (c *conn) parse(message []byte) (frames []core.Frame, err error) {
	for line := range bytes.Lines(message) {
		f, err := frame.ParseLine(line)
		if err == nil {
			err = frame.Fits(&f, c.limit)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: the worker sent what is not a frame (%w): %.64q", core.ErrProtocol, err, line)
		}
		frames = append(frames, f)
	}
	return frames, nil
}

func (c *conn) Write(frames []core.Frame) error {
	for i := range frames {
		c.out = frame.AppendLine(c.out, &frames[i])
		if len(c.out) >= batchBytes || i == len(frames)-1 {
			c.send(c.out)
			c.out = c.out[:0]
		}
	}
	return c.writeErr
}

func (c *conn) CloseWrite() error {
	c.send(nil)
	err := c.writeErr
	c.writeErr = errors.New("websocket: write after CloseWrite")
	return err
}

func (c *conn) send(message []byte) {
	if c.writeErr == nil {
		c.writeErr = c.ws.Write(context.Background(), websocket.MessageText, message)
	}
}

func (c *conn) Close() error {
	_ = c.ws.CloseNow() // an error: it was closed before
	return nil
}
