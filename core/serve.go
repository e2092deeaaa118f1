package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ServeOptions configure Serve. nil and zero fields mean the defaults.
type ServeOptions struct {
	Concurrency int          // how many calls it takes at once; 0 means 1
	MaxFrame    int          // SNAKEPIT_MAX_FRAME, if a host launched this program; 0 means DefaultMaxFrame
	WindowItems int          // what one direction of a call may hold before it is consumed; 0 means 1,024 items
	WindowBytes int          // 0 means 1 MiB
	Token       string       // what the hello shows to the host
	Logger      hclog.Logger // what goes wrong on this side; nil means nowhere
}

// Serve is the worker's side in Go: it says hello over conn and answers the host's calls with functions until the host closes, which is
// nil, or the connection breaks. When it returns, the functions that it started have returned too. When ctx ends it closes conn. codecs
// are those that it offers, at least one.
func Serve(ctx context.Context, conn Conn, codecs []Codec, functions map[string]Function, o *ServeOptions) error {
	if o == nil {
		o = &ServeOptions{}
	}
	logger := o.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	book := newLogQueue(logger)
	defer func() { _ = book.close(time.Second) }() // a logger that does not return costs records, not the worker's end
	log := book.events(noWorker)
	stop := context.AfterFunc(ctx, func() { _ = isolate("the Conn's Close", conn.Close) })
	defer stop()
	h := workerHello{
		Versions: []int{version}, Features: goFeatures, MaxFrame: cmp.Or(o.MaxFrame, DefaultMaxFrame),
		Window:      window{int64(cmp.Or(o.WindowItems, int(defaultWindow.Items))), int64(cmp.Or(o.WindowBytes, int(defaultWindow.Bytes)))},
		Concurrency: cmp.Or(o.Concurrency, 1), Commands: []CommandInfo{},
		PID: os.Getpid(), Runtime: runtime.Version(), Library: "snakepit core", Token: o.Token,
	}
	for name, f := range functions {
		h.Commands = append(h.Commands, CommandInfo{Name: name, Stream: f.Stream})
	}
	slices.SortFunc(h.Commands, func(a, b CommandInfo) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range codecs {
		h.Codecs = append(h.Codecs, c.Name())
	}
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := conn.Write([]Frame{{Kind: KindHello, Body: body}}); err != nil {
		return fmt.Errorf("saying hello: %w", err)
	}
	frames, err := conn.Read()
	if err != nil {
		return fmt.Errorf("waiting for the host's hello: %w", err)
	}
	var host hostHello
	if len(frames) == 0 {
		return errNoFrames
	}
	if frames[0].Kind != KindHello || json.Unmarshal(frames[0].Body, &host) != nil {
		return fmt.Errorf("%w: the host's first frame is no hello but %s", ErrProtocol, frames[0].String())
	}
	at := slices.IndexFunc(codecs, func(c Codec) bool { return c.Name() == host.Codec })
	if host.Version != version || at < 0 {
		return fmt.Errorf("%w: the host chose version %d and codec %q", ErrProtocol, host.Version, host.Codec)
	}
	m := newMux(conn, terms{
		codec: codecs[at], maxFrame: min(h.MaxFrame, host.MaxFrame), send: host.Window, receive: h.Window,
		incoming: min(host.Concurrency, h.Concurrency), outgoing: host.Calls,
	}, functions, 2, log)
	m.run(frames[1:])
	if endOf(m.err) == io.EOF {
		return nil
	}
	return m.err
}

// Call calls one of the host's functions and decodes its result into out, a non-nil pointer or nil. Only a worker has it: a function of
// the host uses its pool.
func (c *Incoming) Call(ctx context.Context, name string, args, out any) error {
	s, err := c.openCall(ctx, name, args)
	if err != nil {
		return err
	}
	for _, err := range s.items(ctx) {
		s.abandon("the caller has left")
		if err == nil || !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%s sends a stream: use Stream", name)
		}
		return err
	}
	return c.answer(s, out)
}

// Stream calls one of the host's functions and yields its items, decoded into values of the codec's own choice. An *ItemError is one
// item's; any other error is the last. Breaking out cancels. It may be ranged over once.
func (c *Incoming) Stream(ctx context.Context, name string, args any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		s, err := c.openCall(ctx, name, args)
		if err != nil {
			yield(nil, err)
			return
		}
		defer s.abandon("the caller has left")
		for it, err := range s.items(ctx) {
			var v any
			if err == nil {
				err = s.mux.decode(it.bytes, &v)
			}
			if !yield(v, err) {
				return
			}
		}
		if err := c.answer(s, nil); err != nil && ctx.Err() == nil {
			yield(nil, err)
		}
	}
}

func (c *Incoming) openCall(ctx context.Context, name string, args any) (*stream, error) {
	m := c.stream.mux
	if !m.worker {
		return nil, errors.New("a function of the host calls workers by its pool")
	}
	body, err := m.terms.codec.Append(nil, args)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return m.open(Frame{Name: name, Parent: c.stream.id, Session: c.Session, Flags: NoInput, Body: body}, deadline, nil, nil)
}

func (c *Incoming) answer(s *stream, out any) error {
	body, err := s.outcome()
	if not, ok := err.(*notRunError); ok {
		err = not.err // whether it may run elsewhere is a pool's question
	}
	if err != nil || out == nil {
		return err
	}
	return s.mux.decode(body, out)
}

// Log sends one log record to the host, which logs it under the worker's name. level is trace, debug, info, warn or error. Only a worker
// has it.
func (c *Incoming) Log(level, message string, fields map[string]any) {
	m := c.stream.mux
	body, err := m.terms.codec.Append(nil, logRecord{
		Level: level, Logger: c.Name, Message: message, Fields: fields, Call: c.stream.id, Time: float64(time.Now().UnixMilli()) / 1e3,
	})
	if err != nil {
		m.log.Warn("log record could not be encoded", "error", err)
		return
	}
	m.mu.Lock()
	m.enqueue(Frame{Kind: KindLog, Body: body}, nil)
	m.mu.Unlock()
}
