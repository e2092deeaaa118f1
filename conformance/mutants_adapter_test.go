package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// adapterMutants are broken adapters.
var adapterMutants = []mutant{
	{"has a name in capitals", "start/name",
		func(m *mutation) core.Adapter { return named{coretest.Conformance(4), "CoreTest"} }},
	{"has two codecs of one name", "start/link",
		linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Codecs = append(l.Codecs, l.Codecs[0]) })},
	{"has a limit below the least", "start/link",
		linked(func(_ *mutation, _ context.Context, l *core.Link) { l.MaxFrame = 100 })},
	{"never lets a frame through", "start/hello", reading(drop)},
	{"ends with the context of Start", "start/outlives-ctx",
		linked(func(_ *mutation, ctx context.Context, l *core.Link) {
			c := l.Conn
			context.AfterFunc(ctx, func() { _ = c.Close() })
		})},
	{"does not look at the context of Start", "start/ctx-done",
		func(m *mutation) core.Adapter { return &slow{coretest.Conformance(4), m} }},
	{"has one worker for all", "start/parallel",
		func(m *mutation) core.Adapter { return &shared{Adapter: coretest.Conformance(4), m: m} }},
	{"leaves a goroutine behind", "start/leaves-nothing", onConn(func(m *mutation, c core.Conn) core.Conn {
		go func() { <-m.done }()
		return c
	})},
	{"ignores the token", "start/token",
		reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { delete(h, "token") }) })},
	{"takes every failure of a launch for a broken worker", "start/unavailable",
		func(m *mutation) core.Adapter { return &hushed{coretest.Conformance(4)} }},
	{"says where nobody listens", "start/endpoint",
		linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Endpoint = "unix:/no/such/socket" })},
	{"shuffles frames", "frames/order", frames(func(core.Conn) (frameFunc, frameFunc) {
		var kept []core.Frame
		return nil, func(f core.Frame) []core.Frame {
			if f.Kind == core.KindPing && f.ID == 3 { // goes after the next
				kept = append(kept, f)
				return nil
			}
			out := append([]core.Frame{f}, kept...)
			kept = nil
			return out
		}
	})},
	{"loses the end of a large batch", "frames/batch",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &cutBatch{c} })},
	{"turns an empty batch into an error", "frames/empty-batch",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &noEmpty{c} })},
	{"waits for company before it writes", "frames/prompt", frames(func(core.Conn) (frameFunc, frameFunc) {
		var kept []core.Frame
		return nil, func(f core.Frame) []core.Frame {
			kept = append(kept, f)
			if f.Kind == core.KindPing && len(kept) < 2 {
				return nil
			}
			out := kept
			kept = nil
			return out
		}
	})},
	{"returns frames and an error together", "frames/read-result",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &together{Conn: c} })},
	{"returns nothing and no error", "frames/read-result",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &nothing{Conn: c} })},
	{"loses metadata", "frames/fields", writing(func(f *core.Frame) { f.Meta = nil })},
	{"drops bytes above 0x7f", "frames/text", writing(func(f *core.Frame) { f.Session = ascii(f.Session) })},
	{"drops bytes above 0x7f of what the worker calls", "frames/text-back",
		reading(func(f *core.Frame) { f.Name = ascii(f.Name) })},
	{"rounds large numbers", "frames/numbers", writing(func(f *core.Frame) { f.ID = uint64(float32(f.ID)) })},
	{"takes a line feed for the end of a body", "frames/body", writing(func(f *core.Frame) {
		if i := bytes.Index(f.Body, []byte(`\n`)); i >= 0 && f.Kind == core.KindCall {
			f.Body = append(f.Body[:i:i], `"}`...)
		}
	})},
	{"makes an empty body of none", "frames/no-body", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && f.Body == nil {
			f.Body = []byte(`""`)
		}
	})},
	{"cuts large frames short", "frames/largest", writing(func(f *core.Frame) {
		if len(f.Body) > 4<<20 {
			f.Body = f.Body[:4<<20]
		}
	})},
	{"hands out one buffer again and again", "frames/owned-by-reader",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &oneBuffer{Conn: c} })},
	{"keeps the batch that it was given", "frames/retains-nothing",
		onConn(func(m *mutation, c core.Conn) core.Conn { return newLate(m, c) })},
	{"writes of several calls the first alone", "frames/both-ways",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &halfDuplex{c} })},
	{"loses at CloseWrite what it was about to send", "close/write-side",
		onConn(func(m *mutation, c core.Conn) core.Conn { return newLate(m, c) })},
	{"reports the peer's end as a failure", "close/eof",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &noEOF{c} })},
	{"does not unblock Read", "close/unblocks-read",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &deaf{c} })},
	{"waits in Close for what does not come", "close/unblocks-read",
		onConn(func(m *mutation, c core.Conn) core.Conn { return &waiting{c, m} })},
	{"fails when closed twice", "close/again",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c} })},
	{"writes into the void after Close", "close/then-errors",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c, silent: true} })},
	{"writes into the void when the peer has gone", "close/lost-write",
		onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c, silent: true} })},
	{"does not notice the loss of a worker", "close/loss",
		onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
}

func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r > 0x7f {
			return -1
		}
		return r
	}, s)
}

type named struct {
	core.Adapter
	name string
}

func (n named) Name() string { return n.name }

// slow ignores the end of Start's context.
type slow struct {
	core.Adapter
	m *mutation
}

func (s *slow) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if ctx.Err() != nil {
		select {
		case <-time.After(time.Hour):
		case <-s.m.done:
		}
	}
	return s.Adapter.Start(ctx, l)
}

// hushed hides the reason if a launch fails.
type hushed struct{ core.Adapter }

func (h *hushed) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if _, err := l.Launch(ctx, core.Spec{Protocol: "hushed"}); err != nil {
		return nil, fmt.Errorf("starting: %v", err) //nolint:errorlint // this is the mutant's fault
	}
	return h.Adapter.Start(ctx, l)
}

// shared returns one connection from every Start.
type shared struct {
	core.Adapter
	m *mutation

	mu   sync.Mutex
	link *core.Link
}

func (s *shared) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		link, err := s.Adapter.Start(ctx, l)
		if err != nil {
			return nil, err
		}
		s.m.conns = append(s.m.conns, link.Conn)
		s.link = link
	}
	return s.link, nil
}

type cutBatch struct{ core.Conn }

func (c *cutBatch) Write(frames []core.Frame) error {
	return c.Conn.Write(frames[:min(len(frames), 1000)])
}

type noEmpty struct{ core.Conn }

func (c *noEmpty) Write(frames []core.Frame) error {
	if len(frames) == 0 {
		return errors.New("nothing to write")
	}
	return c.Conn.Write(frames)
}

type together struct {
	core.Conn
	last []core.Frame
}

func (c *together) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if err != nil {
		return c.last, err
	}
	c.last = frames
	return frames, nil
}

type nothing struct {
	core.Conn
	n int
}

func (c *nothing) Read() ([]core.Frame, error) {
	if c.n++; c.n == 2 {
		return nil, nil
	}
	return c.Conn.Read()
}

type oneBuffer struct {
	core.Conn
	buf []byte
}

func (c *oneBuffer) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	c.buf = c.buf[:0]
	for i := range frames {
		at := len(c.buf)
		c.buf = append(c.buf, frames[i].Body...)
		frames[i].Body = c.buf[at:]
	}
	return frames, err
}

// late writes frames a little later than it is told to.
type late struct {
	core.Conn
	stop chan struct{}
	once sync.Once

	mu    sync.Mutex // guards batch
	batch []core.Frame
}

func newLate(m *mutation, c core.Conn) *late {
	l := &late{Conn: c, stop: make(chan struct{})}
	go func() {
		for {
			select {
			case <-time.After(time.Millisecond):
			case <-l.stop:
				return
			case <-m.done:
				return
			}
			l.mu.Lock()
			batch := l.batch
			l.batch = nil
			var err error
			if len(batch) > 0 {
				err = c.Write(batch)
			}
			l.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *late) Write(frames []core.Frame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stop:
		return io.ErrClosedPipe
	default:
		l.batch = append(l.batch, frames...)
		return nil
	}
}

func (l *late) CloseWrite() error {
	l.once.Do(func() { close(l.stop) })
	return l.Conn.CloseWrite()
}

func (l *late) Close() error {
	l.once.Do(func() { close(l.stop) })
	return l.Conn.Close()
}

// halfDuplex writes only the first frame of a batch of calls.
type halfDuplex struct{ core.Conn }

func (c *halfDuplex) Write(frames []core.Frame) error {
	if len(frames) > 1 && frames[0].Kind == core.KindCall {
		return c.Conn.Write(frames[:1])
	}
	return c.Conn.Write(frames)
}

type noEOF struct{ core.Conn }

func (c *noEOF) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if errors.Is(err, io.EOF) {
		err = errors.New("the other side is not there any more")
	}
	return frames, err
}

// deaf does not close until its mutation is released.
type deaf struct{ core.Conn }

func (c *deaf) Close() error { return nil }

// waiting does not return from Close until its mutation is released.
type waiting struct {
	core.Conn
	m *mutation
}

func (c *waiting) Close() error {
	<-c.m.done
	return c.Conn.Close()
}

type closeOnce struct {
	core.Conn
	silent bool // writes and a second Close never fail
	mu     sync.Mutex
	closed bool
}

func (c *closeOnce) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed && !c.silent {
		return errors.New("closed twice")
	}
	c.closed = true
	return c.Conn.Close()
}

func (c *closeOnce) Write(frames []core.Frame) error {
	err := c.Conn.Write(frames)
	if c.silent {
		return nil
	}
	return err
}

// lossless waits for more frames after the worker's end.
type lossless struct {
	core.Conn
	m *mutation
}

func (c *lossless) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if errors.Is(err, io.EOF) {
		<-c.m.done
	}
	return frames, err
}
