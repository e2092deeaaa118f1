package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Pool runs workers and hands out their slots. It owns every process and goroutine that it starts and waits for each in Close. Its
// methods may be used from any number of goroutines.
type Pool struct {
	adapter    Adapter
	opts       Options
	logs       *logQueue
	log        *logSource // what the pool says about itself
	trace      bool
	host       *host
	ctx        context.Context // ends when the pool closes; starts of workers hang on it
	cancel     context.CancelFunc
	goroutines sync.WaitGroup // every goroutine of the pool's
	opened     chan struct{}  // closed when the first worker is ready
	failed     chan struct{}  // closed when every worker has failed to start before any was ready
	closed     chan struct{}  // closed when Close is done

	// Nothing slow happens under mu, and no user code.
	mu       sync.Mutex           // guards what follows and the guarded fields of workers and sessions
	workers  []*Worker            // by index; the newest of each
	changed  chan struct{}        // replaced when a worker becomes ready or dies, and while draining when a call ends
	waiting  waiters              // callers whom any worker will do
	queued   int                  // callers in all queues
	nested   map[*waiter]struct{} // those of them that are Functions which serve a call of this pool
	seq      uint64
	sessions map[string]*session
	ending   map[string]*endingSession // ids of ended sessions whose worker has yet to drop the state; closed then
	stats    Stats
	failures []startFailures // by index
	lastErr  error           // of the last failed start of any worker
	verdict  string          // the chain's verdict as it was logged last
	draining bool            // Shutdown: no new calls
	closing  bool
}

// startFailures is what a pool knows of an index whichever worker has it. What one worker does says nothing about another one's
// program, so the wait before the next start is each startFailures's own.
type startFailures struct {
	failures int   // starts that failed in a row, since a worker of this index was last of use
	lastErr  error // of the last of them
}

// Stats is a snapshot of a pool. Its counters begin with Open.
type Stats struct {
	Ready      int   // workers that take calls
	Running    int   // calls that hold a slot, also those whose callers have left
	Waiting    int   // callers in the queue
	Sessions   int   // live sessions
	Calls      int64 // calls that got a slot
	Saturated  int64 // callers that were turned away because the queue was full
	Cancelled  int64 // calls that were cancelled while they ran
	Lost       int64 // workers that ended unexpectedly
	Restarts   int64 // workers that were started to replace another
	StartFails int64 // starts that failed
	Terminated int64 // workers that were stopped because a cancelled call went on
	Workers    []WorkerStats
}

// WorkerStats is what Stats says of one worker.
type WorkerStats struct {
	Index    int
	State    WorkerState
	PID      int
	Adapter  string
	Refused  []Refusal // adapters that were tried before, and why not
	Running  int       // slots taken
	Calls    int64     // slots ever taken
	Sessions int
	Age      time.Duration
	Failures int   // starts of this index that failed in a row
	LastErr  error // why the last of them did, or nil
}

// crashLoop is how many starts may fail in a row, with no worker ready and none of the indexes spared, before callers
// are told so instead of waiting.
const crashLoop = 5

// maxBackoff bounds the wait between two starts.
const maxBackoff = 30 * time.Second

// minUptime is how long a worker has to live for its loss not to count towards a crash loop, unless it has answered a call.
const minUptime = 10 * time.Second

// Open starts a pool of workers that run cmd and speak the adapter's protocol. It returns as soon as one worker has said hello; the
// others follow. If none can be started, the error is a *StartError that says why. ctx bounds only the wait, not the pool's life.
// The caller owns the pool and must Close it.
func Open(ctx context.Context, adapter Adapter, cmd Command, opts *Options) (*Pool, error) {
	if adapter == nil {
		return nil, errors.New("no adapter: pass one, such as jsonstdio.Adapter{}")
	}
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	log, err := poolLogger(&o)
	if err != nil {
		return nil, err
	}
	trace, err := traceFrames()
	if err != nil {
		return nil, err
	}
	logs := newLogQueue(log)
	h, err := newHost(cmd, hostOptions{
		Name: o.Name, Dir: o.Dir, MaxFrame: o.MaxFrame, Env: threadEnv(cmd.Env, o.Size), Log: logs,
	})
	if err != nil {
		_ = logs.close(0) // nothing has been logged
		return nil, err
	}
	p := &Pool{
		adapter: adapter, opts: o, logs: logs, log: logs.events(noWorker), trace: trace, host: h,
		nested: map[*waiter]struct{}{}, sessions: map[string]*session{}, ending: map[string]*endingSession{},
		workers: make([]*Worker, o.Size), failures: make([]startFailures, o.Size),
		opened: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}), changed: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	for i := range p.workers {
		p.startWorker(i)
	}
	p.mu.Unlock()
	select {
	case <-p.opened:
		return p, nil
	case <-p.failed:
	case <-ctx.Done():
		err = fmt.Errorf("no worker was ready in time: %w", context.Cause(ctx))
	}
	closed := p.Close() // those that are still starting say then how far they came
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.lastErr != nil {
		err = fmt.Errorf("%w; %w", err, p.lastErr)
	} else if err == nil {
		err = p.lastErr
	}
	return nil, errors.Join(err, closed)
}

// traceFrames reads SNAKEPIT_TRACE.
func traceFrames() (bool, error) {
	switch v := os.Getenv("SNAKEPIT_TRACE"); v {
	case "":
		return false, nil
	case "frames":
		return true, nil
	default:
		return false, fmt.Errorf("SNAKEPIT_TRACE is %q; it may be frames, or unset", v)
	}
}

// startWorker starts the worker of an index. mu is held.
func (p *Pool) startWorker(index int) {
	w := &Worker{
		pool: p, index: index, state: StateStarting, started: time.Now(), log: p.logs.events(index),
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	p.workers[index] = w
	p.goroutines.Add(1)
	go w.run()
}

// admit puts a worker that has said hello to work.
func (p *Pool) admit(w *Worker, c *connected, m *mux, r *records) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.link, w.hello, w.mux, w.records, w.codec, w.slots = c.link, c.hello, m, r, c.codec, c.hello.Concurrency
	if c.hello.Commands != nil {
		w.commands = make(map[string]CommandInfo, len(c.hello.Commands))
		for _, info := range c.hello.Commands {
			w.commands[info.Name] = info
		}
		_, w.forgets = w.commands[forget]
	}
	w.moveTo(StateReady)
	p.broadcast()
	select {
	case <-p.opened:
	default:
		close(p.opened)
		for _, other := range p.workers { // those that failed before anybody had the pool
			if other.state == StateDead {
				p.replace(other, p.failures[other.index].lastErr)
			}
		}
	}
	p.logVerdict(w)
	w.log.Debug("worker is ready", "adapter", w.link.Adapter, "pid", w.hello.PID, "runtime", w.hello.Runtime, "after", time.Since(w.started))
	p.grant(w)
	if p.closing {
		signal(w.wake)
	}
}

// logVerdict says which adapter is in use and why no earlier one, once per change: in short, and at debug in full. mu is held.
func (p *Pool) logVerdict(w *Worker) {
	verdict := w.link.Adapter
	args := []any{"adapter", w.link.Adapter}
	for _, r := range w.link.Refused {
		verdict += "\n" + r.Adapter + ": " + r.Err.Error()
		args = append(args, r.Adapter, r.reason())
	}
	if verdict == p.verdict {
		return
	}
	first := p.verdict == ""
	p.verdict = verdict
	switch {
	case len(w.link.Refused) > 0:
		w.log.Warn("protocol degraded", args...)
	case !first:
		w.log.Info("protocol restored", args...)
	default:
		w.log.Debug("protocol chosen", args...)
	}
	for _, r := range w.link.Refused {
		w.log.Debug("adapter refused", "adapter", r.Adapter, "error", r.Err)
	}
}

// reason returns the first line of why the adapter was refused, without the remedy. Err has been captured.
func (r Refusal) reason() string {
	text := r.Err.Error()
	if captured, ok := r.Err.(*capturedError); ok {
		text = captured.reason
	}
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// startFailed replaces a worker that never came, after a wait that grows.
func (p *Pool) startFailed(w *Worker, err error) {
	err = captureIsolated(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.moveTo(StateDead)
	p.broadcast()
	close(w.ended)
	if p.closing {
		if p.lastErr == nil {
			p.lastErr = err
		}
		return
	}
	p.stats.StartFails++
	p.addFailure(w, err)
	select {
	case <-p.opened:
	default:
		// Nobody has the pool yet: when every worker has failed once, Open reports it and closes.
		if failed, _ := p.failureTotals(); failed == len(p.failures) {
			close(p.failed)
		}
		return
	}
	p.replace(w, err)
}

// addFailure counts a start of w's index that came to nothing. mu is held.
func (p *Pool) addFailure(w *Worker, err error) {
	f := &p.failures[w.index]
	f.failures++
	f.lastErr, p.lastErr = err, err
}

// failureTotals returns how many indexes have failed since they were last of use, and how often in all. mu is held.
func (p *Pool) failureTotals() (indexes, times int) {
	for _, f := range p.failures {
		times += f.failures
		if f.failures > 0 {
			indexes++
		}
	}
	return indexes, times
}

// replace starts another worker in w's place, at once after the first loss, later and later when losses of the same
// index follow each other. mu is held.
func (p *Pool) replace(w *Worker, err error) {
	if p.closing {
		return
	}
	p.stats.Restarts++
	wait := time.Duration(0)
	failures := p.failures[w.index].failures
	if failures > 0 {
		wait = min(100*time.Millisecond<<min(failures-1, 20), maxBackoff)
		wait += rand.N(wait/4 + 1) // so that workers that died together do not start together for ever
	}
	if err != nil {
		w.log.Error("worker could not be started", "error", err, "failures", failures, "again in", wait)
	}
	if err := p.crashLoopError(); err != nil { // nobody shall wait for a worker that does not come
		p.waiting.failAll(p, err)
	}
	p.goroutines.Add(1)
	go func() {
		defer p.goroutines.Done()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closing {
			p.startWorker(w.index)
		}
	}()
}

// crashLoopError returns the error for callers when no worker is there and starts keep failing. mu is held.
func (p *Pool) crashLoopError() error {
	indexes, times := p.failureTotals()
	if indexes < len(p.failures) || times < crashLoop {
		return nil
	}
	for _, w := range p.workers {
		if w.state == StateReady || w.state == StateDraining {
			return nil
		}
	}
	return fmt.Errorf("%w: %d starts failed, and no worker serves; the last one: %w", ErrCrashLoop, times, p.lastErr)
}

// remove takes leave of a worker. o is nil if it was told to go.
func (p *Pool) remove(w *Worker, o *WorkerExit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o != nil {
		w.exit = o
		p.stats.Lost++
		if p.closing {
			w.log.Debug("worker ended while the pool was closing", "how", o)
		} else {
			w.log.Error("worker lost", "exit", o.Error())
		}
	}
	if w.kill != nil {
		w.kill.Stop()
	}
	w.moveTo(StateDead)
	p.broadcast()
	close(w.ended) // which loses its sessions
	w.waiting.failAll(p, fmt.Errorf("%w: its worker is gone", ErrSessionLost))
	switch {
	case w.completed || time.Since(w.started) >= minUptime:
		p.failures[w.index] = startFailures{}
	case o != nil: // it came up only to go
		p.addFailure(w, o)
	default:
		p.addFailure(w, fmt.Errorf("it left: %s", w.drainReason()))
	}
	p.replace(w, nil)
}

// Size returns the number of workers.
func (p *Pool) Size() int { return len(p.workers) }

// Workers returns the pool's workers as they are now, by index.
func (p *Pool) Workers() []*Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.workers)
}

// WaitReady waits until n workers are ready, or all if n is 0. More than the pool has are an error.
func (p *Pool) WaitReady(ctx context.Context, n int) error {
	if n == 0 {
		n = len(p.workers)
	}
	if n > len(p.workers) {
		return fmt.Errorf("waiting for %d workers: the pool has %d; make Options.Size larger", n, len(p.workers))
	}
	for {
		p.mu.Lock()
		there := 0
		for _, w := range p.workers {
			if w.state == StateReady {
				there++
			}
		}
		err, closing, changed := p.crashLoopError(), p.closing, p.changed
		p.mu.Unlock()
		switch {
		case there >= n:
			return nil
		case closing:
			return ErrClosed
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d workers are ready: %w", there, n, ctx.Err())
		}
	}
}

// broadcast wakes everybody who waits for a change. mu is held.
func (p *Pool) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Stats returns a snapshot.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Waiting, s.Sessions = p.queued, len(p.sessions)
	for _, w := range p.workers {
		ws := WorkerStats{
			Index: w.index, State: w.state, Running: w.running, Calls: w.calls, Sessions: w.sessions, Age: time.Since(w.started),
			Failures: p.failures[w.index].failures, LastErr: p.failures[w.index].lastErr,
		}
		if w.mux != nil {
			ws.PID, ws.Adapter, ws.Refused = w.hello.PID, w.link.Adapter, w.link.Refused
		}
		s.Running += w.running
		if w.state == StateReady {
			s.Ready++
		}
		s.Workers = append(s.Workers, ws)
	}
	return s
}

// Shutdown takes no new calls, lets running ones end, and closes the pool. Callers in the queue get ErrClosed. What running calls ask of
// the pool themselves, by Options.Functions, still goes through. When ctx is done first, it closes at once and returns ctx's error.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.failWaiters(ErrClosed, func(me *waiter) bool { return me.within == nil })
	p.mu.Unlock()
	for {
		p.mu.Lock()
		running := 0
		for _, w := range p.workers {
			running += w.running
		}
		changed := p.changed
		p.mu.Unlock()
		if running == 0 {
			return p.Close()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d calls were still running: %w", running, ctx.Err()), p.Close())
		}
	}
}

// Close ends every call with ErrClosed and every worker, by the ladder if need be, and returns when nothing of the pool
// is left. That takes no longer than about Options.StopTimeout; the error then says what did not end: a function in
// Options.Functions, the input of a call, the adapter, or the logger, which Close waits for while it takes records, and
// for a quarter of a second when it takes none. Close may be called again, and from several goroutines, also by the
// logger itself.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		<-p.closed
		return nil
	}
	p.closing = true
	p.broadcast()
	p.failWaiters(ErrClosed, func(*waiter) bool { return true })
	for _, s := range p.sessions {
		s.stopTimer()
	}
	for _, w := range p.workers {
		signal(w.wake)
	}
	p.mu.Unlock()
	p.cancel()
	defer close(p.closed)
	ended := make(chan struct{})
	go func() {
		p.goroutines.Wait()
		p.host.close()
		close(ended)
	}()
	begin := time.Now()
	timer := time.NewTimer(p.opts.StopTimeout + time.Second) // the ladder's last step takes a moment of its own
	defer timer.Stop()
	var err error
	select {
	case <-ended:
	case <-timer.C:
		err = errors.New("a function in Options.Functions, an input of a call or the adapter has not returned")
	}
	if err = errors.Join(err, p.logs.close(max(logPatience, p.opts.StopTimeout-time.Since(begin)))); err != nil {
		return fmt.Errorf("the pool is closed, but %w", err)
	}
	return nil
}

// failWaiters turns some of the callers in all queues away. mu is held.
func (p *Pool) failWaiters(err error, which func(*waiter) bool) {
	p.waiting.fail(p, err, which)
	for _, w := range p.workers {
		w.waiting.fail(p, err, which)
	}
}
