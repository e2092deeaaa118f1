package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Condition says what a worker is doing.
type Condition string

// The conditions of a worker. Only on Linux, and only for a process that the pool has started, does the system show
// whether a worker computes or waits. Elsewhere there are ConditionIdle, ConditionAnswering, ConditionSilent and
// ConditionGone. A worker with one slot computes or waits as its main thread does, which runs the call in Python.
// Otherwise all of its threads count together.
const (
	ConditionIdle           Condition = "idle"            // it answers and runs no call
	ConditionComputing      Condition = "computing"       // it answers, and its calls compute
	ConditionLocked         Condition = "locked"          // it answers, and its only call waits for a lock or a thread
	ConditionWaiting        Condition = "waiting"         // it answers, and its calls wait
	ConditionAnswering      Condition = "answering"       // it answers and runs calls; more is not known
	ConditionStuckComputing Condition = "stuck computing" // it does not answer, but computes
	ConditionStuckWaiting   Condition = "stuck waiting"   // it does not answer, and waits
	ConditionStopped        Condition = "stopped"         // a signal or a debugger has stopped it
	ConditionSilent         Condition = "silent"          // it does not answer; more is not known
	ConditionGone           Condition = "gone"            // its process or its connection has ended
)

var explanations = map[Condition]string{
	ConditionIdle:           "it answers and runs no call",
	ConditionComputing:      "it answers, and its calls compute",
	ConditionLocked:         "it answers, and its call waits for a lock, a queue or another thread",
	ConditionWaiting:        "it answers, and its calls wait",
	ConditionAnswering:      "it answers and runs calls",
	ConditionStuckComputing: "it does not answer, but computes; probably C code holds the interpreter's lock",
	ConditionStuckWaiting:   "it does not answer, and waits; probably C code that waits holds the interpreter's lock",
	ConditionStopped:        "a signal or a debugger has stopped it; kill -CONT lets it go on",
	ConditionSilent:         "it does not answer",
	ConditionGone:           "its process or its connection has ended",
}

// Explain returns a sentence without its full stop, such as "it answers and runs no call".
func (c Condition) Explain() string { return explanations[c] }

// Diagnosis says what a worker is doing, and why it was taken for that.
type Diagnosis struct {
	Condition Condition
	Answered  bool          // it answered a ping within a second
	RoundTrip time.Duration // how long that took; 0 if it did not answer
	// Running are the calls that it runs, the oldest first, at most 64, and More counts the rest. If it did not answer,
	// they are those that the pool has sent and that have not ended, by the pool's clock.
	Running []RunningCall
	More    int
	// Threads are the threads of its process, the main thread first, if the system shows them.
	Threads []ThreadState
}

// ThreadState is one thread of a worker's process, as the system shows it.
type ThreadState struct {
	ID    int     // the system's id of the thread; that of the main thread is the process id
	Name  string  // the system's name, at most 15 bytes
	State string  // a letter, such as "R" for running, "S" for sleeping and "D" for waiting for a device
	Busy  float64 // from 0 to 1: how often it ran or waited for a processor when it was looked at
	Wait  string  // where it waits in the kernel, such as "futex_do_wait", or its system call; "" if unknown
}

// String returns the condition's explanation, the oldest call, and where a waiting main thread waits.
func (d Diagnosis) String() string {
	var b strings.Builder
	b.WriteString(d.Condition.Explain())
	if len(d.Running) > 0 {
		fmt.Fprintf(&b, "; %s has been running for %s", d.Running[0].Name, d.Running[0].For())
		if more := len(d.Running) - 1 + d.More; more > 0 {
			fmt.Fprintf(&b, ", and %d more", more)
		}
	}
	if len(d.Threads) > 0 && d.Threads[0].Wait != "" {
		fmt.Fprintf(&b, "; the main thread waits in %s", d.Threads[0].Wait)
	}
	return b.String()
}

const (
	answerPatience = time.Second           // how long a worker has to answer
	lookInterval   = 10 * time.Millisecond // between two looks at the threads
	fewestLooks    = 20                    // before a judgement on what they do
	busyShare      = 0.5                   // computing means that so much of the time some thread runs
)

// Diagnose pings the worker and looks at its process for a moment. It tells a worker that is busy from one that is
// stuck. It takes a fifth of a second if the worker runs calls, and a second if it does not answer. It changes nothing
// in the worker. Stack then shows the place in the program.
//
// The error is ctx's if ctx is done first, or ErrWorkerLost if the worker has not said hello. Any goroutine may call
// Diagnose.
func (w *Worker) Diagnose(ctx context.Context) (Diagnosis, error) {
	m, id := w.nextPing()
	if m == nil {
		return Diagnosis{}, fmt.Errorf("%w: %s has not said hello", ErrWorkerLost, w)
	}
	pinging, cancel := context.WithTimeout(ctx, answerPatience)
	begin := time.Now()
	var d Diagnosis
	var pingErr error
	pinged := make(chan struct{})
	go func() {
		defer close(pinged)
		var body []byte
		if body, pingErr = m.ping(pinging, id, ""); pingErr != nil {
			return
		}
		d.Answered, d.RoundTrip = true, time.Since(begin)
		var pong Pong
		pingErr = m.decode(body, &pong)
		d.Running, d.More = pong.Running, pong.More
	}()
	// conclude stops the ping and completes the diagnosis.
	conclude := func(c Condition, l *looker) (Diagnosis, error) {
		cancel()
		<-pinged
		d.Condition, d.Threads = c, l.states()
		if !d.Answered {
			m.mu.Lock()
			sent := m.oldest(func(s *stream) bool { return s.opener && s.isSent() })
			m.mu.Unlock()
			d.Running, d.More = sent.Running, sent.More
		}
		return d, nil
	}
	l := w.looker()
	answered := pinged // nil once the ping has ended
	for {
		switch l.look() {
		case processStopped:
			return conclude(ConditionStopped, l)
		case processGone:
			return conclude(ConditionGone, l)
		}
		if answered == nil {
			idle := d.Answered && len(d.Running)+d.More == 0
			if idle || l.seen() {
				return conclude(w.condition(d.Answered, idle, l), l)
			}
		}
		select {
		case <-answered:
			answered = nil
			switch {
			case ctx.Err() != nil: // it has ended the ping
				cancel()
				return Diagnosis{}, endOfContext(ctx)
			case errors.Is(pingErr, ErrWorkerLost):
				return conclude(ConditionGone, l)
			case pingErr != nil && !errors.Is(pingErr, context.DeadlineExceeded):
				cancel()
				return Diagnosis{}, fmt.Errorf("the pong of %s: %w", w, pingErr)
			}
		case <-time.After(lookInterval):
		case <-ctx.Done():
			cancel()
			<-pinged
			return Diagnosis{}, endOfContext(ctx)
		}
	}
}

// condition judges what was seen.
func (w *Worker) condition(answered, idle bool, l *looker) Condition {
	onMain := w.slots == 1 && strings.HasPrefix(w.hello.Library, "snakepit_bridge ")
	switch {
	case idle:
		return ConditionIdle
	case l == nil && answered:
		return ConditionAnswering
	case l == nil:
		return ConditionSilent
	case !answered && l.busy(false) >= busyShare:
		return ConditionStuckComputing
	case !answered:
		return ConditionStuckWaiting
	case l.busy(onMain) >= busyShare:
		return ConditionComputing
	case onMain && l.mainLocked():
		return ConditionLocked
	}
	return ConditionWaiting
}

// processState is what a look at a process shows first.
type processState uint8

const (
	processLives processState = iota
	processStopped
	processGone
)
