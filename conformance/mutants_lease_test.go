package conformance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// leaseMutants are broken back ends.
var leaseMutants = []mutant{
	{"does not name the host of a leased worker", "lease/named",
		backEnd(func(b *held) { b.lease = func(l *core.Lease) { l.Host = "" } })},
	{"keeps the output of a leased worker until its exit", "lease/output", backEnd(func(b *held) {
		b.events = func(next []core.LeaseEvent) []core.LeaseEvent {
			if next[len(next)-1].Output != nil {
				return nil
			}
			return next
		}
	})},
	{"loses the exit code of a leased worker", "lease/exit", backEnd(func(b *held) {
		b.events = func(next []core.LeaseEvent) []core.LeaseEvent {
			if exit := next[0].Exit; exit != nil {
				exit.Code = 0
			}
			return next
		}
	})},
	{"loses the output of a leased worker", "lease/exit", backEnd(func(b *held) {
		b.events = func(next []core.LeaseEvent) []core.LeaseEvent {
			if next[0].Output != nil {
				return nil
			}
			return next
		}
	})},
	{"does not tell the memory of a leased worker", "lease/memory", backEnd(func(b *held) {
		b.events = func(next []core.LeaseEvent) []core.LeaseEvent {
			if next[0].Memory > 0 {
				return nil
			}
			return next
		}
	})},
	{"does not ask a leased worker to end", "lease/terminate", backEnd(func(b *held) {
		b.signal = func(w *heldWorker, kill bool) {
			if kill {
				w.end(core.LeaseExit{Code: -1, Signal: "killed"})
			}
		}
	})},
	{"only asks a leased worker to end that is killed", "lease/kill", backEnd(func(b *held) {
		b.signal = func(w *heldWorker, _ bool) { w.end(core.LeaseExit{Code: -1, Signal: "terminated"}) }
	})},
	{"closes a lease and leaves its Next waiting", "lease/close",
		backEnd(func(b *held) { b.close = func(*heldWorker) {} })},
	{"closes a lease only once", "lease/close", backEnd(func(b *held) {
		b.close = func(w *heldWorker) {
			if w.closed.Swap(true) {
				<-b.m.done
			}
			w.lose()
		}
	})},
	{"starts workers for a pool that is closed", "lease/shared", backEnd(func(b *held) { b.immortal = true })},
}

// backEnd makes an adapter of a back end with one fault.
func backEnd(fault func(b *held)) func(m *mutation) core.Adapter {
	return func(m *mutation) core.Adapter {
		b := newHeld(m)
		fault(b)
		return b
	}
}

// held is an adapter whose workers a back end holds. Both are in this process. Its functions are its faults.
type held struct {
	m        *mutation
	lease    func(l *core.Lease)
	events   func(next []core.LeaseEvent) []core.LeaseEvent // changes what comes next
	signal   func(w *heldWorker, kill bool)
	close    func(w *heldWorker)
	immortal bool

	mu     sync.Mutex // guards closed
	closed bool
}

func newHeld(m *mutation) *held {
	return &held{
		m: m, lease: func(*core.Lease) {},
		events: func(next []core.LeaseEvent) []core.LeaseEvent { return next },
		signal: func(w *heldWorker, kill bool) {
			name := "terminated"
			if kill {
				name = "killed"
			}
			w.end(core.LeaseExit{Code: -1, Signal: name})
		},
		close: func(w *heldWorker) { w.lose() },
	}
}

func (*held) Name() string { return "held" }

// ForPool returns the back end itself: it has one pool.
func (b *held) ForPool(core.PoolInfo) core.OwnedAdapter { return b }

func (b *held) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *held) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	b.mu.Lock()
	refused := b.closed && !b.immortal
	b.mu.Unlock()
	if refused {
		return nil, errors.New("the back end is closed")
	}
	w := &heldWorker{back: b, next: make(chan core.LeaseEvent, 10), gone: make(chan struct{})}
	w.next <- core.LeaseEvent{Report: []byte("{}")}
	if l.WatchMemory {
		w.tell(core.LeaseEvent{Memory: 10 << 20})
	}
	lease := core.Lease{Name: "a held worker", Host: "here", PID: 1, Holder: w}
	b.lease(&lease)
	process, err := l.Adopt(ctx, lease)
	if err != nil {
		return nil, err
	}
	program := &coretest.Adapter{Functions: map[string]core.Function{
		"conformance.print": core.Func(func(_ context.Context, in struct {
			Text string `json:"text"`
		}) (any, error) {
			w.tell(core.LeaseEvent{Output: []byte(in.Text)})
			return nil, nil
		}),
		"conformance.exit": core.Func(func(ctx context.Context, in struct {
			Code int `json:"code"`
		}) (any, error) {
			w.end(core.LeaseExit{Code: in.Code})
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}}
	link, err := program.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	w.crash = func() { program.Crash(l.Index) }
	b.m.mu.Lock()
	b.m.conns = append(b.m.conns, link.Conn)
	b.m.mu.Unlock()
	link.Conn, link.Process = &heldConn{link.Conn, w}, process
	return link, nil
}

// heldConn is a connection whose end ends the worker.
type heldConn struct {
	core.Conn
	worker *heldWorker
}

func (c *heldConn) Close() error {
	err := c.Conn.Close()
	c.worker.end(core.LeaseExit{})
	return err
}

// heldWorker is one worker of the back end. It is a core.Holder.
type heldWorker struct {
	back   *held
	next   chan core.LeaseEvent
	gone   chan struct{} // closed when the lease is lost
	lost   sync.Once
	ended  sync.Once
	crash  func() // ends its connection
	closed atomic.Bool
}

func (w *heldWorker) tell(e core.LeaseEvent) {
	for _, e := range w.back.events([]core.LeaseEvent{e}) {
		w.next <- e
	}
}

// end ends the process.
func (w *heldWorker) end(how core.LeaseExit) {
	w.ended.Do(func() {
		w.tell(core.LeaseEvent{Exit: &how})
		if w.crash != nil {
			w.crash()
		}
	})
}

// lose ends the lease, and the process with it.
func (w *heldWorker) lose() {
	w.lost.Do(func() { close(w.gone) })
	w.ended.Do(func() {
		if w.crash != nil {
			w.crash()
		}
	})
}

func (w *heldWorker) Next() (core.LeaseEvent, error) {
	select {
	case e := <-w.next:
		return e, nil
	case <-w.gone:
		return core.LeaseEvent{}, errors.New("the lease has ended")
	case <-w.back.m.done:
		return core.LeaseEvent{}, errors.New("the test has ended")
	}
}

func (w *heldWorker) Signal(kill bool) { w.back.signal(w, kill) }

func (w *heldWorker) Close() error {
	w.back.close(w)
	return nil
}

// A back end without a fault passes the clauses that its mutants fail.
func TestLeaseClauses(t *testing.T) {
	for _, c := range leaseClauses {
		t.Run(c.Name, func(t *testing.T) {
			sound := mutant{make: backEnd(func(*held) {})}
			if caught, r := sound.catches(t, c); caught || r.Outcome != Passed {
				t.Errorf("%s: %s", r.Outcome, r)
			}
		})
	}
}
