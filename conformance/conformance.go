// Package conformance is the proof that an adapter carries frames, that a worker speaks the protocol, and that a pool on top of both
// keeps its promises. Who writes an adapter runs it from a test of three lines:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Harness{Adapter: mine.Adapter{}, Worker: python.Conformance()})
//	}
//
// Who writes a worker in another language runs the command snakepit conformance. What is checked is a table of clauses, each a sentence
// of the contract in core/adapter.go, core/frame.go or docs/protocol.md.
package conformance

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Harness says what is tested, and what it is able to do. Only Adapter is required.
type Harness struct {
	// Adapter is the adapter under test. A chain will do.
	Adapter core.Adapter
	// Worker is the program that the adapter launches. It offers the commands that docs/protocol.md lists under "Conformance", such as
	// python.Conformance does. nil: the adapter has workers without being given a program.
	Worker Program
	// Parts are the tables to check. nil means all.
	Parts []Part

	// MaxFrame bounds, in bytes, the frames that are sent to see how large they may be. 0 means what both sides allow, 8 MiB at most.
	MaxFrame int
	// MaxConcurrency caps the calls that are made at once. 0 means what the worker announces.
	MaxConcurrency int
	// DetectsLoss says that the adapter notices when a worker ends which core did not launch. Of those that core launched it knows anyway.
	DetectsLoss bool
	// Corrupt damages what conn, the adapter's own, sends from now on. nil: it can't be damaged.
	Corrupt func(conn core.Conn) error

	// Known are clauses that fail, by name, and why. They still run, and it is a failure if they pass.
	Known map[string]string
	// TimeLimit bounds each clause. 0 means 30 s.
	TimeLimit time.Duration
	// Parallel is how many clauses Check checks at once. 0 means the number of processors. In a test the flag -parallel bounds it. 1 checks
	// one clause after the other in both: for workers that cannot be started side by side.
	Parallel int
}

// Program is what a worker runs; python.Program is one.
type Program interface {
	Command() (core.Command, error)
}

// Part names a table of clauses.
type Part string

// The tables.
const (
	Adapter Part = "adapter" // what an adapter and its codecs do with frames and values
	Worker  Part = "worker"  // what a worker does with the protocol
	Pool    Part = "pool"    // what a pool on top of both gives its callers
)

// Clause is one rule of the contract.
type Clause struct {
	Part     Part
	Name     string // "theme/rule"
	Sentence string // the rule
}

// Clauses returns every clause, in the order in which they are checked.
func Clauses() []Clause {
	var all []Clause
	for _, c := range clauses() {
		all = append(all, c.Clause)
	}
	return all
}

// Outcome is how a clause ended.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // what it needs is not there, or a clause that it rests on has failed
	Known   Outcome = "known"   // it failed, as Harness.Known says
)

// Result is what became of one clause.
type Result struct {
	Clause
	Outcome Outcome
	Reasons []string // what was seen, or why it was skipped
	RestsOn string   // the failed clause, as part/theme/rule, for which this one was skipped; or ""
	Dump    string   // all goroutines, if its time was up
	Took    time.Duration

	unclosed bool // it failed only because closing took too long
	broken   bool // something failed, known or not
}

// String returns what was seen, and then the sentence.
func (r Result) String() string {
	text := strings.Join(append(slices.Clone(r.Reasons), fmt.Sprintf("%s %s: %s", r.Part, r.Name, r.Sentence)), "\n")
	if r.Dump != "" {
		text += "\n" + r.Dump
	}
	return text
}

// Run checks every clause, each as a subtest. If no worker says hello, that is one failure and nothing else is tried.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	if r := first.run(t.Context(), &h, failures{}); r.Outcome != Passed && !r.unclosed {
		t.Fatal(&NothingError{r.Reasons})
	}
	failed := failures{}
	serial, parallel := h.clauses()
	for _, c := range serial {
		t.Run(c.fullName(), func(t *testing.T) {
			r := c.run(t.Context(), &h, failed)
			failed.add(r)
			r.tell(t, &h)
		})
	}
	for _, part := range []Part{Adapter, Worker, Pool} {
		t.Run(string(part), func(t *testing.T) { // returns when all that it holds have ended
			for _, c := range parallel {
				if c.Part == part {
					t.Run(c.Name, func(t *testing.T) {
						t.Parallel()
						c.run(t.Context(), &h, failed).tell(t, &h)
					})
				}
			}
		})
	}
}

// tell makes the result that of a test.
func (r Result) tell(t *testing.T, h *Harness) {
	t.Helper()
	switch r.Outcome {
	case Failed:
		t.Error(r)
	case Known:
		t.Logf("known failure (%s): %s", h.Known[r.Name], r)
	case Skipped:
		t.Skip(strings.Join(r.Reasons, "; "))
	}
}

// NothingError is the error if no worker says hello, so that nothing can be checked.
type NothingError struct {
	Reasons []string // what was seen
}

func (e *NothingError) Error() string {
	return "nothing can be checked: " + strings.Join(e.Reasons, "\n")
}

// Check is Run outside of a test. It hands the results to report, one at a time, in the order of Clauses but the ground
// first, until all are there or ctx ends, whose error it then returns. If no worker says hello, the error is a *NothingError
// and nothing is reported.
func Check(ctx context.Context, h Harness, report func(Result)) error {
	if err := h.check(); err != nil {
		return err
	}
	if r := first.run(ctx, &h, failures{}); r.Outcome != Passed && !r.unclosed {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &NothingError{r.Reasons}
	}
	failed := failures{}
	serial, parallel := h.clauses()
	for _, c := range serial {
		r := c.run(ctx, &h, failed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed.add(r)
		report(r)
	}
	results := make([]chan Result, len(parallel))
	slots := make(chan struct{}, cmp.Or(h.Parallel, runtime.GOMAXPROCS(0)))
	for i := range results {
		results[i] = make(chan Result, 1)
	}
	go func() {
		for i, c := range parallel {
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				results[i] <- c.run(ctx, &h, failed)
			}()
		}
	}()
	for i := range parallel {
		r := <-results[i]
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(r)
	}
	return nil
}

// clauses returns the clauses to check: first those that are checked one after the other, then those that may be checked
// at once.
func (h *Harness) clauses() (serial, parallel []clause) {
	for _, c := range clauses() {
		switch {
		case !h.wants(c.Part):
		case h.Parallel == 1 || c.alone || slices.Contains(ground, c.Name):
			serial = append(serial, c)
		default:
			parallel = append(parallel, c)
		}
	}
	return serial, parallel
}

func (c clause) fullName() string { return string(c.Part) + "/" + c.Name }

func (h *Harness) wants(p Part) bool { return h.Parts == nil || slices.Contains(h.Parts, p) }

// check refuses a harness that makes no sense.
func (h *Harness) check() error {
	if h.Adapter == nil {
		return fmt.Errorf("conformance: Harness.Adapter is not set: it is what is tested")
	}
	for _, p := range h.Parts {
		if p != Adapter && p != Worker && p != Pool {
			return fmt.Errorf("conformance: Harness.Parts has %q; there are %s, %s and %s", p, Adapter, Worker, Pool)
		}
	}
	if h.Parallel < 0 {
		return fmt.Errorf("conformance: Harness.Parallel is %d; it has to be positive, and 0 means the number of processors", h.Parallel)
	}
	for name := range h.Known {
		if !slices.ContainsFunc(clauses(), func(c clause) bool { return c.Name == name }) {
			return fmt.Errorf("conformance: Harness.Known has %q, which is no clause", name)
		}
	}
	return nil
}

// ground is what most clauses rest on. These are checked first. If one fails, trial.restsOn skips the clauses that rest
// on it, so that a fundamental fault is reported once.
var ground = []string{
	first.Name, "close/unblocks-read", "call/result", "ping/answered", "call/unknown", "stream/items", "input/read", "credit/given",
	"cancel/answered", "callback/call",
}

// clauses returns the tables, one after the other, the ground before them.
func clauses() []clause {
	var all []clause
	for _, part := range []struct {
		name   Part
		tables [][]clause
	}{
		{Adapter, [][]clause{adapterClauses, codecClauses}},
		{Worker, [][]clause{helloClauses, callClauses, valueClauses, streamClauses, creditClauses, cancelClauses, lifeClauses}},
		{Pool, [][]clause{poolClauses}},
	} {
		for _, c := range slices.Concat(part.tables...) {
			c.Part = part.name
			all = append(all, c)
		}
	}
	place := func(c clause) int {
		if i := slices.Index(ground, c.Name); i >= 0 {
			return i
		}
		return len(ground)
	}
	slices.SortStableFunc(all, func(a, b clause) int { return place(a) - place(b) })
	return all
}
