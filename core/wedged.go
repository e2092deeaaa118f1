package core

import (
	"context"
	"fmt"
	"time"
)

// WedgedPolicy says what the pool does about a worker that answers no pings.
type WedgedPolicy uint8

// The policies. A worker does not answer while C code holds the interpreter's lock, or while a signal or a debugger has
// stopped it. That may be work: only the program knows how long its C code may hold the lock.
const (
	WedgedLog     WedgedPolicy = iota // the log and Options.OnEvent get a diagnosis
	WedgedReplace                     // and the stacks; the worker is replaced, and its calls get ErrWorkerLost
	WedgedIgnore                      // the pool sends no pings
)

// maxLoggedStack bounds the stacks in one log record, in bytes.
const maxLoggedStack = 8 << 10

// stackWait is how long the stacks of a worker may take that is about to be ended.
const stackWait = 3 * time.Second

// heartbeat pings the worker regularly, from its hello to its end. It reports when the worker has not answered for
// Options.WedgedAfter, and when it answers again.
func (w *Worker) heartbeat() {
	p := w.pool
	defer p.goroutines.Done()
	after := p.opts.WedgedAfter
	pause := time.NewTimer(after / 4)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-w.mux.done:
			return
		}
		begin := time.Now()
		_, id := w.nextPing()
		answered := make(chan struct{})
		var err error // set before answered is closed: the connection has ended
		go func() { defer close(answered); _, err = w.mux.ping(context.Background(), id, "") }()
		late, told := time.NewTimer(after), false
		select {
		case <-answered:
			late.Stop()
		case <-late.C:
			told = w.wedged(begin, id)
			<-answered
		}
		if err != nil {
			return
		}
		if told {
			w.log.Warn("worker answers again", "after", time.Since(begin).Round(time.Millisecond))
			p.emit(WorkerAnswers{Time: time.Now(), Worker: w, After: time.Since(begin)})
		}
		pause.Reset(after / 4)
	}
}

// wedged reports that the worker has not answered the ping with this id since begin. If the policy says so, it has the
// worker ended. It returns false if there was nothing to report: the worker has answered after all, or it has ended.
func (w *Worker) wedged(begin time.Time, id uint64) bool {
	p := w.pool
	ctx, cancel := context.WithTimeout(p.ctx, stackWait)
	defer cancel()
	d, err := w.Diagnose(ctx)
	if err != nil || d.Answered { // the worker has ended, or the pool closes, or this program itself stood still
		return false
	}
	e := WorkerWedged{Worker: w, Diagnosis: d}
	doom := p.opts.Wedged == WedgedReplace
	if doom { // not for the log alone: the signal for the stacks is not without risk
		e.Stacks = w.stackForLog(ctx)
	}
	if !w.mux.awaits(id) || p.ctx.Err() != nil { // in the meantime
		return false
	}
	e.Time = time.Now()
	e.For = e.Time.Sub(begin).Round(time.Millisecond)
	w.log.Error("worker does not answer", "for", e.For, "diagnosis", d.String())
	p.emit(e)
	if !doom {
		return true
	}
	p.mu.Lock()
	w.doomed = fmt.Sprintf("it has not answered for %s", e.For)
	w.stacks = e.Stacks
	p.mu.Unlock()
	signal(w.wake)
	return true
}

// stackForLog returns the worker's stacks, or why there are none.
func (w *Worker) stackForLog(ctx context.Context) string {
	s, err := w.Stack(ctx)
	if err != nil {
		return fmt.Sprintf("none: %v", err)
	}
	return truncate(s.Text, maxLoggedStack)
}
