package conformance

import (
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// leaseClauses are about workers that a back end holds. They are skipped for an adapter that has core launch its
// workers.
var leaseClauses = []clause{
	rule("lease/named", "A Lease has a name, a host and a process id.", func(t *trial) {
		_, l := t.leased()
		if l.Name == "" || l.Host == "" || l.PID <= 0 || l.Holder == nil {
			t.Errorf("the lease is %+v", l)
		}
	}),
	rule("lease/output", "Next returns an event as soon as it occurs: what the worker prints comes while it runs.",
		func(t *trial) {
			p, _ := t.leased()
			p.need("conformance.print")
			p.call("conformance.print", args{"text": "plain words\n", "times": 1})
			t.until("its output has come", func() bool { return slices.Contains(p.worker.Output(), "plain words") })
		}),
	rule("lease/exit", "The last event says how the process ended, and all of its output has come before.",
		func(t *trial) {
			p, _ := t.leased()
			p.need("conformance.print")
			p.need("conformance.exit")
			p.call("conformance.print", args{"text": "a last word\n", "times": 1})
			p.open("conformance.exit", args{"code": 3})
			if code, signal := p.exits(); code != 3 || signal != "" {
				t.Errorf("the worker exits with code 3, and the lease says code %d and signal %q", code, signal)
			}
			if last := p.worker.Output(); !slices.Contains(last, "a last word") {
				t.Errorf("the output is %q, and the worker had printed \"a last word\"", last)
			}
		}),
	rule("lease/terminate", "Signal asks the process to end.", func(t *trial) {
		p, l := t.leased()
		l.Holder.Signal(false)
		p.exits()
	}),
	rule("lease/kill", "Signal with kill ends the process, whatever it does.", func(t *trial) {
		p, l := t.leased()
		l.Holder.Signal(true)
		if code, signal := p.exits(); code != -1 || signal != "killed" {
			t.Errorf("the worker was killed, and the lease says code %d and signal %q", code, signal)
		}
		l.Holder.Signal(true) // of a process that has ended: nothing happens
	}),
	rule("lease/memory", "With Launcher.WatchMemory a lease tells the worker's resident memory.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter, memory: make(chan int64, 1)}
		t.leasedBy(spy)
		const least, most = 1 << 20, 1 << 40
		select {
		case n := <-spy.memory:
			if n < least || n > most {
				t.Errorf("the worker has %d bytes of memory", n)
			}
		case <-t.Context().Done():
			t.Fatalf("the lease tells no memory")
		}
	}),
	rule("lease/close", "Close ends the lease, and so the process and its connection. It unblocks Next. "+
		"It may be called more than once.", func(t *trial) {
		p, l := t.leased()
		for range 2 {
			t.within("Close of the lease", func() { _ = l.Holder.Close() })
		}
		p.exits() // core hears of it by Next
		_ = p.waitEnd("the lease was closed")
	}),
	rule("lease/shared", "After Close of the adapter of a pool, its Start returns an error.", func(t *trial) {
		maker, ok := t.h.Adapter.(core.PoolAdapter)
		if !ok {
			t.Skipf("the adapter keeps nothing for a pool")
		}
		first := maker.ForPool(core.PoolInfo{RunID: "test", Log: func(hclog.Level, string, ...any) {}})
		w, err := core.StartRaw(t.Context(), unowned{first}, t.command(), quiet())
		if err != nil {
			t.Fatalf("%v", err)
		}
		p := t.reading(w)
		p.receiveHello()
		p.answerHello()
		p.ping(1)
		w.Close()
		t.within("Close of the adapter", func() { _ = first.Close(t.Context()) })
		if w, err := core.StartRaw(t.Context(), unowned{first}, t.command(), quiet()); err == nil {
			w.Close()
			t.Errorf("Start works after Close")
		}
	}),
}

// unowned hides that its adapter belongs to a pool.
type unowned struct{ core.Adapter }

// leased connects to a worker that a back end holds, or skips the clause.
func (t *trial) leased() (*peer, core.Lease) { return t.leasedBy(&spy{Adapter: t.h.Adapter}) }

// leasedBy is leased with a spy on the adapter under test.
func (t *trial) leasedBy(spy *spy) (*peer, core.Lease) {
	w := t.launchWith(spy)
	spy.mu.Lock()
	leases := slices.Clone(spy.leases)
	spy.mu.Unlock()
	if len(leases) == 0 {
		t.Skipf("no back end holds the worker")
	}
	p := t.reading(w)
	p.receiveHello()
	p.answerHello()
	return p, leases[len(leases)-1]
}
