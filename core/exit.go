package core

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// exitStatus says how a process ended.
type exitStatus struct {
	code   int    // -1 if a signal ended it
	signal string // such as "killed"; "" if it exited by itself
	oom    bool   // the kernel killed it because memory ran out
	limit  string // the limit of Limits that ended it, or ""
	killed bool   // the pool killed it
	lost   error  // why the lease of a process elsewhere ended first; the fields above are then unknown
}

// crashed reports whether the process ended by its own doing: it exited, or a fault ended it.
func (s exitStatus) crashed() bool {
	return !s.killed && s.lost == nil && (s.signal == "" || slices.Contains(faultSignals, s.signal))
}

// String returns a predicate, such as "exited with code 1".
func (s exitStatus) String() string {
	switch {
	case s.lost != nil:
		return "was lost with its back end"
	case s.killed && s.signal == killSignal:
		return "did not end and was killed"
	case s.limit != "":
		return "was ended because it reached " + s.limit
	case s.oom:
		return "was killed because memory ran out"
	case s.signal != "":
		return fmt.Sprintf("was ended by signal %q", s.signal)
	default:
		return fmt.Sprintf("exited with code %d", s.code)
	}
}

// WorkerExit says how a worker was lost. It is an error that wraps ErrWorkerLost.
type WorkerExit struct { //nolint:errname // it is a fact first, such as os.ProcessState, and an error second
	Worker   int           // the worker's index
	Adapter  string        // the protocol that it spoke
	PID      int           // 0 if the pool did not start the process
	Host     string        // the machine where a back end ran it; "" if it ran on this one
	ExitCode int           // -1 if a signal ended it, or if Lost is set
	Signal   string        // such as "killed"; "" if it exited by itself
	OOM      bool          // the kernel reports that the process was killed because memory ran out
	Limit    string        // the limit that ended it, such as "Limits.CPUTime (1h0m0s)"; "" if none did
	Lost     error         // what ended its lease first; nil if its exit is known. A working back end then kills it
	Cause    error         // the first error on the connection, or nil
	Stderr   []string      // the last lines that it printed or logged; if it was busy, since its oldest call began
	Stacks   string        // what its threads did before the pool ended it by force, shortened; or ""
	Age      time.Duration // since it was started
	Doing    []string      // the commands that it was running
	// Recording is the file of its last frames, which is written a moment later; "" without Options.Recorder.
	Recording string
}

func (e *WorkerExit) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: worker %d", ErrWorkerLost, e.Worker)
	if e.PID != 0 {
		how := exitStatus{code: e.ExitCode, signal: e.Signal, oom: e.OOM, limit: e.Limit, lost: e.Lost}
		where := fmt.Sprintf("pid %d", e.PID)
		if e.Host != "" {
			where += " on " + e.Host
		}
		fmt.Fprintf(&b, " (%s) %s", where, how)
	} else {
		b.WriteString(" closed the connection")
	}
	fmt.Fprintf(&b, " after %s", e.Age.Round(time.Millisecond))
	if len(e.Doing) > 0 {
		fmt.Fprintf(&b, " while running %s", strings.Join(countNames(e.Doing), ", "))
	}
	for _, err := range []error{e.Lost, e.Cause} {
		if err != nil {
			fmt.Fprintf(&b, ": %v", err)
		}
	}
	if n := len(e.Stderr); n > 0 {
		fmt.Fprintf(&b, "; its last output: %s", strings.Join(e.Stderr[max(0, n-3):], " | "))
	}
	if e.Recording != "" {
		fmt.Fprintf(&b, "; recorded in %s", e.Recording)
	}
	return b.String()
}

// Unwrap returns ErrWorkerLost, Lost and Cause.
func (e *WorkerExit) Unwrap() []error {
	errs := []error{ErrWorkerLost}
	for _, err := range []error{e.Lost, e.Cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// countNames returns each name once, in order of appearance. A name that occurs more than once gets its count.
func countNames(names []string) []string {
	times := map[string]int{}
	var each []string
	for _, name := range names {
		if times[name]++; times[name] == 1 {
			each = append(each, name)
		}
	}
	for i, name := range each {
		if n := times[name]; n > 1 {
			each[i] = fmt.Sprintf("%s (%d calls)", name, n)
		}
	}
	return each
}
