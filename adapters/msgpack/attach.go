package msgpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	codecjson "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

// Attach waits for a worker that somebody starts by hand, such as in a debugger, and speaks MessagePack with it. The
// worker connects to a Unix socket: "snakepit run worker.py" does, and so does a Python worker with SNAKEPIT_ATTACH.
// The pool needs a Size of 1 and a long Options.StartTimeout; snakepit.Attach opens such a pool. The zero value is
// ready.
type Attach struct {
	// Socket is the path of the Unix socket. "" means attach in core.UserDir. While Start waits, only this
	// user may open it.
	Socket string
	// Waiting is called when a start begins to wait, with the socket's path. It may be nil. It must not block.
	Waiting func(socket string)
}

// Name returns "attach".
func (Attach) Name() string { return "attach" }

// Start waits for a worker. The worker sends the line "attach" and gets a line of JSON, {"env": {...}}, with the
// variables of the launch contract. Frames follow in both directions.
func (a Attach) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if l.Index > 0 {
		return nil, errors.New("one worker at a time can be attached; the pool has to have a size of 1")
	}
	path, err := a.path()
	if err != nil {
		return nil, err
	}
	listener, err := listen(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = listener.Close() }() // its connections stay
	if a.Waiting != nil {
		a.Waiting(path)
	}
	defer context.AfterFunc(ctx, func() { _ = listener.SetDeadline(time.Now()) })() // a closed one needs no deadline
	conn, err := accept(listener)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no worker has connected to %s: %w", path, ctx.Err())
		}
		return nil, err
	}
	line, err := json.Marshal(greeting{map[string]string{
		"SNAKEPIT_PROTOCOL": "msgpack", "SNAKEPIT_RUN_ID": l.RunID,
		"SNAKEPIT_WORKER_INDEX": strconv.Itoa(l.Index), "SNAKEPIT_MAX_FRAME": strconv.Itoa(l.MaxFrame),
	}})
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	if err != nil {
		_ = conn.Close() // err is what counts
		return nil, err
	}
	return &core.Link{
		Conn: newConn(conn, l.MaxFrame), Codecs: []core.Codec{msgpack.Codec{}, codecjson.Codec{}},
	}, nil
}

// accept returns the connection of a worker. Others, such as those that only look who listens, are closed.
func accept(l *net.UnixListener) (*net.UnixConn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		line := make([]byte, len(attachLine))
		_ = conn.SetReadDeadline(time.Now().Add(attachPatience)) // the read fails if it has failed
		_, err = io.ReadFull(conn, line)
		if err == nil && string(line) == attachLine && conn.SetReadDeadline(time.Time{}) == nil {
			return conn, nil
		}
		_ = conn.Close() // it is no worker
	}
}

const (
	attachLine     = "attach\n"
	attachPatience = 5 * time.Second
)

// greeting is what a worker that was started by hand needs to know.
type greeting struct {
	Env map[string]string `json:"env"`
}

// path returns where to listen.
func (a Attach) path() (string, error) {
	if a.Socket != "" {
		return a.Socket, nil
	}
	dir, err := core.MakeUserDir()
	return filepath.Join(dir, "attach"), err
}

// listen listens at a Unix socket. It removes one that a killed program has left.
func listen(path string) (*net.UnixListener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close() // it was opened for a look only
			return nil, &core.RemedyError{
				Err:    fmt.Errorf("another program waits for a worker at %s", path),
				Remedy: "end it, or choose another path for one of them",
			}
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close() // err is what counts
		return nil, err
	}
	return l, nil
}
