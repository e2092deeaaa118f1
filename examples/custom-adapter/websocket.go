// Package websocket is an adapter that lives outside of Snakepit: it carries frames over WebSocket, to a worker that it launches or to
// one that already runs, perhaps on another machine. It is an example to copy; docs/adapters.md goes through it. The Python side is
// websocket_transport.py.
//
// A binary message holds one frame after the other: a header, which is one line of JSON, and then as many bytes of body as the header's
// "size" says. WebSocket's own closing handshake ends both directions at once, so the host, whose side ends first, ends it by an empty
// message; the worker, which has the last word, by the closing handshake.
package websocket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coder/websocket"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
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

const (
	batchBytes = 1 << 20                                 // a message that has as much takes no more frames
	maxTTL     = math.MaxInt64 / int64(time.Millisecond) // what a time.Duration holds
)

// conn is a core.Conn. Its methods need no lock: one goroutine reads, one writes, and websocket.Conn takes a CloseNow from any.
type conn struct {
	ws       *websocket.Conn
	limit    int          // of a frame's Size
	readErr  error        // of every later Read
	writeErr error        // of every later Write
	out      bytes.Buffer // the message that is being made
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
			frames, c.readErr = decode(message, c.limit)
		}
	}
	return frames, c.readErr
}

func (c *conn) Write(frames []core.Frame) error {
	for i := range frames {
		encode(&c.out, &frames[i])
		if c.out.Len() >= batchBytes || i == len(frames)-1 {
			c.send(c.out.Bytes())
			c.out.Reset()
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
		c.writeErr = c.ws.Write(context.Background(), websocket.MessageBinary, message)
	}
}

func (c *conn) Close() error {
	_ = c.ws.CloseNow() // an error: it was closed before
	return nil
}

// header is a frame without its body, by the names of docs/protocol.md.
type header struct {
	Kind    string            `json:"kind"`
	Flags   core.Flags        `json:"flags,omitempty"`
	ID      uint64            `json:"id,omitempty"`
	Parent  uint64            `json:"parent,omitempty"`
	Name    string            `json:"name,omitempty"`
	TTL     int64             `json:"ttl,omitempty"` // milliseconds
	Session string            `json:"session,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Items   int64             `json:"items,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"`
	Size    int               `json:"size,omitempty"` // of the body
}

func encode(out *bytes.Buffer, f *core.Frame) {
	_ = json.NewEncoder(out).Encode(header{ // numbers and text always encode; a line feed follows
		Kind: f.Kind.String(), Flags: f.Flags, ID: f.ID, Parent: f.Parent, Name: f.Name, TTL: f.TTL.Milliseconds(), Session: f.Session,
		Meta: f.Meta, Items: f.Items, Bytes: f.Bytes, Size: len(f.Body),
	})
	out.Write(f.Body)
}

// decode returns a message's frames, whose bodies are parts of it. Any bytes are frames or an error.
func decode(message []byte, limit int) ([]core.Frame, error) {
	var frames []core.Frame
	for len(message) > 0 {
		line, rest, _ := bytes.Cut(message, []byte("\n"))
		var h header
		err := json.Unmarshal(line, &h)
		kind := core.ParseKind(h.Kind)
		if err != nil || kind == 0 || min(int64(h.Size), h.TTL, h.Items, h.Bytes) < 0 || h.Size > len(rest) {
			return nil, fmt.Errorf("%w: the worker sent what is not a frame: %.64q", core.ErrProtocol, message)
		}
		f := core.Frame{
			Kind: kind, Flags: h.Flags, ID: h.ID, Parent: h.Parent, Name: h.Name, TTL: time.Duration(min(h.TTL, maxTTL)) * time.Millisecond,
			Session: h.Session, Meta: h.Meta, Items: h.Items, Bytes: h.Bytes,
		}
		if h.Size > 0 {
			f.Body = rest[:h.Size:h.Size] // to append to it does not reach the next frame
		}
		if f.Size() > limit {
			return nil, fmt.Errorf("%w: the worker sent a frame of %d bytes", core.ErrProtocol, f.Size())
		}
		frames, message = append(frames, f), rest[h.Size:]
	}
	return frames, nil
}
