package core

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logQueue is the queue between the pool and its logger. The logger is user code: it may be slow, hang, panic, end
// its goroutine, or call the pool. Only run's goroutine calls it, and without a lock. All other goroutines add
// entries to the queue. The logger gets them in order. Options.OnEvent has a queue of the same kind.
type logQueue struct {
	logger    hclog.Logger
	target    string // what the entries call, and what they are, for the error of close
	entry     string
	panicked  func(text string)    // reports the first panic
	byWorker  map[int]hclog.Logger // only run uses it: the logger for each worker's index
	panicOnce sync.Once
	wake      chan struct{} // capacity 1: entries were added, or the queue is closing
	done      chan struct{} // closed when run has ended

	mu      sync.Mutex // guards the fields below, and the counters of every source
	taps    []*tap
	entries []logEntry // the oldest first
	taken   uint64     // the number of entries that the logger has finished
	changed chan struct{}
	closing bool // no more entries are added; run ends after the last one
}

// logEntry is one call to the logger.
type logEntry struct {
	source *logSource
	size   int
	emit   func(hclog.Logger)
}

// logSource is a source of entries: the pool itself, the output of one process, or the log frames of one connection.
// Each source may queue only so much, so a noisy source does not cost another one its entries. Dropped entries are
// counted, and the count is logged. Any goroutine may call its methods, even under a lock; only putBlocking needs a
// goroutine without locks.
type logSource struct {
	queue  *logQueue
	worker int                                    // the index in its entries, or noWorker
	report func(l hclog.Logger, count, bytes int) // reports dropped entries

	// guarded by queue.mu
	waiting      int
	bytes        int
	dropped      int
	droppedBytes int
	timedOut     bool // full for logWait: putBlocking drops without a wait, until the logger finishes an entry
}

const noWorker = -1

// The limits of one source. It is full once either is reached.
const (
	logBacklog = 1024    // queued entries
	logBytes   = 4 << 20 // bytes of queued entries
)

// logWait is how long a full source blocks a worker's output before some of it is dropped, and how long Close waits
// for a logger that does not return.
const logWait = 250 * time.Millisecond

func newLogQueue(logger hclog.Logger) *logQueue {
	q := &logQueue{
		logger: logger, target: "the logger in Options.Logger", entry: "log records",
		panicked: func(text string) { fmt.Fprintf(os.Stderr, "snakepit: the logger panicked: %s\n", text) },
	}
	q.start()
	return q
}

func (q *logQueue) start() {
	q.byWorker, q.wake, q.done = map[int]hclog.Logger{}, make(chan struct{}, 1), make(chan struct{})
	go q.run()
}

// source returns a new source. worker is a worker's index, or noWorker. lost is the message that reports dropped
// entries.
func (q *logQueue) source(worker int, lost string) *logSource {
	return &logSource{queue: q, worker: worker, report: func(l hclog.Logger, count, bytes int) {
		l.Warn(lost, "count", count, "bytes", bytes)
	}}
}

// events returns a source for the pool's own messages about a worker, or with noWorker about itself.
func (q *logQueue) events(worker int) *logSource {
	return q.source(worker, "events were not logged because the logger is slow")
}

func (s *logSource) Debug(msg string, args ...any) { s.log(hclog.Debug, msg, args) }
func (s *logSource) Info(msg string, args ...any)  { s.log(hclog.Info, msg, args) }
func (s *logSource) Warn(msg string, args ...any)  { s.log(hclog.Warn, msg, args) }
func (s *logSource) Error(msg string, args ...any) { s.log(hclog.Error, msg, args) }

func (s *logSource) log(level hclog.Level, msg string, args []any) {
	s.put(len(msg), func(l hclog.Logger) { l.Log(level, msg, args...) })
}

// put queues an entry, or drops it if the source is full.
func (s *logSource) put(size int, emit func(hclog.Logger)) {
	q := s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	s.add(size, emit)
}

// putBlocking queues an entry. If the source is full, it waits for the logger, at most for logWait. After that it
// drops entries without a wait, until the logger finishes one. Callers hold no lock.
func (s *logSource) putBlocking(size int, emit func(hclog.Logger)) {
	q := s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.full() && !s.timedOut {
		s.timedOut = !q.await(logWait, func() bool { return !s.full() })
	}
	s.add(size, emit)
}

func (s *logSource) full() bool { return s.waiting >= logBacklog || s.bytes >= logBytes }

// add queues an entry, or counts it as dropped if the source is full. Callers hold queue.mu.
func (s *logSource) add(size int, emit func(hclog.Logger)) {
	switch {
	case s.queue.closing:
	case !s.full():
		s.push(size, emit)
	default:
		s.dropped++
		s.droppedBytes += size
		if s.dropped == 1 {
			s.push(0, s.reportDropped)
		}
	}
}

func (s *logSource) push(size int, emit func(hclog.Logger)) {
	s.waiting++
	s.bytes += size
	s.queue.entries = append(s.queue.entries, logEntry{s, size, emit})
	signal(s.queue.wake)
}

// reportDropped says how many entries and bytes were dropped.
func (s *logSource) reportDropped(l hclog.Logger) {
	s.queue.mu.Lock()
	n, bytes := s.dropped, s.droppedBytes
	s.dropped, s.droppedBytes = 0, 0
	s.queue.mu.Unlock()
	s.report(l, n, bytes)
}

// await waits until ok returns true, at most for d, and returns ok's result. Callers hold mu; await unlocks it while it
// waits.
func (q *logQueue) await(d time.Duration, ok func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !ok() {
		if q.changed == nil {
			q.changed = make(chan struct{})
		}
		changed := q.changed
		q.mu.Unlock()
		late := false
		select {
		case <-changed:
		case <-timer.C:
			late = true
		}
		q.mu.Lock()
		if late {
			return ok()
		}
	}
	return true
}

// run passes the entries to the logger, until the queue is closing and none is left.
func (q *logQueue) run() {
	ended := false
	defer func() {
		if ended {
			close(q.done)
		} else {
			go q.run() // the logger has ended this goroutine
		}
	}()
	for {
		q.mu.Lock()
		if len(q.entries) > 0 {
			e := q.entries[0]
			q.entries[0] = logEntry{}
			q.entries = q.entries[1:]
			taps := q.taps
			q.mu.Unlock()
			q.emit(e, taps)
			continue
		}
		q.entries = nil
		ended = q.closing
		q.mu.Unlock()
		if ended {
			return
		}
		<-q.wake
	}
}

// emit calls the logger and the taps for one entry.
func (q *logQueue) emit(e logEntry, taps []*tap) {
	defer func() {
		if p := recover(); p != nil {
			q.panicOnce.Do(func() { q.panicked(panicText(p)) })
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.taken++
		e.source.waiting--
		e.source.bytes -= e.size
		e.source.timedOut = false
		if q.changed != nil {
			close(q.changed)
			q.changed = nil
		}
	}()
	logger := q.logger
	var args []any
	if i := e.source.worker; i != noWorker {
		args = []any{"worker", i}
		if logger = q.byWorker[i]; logger == nil {
			logger = q.logger.With("worker", i)
			q.byWorker[i] = logger
		}
	}
	if len(taps) > 0 {
		logger = &tee{Logger: logger, sinks: taps, args: args}
	}
	e.emit(logger)
}

// close waits for the logger to finish the queued entries, and ends run. It gives up if the logger finishes none within
// logWait, and in any case after limit. The error then says how many entries were lost.
func (q *logQueue) close(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	q.mu.Lock()
	q.closing = true
	signal(q.wake)
	for {
		before := q.taken
		wait := min(logWait, max(0, time.Until(deadline)))
		q.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-q.done:
			timer.Stop()
			return nil
		case <-timer.C:
		}
		select {
		case <-q.done: // it ended at the same moment
			return nil
		default:
		}
		q.mu.Lock()
		if q.taken == before || !time.Now().Before(deadline) {
			break
		}
	}
	defer q.mu.Unlock()
	lost := len(q.entries)
	q.entries = nil
	return fmt.Errorf("%s hangs or is too slow; %d %s are lost", q.target, lost, q.entry)
}

// abandon ends run without a wait, and drops the entries.
func (q *logQueue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	q.entries = nil
	signal(q.wake)
}

// tap has a sink get all later entries, until the result is called.
func (q *logQueue) tap(s hclog.SinkAdapter) (untap func()) {
	one := &tap{s} // its address is compared, because a sink of any type need not be comparable
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taps = append(slices.Clip(q.taps), one)
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.taps = slices.DeleteFunc(slices.Clone(q.taps), func(other *tap) bool { return other == one })
	}
}

// tap is a sink that gets the entries, too.
type tap struct{ hclog.SinkAdapter }

// defaultLogger returns the logger of a pool without Options.Logger: standard error, at the level in SNAKEPIT_LOG, else
// info.
func defaultLogger(name string) (hclog.Logger, error) {
	level := hclog.Info
	if text := os.Getenv("SNAKEPIT_LOG"); text != "" {
		if level = hclog.LevelFromString(text); level == hclog.NoLevel {
			return nil, fmt.Errorf(
				"the environment's SNAKEPIT_LOG is %q: use trace, debug, info, warn, error or off", text)
		}
	}
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: level, Output: os.Stderr}), nil
}

func poolLogger(o *Options) (hclog.Logger, error) {
	if o.Logger != nil {
		return o.Logger.Named(o.Name), nil
	}
	return defaultLogger(o.Name)
}
