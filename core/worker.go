package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// WorkerState is a stage in a worker's life.
type WorkerState string

// The states of a worker.
const (
	StateStarting WorkerState = "starting" // its process is being started, or has not said hello
	StateReady    WorkerState = "ready"    // it accepts calls
	StateDraining WorkerState = "draining" // it accepts at most calls of its own sessions; it recovers or is replaced
	StateStopping WorkerState = "stopping" // it accepts no calls and was told to end
	StateDead     WorkerState = "dead"     // it has ended, or could not be started
)

// transitions lists the states that may follow each state. Only the worker's own goroutine changes its state.
var transitions = map[WorkerState][]WorkerState{
	StateStarting: {StateReady, StateDead},
	StateReady:    {StateDraining, StateStopping, StateDead},
	StateDraining: {StateReady, StateStopping, StateDead},
	StateStopping: {StateDead},
}

// Worker is one worker of a pool: one process and its connection, from start to end. A replacement is a new Worker with
// the same index. Any goroutine may call its methods.
type Worker struct {
	pool    *Pool
	place   *place
	limits  Recycle                 // its own limits
	abort   context.CancelCauseFunc // ends its start
	index   int
	started time.Time
	log     *logSource
	wake    chan struct{} // capacity 1: a guarded field changed, and its goroutine should look at it
	ended   chan struct{} // closed when it is dead

	// set before it is ready, and not changed after that
	link     *Link
	hello    workerHello
	commands map[string]CommandInfo // nil if the worker does not list its commands
	mux      *mux
	records  *records
	codec    string // the codec's name
	slots    int
	forgets  bool // the worker can drop a session's state
	restores bool // the worker can send a session's state, and restore it

	// guarded by pool.mu
	state     WorkerState
	running   int         // slots in use
	calls     int64       // calls that got a slot
	overdue   int         // running calls that were cancelled and did not end within Options.CancelGrace
	stuck     string      // the command that became overdue first
	doomed    string      // why it is ended at once, with its calls and sessions, or ""
	stacks    string      // its stacks before that
	retired   string      // why it accepts no calls, not even of its sessions, such as its bye; or ""
	leaving   string      // why it accepts no new callers, and stops when its calls and sessions have ended; or ""
	due       string      // why it is to be replaced, or ""
	cause     Cause       // of due or leaving
	idleSince time.Time   // when its last call or session ended, if the pool's options depend on it
	sessions  int         // sessions pinned to this worker
	movable   int         // those of them that have a snapshot
	waiting   waiters     // calls of those sessions
	completed bool        // it has answered a call
	lastPing  uint64      // number of the last ping
	exit      *WorkerExit // how it was lost; nil unless it ended unexpectedly
	kill      *time.Timer // kills the process after escalate has sent SIGTERM; else nil
}

// Info describes a worker. It does not change after the worker's hello.
type Info struct {
	Index    int
	PID      int       // from the worker's hello; 0 while it is starting
	Host     string    // the machine where a back end runs it; "" if it runs on this one
	Adapter  string    // the protocol that it speaks, such as "grpc"
	Refused  []Refusal // the adapters that were tried before, and why each was refused
	Endpoint string    // where other clients can reach it, or ""
	Codec    string    // the name of the codec for values
	Slots    int       // how many calls it runs at once
	Features []string  // what it supports beyond the base protocol, such as "exact-numbers"; see docs/protocol.md
	Commands []CommandInfo
	Runtime  string // such as "cpython 3.11.7"
	Library  string // such as "snakepit_bridge 0.1.0"
	Started  time.Time
}

// Info returns the worker's description. Only Index and Started are set while it is starting.
func (w *Worker) Info() Info {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	i := Info{Index: w.index, Started: w.started}
	if w.mux == nil {
		return i
	}
	i.PID, i.Adapter, i.Refused, i.Endpoint = w.hello.PID, w.link.Adapter, w.link.Refused, w.link.Endpoint
	i.Codec, i.Slots, i.Features, i.Commands = w.codec, w.slots, w.hello.Features, w.hello.Commands
	i.Runtime, i.Library = w.hello.Runtime, w.hello.Library
	if w.link.Process != nil {
		i.Host = w.link.Process.Host()
	}
	return i
}

// String returns "worker 2".
func (w *Worker) String() string { return fmt.Sprintf("worker %d", w.index) }

// run is the worker's own goroutine, from its start to its end. No other goroutine changes the worker's state.
func (w *Worker) run(ctx context.Context) {
	p := w.pool
	defer p.goroutines.Done()
	defer w.abort(nil)
	at := p.spawner.attempt(w.index)
	ctx, cancel := context.WithTimeoutCause(ctx, p.opts.StartTimeout, &lateError{p.opts.StartTimeout})
	defer cancel()
	c, err := connect(ctx, p.adapter, at, &p.opts)
	if err != nil {
		p.startFailed(w, w.startError(ctx, at, err))
		return
	}
	records := newRecords(p.logs, w.index, c.terms.codec)
	m := newMux(c.link.Conn, c.terms, p.opts.Functions, 1, w.log)
	m.trace, m.recorder = p.trace, newFrameRing(p.opts.Recorder)
	m.onBye = func() { w.retire("the worker said bye") }
	m.onLog = records.put
	m.observe = func(ctx context.Context, call *Incoming) context.Context {
		return p.observeFunction(ctx, w, call)
	}
	p.goroutines.Add(1)
	go func() {
		defer p.goroutines.Done()
		m.run(c.first)
	}()
	var exited <-chan struct{}
	if c.link.Process != nil {
		exited = c.link.Process.Done()
		p.goroutines.Go(func() { m.endWith(exited) })
	}
	if err := w.warmUp(ctx, c, m); err != nil {
		w.end(c.link.Process, m)
		p.startFailed(w, w.startError(ctx, at, &linkError{c.link, err}))
		return
	}
	cancel()
	p.admit(w, c, m, records)
	if proc := c.link.Process; proc != nil && proc.ending != nil {
		p.goroutines.Go(func() { w.leaveBackEnd(proc.ending) })
	}
	if p.opts.Wedged != WedgedIgnore {
		p.goroutines.Add(1)
		go w.heartbeat()
	}
	cause := w.watch(exited)
	if cause == nil {
		w.stop()
		p.workerEnded(w, nil)
		return
	}
	exit := w.exitFor(cause)
	p.workerEnded(w, exit)
	w.writeRecording(exit)
}

// leaveBackEnd has the worker replaced if its back end is about to end.
func (w *Worker) leaveBackEnd(ending <-chan string) {
	select {
	case why := <-ending:
		w.pool.mu.Lock()
		defer w.pool.mu.Unlock()
		w.pool.replace(w, CauseBackEnd, why)
	case <-w.mux.done:
	}
}

// startError describes why a start failed.
func (w *Worker) startError(ctx context.Context, at *attempt, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errAborted) {
		return cause
	}
	return startError(ctx, at, err)
}

// watch runs while the worker is ready or draining. It returns the cause of a loss, or nil if the worker should be
// stopped.
func (w *Worker) watch(exited <-chan struct{}) error {
	checks := time.NewTimer(w.check())
	defer checks.Stop()
	for {
		select {
		case <-checks.C:
			checks.Reset(w.check())
		case <-w.mux.done:
			return w.mux.err
		case <-exited:
			<-w.mux.done
			return io.EOF
		case <-w.wake:
			if w.mux.ended() { // report a loss as a loss, even if the worker was about to be stopped
				<-w.mux.done
				return w.mux.err
			}
			switch w.reconsider() {
			case actionStop:
				return nil
			case actionTerminate:
				w.escalate()
			}
			checks.Reset(w.check())
		}
	}
}

// check looks at all of the worker that depends on time. It returns the time until the next look.
func (w *Worker) check() time.Duration {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	now, next := time.Now(), 24*time.Hour
	// passed reports whether a time has passed. If not, the next look is when it has.
	passed := func(since time.Time, limit time.Duration) bool {
		left := limit - now.Sub(since)
		if left > 0 {
			next = min(next, left)
		}
		return left <= 0
	}
	if passed(w.started, minUptime) && w.place.worker == w {
		p.resetFailures(w.place)
	}
	if w.limits.Age > 0 && passed(w.started, w.limits.Age) {
		p.replace(w, CauseAge, fmt.Sprintf("it is %s old", now.Sub(w.started).Round(time.Second)))
	}
	if !p.tracksIdle() {
		return next
	}
	since := w.idleSince
	if w.running > 0 || w.sessions > 0 {
		since = now // it may be idle from the next moment on
	}
	if limit := p.opts.IdleTime; p.opts.MinSize < p.opts.Size && passed(since, limit) && !p.shrink(w) &&
		passed(w.idleSince, limit) {
		next = min(next, limit)
	}
	if limit := w.limits.Idle; limit > 0 && passed(since, limit) {
		if w.calls > 0 {
			p.replace(w, CauseIdle, fmt.Sprintf("it was idle for %s", limit))
		}
		next = min(next, limit)
	}
	return next
}

// reconsider moves the worker between ready and draining. It returns what watch does next.
func (w *Worker) reconsider() action {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return actionStop
	}
	switch reason := w.drainReason(); {
	case reason != "" && w.state == StateReady:
		w.moveTo(StateDraining, reason, nil)
		level := hclog.Info
		if reason == w.leaving { // its place has another worker
			level = hclog.Debug
		}
		w.log.log(level, "worker accepts no new calls", []any{"reason", reason})
	case reason == "" && w.state == StateDraining:
		w.moveTo(StateReady, "", nil)
		w.log.Info("worker accepts new calls again")
		p.broadcast()
		p.grant(w)
	}
	return w.nextAction()
}

// action is what watch does with a worker.
type action uint8

const (
	actionNone action = iota
	actionStop
	actionTerminate
)

// nextAction returns the next action on a draining worker. Callers hold pool.mu.
func (w *Worker) nextAction() action {
	switch {
	case w.state != StateDraining:
		return actionNone
	case w.doomed != "":
		return actionTerminate
	case w.kill == nil && w.running == 0 && (w.retired != "" || w.waiting.Len() == 0 && w.pool.holding(w) == 0):
		return actionStop
	case w.overdue > 0 && w.overdue == w.running && (w.sessions == 0 || w.retired != "" || w.overdue == w.slots):
		// All running calls are overdue, and no other call can run here.
		return actionTerminate
	}
	return actionNone
}

// escalate ends a worker by force: its cancelled calls do not end, or it is doomed. Its stacks go into the log. Then
// its group gets SIGTERM and SIGKILL. watch sees the exit.
func (w *Worker) escalate() {
	p := w.pool
	p.mu.Lock()
	stacks := w.stacks
	p.mu.Unlock()
	if stacks == "" {
		ctx, cancel := context.WithTimeout(p.ctx, stackWait)
		stacks = w.stackForLog(ctx)
		cancel()
	}
	p.mu.Lock()
	if w.kill != nil || w.nextAction() != actionTerminate { // it has recovered in the meantime
		p.mu.Unlock()
		return
	}
	reason := w.forceReason()
	w.stacks = stacks
	w.kill = time.AfterFunc(p.opts.StopTimeout/2, func() {
		w.log.Warn("worker is killed", "reason", "it goes on after SIGTERM")
		if proc := w.link.Process; proc != nil {
			proc.kill()
		}
	})
	p.stats.Terminated++
	p.mu.Unlock()
	w.log.Warn("worker is terminated", "reason", reason, "stacks", stacks)
	if proc := w.link.Process; proc != nil {
		proc.terminate()
		return
	}
	w.mux.fail(fmt.Errorf("it was stopped because %s", reason))
}

// forceReason returns why the worker is ended by force. Callers hold pool.mu.
func (w *Worker) forceReason() string {
	if w.doomed != "" {
		return w.doomed
	}
	return fmt.Sprintf("%s went on %s after it was cancelled", w.stuck, w.pool.opts.CancelGrace)
}

// stop ends the worker. It says bye, closes our side of the connection, and then stops the process.
func (w *Worker) stop() {
	w.pool.mu.Lock()
	w.moveTo(StateStopping, "", nil)
	w.pool.mu.Unlock()
	w.end(w.link.Process, w.mux)
}

// end stops the process, which may be nil, and waits for the end of its connection.
func (w *Worker) end(proc *Process, m *mux) {
	p := w.pool
	m.shutdown(ErrClosed)
	if proc != nil {
		if how := proc.stop(p.opts.StopTimeout); how != "exited" {
			w.log.Warn("worker did not end by itself", "step", how)
		}
	} else {
		timer := time.NewTimer(p.opts.StopTimeout)
		defer timer.Stop()
		select {
		case <-m.done:
		case <-timer.C:
		}
	}
	m.fail(ErrClosed)
	<-m.done
}

// exitFor makes sure that a lost worker is gone, and returns how it ended. cause is the error that watch returned.
func (w *Worker) exitFor(cause error) *WorkerExit {
	w.pool.mu.Lock()
	exit := &WorkerExit{Worker: w.index, Adapter: w.link.Adapter}
	if endOf(cause) == nil {
		exit.Cause = cause
	}
	if w.kill != nil {
		exit.Cause, exit.Stacks = fmt.Errorf("it was stopped because %s", w.forceReason()), w.stacks
	}
	w.pool.mu.Unlock()
	w.mux.mu.Lock()
	busy := w.mux.busySince
	exit.Doing = w.mux.doing
	w.mux.mu.Unlock()
	if proc := w.link.Process; proc != nil {
		exit.PID, exit.Host = proc.PID(), proc.Host()
		timer := time.NewTimer(drainTime) // a process that closes its connection is about to exit
		select {
		case <-proc.Done():
		case <-timer.C:
			proc.kill()
			<-proc.Done()
		}
		timer.Stop()
		end := proc.status()
		exit.ExitCode, exit.Signal, exit.OOM, exit.Limit = end.code, end.signal, end.oom, end.limit
		exit.Lost = end.lost
		exit.Stderr = mergeOutput(proc.out.tail(busy), w.records.tail(busy))
	} else {
		exit.Stderr = mergeOutput(w.records.tail(busy))
	}
	exit.Age, exit.Recording = time.Since(w.started), w.recordingPath()
	return exit
}

// mergeOutput merges a worker's output and log records by time, and returns the last lines.
func mergeOutput(lists ...[]logLine) []string {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b logLine) int { return a.at.Compare(b.at) })
	var lines []string
	for _, s := range all[max(0, len(all)-lastLines):] {
		lines = append(lines, s.text)
	}
	return lines
}

// retire marks the worker for replacement: its connection accepts no more calls. It is replaced once its running calls
// end.
func (w *Worker) retire(reason string) {
	w.pool.mu.Lock()
	if w.retired == "" {
		w.retired = reason
		w.pool.moveWaiters(w)
	}
	w.pool.mu.Unlock()
	signal(w.wake)
}

// drainReason returns why the worker accepts no calls, except perhaps those of its sessions, or "". An overdue call is
// a reason until it ends. But it does not drain a worker that has sessions and another slot: a session may last long,
// and the other slots still serve all callers. Callers hold pool.mu.
func (w *Worker) drainReason() string {
	switch {
	case w.doomed != "":
		return w.doomed
	case w.retired != "":
		return w.retired
	case w.leaving != "":
		return w.leaving
	case w.kill != nil, w.overdue > 0 && (w.sessions == 0 || w.overdue == w.slots):
		return fmt.Sprintf("%s goes on %s after it was cancelled", w.stuck, w.pool.opts.CancelGrace)
	}
	return ""
}

// accepting reports whether the worker accepts calls of all callers. Callers hold pool.mu.
func (w *Worker) accepting() bool { return w.state == StateReady && w.drainReason() == "" }

// servesSessions reports whether the worker accepts calls of its own sessions. Callers hold pool.mu.
func (w *Worker) servesSessions() bool {
	return w.retired == "" && w.doomed == "" && (w.state == StateReady || w.state == StateDraining)
}

// moveTo changes the worker's state. reason says why it drains, and err how it ended. Callers hold pool.mu.
func (w *Worker) moveTo(next WorkerState, reason string, err error) {
	if !slices.Contains(transitions[w.state], next) {
		w.log.Error("impossible change of a worker's state", "from", w.state, "to", next)
		return
	}
	w.pool.emit(StateChanged{Time: time.Now(), Worker: w, From: w.state, To: next, Reason: reason, Err: err})
	w.state = next
}
