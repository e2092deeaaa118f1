package core

import (
	"cmp"
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

// Pool runs workers and gives each call a slot of one: the place of a running call. It owns the processes and
// goroutines that it starts, and Close waits for all of them. Any number of goroutines may use its methods.
type Pool struct {
	adapter    Adapter
	opts       Options
	logs       *logQueue
	log        *logSource // the pool's messages about itself
	trace      bool
	spawner    *spawner
	ctx        context.Context // ends when the pool closes; the parent of the contexts of worker starts
	cancel     context.CancelFunc
	goroutines sync.WaitGroup // all goroutines of the pool
	opened     chan struct{}  // closed when the first worker is ready
	failed     chan struct{}  // closed when every worker has failed to start before any was ready
	closed     chan struct{}  // closed when Close is done

	// No slow operation and no user code runs under mu.
	mu            sync.Mutex           // guards the fields below and the guarded fields of workers and sessions
	workers       []*Worker            // the newest worker of each index
	changed       chan struct{}        // closed and replaced by broadcast
	waiting       waiters              // callers that any worker can serve
	queued        int                  // callers in all queues
	nested        map[*waiter]struct{} // the queued callers that are Functions serving a call of this pool
	seq           uint64               // the number of the newest waiter
	sessions      map[string]*session
	ending        map[string]*endingSession // by id: ended sessions whose worker has yet to drop their state
	stats         Stats
	failures      []startFailures // by index
	lastErr       error           // of the last failed start of any worker
	adapterChoice string          // the chain's choice of adapter that was logged last
	draining      bool            // Shutdown has begun: no new calls
	closing       bool
}

// startFailures counts the starts of one index that failed in a row. A worker that ends before its minimum uptime, and
// has answered no call, counts as a failed start. An answered call or the minimum uptime resets the count. Each index
// has its own count and its own wait before the next start: the failures of one index say nothing about another.
type startFailures struct {
	count int
	last  error // the error of the last failed start
}

// crashLoop is how many starts in a row, over all indexes, have to fail before callers get ErrCrashLoop instead of
// waiting. Every index must have failed, and no worker may serve.
const crashLoop = 5

// maxBackoff bounds the wait between two starts of an index, before a random part is added.
const maxBackoff = 30 * time.Second

// minUptime is a worker's minimum uptime. A worker that ends earlier counts as a failed start, unless it has answered a
// call.
const minUptime = 10 * time.Second

// Open starts a pool of workers that run cmd and speak the adapter's protocol. It returns as soon as one worker has
// said hello; the others follow. If none can be started, the error is a *StartError that says why. ctx bounds only
// this wait, not the pool's life. The caller owns the pool and must Close it.
func Open(ctx context.Context, adapter Adapter, cmd Command, opts *Options) (*Pool, error) {
	if adapter == nil {
		return nil, errors.New("no adapter: pass one, such as jsonstdio.Adapter{}")
	}
	late := ctx.Done() // ctx may be user code that panics, so it is asked while there is nothing to clean up
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
	sp, err := newSpawner(cmd, spawnerOptions{
		Name: o.Name, Dir: o.Dir, MaxFrame: o.MaxFrame, Env: threadEnv(cmd.Env, o.Size), Log: logs,
	})
	if err != nil {
		_ = logs.close(0) // the log is still empty
		return nil, err
	}
	p := &Pool{
		adapter: adapter, opts: o, logs: logs, log: logs.events(noWorker), trace: trace, spawner: sp,
		nested: map[*waiter]struct{}{}, sessions: map[string]*session{}, ending: map[string]*endingSession{},
		workers: make([]*Worker, o.Size), failures: make([]startFailures, o.Size),
		opened: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}),
		changed: make(chan struct{}),
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
		late = nil
	case <-late:
	}
	closed := p.Close() // workers that are still starting set lastErr
	if late != nil {
		err = fmt.Errorf("no worker was ready in time: %w", cmp.Or(context.Cause(ctx), context.Canceled))
	}
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
		return false, fmt.Errorf("SNAKEPIT_TRACE is %q; set it to frames, or unset it", v)
	}
}

// startWorker starts a new worker for an index. Callers hold mu.
func (p *Pool) startWorker(index int) {
	w := &Worker{
		pool: p, index: index, state: StateStarting, started: time.Now(), log: p.logs.events(index),
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	p.workers[index] = w
	p.goroutines.Add(1)
	go w.run()
}

// admit makes a worker that has said hello ready for calls.
func (p *Pool) admit(w *Worker, c *connected, m *mux, r *records) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.link, w.hello, w.mux, w.records = c.link, c.hello, m, r
	w.codec, w.slots = c.codec, c.hello.Concurrency
	if c.hello.Commands != nil {
		w.commands = make(map[string]CommandInfo, len(c.hello.Commands))
		for _, info := range c.hello.Commands {
			w.commands[info.Name] = info
		}
		_, w.forgets = w.commands[forgetCommand]
	}
	w.moveTo(StateReady)
	p.broadcast()
	select {
	case <-p.opened:
	default:
		close(p.opened)
		for _, other := range p.workers { // workers that failed before the pool was open have not been replaced
			if other.state == StateDead {
				p.replace(other, p.failures[other.index].last)
			}
		}
	}
	p.logAdapter(w)
	w.log.Debug("worker is ready", "adapter", w.link.Adapter, "pid", w.hello.PID, "runtime", w.hello.Runtime,
		"after", time.Since(w.started))
	p.grant(w)
	if p.closing {
		signal(w.wake)
	}
}

// logAdapter logs which adapter is used and why earlier ones were refused, once for each change. The full reasons are
// logged at debug. Callers hold mu.
func (p *Pool) logAdapter(w *Worker) {
	choice := w.link.Adapter
	args := []any{"adapter", w.link.Adapter}
	for _, r := range w.link.Refused {
		choice += "\n" + r.Adapter + ": " + r.Err.Error()
		args = append(args, r.Adapter, r.reason())
	}
	if choice == p.adapterChoice {
		return
	}
	first := p.adapterChoice == ""
	p.adapterChoice = choice
	switch {
	case len(w.link.Refused) > 0 && first && w.link.Default:
		w.log.Info("protocol fallback", args...)
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

// reason returns the first line of the reason for the refusal, without the remedy. Err has been captured.
func (r Refusal) reason() string {
	text := r.Err.Error()
	if captured, ok := r.Err.(*capturedError); ok {
		text = captured.reason
	}
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// markDead marks a worker as dead, and wakes all that wait for it. Callers hold mu.
func (p *Pool) markDead(w *Worker) {
	w.moveTo(StateDead)
	p.broadcast()
	close(w.ended)
}

// startFailed replaces a worker whose start failed. The wait before the next start grows.
func (p *Pool) startFailed(w *Worker, err error) {
	err = captureIsolated(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.markDead(w)
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
		// Open has not returned yet. When every worker has failed once, Open closes the pool and returns the error.
		if failed, _ := p.failureTotals(); failed == len(p.failures) {
			close(p.failed)
		}
		return
	}
	p.replace(w, err)
}

// addFailure counts a failed start of w's index. Callers hold mu.
func (p *Pool) addFailure(w *Worker, err error) {
	f := &p.failures[w.index]
	f.count++
	f.last, p.lastErr = err, err
}

// failureTotals returns how many indexes have failures in a row, and the number of these failures. Callers hold mu.
func (p *Pool) failureTotals() (indexes, times int) {
	for _, f := range p.failures {
		times += f.count
		if f.count > 0 {
			indexes++
		}
	}
	return indexes, times
}

// replace starts another worker in w's place. It starts it at once if the index has no failures, else after a wait that
// doubles with each failure. err is why its start failed, or nil. If starts keep failing and no worker serves, replace
// also fails the callers that wait. Callers hold mu.
func (p *Pool) replace(w *Worker, err error) {
	if p.closing {
		return
	}
	p.stats.Restarts++
	wait := time.Duration(0)
	failures := p.failures[w.index].count
	if failures > 0 {
		wait = min(100*time.Millisecond<<min(failures-1, 20), maxBackoff)
		wait += rand.N(wait/4 + 1) // so that workers that died together do not keep starting together
	}
	if err != nil {
		w.log.Error("worker could not be started", "error", err, "failures", failures, "retry_in", wait)
	}
	if err := p.crashLoopError(); err != nil { // callers must not wait for a worker that may never be ready
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

// crashLoopError returns ErrCrashLoop with its details if no worker serves and starts keep failing, else nil. Callers
// hold mu.
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

// workerEnded marks a worker as dead and replaces it. exit is nil if the pool stopped the worker.
func (p *Pool) workerEnded(w *Worker, exit *WorkerExit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if exit != nil {
		w.exit = exit
		p.stats.Lost++
		if p.closing {
			w.log.Debug("worker ended while the pool was closing", "how", exit)
		} else {
			w.log.Error("worker lost", "exit", exit.Error())
		}
	}
	if w.kill != nil {
		w.kill.Stop()
	}
	p.markDead(w)
	w.waiting.failAll(p, fmt.Errorf("%w: its worker is gone", ErrSessionLost))
	switch {
	case w.completed || time.Since(w.started) >= minUptime:
		p.failures[w.index] = startFailures{}
	case exit != nil: // a loss so early counts as a failed start
		p.addFailure(w, exit)
	default:
		p.addFailure(w, fmt.Errorf("it ended early: %s", w.drainReason()))
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

// WaitReady waits until n workers are ready, or all if n is 0. An n above the pool's size is an error.
func (p *Pool) WaitReady(ctx context.Context, n int) error {
	if n == 0 {
		n = len(p.workers)
	}
	if n > len(p.workers) {
		return fmt.Errorf("waiting for %d workers: the pool has %d; make Options.Size larger", n, len(p.workers))
	}
	for {
		p.mu.Lock()
		ready := 0
		for _, w := range p.workers {
			if w.state == StateReady {
				ready++
			}
		}
		err, closing, changed := p.crashLoopError(), p.closing, p.changed
		p.mu.Unlock()
		switch {
		case ready >= n:
			return nil
		case closing:
			return ErrClosed
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d workers are ready: %w", ready, n, endOfContext(ctx))
		}
	}
}

// broadcast wakes all goroutines that wait on changed: a worker became ready or died, the pool is closing, or a call
// ended while the pool is draining. Callers hold mu.
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
			Index: w.index, State: w.state, Running: w.running, Calls: w.calls, Sessions: w.sessions,
			Age: time.Since(w.started), Failures: p.failures[w.index].count, LastErr: p.failures[w.index].last,
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

// Shutdown accepts no new calls, waits for the running ones, and closes the pool. Callers in the queue get ErrClosed.
// Functions in Options.Functions that serve a running call may still call the pool. If ctx is done first, Shutdown
// closes the pool at once and returns ctx's error.
func (p *Pool) Shutdown(ctx context.Context) error {
	late := ctx.Done()
	p.mu.Lock()
	p.draining = true
	p.failWaiters(ErrClosed, func(wt *waiter) bool { return wt.within == nil })
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
		case <-late:
			closed := p.Close()
			return errors.Join(fmt.Errorf("%d calls were still running: %w", running, endOfContext(ctx)), closed)
		}
	}
}

// Close ends every call with ErrClosed, stops every worker, and returns when nothing of the pool is left. A worker
// that does not end by itself gets SIGTERM, then SIGKILL. Close takes about Options.StopTimeout at most. The error
// says if something has not ended: a function in Options.Functions, the input of a call, the adapter, or the logger.
// Close waits for the logger while it accepts records, but only a quarter of a second if it accepts none. Close may
// be called more than once, from several goroutines, and by the logger itself.
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
		p.spawner.close()
		close(ended)
	}()
	begin := time.Now()
	timer := time.NewTimer(p.opts.StopTimeout + time.Second) // the end after SIGKILL needs a moment too
	defer timer.Stop()
	var err error
	select {
	case <-ended:
	case <-timer.C:
		err = errors.New("a function in Options.Functions, an input of a call or the adapter has not returned")
	}
	if err = errors.Join(err, p.logs.close(max(logWait, p.opts.StopTimeout-time.Since(begin)))); err != nil {
		return fmt.Errorf("the pool is closed, but %w", err)
	}
	return nil
}

// failWaiters fails some of the callers in all queues with err. Callers hold mu.
func (p *Pool) failWaiters(err error, which func(*waiter) bool) {
	p.waiting.fail(p, err, which)
	for _, w := range p.workers {
		w.waiting.fail(p, err, which)
	}
}
