package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// crashLoop is how many starts in a row, over all places, have to fail before callers get ErrCrashLoop instead of
// waiting. Every place must have failed, and no worker may serve.
const crashLoop = 5

// maxBackoff bounds the wait between two starts of a place, before a random part is added. It is also the time between
// two probes.
const maxBackoff = 30 * time.Second

// minUptime is a worker's minimum uptime. A worker that ends earlier counts as a failed start, unless it has answered a
// call.
const minUptime = 10 * time.Second

// startFailures counts the starts of one place that failed in a row. A worker that ends before its minimum uptime, and
// has answered no call, counts as a failed start. An answered call or the minimum uptime resets the count. Each place
// has its own count and its own wait before the next start: the failures of one place say nothing about another.
type startFailures struct {
	count int
	last  error // the error of the last failed start
}

// backoff returns the wait before the next start. It doubles with each failure.
func (f *startFailures) backoff() time.Duration {
	if f.count == 0 {
		return 0
	}
	wait := min(100*time.Millisecond<<min(f.count-1, 20), maxBackoff)
	return wait + rand.N(wait/4+1) // so that workers that died together do not keep starting together
}

// addFailure counts a failed start. Callers hold mu.
func (p *Pool) addFailure(pl *place, err error) {
	pl.failures.count++
	pl.failures.last, p.lastErr = err, err
}

// earlyEnd counts the early end of a worker that was ready as a failed start. Callers hold mu.
func (p *Pool) earlyEnd(w *Worker, err error) {
	p.addFailure(w.place, err)
	p.failReload(w, err)
}

// resetFailures forgets the failures of a place: its worker has answered a call, or lived long enough. If the pool had
// stopped trying, all other places try again, too. Callers hold mu.
func (p *Pool) resetFailures(pl *place) {
	if pl.failures.count == 0 || pl.worker != nil && pl.worker.due != "" { // a replacement may be what fails
		return
	}
	pl.failures = startFailures{}
	if pl.stopped {
		p.tryAgain(pl)
	}
}

// restart plans the next start in a place whose worker was lost, or could not be started. It starts at once if the
// place has no failures, else after a wait that doubles with each failure. err is why the start failed, or nil. If
// starts keep failing and no worker serves, restart also fails the callers that wait. Callers hold mu.
func (p *Pool) restart(pl *place, err error) {
	if p.closing || pl.removed {
		return
	}
	defer func() {
		if err := p.crashLoopError(); err != nil { // callers must not wait for a worker that may never be ready
			p.waiting.failAll(p, err)
		}
	}()
	p.unask(pl) // it may have asked for a replacement
	pl.stopRetry()
	failures := pl.failures.count
	if failures == 0 {
		p.emit(RestartPlanned{Time: time.Now(), Index: pl.index})
		p.ask(pl)
		return
	}
	if p.opts.StartBudget > 0 && failures >= p.opts.StartBudget {
		p.stopTrying(pl)
		return
	}
	wait := pl.failures.backoff()
	p.emit(RestartPlanned{
		Time: time.Now(), Index: pl.index, In: wait, Failures: failures, Err: pl.failures.last,
	})
	if err != nil {
		p.logFailedStart(pl.index, "worker could not be started", err, "failures", failures, "retry_in", wait)
	}
	p.askAfter(pl, wait)
}

// logFailedStart logs why a worker could not be started. A pool that serves and only has no room for one more is sound.
// It says so once, until a worker is ready. Callers hold mu.
func (p *Pool) logFailedStart(index int, what string, err error, args ...any) {
	level := hclog.Error
	if isNoRoom(err) && p.serves() {
		what += ": there is no room for it"
		level = hclog.Warn
		if p.saidNoRoom {
			level = hclog.Debug
		}
		p.saidNoRoom = true
	}
	p.logs.events(index).log(level, what, append([]any{"error", err}, args...))
}

// serves reports whether a worker is ready, or still has calls. Callers hold mu.
func (p *Pool) serves() bool {
	return slices.ContainsFunc(p.workers, func(w *Worker) bool {
		return w.state == StateReady || w.state == StateDraining
	})
}

// askAfter asks for a start after a wait. Callers hold mu.
func (p *Pool) askAfter(pl *place, wait time.Duration) {
	pl.stopRetry()
	pl.retry = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ask(pl)
	})
}

func (pl *place) stopRetry() {
	if pl.retry != nil {
		pl.retry.Stop()
	}
}

// stopTrying ends the regular starts of a place whose budget of failed starts is spent. From now on the pool only
// probes. Callers hold mu.
func (p *Pool) stopTrying(pl *place) {
	if !pl.stopped {
		pl.stopped = true
		p.logFailedStart(pl.index, "the pool has stopped starting this worker", pl.failures.last,
			"failures", pl.failures.count, "probe_every", maxBackoff)
		p.emit(StartsStopped{
			Time: time.Now(), Index: pl.index, Failures: pl.failures.count, Err: pl.failures.last,
		})
	}
	p.stopped = append(p.stopped, pl)
	if p.probe == nil {
		p.probe = time.AfterFunc(maxBackoff, p.probeNext)
	} else if len(p.stopped) == 1 {
		p.probe.Reset(maxBackoff)
	}
}

// probeNext starts a worker in one of the places where the pool has stopped trying: in turn, one for the whole pool.
func (p *Pool) probeNext() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(p.stopped) == 0 {
		return
	}
	pl := p.stopped[0]
	p.stopped = p.stopped[1:]
	if len(p.stopped) > 0 {
		p.probe.Reset(maxBackoff)
	}
	p.ask(pl)
}

// tryAgain resumes regular starts: a probe in pl was successful. Callers hold mu.
func (p *Pool) tryAgain(pl *place) {
	pl.stopped = false
	p.emit(StartsResumed{Time: time.Now(), Index: pl.index})
	waiting := p.stopped
	p.stopped = nil
	for _, other := range waiting {
		other.failures.count = 0 // a new budget; last stays for Stats until a start succeeds
		other.stopped = false
		p.emit(StartsResumed{Time: time.Now(), Index: other.index})
		p.ask(other)
	}
}

// crashLoopError returns ErrCrashLoop with its details if no worker serves and starts keep failing, else nil. Callers
// hold mu.
func (p *Pool) crashLoopError() error {
	times, stopped := 0, false
	for _, pl := range p.places {
		if pl.failures.count == 0 && !pl.empty() {
			return nil
		}
		times += pl.failures.count
		stopped = stopped || pl.stopped
	}
	if times < crashLoop && !stopped {
		return nil
	}
	if times == 0 || p.serves() {
		return nil
	}
	return fmt.Errorf("%w: %d starts failed, and no worker serves; the last one: %w", ErrCrashLoop, times, p.lastErr)
}
