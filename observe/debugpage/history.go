package debugpage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// Happening is an event of the pool.
type Happening struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"` // the event's type, such as "StateChanged"
	Worker int       `json:"worker"`
	Text   string    `json:"text"`
	Detail string    `json:"detail,omitempty"` // more lines, such as the stacks of a lost worker
}

// Failure is an error of calls. Calls of one command that fail in the same way are one Failure.
type Failure struct {
	Last      time.Time `json:"last"`
	Count     int       `json:"count"`
	Command   string    `json:"command"`
	Worker    int       `json:"worker"` // of the last one; -1 if it reached none
	Text      string    `json:"text"`
	Traceback string    `json:"traceback,omitempty"`
	Arguments string    `json:"arguments,omitempty"` // of the last one, with Options.Arguments
}

// LogLine is a record of the pool's log.
type LogLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

// How much is kept.
const (
	mostFailures = 50
	mostLosses   = 20
	mostEvents   = 200
	mostLines    = 200
	mostText     = 16 << 10 // bytes of one text
)

// history observes a pool and keeps what has happened lately.
type history struct {
	since     time.Time
	arguments bool

	mu       sync.Mutex // guards the fields below
	changed  chan struct{}
	losses   []Happening // the oldest first, as in all lists here
	events   []Happening
	seq      int // the number of events so far
	failures []Failure
	log      []LogLine
	args     map[uint64]string // of live calls, by number
	commands commands
}

func newHistory(arguments bool) *history {
	return &history{
		since: time.Now(), arguments: arguments, changed: make(chan struct{}), args: map[uint64]string{},
		commands: commands{byName: map[string]*commandTimes{}},
	}
}

// keep appends to a list that keeps only the last ones.
func keep[T any](list []T, v T, most int) []T {
	if list = append(list, v); len(list) > most {
		list = slices.Delete(list, 0, len(list)-most)
	}
	return list
}

// Event implements core.Observer.
func (h *history) Event(e core.Event) {
	one := Happening{
		Time: time.Now(), Kind: strings.TrimPrefix(fmt.Sprintf("%T", e), "core."), Worker: workerOf(e),
		Text: cut(e.String()),
	}
	state, _ := e.(core.StateChanged)
	var exit *core.WorkerExit
	lost := errors.As(state.Err, &exit)
	switch {
	case lost:
		one.Text, one.Detail = cut(exit.Error()), cut(strings.Join(exit.Stderr, "\n"))
		if exit.Stacks != "" {
			one.Detail += "\n\n" + cut(exit.Stacks)
		}
	case state.Err != nil:
		one.Detail = cut(state.Err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = keep(h.events, one, mostEvents)
	h.seq++
	if lost {
		h.losses = keep(h.losses, one, mostLosses)
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// workerOf returns the index of the worker that an event is about, or -1.
func workerOf(e core.Event) int {
	var w *core.Worker
	switch e := e.(type) {
	case core.StateChanged:
		w = e.Worker
	case core.ReplacementPlanned:
		w = e.Worker
	case core.ReplacementFailed:
		w = e.Worker
	case core.WorkerWedged:
		w = e.Worker
	case core.WorkerAnswers:
		w = e.Worker
	case core.AdapterChanged:
		w = e.Worker
	case core.RestartPlanned:
		return e.Index
	case core.StartsStopped:
		return e.Index
	case core.StartsResumed:
		return e.Index
	}
	if w == nil {
		return -1
	}
	return w.Info().Index
}

// after returns the events after the first n, how many there have been, and a channel that is closed at the next one.
func (h *history) after(n int) (events []Happening, seq int, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := min(h.seq-n, len(h.events))
	return slices.Clone(h.events[len(h.events)-fresh:]), h.seq, h.changed
}

// Accept implements hclog.SinkAdapter.
func (h *history) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Info {
		return
	}
	var b strings.Builder
	b.WriteString(msg)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, " %v=%v", args[i], args[i+1])
	}
	line := LogLine{time.Now(), level.String(), cut(b.String())}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = keep(h.log, line, mostLines)
}

// Call implements core.Observer.
func (h *history) Call(_ context.Context, start *core.CallStart) core.CallObserver {
	c := &call{history: h, command: start.Command, number: start.Number, begin: time.Now()}
	if h.arguments && start.Args != nil {
		c.arguments = cutTo(fmt.Sprintf("%+v", start.Args), 500)
		h.mu.Lock()
		h.args[c.number] = c.arguments
		h.mu.Unlock()
	}
	return c
}

// Function implements core.Observer. The page shows running functions, and keeps nothing of them.
func (h *history) Function(ctx context.Context, _ *core.CallStart) (context.Context, core.CallObserver) {
	return ctx, nil
}

// call observes one call.
type call struct {
	history   *history
	command   string
	number    uint64
	arguments string
	begin     time.Time
}

func (c *call) Item(core.Direction, int) {}

func (c *call) End(end *core.CallEnd) {
	h, now := c.history, time.Now()
	failed, unknown := end.Err != nil, errors.Is(end.Err, core.ErrUnknownCommand) // errors may run user code
	var f Failure
	if failed {
		f = Failure{
			Last: now, Count: 1, Command: c.command, Worker: -1, Text: cut(end.Err.Error()), Arguments: c.arguments,
		}
		if end.Worker != nil {
			f.Worker = end.Worker.Info().Index
		}
		var remote *core.RemoteError
		if errors.As(end.Err, &remote) {
			f.Text, f.Traceback = cut(remote.Type+": "+remote.Message), cut(remote.Traceback())
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.args, c.number)
	if !unknown { // anybody can invent names
		h.commands.add(c.command, now.Sub(c.begin), end.Waited, failed, now)
	}
	if !failed {
		return
	}
	for i, other := range h.failures {
		if other.Command == f.Command && other.Text == f.Text {
			f.Count += other.Count
			h.failures = slices.Delete(h.failures, i, i+1)
			break
		}
	}
	h.failures = keep(h.failures, f, mostFailures)
}

// fill writes into a State what the history knows.
func (h *history) fill(s *State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Commands, s.Series = h.commands.list(s.Time)
	s.Losses, s.Failures, s.Events, s.Log = latest(h.losses), latest(h.failures), latest(h.events), latest(h.log)
	for i := range s.Calls {
		if n := s.Calls[i].Number; n != 0 {
			s.Calls[i].Arguments = h.args[n]
		}
	}
}

// latest returns a copy of a list, the last one first.
func latest[T any](list []T) []T {
	c := append([]T{}, list...) // JSON has [] for an empty one
	slices.Reverse(c)
	return c
}

// cut shortens a text to what the page keeps.
func cut(s string) string { return cutTo(s, mostText) }

func cutTo(s string, most int) string {
	if len(s) <= most {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
