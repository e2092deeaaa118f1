package core

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Programs decide on these errors. Every error of a call is a *CallError that wraps one of them, a *RemoteError, or the
// error of the caller's context.
var (
	// ErrUnavailable: the protocol is unavailable here. An adapter's Start wraps it, and a chain then tries the next
	// adapter.
	ErrUnavailable = errors.New("protocol unavailable")
	// ErrSaturated: all workers are busy and the queue is full. A Function that calls its own pool also gets it, if
	// every slot waits for such a Function. The call did not run.
	ErrSaturated = errors.New("pool saturated")
	// ErrWorkerLost: the worker ended while it had the call. The call may have run, unless CallError says otherwise.
	// See WorkerExit.
	ErrWorkerLost = errors.New("worker lost")
	// ErrClosed: the pool is closed or closing. The call did not run, or was ended by Close.
	ErrClosed = errors.New("pool closed")
	// ErrSessionLost: the session's worker is gone, and its state with it. The call did not run.
	ErrSessionLost = errors.New("session lost")
	// ErrUnknownCommand: the worker has no such command. The call did not run.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrCrashLoop: at least five starts of workers have failed, and no worker serves. The pool keeps trying, at
	// growing intervals. The call did not run.
	ErrCrashLoop = errors.New("workers keep failing to start")
	// ErrFrameTooLarge: a value exceeds the frame limit. Only its call fails. If the value is a result or an item, the
	// call did run.
	ErrFrameTooLarge = errors.New("value larger than the frame limit")
	// ErrBadArguments: the arguments do not fit the command. It is the "400 Bad Request" of an HTTP service: the caller
	// is wrong, not the worker. If the call did not run, they are this call's arguments. Otherwise they are those of a
	// call that its handler made, and the handler did not catch the error.
	ErrBadArguments = errors.New("bad arguments")
	// ErrProtocol: the peer broke the protocol; the connection has ended.
	ErrProtocol = errors.New("protocol error")
)

// CallError is the error of every failed call: the command, its worker, the cause, and whether the call may have run.
type CallError struct {
	Command    string
	Worker     int    // index of the worker that had the call; -1 if the call reached none
	Adapter    string // such as "grpc"; "" if the call reached no worker
	MayHaveRun bool   // false: the handler certainly did not start, so a retry is safe
	Err        error
}

func (e *CallError) Error() string {
	where := ""
	if e.Worker >= 0 {
		where = fmt.Sprintf(" on worker %d (%s)", e.Worker, e.Adapter)
	}
	text, details, more := strings.Cut(e.Err.Error(), "\n")
	if !e.MayHaveRun {
		text += " (it did not run)"
	}
	if more {
		text += "\n" + details
	}
	return fmt.Sprintf("%s%s: %s", e.Command, where, text)
}

// notReached returns the error of a call that reached no worker.
func notReached(command string, err error) *CallError {
	return &CallError{Command: command, Worker: -1, Err: err}
}

func (e *CallError) Unwrap() error { return e.Err }

// MayHaveRun reports whether the call that failed with err may have run. It is true if err is not the error of a call.
func MayHaveRun(err error) bool {
	var e *CallError
	return !errors.As(err, &e) || e.MayHaveRun
}

// The types of a RemoteError that the protocol defines. docs/protocol.md says when each is sent. All other types belong
// to the program.
const (
	TypeUnknownCommand = "UnknownCommand" // no such command
	TypeDraining       = "Draining"       // no new calls are accepted
	TypeSaturated      = "Saturated"      // more calls at once than agreed
	TypeCancelled      = "Cancelled"      // the call was cancelled
	TypeBadArguments   = "BadArguments"   // the arguments cannot be decoded, or they do not fit the command
	TypeBadResult      = "BadResult"      // a result or item cannot be encoded
	TypeTooLarge       = "TooLarge"       // a frame would be above the limit
)

// RemoteError is an exception that a worker's handler raised, or an error that a Go function returned to a worker.
type RemoteError struct {
	Type    string       `json:"type"`             // such as "ValueError", or "pkg.mod.MyError" outside builtins
	Message string       `json:"message"`          // str(exception)
	Frames  []TraceFrame `json:"frames,omitempty"` // the innermost last, as Python prints them
	Notes   []string     `json:"notes,omitempty"`  // the notes that add_note added
	Cause   *RemoteError `json:"cause,omitempty"`  // the exception that it was raised from, or while handling
}

// TraceFrame is one line of a traceback.
type TraceFrame struct {
	File     string `json:"file"`
	Line     int    `json:"line"` // from 1
	Function string `json:"function"`
	Source   string `json:"source,omitempty"` // the source line, trimmed, if it could be read
}

// Error returns the type and the message, such as "ValueError: bad operand". Traceback has the rest.
func (e *RemoteError) Error() string {
	if e.Message == "" {
		return e.Type
	}
	return e.Type + ": " + e.Message
}

// Is reports true for ErrFrameTooLarge if the peer had a value that was too large to send, and for ErrBadArguments if
// it did not accept the arguments.
func (e *RemoteError) Is(target error) bool {
	switch target {
	case ErrFrameTooLarge:
		return e.Type == TypeTooLarge
	case ErrBadArguments:
		return e.Type == TypeBadArguments
	}
	return false
}

// Unwrap returns the cause, or nil.
func (e *RemoteError) Unwrap() error {
	if e.Cause == nil {
		return nil
	}
	return e.Cause
}

// Traceback returns the whole chain the way Python prints it, the outermost cause first.
func (e *RemoteError) Traceback() string {
	var b strings.Builder
	e.traceback(&b)
	return b.String()
}

func (e *RemoteError) traceback(b *strings.Builder) {
	if e.Cause != nil {
		e.Cause.traceback(b)
		b.WriteString("\nThe above exception led to the following one:\n\n")
	}
	if len(e.Frames) > 0 {
		b.WriteString("Traceback (most recent call last):\n")
	}
	for _, f := range e.Frames {
		fmt.Fprintf(b, "  File %q, line %d, in %s\n", f.File, f.Line, f.Function)
		if f.Source != "" {
			fmt.Fprintf(b, "    %s\n", f.Source)
		}
	}
	b.WriteString(e.Error())
	b.WriteByte('\n')
	for _, n := range e.Notes {
		b.WriteString(n)
		b.WriteByte('\n')
	}
}

// ItemError is the error of one item of a stream. The stream continues.
type ItemError struct {
	Index int64 // the item's place in the stream, from 0; failed items count too
	Err   error // usually a *RemoteError
}

func (e *ItemError) Error() string { return fmt.Sprintf("item %d: %v", e.Index, e.Err) }
func (e *ItemError) Unwrap() error { return e.Err }

// StartError says why a worker could not be started, what it printed last, and what to do.
type StartError struct {
	Command string    // the command line
	Adapter string    // the adapter that was chosen or was being tried
	Refused []Refusal // the adapters that a chain tried before; Error names them only if Err is ErrProtocol
	Output  []string  // the last lines that the worker printed
	Remedy  string    // what to do, or ""
	Err     error     // what happened
}

func (e *StartError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "starting %s", cmp.Or(e.Command, "a worker"))
	if e.Adapter != "" {
		fmt.Fprintf(&b, " over %s", e.Adapter)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	var remote *RemoteError
	if errors.As(e.Err, &remote) && len(remote.Frames) > 0 {
		b.WriteString("\n" + strings.TrimSuffix(remote.Traceback(), "\n"))
	}
	if errors.Is(e.Err, ErrProtocol) {
		for _, r := range e.Refused { // for any other error they are not the cause
			fmt.Fprintf(&b, "\n%s was refused: %v", r.Adapter, r.Err)
		}
	}
	if len(e.Output) > 0 {
		b.WriteString("\nits last output:")
		for _, line := range e.Output {
			b.WriteString("\n  " + line)
		}
	}
	if e.Remedy != "" {
		b.WriteString("\nhint: " + e.Remedy)
	}
	return b.String()
}

func (e *StartError) Unwrap() error { return e.Err }
