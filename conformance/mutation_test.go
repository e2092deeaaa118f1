package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// mutation is one run of a mutant.
type mutation struct {
	mu    sync.Mutex
	conns []core.Conn   // the sound connections underneath
	done  chan struct{} // closed when the mutant is no longer needed
}

// release ends everything that the mutant keeps running.
func (m *mutation) release() {
	close(m.done)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
}

// wrapped is an adapter whose links are changed.
type wrapped struct {
	core.Adapter
	m      *mutation
	change func(ctx context.Context, l *core.Link)
}

func (a *wrapped) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	a.m.mu.Lock()
	a.m.conns = append(a.m.conns, link.Conn)
	a.m.mu.Unlock()
	a.change(ctx, link)
	return link, nil
}

func linked(change func(m *mutation, ctx context.Context, l *core.Link)) func(*mutation) core.Adapter {
	return func(m *mutation) core.Adapter {
		return &wrapped{coretest.Conformance(4), m, func(ctx context.Context, l *core.Link) { change(m, ctx, l) }}
	}
}

// onConn changes the connection.
func onConn(change func(m *mutation, c core.Conn) core.Conn) func(*mutation) core.Adapter {
	return linked(func(m *mutation, _ context.Context, l *core.Link) { l.Conn = change(m, l.Conn) })
}

// onCodec changes the codec.
func onCodec(change func(c core.Codec) core.Codec) func(*mutation) core.Adapter {
	return linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Codecs = []core.Codec{change(l.Codecs[0])} })
}

// filter changes frames on their way. Either function may be nil. A function returns the frames that replace one
// frame. Both may keep state: they are called under one lock.
type filter struct {
	core.Conn
	mu      *sync.Mutex
	read    func(f core.Frame) []core.Frame
	written func(f core.Frame) []core.Frame
}

func (c *filter) Read() ([]core.Frame, error) {
	for {
		frames, err := c.Conn.Read()
		if err != nil || c.read == nil {
			return frames, err
		}
		var all []core.Frame
		c.mu.Lock()
		for _, f := range frames {
			all = append(all, c.read(f)...)
		}
		c.mu.Unlock()
		if len(all) > 0 {
			return all, nil
		}
	}
}

func (c *filter) Write(frames []core.Frame) error {
	if c.written == nil {
		return c.Conn.Write(frames)
	}
	var all []core.Frame
	c.mu.Lock()
	for _, f := range frames {
		all = append(all, c.written(f)...)
	}
	c.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return c.Conn.Write(all)
}

type frameFunc = func(f core.Frame) []core.Frame

// frames makes a mutant of functions that change the frames that are read and written. makeFilters is called for each
// connection.
func frames(makeFilters func(c core.Conn) (read, written frameFunc)) func(*mutation) core.Adapter {
	return onConn(func(_ *mutation, c core.Conn) core.Conn {
		read, written := makeFilters(c)
		return &filter{c, &sync.Mutex{}, read, written}
	})
}

// reading changes each frame from the worker, writing each frame to the worker. A frame of kind 0 is dropped.
func reading(change func(f *core.Frame)) func(*mutation) core.Adapter {
	return frames(func(core.Conn) (frameFunc, frameFunc) { return one(change), nil })
}

func writing(change func(f *core.Frame)) func(*mutation) core.Adapter {
	return frames(func(core.Conn) (frameFunc, frameFunc) { return nil, one(change) })
}

func one(change func(f *core.Frame)) frameFunc {
	return func(f core.Frame) []core.Frame {
		if change(&f); f.Kind == 0 {
			return nil
		}
		return []core.Frame{f}
	}
}

func drop(f *core.Frame) { f.Kind = 0 }

// helloOf changes the fields of a hello.
func helloOf(f *core.Frame, change func(hello map[string]any)) {
	if f.Kind != core.KindHello {
		return
	}
	var hello map[string]any
	if err := json.Unmarshal(f.Body, &hello); err != nil {
		panic(err)
	}
	change(hello)
	f.Body, _ = json.Marshal(hello)
}

// forgiving is a worker that takes some bodies for nil. It should refuse them.
func forgiving(some func(a attack) [][]byte) func(*mutation) core.Adapter {
	bodies := some(hostile("json", 1))
	return writing(func(f *core.Frame) {
		same := func(b []byte) bool { return bytes.Equal(b, f.Body) }
		if f.Kind == core.KindCall && slices.ContainsFunc(bodies, same) {
			f.Body = nil
		}
	})
}

var ballast []byte // so that the compiler keeps what a mutant allocates

// heldItems keeps the latest item of each call until the next item or the end comes.
func heldItems(atEnd func(kept []core.Frame, end core.Frame) []core.Frame) frameFunc {
	kept := map[uint64][]core.Frame{}
	return func(f core.Frame) []core.Frame {
		switch {
		case f.Kind == core.KindItem:
			out := kept[f.ID]
			kept[f.ID] = []core.Frame{f}
			return out
		case f.Kind == core.KindEnd && len(kept[f.ID]) > 0:
			out := atEnd(kept[f.ID], f)
			delete(kept, f.ID)
			return out
		}
		return []core.Frame{f}
	}
}

// swapped swaps the answers of two open calls.
func swapped(core.Conn) (read, written frameFunc) {
	open, renamed := []uint64{}, map[uint64]uint64{}
	return one(func(f *core.Frame) {
			if f.Kind != core.KindEnd {
				return
			}
			if to, ok := renamed[f.ID]; ok {
				f.ID = to
				return
			}
			for _, other := range open {
				if other != f.ID && renamed[other] == 0 {
					renamed[other], renamed[f.ID], f.ID = f.ID, other, other
					return
				}
			}
			open = slices.DeleteFunc(open, func(id uint64) bool { return id == f.ID })
		}), one(func(f *core.Frame) {
			if f.Kind == core.KindCall {
				open = append(open, f.ID)
			}
		})
}
