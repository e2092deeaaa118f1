package core

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logQueue stands between the pool and its logger, which is user code: it may be slow, hang, panic, end its goroutine,
// or call the pool. Only the goroutine of run calls it, without a lock. Everybody else queues entries, which the logger
// gets in the order in which they came.
type logQueue struct {
	logger    hclog.Logger
	byWorker  map[int]hclog.Logger // run's own: the logger with each worker's index
	panicOnce sync.Once            // the logger has panicked
	wake      chan struct{}        // capacity 1: there are entries, or the logs is closing
	done      chan struct{}        // closed when run has ended

	mu      sync.Mutex // guards what follows, and the counters of every source
	entries []logEntry // the oldest first
	taken   uint64     // entries that the logger is done with
	changed chan struct{}
	closing bool // no entry is added any more; run ends with the last one
}

// logEntry is one call of the logger.
type logEntry struct {
	source *logSource
	size   int
	emit   func(hclog.Logger)
}

// logSource is where entries come from: the pool itself, the output of one process, or the log frames of one
// connection. What each may have waiting is bounded, so a noisy source costs no other one its entries. What is dropped
// is counted, and the count is logged. Its methods may be called from any goroutine, under any lock.
type logSource struct {
	queue   *logQueue
	worker int    // the index that its entries carry, or noWorker
	lost   string // the message that reports dropped entries

	// guarded by logs.mu
	waiting      int
	bytes        int
	dropped      int
	droppedBytes int
	stuck        bool // the queue has been full for logPatience: drop, do not wait, until the logger goes on
}

const noWorker = -1

// What one source may have waiting for a slow logger: so many entries, and no more once they take so many bytes.
const (
	logBacklog = 1024
	logBytes   = 4 << 20
)

// logPatience is how long a full queue holds a worker's output up before some of it is dropped, and how long Close
// waits for a logger that does not return.
const logPatience = 250 * time.Millisecond

func newLogQueue(logger hclog.Logger) *logQueue {
	b := &logQueue{
		logger: logger, byWorker: map[int]hclog.Logger{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go b.run()
	return b
}

// source returns a new source for the worker of an index, or for noWorker.
func (b *logQueue) source(worker int, lost string) *logSource {
	return &logSource{queue: b, worker: worker, lost: lost}
}

// events returns a source for what the pool itself says about a worker, or for noWorker about itself.
func (b *logQueue) events(worker int) *logSource {
	return b.source(worker, "events were not logged because the logger is slow")
}

func (s *logSource) Debug(msg string, args ...any) { s.log(hclog.Debug, msg, args) }
func (s *logSource) Info(msg string, args ...any)  { s.log(hclog.Info, msg, args) }
func (s *logSource) Warn(msg string, args ...any)  { s.log(hclog.Warn, msg, args) }
func (s *logSource) Error(msg string, args ...any) { s.log(hclog.Error, msg, args) }

func (s *logSource) log(level hclog.Level, msg string, args []any) {
	s.put(len(msg), func(l hclog.Logger) { l.Log(level, msg, args...) })
}

// put queues an entry, or drops it if too much waits already.
func (s *logSource) put(size int, emit func(hclog.Logger)) {
	b := s.queue
	b.mu.Lock()
	defer b.mu.Unlock()
	s.add(size, emit)
}

// putPatiently queues an entry. It waits a moment for the logger if too much waits already; after that it drops,
// without waiting again until the logger goes on. It must not be called under a lock.
func (s *logSource) putPatiently(size int, emit func(hclog.Logger)) {
	b := s.queue
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.full() && !s.stuck {
		s.stuck = !b.await(logPatience, func() bool { return !s.full() })
	}
	s.add(size, emit)
}

func (s *logSource) full() bool { return s.waiting >= logBacklog || s.bytes >= logBytes }

// add queues an entry if there is room. logs.mu is held.
func (s *logSource) add(size int, emit func(hclog.Logger)) {
	switch {
	case s.queue.closing:
	case !s.full():
		s.push(size, emit)
	default:
		s.dropped++
		s.droppedBytes += size
		if s.dropped == 1 {
			s.push(0, s.report)
		}
	}
}

func (s *logSource) push(size int, emit func(hclog.Logger)) {
	s.waiting++
	s.bytes += size
	s.queue.entries = append(s.queue.entries, logEntry{s, size, emit})
	signal(s.queue.wake)
}

// report logs how much was dropped.
func (s *logSource) report(l hclog.Logger) {
	s.queue.mu.Lock()
	n, bytes := s.dropped, s.droppedBytes
	s.dropped, s.droppedBytes = 0, 0
	s.queue.mu.Unlock()
	l.Warn(s.lost, "count", n, "bytes", bytes)
}

// await waits at most for d until ok holds, and reports whether it does. mu is held, but not while it waits.
func (b *logQueue) await(d time.Duration, ok func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !ok() {
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		late := false
		select {
		case <-changed:
		case <-timer.C:
			late = true
		}
		b.mu.Lock()
		if late {
			return ok()
		}
	}
	return true
}

// run hands the entries to the logger, until the logs is closed and none is left.
func (b *logQueue) run() {
	ended := false
	defer func() {
		if ended {
			close(b.done)
		} else {
			go b.run() // the logger has ended this goroutine
		}
	}()
	for {
		b.mu.Lock()
		if len(b.entries) > 0 {
			e := b.entries[0]
			b.entries[0] = logEntry{}
			b.entries = b.entries[1:]
			b.mu.Unlock()
			b.emit(e)
			continue
		}
		b.entries = nil
		ended = b.closing
		b.mu.Unlock()
		if ended {
			return
		}
		<-b.wake
	}
}

// emit makes one call of the logger.
func (b *logQueue) emit(e logEntry) {
	defer func() {
		if p := recover(); p != nil {
			b.panicOnce.Do(func() { fmt.Fprintf(os.Stderr, "snakepit: the logger panicked: %s\n", panicText(p)) })
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.taken++
		e.source.waiting--
		e.source.bytes -= e.size
		e.source.stuck = false
		if b.changed != nil {
			close(b.changed)
			b.changed = nil
		}
	}()
	logger := b.logger
	if i := e.source.worker; i != noWorker {
		if logger = b.byWorker[i]; logger == nil {
			logger = b.logger.With("worker", i)
			b.byWorker[i] = logger
		}
	}
	e.emit(logger)
}

// close lets the logger take what waits, and ends run. It gives up on a logger that takes nothing for logPatience, and
// in any case after limit. The error then says how much was lost.
func (b *logQueue) close(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	b.mu.Lock()
	b.closing = true
	signal(b.wake)
	for {
		before := b.taken
		wait := min(logPatience, max(0, time.Until(deadline)))
		b.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-b.done:
			timer.Stop()
			return nil
		case <-timer.C:
		}
		select {
		case <-b.done: // at the same moment
			return nil
		default:
		}
		b.mu.Lock()
		if b.taken == before || !time.Now().Before(deadline) {
			break
		}
	}
	defer b.mu.Unlock()
	lost := len(b.entries)
	b.entries = nil
	return fmt.Errorf("the logger in Options.Logger hangs or is too slow; %d log records are lost", lost)
}

// defaultLogger is where a pool logs that was given no logger: standard error, at the level in SNAKEPIT_LOG.
func defaultLogger(name string) (hclog.Logger, error) {
	level := hclog.Info
	if text := os.Getenv("SNAKEPIT_LOG"); text != "" {
		if level = hclog.LevelFromString(text); level == hclog.NoLevel {
			return nil, fmt.Errorf("the environment's SNAKEPIT_LOG is %q: use trace, debug, info, warn, error or off", text)
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
