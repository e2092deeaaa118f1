package core

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Event is something that happened in a pool: one of the types below that have a method String and a field Time. See
// Options.OnEvent. Its String is one line for a log.
type Event interface {
	fmt.Stringer
	event()
}

// StateChanged says that a worker was started, or that its state changed.
type StateChanged struct {
	Time   time.Time
	Worker *Worker
	From   WorkerState // "" for a worker that was just started
	To     WorkerState
	Reason string // why it drains, or ""
	Err    error  // why it is dead: a *StartError, a *WorkerExit, or nil if the pool has stopped it
}

// RestartPlanned says that a place has no worker, and that a start there is planned: its worker was lost, could not be
// started, or has left before its replacement because Options.Surge is negative.
type RestartPlanned struct {
	Time     time.Time
	Index    int
	In       time.Duration // the wait before the start
	Failures int           // starts that failed in a row
	Err      error         // the error of the last of them, or nil
}

// StartsStopped says that the starts in a worker's place have failed Options.StartBudget times in a row. From now on
// the pool only probes.
type StartsStopped struct {
	Time     time.Time
	Index    int
	Failures int
	Err      error // the error of the last start
}

// StartsResumed says that a probe succeeded, in this worker's place or in another one's. Starts in this place are
// planned as before.
type StartsResumed struct {
	Time  time.Time
	Index int
}

// ReplacementPlanned says that a worker will be replaced. It serves on until its replacement is ready.
type ReplacementPlanned struct {
	Time   time.Time
	Worker *Worker
	Cause  Cause
	Reason string
}

// ReplacementFailed says that a worker's replacement could not be started. The worker serves on.
type ReplacementFailed struct {
	Time   time.Time
	Worker *Worker
	Cause  Cause
	Err    error
}

// Reloaded says that a Reload has ended, also one for Options.Watch.
type Reloaded struct {
	Time time.Time
	Took time.Duration
	Err  error // why workers were not replaced, or nil
}

// WorkerWedged says that a worker has answered no ping for Options.WedgedAfter.
type WorkerWedged struct {
	Time      time.Time
	Worker    *Worker
	For       time.Duration // how long it has not answered
	Diagnosis Diagnosis
	Stacks    string // with WedgedReplace: what its threads do, shortened, or why that is unknown
}

// WorkerAnswers says that a worker answers again.
type WorkerAnswers struct {
	Time   time.Time
	Worker *Worker
	After  time.Duration // how long it has not answered
}

// AdapterChanged says that a worker speaks another protocol than the ones before it, or that an earlier one was refused
// for another reason. The first worker's choice is an event too.
type AdapterChanged struct {
	Time    time.Time
	Worker  *Worker
	Adapter string
	Refused []Refusal
}

// CallRefused says that the pool refused a call with ErrSaturated.
type CallRefused struct {
	Time    time.Time
	Command string
	Session string // or ""
	Tenant  string // or ""; see WithTenant
	Err     error
}

// Resized says that Pool.Resize changed the number of workers.
type Resized struct {
	Time     time.Time
	From, To int
}

// EventsMissed says that Options.OnEvent was too slow, and how many events before this one were dropped.
type EventsMissed struct {
	Time  time.Time
	Count int
}

func (StateChanged) event()       {}
func (RestartPlanned) event()     {}
func (StartsStopped) event()      {}
func (StartsResumed) event()      {}
func (ReplacementPlanned) event() {}
func (ReplacementFailed) event()  {}
func (Reloaded) event()           {}
func (WorkerWedged) event()       {}
func (WorkerAnswers) event()      {}
func (AdapterChanged) event()     {}
func (CallRefused) event()        {}
func (Resized) event()            {}
func (EventsMissed) event()       {}

func (e StateChanged) String() string {
	s := fmt.Sprintf("%s is %s", e.Worker, e.To)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return withError(s, e.Err)
}

func (e RestartPlanned) String() string {
	when := "at once"
	if e.In > 0 {
		when = "in " + roundTime(e.In).String()
	}
	return withError(fmt.Sprintf("worker %d starts again %s", e.Index, when), e.Err)
}

func (e StartsStopped) String() string {
	return withError(fmt.Sprintf("worker %d: %d starts failed, and the pool only probes", e.Index, e.Failures), e.Err)
}

func (e StartsResumed) String() string { return fmt.Sprintf("worker %d is started again", e.Index) }

func (e ReplacementPlanned) String() string {
	return fmt.Sprintf("%s is to be replaced: %s", e.Worker, e.Reason)
}

func (e ReplacementFailed) String() string {
	return withError(e.Worker.String()+" serves on: its replacement could not be started", e.Err)
}

func (e Reloaded) String() string {
	if e.Err != nil {
		return withError("the pool could not be reloaded", e.Err)
	}
	return fmt.Sprintf("the pool was reloaded in %s", e.Took.Round(time.Millisecond))
}

func (e WorkerWedged) String() string {
	return fmt.Sprintf("%s has not answered for %s: %s", e.Worker, e.For, e.Diagnosis)
}

func (e WorkerAnswers) String() string {
	return fmt.Sprintf("%s answers again after %s", e.Worker, e.After.Round(time.Millisecond))
}

func (e AdapterChanged) String() string { return fmt.Sprintf("%s speaks %s", e.Worker, e.Adapter) }

func (e CallRefused) String() string { return withError(e.Command+" was refused", e.Err) }

func (e Resized) String() string { return fmt.Sprintf("resized from %d to %d workers", e.From, e.To) }

func (e EventsMissed) String() string { return fmt.Sprintf("%d events were dropped", e.Count) }

// withError adds the first line of an error.
func withError(s string, err error) string {
	if err == nil {
		return s
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return s + ": " + strings.TrimSpace(first)
}

// eventQueue passes events to Options.OnEvent or to an Observer, in order, on a goroutine of its own.
type eventQueue struct {
	hook   func(Event)
	source *logSource
}

// newEventQueue returns a queue of a pool's events. name is the hook's, for errors. log gets the text of the hook's
// first panic.
func newEventQueue(name string, hook func(Event), log *logSource) *eventQueue {
	q := &logQueue{
		target: name, entry: "events",
		panicked: func(text string) { log.Error(name+" panicked", "error", text) },
	}
	q.start()
	s := &logSource{queue: q, worker: noWorker, report: func(_ hclog.Logger, count, _ int) {
		hook(EventsMissed{Time: time.Now(), Count: count})
	}}
	return &eventQueue{hook, s}
}

// put adds an event. The caller may hold locks.
func (q *eventQueue) put(e Event) { q.source.put(0, func(hclog.Logger) { q.hook(e) }) }

// close waits for the hook, as logQueue.close does for the logger.
func (q *eventQueue) close(limit time.Duration) error { return q.source.queue.close(limit) }

// abandon ends the queue without a wait. The events that it still has are dropped.
func (q *eventQueue) abandon() { q.source.queue.abandon() }

// emit passes an event to all watchers. Callers may hold mu.
func (p *Pool) emit(e Event) {
	if p.recorded != nil {
		p.recorded.put(e)
	}
	if all := p.watchers.Load(); all != nil {
		for _, w := range *all {
			w.events.put(e)
		}
	}
}
