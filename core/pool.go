package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Pool runs workers and gives each call a slot of one: the place of a running call. It owns the processes and
// goroutines that it starts, and Close waits for all of them. Any number of goroutines may use its methods.
type Pool struct {
	adapter    adapterOf
	opts       Options
	logs       *logQueue
	log        *logSource // the pool's messages about itself
	watchers   watchers
	recorded   *eventRing    // of the last events, or nil
	recording  sync.Mutex    // held while old recordings are removed
	lastCall   atomic.Uint64 // the number of the last call that was observed
	trace      bool
	spawner    *spawner
	ctx        context.Context // ends when the pool closes; the parent of the contexts of worker starts
	cancel     context.CancelFunc
	goroutines sync.WaitGroup // all goroutines of the pool
	opened     chan struct{}  // closed when the first worker is ready
	failed     chan struct{}  // closed when every worker has failed to start before any was ready
	closed     chan struct{}  // closed when Close is done
	reloading  chan struct{}  // capacity 1: held by the Reload that runs
	restores   atomic.Bool    // a worker has been ready that restores sessions

	// No slow operation and no user code runs under mu.
	mu            sync.Mutex           // guards the fields below and the guarded fields of workers and sessions
	places        []*place             // by index
	workers       []*Worker            // by index, the oldest first; a dead one stays while its place has no other
	min           int                  // how many workers the pool keeps without calls
	slots         int                  // the slots of the worker that was ready last; 1 before that
	starts        []*place             // the places that have asked for a start, the first one first
	starting      int                  // workers that are starting
	reload        *reload              // the Reload that runs, or nil
	stopped       []*place             // the places where the pool has stopped trying, in the order of their probes
	probe         *time.Timer          // the next probe; nil before the first
	changed       chan struct{}        // closed and replaced by broadcast
	waiting       waiters              // callers that any worker can serve
	queued        int                  // callers in all queues
	nested        map[*waiter]struct{} // the queued callers that are Functions serving a call of this pool
	seq           uint64               // the number of the newest waiter
	turn          uint64               // the turn that was served last; see order
	tenants       map[string]*tenant   // the tenants with waiting callers
	prioritized   int                  // waiting callers with a priority
	sessions      map[string]*session
	ending        map[string]*endingSession // by id: ended sessions whose worker has yet to drop their state
	stats         Stats
	lastErr       error  // of the last failed start of any worker
	adapterChoice string // the chain's choice of adapter that was logged last
	saidNoRoom    bool   // since the last worker became ready, the log says that there is no room for more
	draining      bool   // Shutdown has begun: no new calls
	closing       bool
}

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
	if o.Watch && len(cmd.Sources) == 0 {
		return nil, errors.New("option Watch is set, and the command does not say what its files are: " +
			"set Command.Sources, or use a Python script that is a file of its own")
	}
	if cmd.ForkServer && !hasForkServer {
		return nil, errors.New("Command.ForkServer needs Linux")
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
		Name: o.Name, Dir: o.Dir, MaxFrame: o.MaxFrame, Log: logs,
		StartTimeout: o.StartTimeout, Limits: o.Limits, EnvOf: o.WorkerEnv,
		WatchMemory: o.Recycle.Memory > 0,
	})
	if err != nil {
		_ = logs.close(0) // the log is still empty
		return nil, err
	}
	sp.size.Store(int32(o.Size))
	own, err := forPool(adapter, sp)
	if err != nil {
		sp.close()
		_ = logs.close(o.StopTimeout) // err is what the caller needs to know
		return nil, err
	}
	p := &Pool{
		adapter: own, opts: o, logs: logs, log: logs.events(noWorker), trace: trace, spawner: sp,
		nested: map[*waiter]struct{}{}, tenants: map[string]*tenant{},
		sessions: map[string]*session{}, ending: map[string]*endingSession{},
		opened: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}),
		changed: make(chan struct{}), reloading: make(chan struct{}, 1), min: o.MinSize, slots: 1,
	}
	if o.Recorder.Dir != "" {
		p.recorded = &eventRing{}
	}
	if o.OnEvent != nil {
		p.addWatcher(&watcher{events: newEventQueue("Options.OnEvent", o.OnEvent, p.log)})
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	p.addPlaces(o.Size)
	for _, pl := range p.places[:max(1, p.min)] {
		pl.asked = true
		p.starts = append(p.starts, pl)
	}
	p.beginStarts()
	p.mu.Unlock()
	p.care(cmd.Sources)
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

// care starts the goroutines that look after the pool's workers.
func (p *Pool) care(files []string) {
	if p.opts.Recycle.Memory > 0 {
		p.goroutines.Go(func() {
			for range p.ticks(time.Second) {
				p.checkMemory()
			}
		})
	}
	if p.opts.Watch {
		s := newSources(files)
		p.goroutines.Go(func() { p.watchSources(s) })
	}
}

// ticks yields again and again, until the pool closes.
func (p *Pool) ticks(d time.Duration) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case at := <-ticker.C:
				if !yield(at) {
					return
				}
			case <-p.ctx.Done():
				return
			}
		}
	}
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
	if w.restores = slices.Contains(c.hello.Features, featureSnapshots); w.restores {
		p.restores.Store(true)
	}
	w.idleSince = time.Now()
	w.moveTo(StateReady, "", nil)
	p.starting--
	p.saidNoRoom = false
	p.slots = w.slots
	p.settle(w)
	if !p.isOpen() {
		close(p.opened)
		for _, pl := range p.places { // workers that failed before the pool was open have not been replaced
			if pl.worker != nil && pl.worker.state == StateDead {
				p.restart(pl, pl.failures.last)
			}
		}
	}
	p.broadcast()
	p.logAdapter(w)
	w.log.Debug("worker is ready", "adapter", w.link.Adapter, "pid", w.hello.PID, "runtime", w.hello.Runtime,
		"after", time.Since(w.started))
	p.grant(w)
	p.replaceIfOld(w)
	p.wakeLeaving()
	p.beginStarts()
	if p.closing {
		signal(w.wake)
	}
}

// settle gives a worker that is ready its place. The worker that it replaces leaves. Callers hold mu.
func (p *Pool) settle(w *Worker) {
	pl := w.place
	if pl.removed || pl.worker != w && pl.next != w {
		w.leave("it is not needed any more") // its start was called off too late
		return
	}
	if pl.next != w {
		return
	}
	old := pl.worker
	pl.worker, pl.next = w, nil
	p.stats.Replaced++
	old.leave(old.due)
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
	if slices.ContainsFunc(w.link.Refused, Refusal.isNoRoom) { // the protocols are as they were
		w.log.Debug("worker took the next adapter that has room", args...)
		return
	}
	if choice == p.adapterChoice {
		return
	}
	first := p.adapterChoice == ""
	p.adapterChoice = choice
	p.emit(AdapterChanged{Time: time.Now(), Worker: w, Adapter: w.link.Adapter, Refused: w.link.Refused})
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

// isNoRoom reports whether the adapter works and had no room for the worker. Err has been captured.
func (r Refusal) isNoRoom() bool { return isNoRoom(r.Err) }

// isNoRoom reports whether a captured error says only that there is no room for a worker.
func isNoRoom(err error) bool {
	captured, ok := err.(*capturedError)
	return ok && captured.noRoom
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

// markDead marks a worker as dead, and wakes all that wait for it. err says how it ended, or nil. Callers hold mu.
func (p *Pool) markDead(w *Worker, err error) {
	w.moveTo(StateDead, "", err)
	p.broadcast()
	close(w.ended)
}

// workerEnded marks a worker as dead, and has another one started if its place needs one. exit is nil if the pool
// stopped the worker.
func (p *Pool) workerEnded(w *Worker, exit *WorkerExit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var how error
	if exit != nil {
		w.exit, how = exit, exit
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
	p.markDead(w, how)
	p.wakeLeaving()
	p.moveWaiters(w)
	w.waiting.failAll(p, fmt.Errorf("%w: its worker is gone", ErrSessionLost))
	pl := w.place
	if pl.removed || pl.worker != w { // it has left, and its place has another worker or none
		p.remove(w)
		return
	}
	switch {
	case w.completed || time.Since(w.started) >= minUptime || w.leaving != "":
		p.resetFailures(pl)
	case exit != nil: // a loss so early counts as a failed start
		p.earlyEnd(w, exit)
	default:
		p.earlyEnd(w, fmt.Errorf("it ended early: %s", w.drainReason()))
	}
	if pl.next != nil { // its replacement is starting already
		p.remove(w)
		pl.worker, pl.next = pl.next, nil
		p.stats.Restarts++
		return
	}
	p.restart(pl, nil)
}

// Name returns Options.Name, or its default.
func (p *Pool) Name() string { return p.opts.Name }

// Size returns the number of workers that the pool may have: Options.Size, or the size of the last Resize.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.places)
}

// Workers returns the pool's workers as they are now, by index. While a worker is replaced, two have the same index:
// the older one comes first.
func (p *Pool) Workers() []*Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.workers)
}

// WaitReady waits until n workers are ready, or, if n is 0, all that the pool keeps (Options.MinSize). An n above the
// pool's size is an error. WaitReady does not add workers to a pool that grows with its calls.
func (p *Pool) WaitReady(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		ready, want := 0, n
		if want == 0 {
			want = p.min
		}
		for _, pl := range p.places {
			if pl.worker != nil && pl.worker.state == StateReady {
				ready++
			}
		}
		size, err, closing, changed := len(p.places), p.crashLoopError(), p.closing, p.changed
		p.mu.Unlock()
		switch {
		case want > size:
			return fmt.Errorf("waiting for %d workers: the pool has %d; make Options.Size larger", want, size)
		case ready >= want:
			return nil
		case closing:
			return ErrClosed
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d workers are ready: %w", ready, want, endOfContext(ctx))
		}
	}
}

// broadcast wakes all goroutines that wait on changed: a worker became ready or died, a reload has failed, the pool was
// resized or is closing, or a call ended while the pool is draining. Callers hold mu.
func (p *Pool) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Stats returns a snapshot.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Workers = make([]WorkerStats, 0, len(p.workers))
	s.Waiting, s.Sessions = p.queued, len(p.sessions)
	p.addWaiters(&s)
	for _, w := range p.workers {
		ws := WorkerStats{
			Index: w.index, State: w.state, Running: w.running, Calls: w.calls, Sessions: w.sessions,
			Age: time.Since(w.started), Reason: w.drainReason(),
		}
		if w.place.worker == w && !w.place.removed {
			ws.Failures, ws.LastErr, ws.Stopped = w.place.failures.count, w.place.failures.last, w.place.stopped
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

// Closed returns a channel that is closed when Close is done.
func (p *Pool) Closed() <-chan struct{} { return p.closed }

// Close ends every call with ErrClosed, stops every worker, and returns when nothing of the pool is left. A worker
// that does not end by itself gets SIGTERM, then SIGKILL. Close takes about Options.StopTimeout at most. It takes three
// seconds more if a back end on another machine does not answer, or code of the program does not return, and an adapter
// that keeps something for the pool then gets a StopTimeout of its own. The error says what has not ended: a function
// in Options.Functions, Options.WorkerEnv, the input of a call, the adapter, or the logger. Close waits for the logger
// while it accepts records, but only a quarter of a second if it accepts none. Close may be called more than once, from
// several goroutines, and by the logger itself.
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
	for _, pl := range p.places {
		pl.stopRetry()
	}
	if p.probe != nil {
		p.probe.Stop()
	}
	for _, w := range p.workers {
		signal(w.wake)
	}
	p.mu.Unlock()
	p.cancel()
	defer close(p.closed)
	begin := time.Now()
	err := p.end()
	if all := p.watchers.Load(); all != nil {
		for _, w := range *all {
			err = errors.Join(err, w.events.close(max(logWait, p.opts.StopTimeout-time.Since(begin))))
		}
	}
	if err = errors.Join(err, p.logs.close(max(logWait, p.opts.StopTimeout-time.Since(begin)))); err != nil {
		return fmt.Errorf("the pool is closed, but %w", err)
	}
	return nil
}

// end waits for the pool's goroutines and then releases what the adapter and the spawner keep. Whatever does not return
// is an error, and does not keep the adapter from its end.
func (p *Pool) end() error {
	const moment = time.Second // that the end after SIGKILL needs, too
	idle := make(chan struct{})
	go func() {
		p.goroutines.Wait()
		close(idle)
	}()
	err := within(p.opts.StopTimeout+leaseKillTime+moment, func() error { <-idle; return nil },
		"a function in Options.Functions, Options.WorkerEnv, an input of a call or the adapter has not returned")
	released := within(p.opts.StopTimeout+moment, func() error { return p.adapter.close(p.opts.StopTimeout) },
		"the adapter's Close has not returned")
	last := func() {
		<-idle
		p.spawner.close()
	}
	if err == nil {
		err = within(p.opts.StopTimeout+moment, func() error { last(); return nil }, "a process has not ended")
	} else {
		go last() // when the code has returned
	}
	return errors.Join(err, released)
}

// within returns what do returns, or an error of that text if it takes longer than the limit.
func within(limit time.Duration, do func() error, late string) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errors.New(late)
	}
}

// failWaiters fails some of the callers in all queues with err. Callers hold mu.
func (p *Pool) failWaiters(err error, which func(*waiter) bool) {
	p.waiting.fail(p, err, which)
	for _, w := range p.workers {
		w.waiting.fail(p, err, which)
	}
}
