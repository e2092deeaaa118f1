// Package websocket is an adapter that lives outside of Snakepit. It carries frames over WebSocket to a worker.
// It launches the worker, or connects to one that already runs, perhaps on another machine. It is an example to
// copy. docs/adapters.md explains it. The Python side is websocket_transport.py.
//
// A message holds frames. Each frame is a line of package frame. WebSocket's own closing handshake ends both
// directions at once, but the host ends its side first. So the host ends its side with an empty message. The
// worker sends last and ends with the closing handshake.
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

// Adapter connects to workers over WebSocket. The zero value launches them, each on its own Unix socket.
type Adapter struct {
	// URL is the address of a worker that already runs, such as "wss://gpu.example.com/worker". A worker serves
	// one host, once. A pool of several workers therefore needs a URL with as many workers behind it. "" means
	// to launch workers.
	URL string
	// Token is the SNAKEPIT_HOST_TOKEN of the worker at URL.
	Token string
}

// Name returns "websocket".
func (Adapter) Name() string { return "websocket" }

// Start launches a worker unless URL is set, and dials it.
func (a Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link := &core.Link{Codecs: []core.Codec{codec.Codec{}}}
	endpoint, token := a.URL, a.Token
	if a.URL == "" {
		process, err := l.Launch(ctx, core.Spec{Protocol: "websocket_transport:WebSocket"})
		if err != nil {
			// The error wraps core.ErrUnavailable if the worker's interpreter lacks the transport or a module
			// that it imports.
			return nil, err
		}
		if process.Endpoint == "" {
			return nil, &core.UnavailableError{Reason: "the worker's report does not say where it listens"}
		}
		endpoint, token = process.Endpoint, l.HostToken
		// Remove the socket: nobody else may dial it, and a killed worker can't remove it.
		defer os.Remove(filepath.Join(l.Dir, filepath.Base(endpoint)))
		link.Process, link.Token = process, l.WorkerToken
	}
	ws, err := dial(ctx, endpoint, token)
	if err != nil {
		return nil, fmt.Errorf("connecting to the worker at %s: %w", endpoint, err)
	}
	ws.SetReadLimit(6*int64(l.MaxFrame) + 2*batchBytes) // JSON writes a byte of text as at most six
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

// conn is a core.Conn. Its methods need no lock: one goroutine reads, one writes, and websocket.Conn allows
// CloseNow from any goroutine.
type conn struct {
	ws       *websocket.Conn
	limit    int    // on a frame's Size
	readErr  error  // returned by every later Read
	writeErr error  // returned by every later Write
	out      []byte // the message under construction
}

func (c *conn) Read() ([]core.Frame, error) {
	var frames []core.Frame
	for len(frames) == 0 && c.readErr == nil {
		_, message, err := c.ws.Read(context.Background())
		switch {
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
			c.readErr = io.EOF
		case errors.Is(err, io.EOF): // no closing handshake: the worker has died
			c.readErr = io.ErrUnexpectedEOF
		case err != nil:
			c.readErr = err
		default:
			frames, c.readErr = c.parse(message)
		}
	}
	return frames, c.readErr
}

// parse returns the frames of a message. Any bytes give frames or an error.
func (c *conn) parse(message []byte) (frames []core.Frame, err error) {
	for line := range bytes.Lines(message) {
		f, err := frame.ParseLine(line)
		if err == nil {
			err = frame.CheckSize(&f, c.limit)
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
	_ = c.ws.CloseNow() // it fails only if the connection was closed before
	return nil
}
