package core

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Observer watches the calls and the events of a pool, such as for traces and metrics. See Pool.Observe. An Observer
// that is also an hclog.SinkAdapter gets the pool's log, at every level.
//
// Its methods are user code. A panic in one is logged once, and the call goes on. Call, Function and the methods of a
// CallObserver run where a call waits for them, so they must not block.
type Observer interface {
	// Call is called when a call begins, on the caller's goroutine, before the call waits for a worker. ctx is the
	// caller's. start is valid until Call returns. The result is told about the rest of the call; nil for nothing.
	Call(ctx context.Context, start *CallStart) CallObserver
	// Function is called when a worker's call of a function begins, on the goroutine that runs the function. The
	// function gets the returned context, which has to be ctx or derived from it.
	Function(ctx context.Context, start *CallStart) (context.Context, CallObserver)
	// Event is called with each event of the pool, in order, by one goroutine for each Observer and without a lock. If
	// it is too slow, events are dropped; an EventsMissed says how many.
	Event(e Event)
}

// CallObserver is told about one call.
type CallObserver interface {
	// Item is called for each item before its receiver gets it, and for each item that was sent. size is the number of
	// bytes of the encoded value. The items of the two directions may come from two goroutines at once.
	Item(to Direction, size int)
	// End is called once, on the goroutine of the Observer's Call or Function. end is valid until it returns. Items
	// that are still being sent at that moment may come after it.
	End(end *CallEnd)
}

// Direction is one of the two directions of a call.
type Direction uint8

// The directions of a call.
const (
	ToHost   Direction = iota // from the worker to this program
	ToWorker                  // from this program to the worker
)

// CallStart is a call that begins.
type CallStart struct {
	Pool     *Pool
	Number   uint64  // identifies the call in this pool; CallStats has it, too
	Command  string  // the command, or the function's name
	Args     any     // the caller's own; nil for a function's call. Use it until Call returns, and do not change it
	Session  string  // or ""
	Tenant   string  // or ""; see WithTenant
	Stream   bool    // the caller takes a stream of items
	Worker   *Worker // the worker that calls a function; nil for a call of a worker, which has none yet
	metadata map[string]string
	added    bool // metadata is a copy
}

// Metadata returns an entry of the call's metadata, or "".
func (c *CallStart) Metadata(key string) string { return c.metadata[key] }

// SetMetadata adds an entry to the metadata that a call of a worker carries. The caller's own entry of that key goes
// first: then SetMetadata changes nothing. For a function's call it has no effect.
func (c *CallStart) SetMetadata(key, value string) {
	if _, own := c.metadata[key]; own {
		return
	}
	if !c.added {
		c.added = true
		if c.metadata = maps.Clone(c.metadata); c.metadata == nil {
			c.metadata = map[string]string{}
		}
	}
	c.metadata[key] = value
}

// CallEnd says how a call has ended for its caller. The worker of a call that was given up may still run it.
type CallEnd struct {
	Worker   *Worker       // that had the call last or has called the function, or nil if none had the call
	Waited   time.Duration // in the pool's queue
	Retries  int           // how often it was given to another worker because it certainly did not run
	ToHost   Volume        // what has come from the worker, in the last try
	ToWorker Volume        // what was sent to the worker, in the last try
	Left     bool          // the caller took no more items
	Err      error         // what the caller gets or the function has returned; nil if the caller left
}

// Volume is an amount of data: items, and bytes of encoded values, which include arguments and results.
type Volume struct {
	Items int64 `json:"items"`
	Bytes int64 `json:"bytes"`
}

// Observe has o watch the pool until stop is called or the pool is closed. It sees the calls and events that begin from
// now on. Without an Observer a call pays one atomic load. Any number of Observers may watch a pool. stop does not wait
// for o: calls that have begun are told about until their end, and one Event may be running. Any goroutine may call
// Observe and, more than once, stop.
func (p *Pool) Observe(o Observer) (stop func()) {
	w := &watcher{observer: o, events: newEventQueue("Observer.Event", o.Event, p.log)}
	sink, logs := o.(hclog.SinkAdapter)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		w.events.abandon()
		return func() {}
	}
	p.addWatcher(w)
	untap := func() {}
	if logs {
		untap = p.logs.tap(sink)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watchers.Store(without(p.watchers.Load(), w))
		w.events.abandon()
		untap()
	})
}

// watcher is an Observer of a pool, or Options.OnEvent.
type watcher struct {
	observer  Observer // nil for Options.OnEvent
	events    *eventQueue
	panicOnce sync.Once
}

// watchers is the list of a pool's watchers. A list does not change; a new one replaces it under pool.mu.
type watchers = atomic.Pointer[[]*watcher]

// addWatcher adds a watcher. Callers hold mu, or the pool is being made.
func (p *Pool) addWatcher(w *watcher) {
	var all []*watcher
	if old := p.watchers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = append(all, w)
	p.watchers.Store(&all)
}

// without returns a list without one watcher, or nil if none is left.
func without(all *[]*watcher, w *watcher) *[]*watcher {
	if all == nil {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(*all), func(other *watcher) bool { return other == w })
	if len(rest) == 0 {
		return nil
	}
	return &rest
}

// hasObserver reports whether there is more than Options.OnEvent.
func hasObserver(all *[]*watcher) bool {
	return all != nil && slices.ContainsFunc(*all, func(w *watcher) bool { return w.observer != nil })
}

// observe tells the observers that a call of a worker begins. Its context has been entered.
func (p *Pool) observe(caller context.Context, r *request) {
	all := p.watchers.Load()
	if !hasObserver(all) {
		return
	}
	r.number = p.lastCall.Add(1)
	watch := newWatch(p, nil)
	watch.start = CallStart{
		Pool: p, Number: r.number, Command: r.command, Args: r.args, Session: r.session,
		Tenant: r.caller.tenant, Stream: r.wantsItems, metadata: r.caller.metadata,
	}
	for _, w := range *all {
		if w.observer == nil {
			continue
		}
		w.guard(p, func() {
			if o := w.observer.Call(caller, &watch.start); o != nil {
				watch.add(w, o)
			}
		})
	}
	r.watch, r.caller.metadata = watch, watch.start.metadata
}

// observeFunction tells the observers that a worker's call of a function begins. It returns the function's context.
func (p *Pool) observeFunction(ctx context.Context, w *Worker, call *Incoming) context.Context {
	all := p.watchers.Load()
	if !hasObserver(all) {
		return ctx
	}
	watch := newWatch(p, w)
	watch.start = CallStart{
		Pool: p, Number: p.lastCall.Add(1), Command: call.Name, Session: call.Session, Worker: w,
		metadata: call.Metadata,
	}
	for _, wr := range *all {
		if wr.observer == nil {
			continue
		}
		wr.guard(p, func() {
			derived, o := wr.observer.Function(ctx, &watch.start)
			if derived != nil {
				ctx = derived
			}
			if o != nil {
				watch.add(wr, o)
			}
		})
	}
	call.stream.watch = watch
	return ctx
}

// guard runs a method of the observer. Its first panic is logged.
func (w *watcher) guard(p *Pool, f func()) {
	defer func() {
		if v := recover(); v != nil {
			w.panicOnce.Do(func() {
				bad := caught("an Observer", v, false).(*panicError)
				p.log.Error(bad.Error(), "stack", bad.stack)
			})
		}
	}()
	f()
}

// watch passes on to observers what happens to one call. A nil *watch has none. It has the memory of all that they are
// told, so that an observed call costs one allocation.
type watch struct {
	pool   *Pool
	worker *Worker // that calls a function, or nil
	all    []callWatcher
	first  [1]callWatcher // the memory of all, usually
	start  CallStart
	ended  CallEnd
}

type callWatcher struct {
	watcher *watcher
	CallObserver
}

func newWatch(p *Pool, worker *Worker) *watch {
	w := &watch{pool: p, worker: worker}
	w.all = w.first[:0]
	return w
}

func (w *watch) add(by *watcher, o CallObserver) { w.all = append(w.all, callWatcher{by, o}) }

func (w *watch) item(to Direction, size int) {
	if w == nil {
		return
	}
	for i := range w.all {
		o := &w.all[i]
		o.watcher.guard(w.pool, func() { o.Item(to, size) })
	}
}

func (w *watch) end(end CallEnd) {
	w.ended = end
	for i := range w.all {
		o := &w.all[i]
		o.watcher.guard(w.pool, func() { o.End(&w.ended) })
	}
}

// ended tells the observers how a call of a worker has ended. f is its last try, or nil. err is what the caller gets.
func (r *request) ended(f *inflight, retries int, left bool, err error) {
	if r.watch == nil {
		return
	}
	end := CallEnd{Waited: r.waited, Retries: retries, Left: left, Err: err}
	if f != nil {
		end.Worker = f.worker
		if f.stream != nil {
			end.ToHost, end.ToWorker = f.stream.volumes()
		}
	}
	r.watch.end(end)
}

// volumes returns what has come and gone.
func (s *stream) volumes() (came, went Volume) {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.came, s.went
}

// functionEnded tells the observers how an incoming call has ended.
func (s *stream) functionEnded(err error) {
	if s.watch == nil {
		return
	}
	end := CallEnd{Worker: s.watch.worker, Err: err}
	end.ToHost, end.ToWorker = s.volumes()
	s.watch.end(end)
}
