package core

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// CallStats describes one call that waits or runs.
type CallStats struct {
	Command  string `json:"command"`           // or the function's name
	Number   uint64 `json:"number,omitempty"`  // CallStart.Number; 0 without an Observer, and for a function
	Function bool   `json:"function"`          // a worker calls a function of this program
	Session  string `json:"session,omitempty"` // or ""
	Tenant   string `json:"tenant,omitempty"`  // or ""
	// Worker is the index of the worker that runs the call, or calls the function; -1 while the call waits for one.
	Worker int    `json:"worker"`
	ID     uint64 `json:"id,omitempty"`     // of the call's frames on this worker's connection; 0 while it waits
	Parent uint64 `json:"parent,omitempty"` // the call whose handler called the function, or 0
	// Age is how long the call has been waiting, or running. Waited is how long it had waited before it ran.
	Age       time.Duration `json:"-"`                   // in JSON age_seconds
	Waited    time.Duration `json:"-"`                   // in JSON waited_seconds
	Cancelled bool          `json:"cancelled,omitempty"` // its caller has left, and the worker has not ended it
	Overdue   bool          `json:"overdue,omitempty"`   // the grace of a cancelled call has passed, and it goes on

	ToHost       Volume `json:"to_host"`       // what has come from the worker
	ToWorker     Volume `json:"to_worker"`     // what was sent to the worker
	HostCredit   Volume `json:"host_credit"`   // how much more the worker may send; without, it waits for the caller
	WorkerCredit Volume `json:"worker_credit"` // how much more the host may send
}

// MarshalJSON writes times in seconds.
func (c CallStats) MarshalJSON() ([]byte, error) {
	type plain CallStats
	return json.Marshal(struct {
		plain

		Age    float64 `json:"age_seconds"`
		Waited float64 `json:"waited_seconds"`
	}{plain(c), c.Age.Seconds(), c.Waited.Seconds()})
}

// Calls returns the calls that wait or run now, the oldest first. Calls that Options.Warmup makes, and those that move
// or end a session, are among them.
func (p *Pool) Calls() []CallStats {
	now := time.Now()
	var all []CallStats
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := func(q *waiters) {
		for _, wt := range q.all {
			r := wt.request
			all = append(all, CallStats{
				Command: r.command, Number: r.number, Session: r.session, Tenant: r.caller.tenant, Worker: -1,
				Age: now.Sub(wt.since), Waited: r.waited,
			})
		}
	}
	waiting(&p.waiting)
	for _, w := range p.workers {
		waiting(&w.waiting)
		if w.mux == nil {
			continue
		}
		w.mux.mu.Lock()
		for _, s := range w.mux.streams {
			all = append(all, s.stats(w, now))
		}
		w.mux.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b CallStats) int {
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// stats describes a call on a worker. Callers hold pool.mu and mux.mu.
func (s *stream) stats(w *Worker, now time.Time) CallStats {
	c := CallStats{
		Command: s.name, Function: !s.opener, Worker: w.index, ID: s.id, Cancelled: s.cancelSent,
		ToHost: s.came, ToWorker: s.went, HostCredit: Volume(s.granted), WorkerCredit: Volume(s.credit),
		Parent: s.parent, Session: s.session,
	}
	if !s.since.IsZero() { // else its frame is about to be written
		c.Age = now.Sub(s.since)
	}
	if f, ok := s.owner.(*inflight); ok {
		c.Number, c.Tenant = f.request.number, f.request.caller.tenant
		c.Waited, c.Overdue = f.request.waited, f.overdue
		if c.Session = f.request.session; f.session != nil {
			c.Session = f.session.id
		}
	}
	return c
}
