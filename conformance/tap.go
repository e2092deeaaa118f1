package conformance

import (
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/snakepit-go/snakepit/core"
)

// tapped is an adapter that notes the frames of its one worker.
type tapped struct {
	core.Adapter

	mu    sync.Mutex // guards what follows
	link  *core.Link // as the adapter made it
	noted []noted
}

// noted is a frame that was sent or received.
type noted struct {
	core.Frame       // without the body, unless it is a hello
	sent       bool  // by the host
	size       int64 // of the body
}

func (a *tapped) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.link = link
	changed := *link
	changed.Conn = &tap{link.Conn, a}
	return &changed, nil
}

func (a *tapped) note(sent bool, frames []core.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range frames {
		n := noted{f, sent, int64(len(f.Body))}
		if n.Body = nil; f.Kind == core.KindHello {
			n.Body = slices.Clone(f.Body)
		}
		a.noted = append(a.noted, n)
	}
}

func (a *tapped) frames() []noted {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.noted)
}

// judge checks what the host sent against the protocol.
func (a *tapped) judge(t *trial) {
	type direction struct {
		open   bool
		credit window
	}
	calls := map[uint64]*direction{} // the host's direction of the calls that the host opened
	var grants window                // the worker's window for each direction
	last, byes := uint64(0), 0
	for i, f := range a.frames() {
		d := calls[f.ID]
		switch {
		case f.Kind == core.KindHello && !f.sent:
			var theirs hello
			if err := json.Unmarshal(f.Body, &theirs); err != nil {
				t.Fatalf("%v", err)
			}
			grants = theirs.Window
		case f.Kind == core.KindCredit && !f.sent && d != nil:
			d.credit.Items, d.credit.Bytes = d.credit.Items+f.Items, d.credit.Bytes+f.Bytes
		case !f.sent:
		case f.Kind == core.KindHello && i == 1:
		case f.Kind == core.KindCall:
			if f.ID%2 == 0 || f.ID <= last || byes > 0 {
				t.Errorf("call %d follows call %d and %d byes", f.ID, last, byes)
			}
			last = f.ID
			calls[f.ID] = &direction{f.Flags&core.NoInput == 0, grants}
		case f.Kind == core.KindItem:
			if d == nil || !d.open || d.credit.Items < 1 || d.credit.Bytes < 1 {
				t.Fatalf("the host sends an item of call %d, and its direction is %+v", f.ID, d)
			}
			d.credit.Items, d.credit.Bytes = d.credit.Items-1, d.credit.Bytes-f.size
		case f.Kind == core.KindEnd, f.Kind == core.KindCancel:
			if d == nil || f.Kind == core.KindEnd && !d.open {
				t.Errorf("the host sends %s of call %d, and its direction is %+v", f.Kind, f.ID, d)
			} else {
				d.open = false
			}
		case f.Kind == core.KindBye:
			byes++
		case f.Kind == core.KindCredit && d != nil, f.Kind == core.KindPing:
		default:
			t.Errorf("the host sends %s of call %d", f.Kind, f.ID)
		}
	}
	if len(calls) < 6 || byes != 1 {
		t.Errorf("the host has made %d calls and said %d byes", len(calls), byes)
	}
}

// tap is a connection of tapped.
type tap struct {
	core.Conn
	of *tapped
}

func (c *tap) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	c.of.note(false, frames)
	return frames, err
}

func (c *tap) Write(frames []core.Frame) error {
	c.of.note(true, frames)
	return c.Conn.Write(frames)
}
