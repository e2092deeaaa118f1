package debugpage

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// State is what the page shows. GET state returns it as JSON, and GET watch as a server-sent event each second and at
// each change of a worker. Times that have passed are in seconds.
type State struct {
	Time    time.Time `json:"time"`
	Pool    string    `json:"pool"`    // Options.Name
	Program string    `json:"program"` // the name of the executable
	PID     int       `json:"pid"`
	Machine string    `json:"machine"`
	Go      string    `json:"go"`
	Since   time.Time `json:"since"`   // when the page began to watch: what follows has happened since then
	Size    int       `json:"size"`    // the number of workers that the pool may have
	Control bool      `json:"control"` // the pool can be changed here

	Counters  Counters    `json:"counters"`
	Workers   []Worker    `json:"workers"`
	Calls     []Call      `json:"calls"`      // at most 200, the oldest first
	MoreCalls int         `json:"more_calls"` // the rest
	Tenants   []Tenant    `json:"tenants"`    // callers that wait, by tenant
	Sessions  []Session   `json:"sessions"`   // at most 200, by id
	Commands  []Command   `json:"commands"`   // the slowest first
	Series    []Interval  `json:"series"`     // the last five minutes, the oldest first
	Losses    []Happening `json:"losses"`     // the last one first
	Failures  []Failure   `json:"failures"`   // the last one first
	Events    []Happening `json:"events"`     // the last one first
	Log       []LogLine   `json:"log"`        // the last one first
}

// Counters count since the pool was opened, except for the first four, which are of now.
type Counters struct {
	Ready      int     `json:"ready"`
	Running    int     `json:"running"`
	Waiting    int     `json:"waiting"`
	Sessions   int     `json:"sessions"`
	OldestWait float64 `json:"oldest_wait_seconds"`
	Calls      int64   `json:"calls"`
	Saturated  int64   `json:"saturated"`
	Cancelled  int64   `json:"cancelled"`
	Lost       int64   `json:"lost"`
	Restarts   int64   `json:"restarts"`
	Replaced   int64   `json:"replaced"`
	StartFails int64   `json:"start_fails"`
	Terminated int64   `json:"terminated"`
}

// Worker is one worker.
type Worker struct {
	Index    int              `json:"index"`
	State    core.WorkerState `json:"state"`
	Reason   string           `json:"reason,omitempty"` // why it accepts no new callers
	PID      int              `json:"pid,omitempty"`
	Machine  string           `json:"machine,omitempty"` // where a back end runs it; "" on this machine
	Adapter  string           `json:"adapter,omitempty"`
	Refused  []string         `json:"refused,omitempty"` // why earlier adapters of the chain were refused
	Codec    string           `json:"codec,omitempty"`
	Runtime  string           `json:"runtime,omitempty"`
	Library  string           `json:"library,omitempty"`
	Age      float64          `json:"age_seconds"`
	Memory   int64            `json:"memory_bytes"` // of its process tree; 0 if unknown
	CPU      float64          `json:"cpu"`          // processors that it has used since the last look; 0 if unknown
	CPUTime  float64          `json:"cpu_seconds"`
	Slots    int              `json:"slots"`
	Running  int              `json:"running"`
	Calls    int64            `json:"calls"`
	Sessions int              `json:"sessions"`
	Failures int              `json:"failures,omitempty"` // starts that failed in a row
	Stopped  bool             `json:"stopped,omitempty"`  // the pool only probes
	LastErr  string           `json:"last_error,omitempty"`
}

// Call is one call that waits or runs.
type Call struct {
	Command      string      `json:"command"`
	Function     bool        `json:"function,omitempty"` // a worker calls a function of the program
	Number       uint64      `json:"number,omitempty"`
	Arguments    string      `json:"arguments,omitempty"` // with Options.Arguments
	Session      string      `json:"session,omitempty"`
	Tenant       string      `json:"tenant,omitempty"`
	Worker       int         `json:"worker"` // -1: it waits
	ID           uint64      `json:"id,omitempty"`
	Parent       uint64      `json:"parent,omitempty"`
	Age          float64     `json:"age_seconds"`
	Waited       float64     `json:"waited_seconds,omitempty"`
	Cancelled    bool        `json:"cancelled,omitempty"`
	Overdue      bool        `json:"overdue,omitempty"`
	ToHost       core.Volume `json:"to_host"`
	ToWorker     core.Volume `json:"to_worker"`
	HostCredit   core.Volume `json:"host_credit"`
	WorkerCredit core.Volume `json:"worker_credit"`
}

// Tenant is the number of a tenant's callers that wait.
type Tenant struct {
	Name    string `json:"name"`
	Waiting int    `json:"waiting"`
}

// Session is one session. See core.SessionStats.
type Session = core.SessionStats

// The most that a State lists.
const (
	mostCalls    = 200
	mostSessions = 200
)

// State returns the state of the pool now. Any goroutine may call it.
func (p *Page) State() State {
	stats := p.pool.Stats()
	s := State{
		Time: time.Now(), Pool: p.pool.Name(), Program: filepath.Base(os.Args[0]), PID: os.Getpid(),
		Go: runtime.Version(), Size: p.pool.Size(), Control: p.opts.Token != "", Since: p.history.since,
		Counters: Counters{
			Ready: stats.Ready, Running: stats.Running, Waiting: stats.Waiting, Sessions: stats.Sessions,
			OldestWait: stats.OldestWait.Seconds(), Calls: stats.Calls, Saturated: stats.Saturated,
			Cancelled: stats.Cancelled, Lost: stats.Lost, Restarts: stats.Restarts, Replaced: stats.Replaced,
			StartFails: stats.StartFails, Terminated: stats.Terminated,
		},
		Tenants: []Tenant{}, Workers: p.workers(stats.Workers), Sessions: p.pool.Sessions(mostSessions),
	}
	s.Machine, _ = os.Hostname() // without a name the page shows none
	for name, n := range stats.Tenants {
		s.Tenants = append(s.Tenants, Tenant{name, n})
	}
	slices.SortFunc(s.Tenants, func(a, b Tenant) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Name, b.Name))
	})
	calls := p.pool.Calls()
	s.MoreCalls = max(0, len(calls)-mostCalls)
	s.Calls = make([]Call, 0, len(calls)-s.MoreCalls)
	for _, c := range calls[:len(calls)-s.MoreCalls] {
		s.Calls = append(s.Calls, Call{
			Command: c.Command, Function: c.Function, Number: c.Number, Session: c.Session, Tenant: c.Tenant,
			Worker: c.Worker, ID: c.ID, Parent: c.Parent, Age: c.Age.Seconds(), Waited: c.Waited.Seconds(),
			Cancelled: c.Cancelled, Overdue: c.Overdue, ToHost: c.ToHost, ToWorker: c.ToWorker,
			HostCredit: c.HostCredit, WorkerCredit: c.WorkerCredit,
		})
	}
	p.history.fill(&s)
	return s
}

// workers joins what the pool says of its workers.
func (p *Page) workers(stats []core.WorkerStats) []Worker {
	usage := p.usage.now(p.pool)
	infos := map[int]core.Info{} // by process id
	for _, w := range p.pool.Workers() {
		if i := w.Info(); i.PID != 0 {
			infos[i.PID] = i
		}
	}
	all := make([]Worker, 0, len(stats))
	for _, s := range stats {
		w := Worker{
			Index: s.Index, State: s.State, Reason: s.Reason, PID: s.PID, Adapter: s.Adapter, Age: s.Age.Seconds(),
			Running: s.Running, Calls: s.Calls, Sessions: s.Sessions, Failures: s.Failures, Stopped: s.Stopped,
		}
		for _, r := range s.Refused {
			w.Refused = append(w.Refused, r.Adapter+": "+r.Err.Error())
		}
		if s.LastErr != nil {
			w.LastErr = s.LastErr.Error()
		}
		if i, ok := infos[s.PID]; ok {
			w.Machine, w.Codec, w.Runtime, w.Library, w.Slots = i.Host, i.Codec, i.Runtime, i.Library, i.Slots
		}
		if u, ok := usage[s.PID]; ok {
			w.Memory, w.CPU, w.CPUTime = u.memory, u.share, u.cpu.Seconds()
		}
		all = append(all, w)
	}
	return all
}
