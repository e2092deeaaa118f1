// Package coretest has an adapter whose workers are Go functions in this process. It is for tests of core, and for
// tests of programs that use a pool: they then need neither Python nor a process. It works inside testing/synctest
// bubbles.
package coretest

import (
	"context"
	"io"
	"sync"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
)

// Adapter makes workers that answer calls with Functions. Its fields must not change after Open.
type Adapter struct {
	Functions   map[string]core.Function
	Concurrency int // how many calls a worker runs at once; 0 means 1
	// Before, if not nil, is called at each start with the worker's index. The start returns its error.
	Before func(ctx context.Context, index int) error

	// bind returns one worker's functions, instead of Functions, and may change its options; or it is nil.
	bind func(worker *Conn, o *core.ServeOptions) map[string]core.Function

	mu   sync.Mutex    // guards ends
	ends map[int]*Conn // by index: the host's end of the newest worker's pipe
}

// Name returns "coretest".
func (a *Adapter) Name() string { return "coretest" }

// Start makes one worker.
func (a *Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if a.Before != nil {
		if err := a.Before(ctx, l.Index); err != nil {
			return nil, err
		}
	}
	host, worker := Pipe()
	codecs := []core.Codec{json.Codec{}}
	functions := a.Functions
	o := core.ServeOptions{Concurrency: a.Concurrency, MaxFrame: l.MaxFrame, Token: l.WorkerToken}
	if a.bind != nil {
		functions = a.bind(worker, &o)
	}
	go func() {
		_ = core.Serve(context.Background(), worker, codecs, functions, &o)
		_ = worker.Close()
	}()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ends == nil {
		a.ends = map[int]*Conn{}
	}
	a.ends[l.Index] = host
	return &core.Link{Conn: host, Codecs: codecs, Token: l.WorkerToken}, nil
}

// Crash closes the connection of the worker at index, as if its process had died.
func (a *Adapter) Crash(index int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.ends[index]; c != nil {
		_ = c.peer.Close()
	}
}

// Conn is one end of a Pipe.
type Conn struct {
	out, in chan []core.Frame
	eof     chan struct{} // closed by CloseWrite; it is the peer's peerEOF
	peerEOF chan struct{}
	closed  chan struct{}
	peer    *Conn
	once    sync.Once
	write   sync.Once
}

// pipeDepth is how many batches a pipe holds before Write blocks.
const pipeDepth = 4

// Pipe returns the two ends of a connection inside this process.
func Pipe() (*Conn, *Conn) {
	ab, ba := make(chan []core.Frame, pipeDepth), make(chan []core.Frame, pipeDepth)
	aEOF, bEOF := make(chan struct{}), make(chan struct{})
	a := &Conn{out: ab, in: ba, eof: aEOF, peerEOF: bEOF, closed: make(chan struct{})}
	b := &Conn{out: ba, in: ab, eof: bEOF, peerEOF: aEOF, closed: make(chan struct{}), peer: a}
	a.peer = b
	return a, b
}

// Read returns the next batch.
func (c *Conn) Read() ([]core.Frame, error) {
	select {
	case <-c.closed:
		return nil, io.ErrClosedPipe
	default:
	}
	select {
	case frames := <-c.in:
		return frames, nil
	case <-c.closed:
		return nil, io.ErrClosedPipe
	case <-c.peerEOF:
	case <-c.peer.closed:
	}
	select { // frames that the peer wrote before that
	case frames := <-c.in:
		return frames, nil
	default:
		return nil, io.EOF
	}
}

// Write hands a copy of the frames to the peer.
func (c *Conn) Write(frames []core.Frame) error {
	select {
	case <-c.closed:
		return io.ErrClosedPipe
	case <-c.eof:
		return io.ErrClosedPipe
	case <-c.peer.closed:
		return io.ErrClosedPipe
	default:
	}
	if len(frames) == 0 {
		return nil
	}
	batch := make([]core.Frame, len(frames))
	for i, f := range frames {
		f.Body = append([]byte(nil), f.Body...)
		batch[i] = f
	}
	select {
	case c.out <- batch:
		return nil
	case <-c.closed:
	case <-c.peer.closed:
	}
	return io.ErrClosedPipe
}

// CloseWrite ends this side: after all written frames the peer's Read returns io.EOF.
func (c *Conn) CloseWrite() error {
	c.write.Do(func() { close(c.eof) })
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}
