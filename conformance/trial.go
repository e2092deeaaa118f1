package conformance

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// clause is a rule and what checks it.
type clause struct {
	Clause
	check func(t *trial)
}

// rule makes a clause of the table that it stands in.
func rule(name, sentence string, check func(t *trial)) clause {
	return clause{Clause{Name: name, Sentence: sentence}, check}
}

// tb is what a clause needs of whoever runs it. *testing.T has it too. Fatalf and Skipf end the goroutine that calls them, which is the
// clause's own; Errorf may be called from any.
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
	failed failures // before it
}

// failures are the clauses that have failed, by name, each as part/theme/rule.
type failures map[string]string

// restsOn skips the clause if one of those has failed: it would only report the same fault again.
func (t *trial) restsOn(names ...string) {
	for _, name := range names {
		if full, failed := t.failed[name]; failed && name != t.name {
			t.Skipf("%s%s", restsOn, full)
		}
	}
}

const restsOn = "it rests on a clause that failed: "

// atOnce is how long what has to happen at once may take on a machine that has other things to do.
const atOnce = 10 * time.Second

// pause is how long to look whether something happens that must not. That it did not is no proof; that it did is one.
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

// shorten cuts out the middle of what nobody reads, such as a large value.
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
	if late { // the clause was left behind
		r.protect(f)
	}
}

// cleanUp does what was put off, the latest first, whatever becomes of it.
func (r *recorder) cleanUp() {
	r.mu.Lock()
	todo := r.cleanups
	r.cleanups, r.cleaned = nil, true
	r.mu.Unlock()
	for _, f := range slices.Backward(todo) {
		r.protect(f)
	}
}

// protect calls f and takes a panic for a failure.
func (r *recorder) protect(f func()) {
	defer caught(r)
	f()
}

// caught, which is deferred, takes a panic for a failure.
func caught(t tb) {
	if p := recover(); p != nil {
		t.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// closing is how long it may take to close what a clause has opened.
const closing = 20 * time.Second

// within reports whether done is closed in that time.
func within(limit time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// stacks returns what every goroutine does.
func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// run checks the clause once. If it fails, failed has it afterwards. What does not end is left behind, and the other
// clauses are checked all the same.
func (c clause) run(ctx context.Context, h *Harness, failed failures) Result {
	limit := h.TimeLimit
	if limit == 0 {
		limit = 30 * time.Second
	}
	late := fmt.Errorf("the clause has not ended within %s", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	rec := &recorder{ctx: ctx}
	before := maps.Clone(failed) // the clause's own: it may be left behind
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
		// What waits for ctx ends now and says what it waited for; what does not is shown by the dump.
		dump = stacks()
		if !within(closing, checked) {
			rec.Errorf("and it does not even end when it is told to")
		}
		rec.Errorf("%v", context.Cause(ctx))
	}
	go func() {
		defer close(closed)
		rec.cleanUp() // perhaps that ends what goes on
	}()
	unclosed := !within(closing, closed)
	if unclosed {
		rec.Errorf("what the clause has opened is not closed within %s: does Close return?", closing)
		dump = stacks()
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	r := Result{Clause: c.Clause, Outcome: Passed, Reasons: slices.Clone(rec.reasons), Dump: dump, Took: time.Since(begin)}
	r.unclosed = unclosed && len(r.Reasons) == 1
	why, known := h.Known[c.Name]
	if rec.failed {
		failed[c.Name] = string(c.Part) + "/" + c.Name
	}
	switch {
	case rec.failed && known:
		r.Outcome = Known
	case rec.failed:
		r.Outcome = Failed
	case rec.skipped:
		r.Outcome = Skipped
		_, r.RestsOn, _ = strings.Cut(r.Reasons[len(r.Reasons)-1], restsOn)
	case known:
		r.Outcome, r.Reasons = Failed, []string{fmt.Sprintf("it is listed as a known failure (%s), but it passes: take it off the list", why)}
	}
	return r
}
