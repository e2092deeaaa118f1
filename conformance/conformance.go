// Package conformance checks that an adapter carries frames, that a worker speaks the protocol, and that a pool on
// top of both keeps its promises. Adapter authors run it from a three-line test:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Harness{Adapter: mine.Adapter{}, Worker: python.Conformance(1)})
//	}
//
// Authors of a worker in another language run the command snakepit conformance. The suite is a table of clauses. The
// clauses are the contract in docs/protocol.md and in the comments of package core, above all in adapter.go and
// frame.go.
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

// Harness has the adapter and the worker under test, and says what they are able to do. Only Adapter is required.
type Harness struct {
	// Adapter is the adapter under test. It may be a chain.
	Adapter core.Adapter
	// Worker is the program that the adapter launches. It offers the commands that docs/protocol.md lists under
	// "Conformance". python.Conformance is one. nil means that the adapter needs no program.
	Worker Program
	// Parts are the tables to check. nil means all.
	Parts []Part

	// MaxFrame limits the largest frames that the suite tries, in bytes. 0 means the largest that both sides allow,
	// at most 8 MiB.
	MaxFrame int
	// MaxConcurrency limits the calls that are made at once. 0 means the concurrency that the worker announces.
	MaxConcurrency int
	// DetectsLoss says that the adapter notices the end of a worker that core did not launch. Core itself notices the
	// end of a worker that it launched.
	DetectsLoss bool
	// Corrupt damages what conn sends from now on. conn is a connection of the adapter. nil means that the harness
	// can't damage it.
	Corrupt func(conn core.Conn) error

	// Known maps the names of clauses that fail to the reasons. These clauses still run. It is a failure if one passes.
	Known map[string]string
	// TimeLimit is the time limit for each clause. 0 means 30 s.
	TimeLimit time.Duration
	// Parallel is the number of clauses that Check checks at once. 0 means the number of processors. In Run the flag
	// -parallel of go test sets the number. 1 checks one clause after the other, in Check and in Run: for workers
	// that cannot run side by side.
	Parallel int
}

// Program returns the command that starts a worker. python.Program is one.
type Program interface {
	Command() (core.Command, error)
}

// Part names a table of clauses.
type Part string

// The tables.
const (
	Adapter Part = "adapter" // about an adapter and its codecs: frames and values
	Worker  Part = "worker"  // about a worker: the protocol
	Pool    Part = "pool"    // about a pool on top of both: the promises to its callers
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
	Skipped Outcome = "skipped" // something that it needs is missing, or a clause that it rests on has failed
	Known   Outcome = "known"   // it failed, as Harness.Known says
)

// Result is the result of one clause.
type Result struct {
	Clause
	Outcome Outcome
	Reasons []string // what was seen, or why the clause was skipped
	RestsOn string   // the failed clause for which this one was skipped, as part/theme/rule; or ""
	Dump    string   // the stacks of all goroutines, if the time was up
	Took    time.Duration

	unclosed bool // it failed only because closing took too long
	broken   bool // something failed, known or not
}

// String returns the reasons, and then the sentence.
func (r Result) String() string {
	text := strings.Join(append(slices.Clone(r.Reasons), fmt.Sprintf("%s %s: %s", r.Part, r.Name, r.Sentence)), "\n")
	if r.Dump != "" {
		text += "\n" + r.Dump
	}
	return text
}

// Run checks every clause, each as a subtest. If there is nothing to check, that is the only failure; see
// NothingError.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	if err := h.tryout(t.Context()); err != nil {
		t.Fatal(err)
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
		t.Run(string(part), func(t *testing.T) { // returns when all its subtests have ended
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

// tell reports the result as that of a test.
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

// NothingError is the error if no worker says hello, or if the worker has none of the suite's commands. Then nothing
// can be checked.
type NothingError struct {
	Reasons []string // what was seen
}

func (e *NothingError) Error() string {
	return "nothing can be checked: " + strings.Join(e.Reasons, "\n")
}

// Check checks every clause, outside of a test. It passes the results to report, one at a time. They come in the
// order of Clauses, but the clauses that are not checked in parallel come first. Check returns when all results are
// reported, or when ctx ends, with the error of ctx. The error is a *NothingError, and nothing is reported,
// if no worker says hello or if the worker has none of the suite's commands.
func Check(ctx context.Context, h Harness, report func(Result)) error {
	if err := h.check(); err != nil {
		return err
	}
	if err := h.tryout(ctx); err != nil {
		return err
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
				defer close(results[i])
				if ctx.Err() == nil {
					results[i] <- c.run(ctx, &h, failed)
				}
			}()
		}
	}()
	for i := range parallel { // also once ctx has ended: then those that run end
		if r, ok := <-results[i]; ok && ctx.Err() == nil {
			report(r)
		}
	}
	return ctx.Err()
}

// tryout returns an error if there is nothing to check.
func (h *Harness) tryout(ctx context.Context) error {
	for _, c := range []clause{first, testable} {
		if c.Part == Worker && !h.wants(Worker) {
			continue
		}
		if r := c.run(ctx, h, failures{}); r.Outcome != Passed && !r.unclosed {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &NothingError{r.Reasons}
		}
	}
	return nil
}

// testable finds out whether the worker is made for a test. It is no clause of the contract.
var testable = clause{Clause: Clause{Part: Worker}, check: func(t *trial) {
	p := t.connect()
	if p.hello.Commands != nil && !slices.ContainsFunc(commands, p.offers) {
		t.Fatalf("the worker offers none of the commands that the suite calls, such as conformance.echo; " +
			"docs/protocol.md lists them under Conformance")
	}
}}

// clauses returns the clauses to check: serial one after the other, then parallel at once.
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

// check returns an error if the harness is invalid.
func (h *Harness) check() error {
	if h.Adapter == nil {
		return fmt.Errorf("conformance: Harness.Adapter is not set: name the adapter under test")
	}
	for _, p := range h.Parts {
		if p != Adapter && p != Worker && p != Pool {
			return fmt.Errorf("conformance: Harness.Parts has %q; there are %s, %s and %s", p, Adapter, Worker, Pool)
		}
	}
	if h.Parallel < 0 {
		return fmt.Errorf(
			"conformance: Harness.Parallel is %d; it has to be positive, and 0 means the number of processors",
			h.Parallel)
	}
	for name := range h.Known {
		if !slices.ContainsFunc(clauses(), func(c clause) bool { return c.Name == name }) {
			return fmt.Errorf("conformance: Harness.Known has %q, which is not a clause", name)
		}
	}
	return nil
}

// ground has the names of the clauses that most others rest on. They are checked first. If one fails, trial.restsOn
// skips the clauses that rest on it, so a fundamental fault is reported once.
var ground = []string{
	first.Name, "close/unblocks-read", "call/result", "ping/answered", "call/unknown", "stream/items", "input/read",
	"credit/given", "cancel/answered", "callback/call",
}

// clauses returns the clauses of all tables: first the ground, then the others in the order of the tables.
func clauses() []clause {
	var all []clause
	for _, part := range []struct {
		name   Part
		tables [][]clause
	}{
		{Adapter, [][]clause{adapterClauses, leaseClauses, codecClauses}},
		{Worker, [][]clause{
			helloClauses, callClauses, valueClauses, streamClauses, pieceClauses, snapshotClauses, creditClauses,
			cancelClauses, lifeClauses,
		}},
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
