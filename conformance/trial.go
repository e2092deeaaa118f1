package conformance

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// clause is a rule and its check.
type clause struct {
	Clause
	check func(t *trial)
	alone bool // it counts resources of the whole process: no other clause is checked meanwhile
}

// rule makes a clause for a table.
func rule(name, sentence string, check func(t *trial)) clause {
	return clause{Clause: Clause{Name: name, Sentence: sentence}, check: check}
}

// ruleAlone makes a clause for a table. It is checked while no other clause is.
func ruleAlone(name, sentence string, check func(t *trial)) clause {
	c := rule(name, sentence, check)
	c.alone = true
	return c
}

// tb has the methods that a clause needs. *testing.T has them too. Fatalf and Skipf end the goroutine that calls
// them: only the clause's own goroutine may call them. Any goroutine may call Errorf.
type tb interface {
	Context() context.Context // ends when the clause's time is up
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// trial is one clause being checked.
type trial struct {
	tb
	h      *Harness
	name   string   // the clause's
	failed failures // of clauses before it
}

// failures has the clauses that have failed. It maps a clause's name to part/theme/rule.
type failures map[string]string

// add notes a failure, also a known one.
func (f failures) add(r Result) {
	if r.broken {
		f[r.Name] = string(r.Part) + "/" + r.Name
	}
}

// restsOn skips the clause if a clause of these names has failed: it would only report the same fault again.
func (t *trial) restsOn(names ...string) {
	for _, name := range names {
		if full, failed := t.failed[name]; failed && name != t.name {
			t.Skipf("%s%s", restsOn, full)
		}
	}
}

// needsLocal skips the clause unless the worker is a process of this machine.
func (t *trial) needsLocal(w *core.RawWorker) {
	if w.Process == nil {
		t.Skipf("the worker is not a process that core owns")
	}
	if here, err := os.Hostname(); w.Process.Host() != "" && (err != nil || w.Process.Host() != here) {
		t.Skipf("the worker runs on another machine, %s", w.Process.Host())
	}
}

const restsOn = "it rests on a clause that failed: "

// atOnce is the time limit for what has to happen at once. It allows for a busy machine.
const atOnce = 10 * time.Second

// pause is how long a clause waits for what must not happen. If it happens, the fault is proved. If not, nothing is.
const pause = 150 * time.Millisecond

// recorder is the tb of a run.
type recorder struct {
	ctx context.Context

	mu       sync.Mutex // guards what follows
	reasons  []string
	failed   bool
	skipped  bool
	cleanups []func()
	cleaned  bool
}

func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) say(failed, skipped bool, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.reasons) < 10 {
		r.reasons = append(r.reasons, shorten(fmt.Sprintf(format, args...)))
	}
	r.failed, r.skipped = r.failed || failed, r.skipped || skipped
}

// shorten cuts out the middle of a long text, such as a large value.
func shorten(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(fmt.Sprintf("%s ...(%d bytes)... %s", s[:most/2], len(s)-most, s[len(s)-most/2:]), "")
}

func (r *recorder) Errorf(format string, args ...any) { r.say(true, false, format, args...) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.say(true, false, format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.say(false, true, format, args...)
	runtime.Goexit()
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	late := r.cleaned
	if !late {
		r.cleanups = append(r.cleanups, f)
	}
	r.mu.Unlock()
	if late { // the clause was left running
		r.protect(f)
	}
}

// cleanUp calls the cleanups, the latest first. A panic does not stop it.
func (r *recorder) cleanUp() {
	r.mu.Lock()
	todo := r.cleanups
	r.cleanups, r.cleaned = nil, true
	r.mu.Unlock()
	for _, f := range slices.Backward(todo) {
		r.protect(f)
	}
}

// protect calls f and reports a panic as a failure.
func (r *recorder) protect(f func()) {
	defer caught(r)
	f()
}

// caught, which is deferred, reports a panic as a failure.
func caught(t tb) {
	if p := recover(); p != nil {
		t.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// closing is the time limit for closing what a clause has opened.
const closing = 20 * time.Second

// within reports whether done is closed within the limit.
func within(limit time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// stacks returns the stack of every goroutine.
func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// run checks the clause once. If the check does not end, run leaves it running and returns: the other clauses are
// checked all the same. run only reads failed.
func (c clause) run(ctx context.Context, h *Harness, failed failures) Result {
	limit := h.TimeLimit
	if limit == 0 {
		limit = 30 * time.Second
	}
	late := fmt.Errorf("the clause has not ended within %s", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	rec := &recorder{ctx: ctx}
	before := maps.Clone(failed) // the clause's own copy: it may be left running
	begin := time.Now()
	checked, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(checked)
		rec.protect(func() { c.check(&trial{rec, h, c.Name, before}) })
	}()
	var dump string
	select {
	case <-checked:
		// What a clause waits for may end with its time, at the same moment. That is too late.
		if time.Since(begin) >= limit {
			rec.Errorf("%v", late)
		}
	case <-ctx.Done():
		// A wait for ctx ends now and says what it waited for. The dump shows any other wait.
		dump = stacks()
		if !within(closing, checked) {
			rec.Errorf("the clause does not end when its context ends")
		}
		rec.Errorf("%v", context.Cause(ctx))
	}
	go func() {
		defer close(closed)
		rec.cleanUp() // it may also end a check that goes on
	}()
	unclosed := !within(closing, closed)
	if unclosed {
		rec.Errorf("the clause has not closed its workers and pools within %s: does Close return?", closing)
		dump = stacks()
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	r := Result{
		Clause: c.Clause, Outcome: Passed, Reasons: slices.Clone(rec.reasons), Dump: dump, Took: time.Since(begin),
	}
	r.unclosed = unclosed && len(r.Reasons) == 1
	why, known := h.Known[c.Name]
	r.broken = rec.failed
	switch {
	case rec.failed && known:
		r.Outcome = Known
	case rec.failed:
		r.Outcome = Failed
	case rec.skipped:
		r.Outcome = Skipped
		_, r.RestsOn, _ = strings.Cut(r.Reasons[len(r.Reasons)-1], restsOn)
	case known:
		r.Outcome, r.Reasons = Failed, []string{
			fmt.Sprintf("it is listed as a known failure (%s), but it passes: take it off the list", why),
		}
	}
	return r
}
