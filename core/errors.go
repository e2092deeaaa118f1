package core

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Programs decide on these errors. Every error of a call is a *CallError that wraps one of them, a *RemoteError, or the
// error of the caller's context.
var (
	// ErrUnavailable: the protocol is unavailable here. An adapter's Start wraps it, and a chain then tries the next
	// adapter.
	ErrUnavailable = errors.New("protocol unavailable")
	// ErrNoRoom: the adapter works, but has no room for another worker now. It comes together with ErrUnavailable. So a
	// chain tries the next adapter, but asks this one again for the next worker.
	ErrNoRoom = errors.New("no room for another worker")
	// ErrSaturated: all workers are busy and the queue is full. A Function that calls its own pool also gets it, if
	// every slot waits for such a Function. The call did not run.
	ErrSaturated = errors.New("pool saturated")
	// ErrWorkerLost: the worker ended while it had the call. The call may have run, unless CallError says otherwise.
	// See WorkerExit.
	ErrWorkerLost = errors.New("worker lost")
	// ErrClosed: the pool is closed or closing. The call did not run, or was ended by Close.
	ErrClosed = errors.New("pool closed")
	// ErrSessionLost: the session's worker is gone, and its state with it. There is no snapshot, or no worker restores
	// it. The call did not run.
	ErrSessionLost = errors.New("session lost")
	// ErrUnknownCommand: the worker has no such command. The call did not run.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrCrashLoop: at least five starts of workers have failed, and no worker serves. The pool keeps trying, at
	// growing intervals. The call did not run.
	ErrCrashLoop = errors.New("workers keep failing to start")
	// ErrFrameTooLarge: a value exceeds the frame limit. Only its call fails. If the value is a result or an item, the
	// call did run.
	ErrFrameTooLarge = errors.New("value larger than the frame limit")
	// ErrBadArguments: the arguments do not fit the command, or can't be sent. It is the "400 Bad Request" of an HTTP
	// service: the caller is wrong, not the worker.
	ErrBadArguments = errors.New("bad arguments")
	// ErrProtocol: the peer broke the protocol; the connection has ended.
	ErrProtocol = errors.New("protocol error")
	// ErrNoData: the exception gives nothing to programs. RemoteError.Data returns it.
	ErrNoData = errors.New("the exception carries no data")
)

// CallError is the error of every failed call: the command, its worker, the cause, and whether the call may have run.
type CallError struct {
	Command    string
	Worker     int           // index of the worker that had the call; -1 if the call reached none
	Adapter    string        // such as "grpc"; "" if the call reached no worker
	MayHaveRun bool          // false: the handler certainly did not start, so a retry is safe
	Waited     time.Duration // in the queue for a worker
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
//
// It matches an [Exception] that names its type or one of its bases. It does not wrap its cause: a KeyError that was
// raised while a ValueError was handled is no ValueError. Cause, Context and Errors are fields to walk.
type RemoteError struct {
	Type    string         `json:"type"`                // without its module, such as "JSONDecodeError"
	Module  string         `json:"module,omitempty"`    // such as "json.decoder"; "" for a builtin
	Bases   []string       `json:"bases,omitempty"`     // the base classes, the nearest first, such as "ValueError"
	Message string         `json:"message"`             // str(exception)
	Value   any            `json:"data,omitempty"`      // the exception's data; Data decodes it
	Frames  []TraceFrame   `json:"frames,omitempty"`    // the innermost last, as Python prints them
	Notes   []string       `json:"notes,omitempty"`     // the notes that add_note added
	Text    string         `json:"traceback,omitempty"` // the traceback as the worker's language prints it, or ""
	Cause   *RemoteError   `json:"cause,omitempty"`     // what it was raised from
	Context *RemoteError   `json:"context,omitempty"`   // what was being handled when it was raised, if it has no cause
	Errors  []*RemoteError `json:"errors,omitempty"`    // the members of an exception group

	codec Codec // of the connection that it came from; nil if it was made by hand
}

// Error returns what Python prints as the last line, such as "json.decoder.JSONDecodeError: Expecting value". Traceback
// has the rest.
func (e *RemoteError) Error() string {
	name := e.Type
	if e.Module != "" && e.Module != "builtins" && e.Module != "__main__" {
		name = e.Module + "." + name
	}
	if e.Message == "" {
		return name
	}
	return name + ": " + e.Message
}

// Data decodes the exception's data into v, a non-nil pointer. In Python the data is the exception's snakepit_data, in
// Go the result of the error's method SnakepitData. The rules are those of a call's result: numbers
// are checked, and structs have json tags. The error is ErrNoData if the exception gives nothing. A RemoteError that
// did not come from a connection, for instance one that a test has made, decodes Value by encoding/json.
func (e *RemoteError) Data(v any) error {
	if e == nil || e.Value == nil {
		return ErrNoData
	}
	var err error
	if e.codec != nil {
		var body []byte
		if body, err = e.codec.Append(nil, e.Value); err == nil {
			err = e.codec.Decode(body, v)
		}
	} else {
		var body []byte
		if body, err = json.Marshal(e.Value); err == nil {
			err = json.Unmarshal(body, v)
		}
	}
	if err != nil {
		return fmt.Errorf("the data of %s: %w", e.Type, err)
	}
	return nil
}

// Is reports true for an Exception that names e's type or one of its bases. It also reports true for ErrFrameTooLarge
// if the peer had a value that was too large to send, and for ErrBadArguments if it did not accept the arguments.
func (e *RemoteError) Is(target error) bool {
	if named, ok := target.(Exception); ok {
		return named.matches(e)
	}
	return target == ErrFrameTooLarge && e.is(TypeTooLarge) || target == ErrBadArguments && e.is(TypeBadArguments)
}

// takeHint removes the last note from e, and returns its text, if it is a hint for the user.
func (e *RemoteError) takeHint() string {
	n := len(e.Notes)
	if n == 0 {
		return ""
	}
	note := e.Notes[n-1]
	hint, found := strings.CutPrefix(note, "hint: ")
	if !found {
		return ""
	}
	e.Notes = e.Notes[:n-1]
	if text, found := strings.CutSuffix(strings.TrimSuffix(e.Text, "\n"), "\n"+note); found {
		e.Text = text + "\n"
	}
	return hint
}

// is reports whether e is of a type that the protocol defines. A class of the program may have the same name, but has a
// module.
func (e *RemoteError) is(kind string) bool { return e.Type == kind && e.Module == "" }

// some reports whether f is true for e or for an error that it is linked to, at most links deep.
func (e *RemoteError) some(links int, f func(*RemoteError) bool) bool {
	if e == nil || links == 0 {
		return false
	}
	return f(e) || e.Cause.some(links-1, f) || e.Context.some(links-1, f) ||
		slices.ContainsFunc(e.Errors, func(member *RemoteError) bool { return member.some(links-1, f) })
}

// cameBy notes the codec of the connection that e came from.
func (e *RemoteError) cameBy(codec Codec) {
	e.some(maxLinks, func(linked *RemoteError) bool { linked.codec = codec; return false })
}

// Exception is a target for errors.Is. It names a class of exceptions, and matches a RemoteError of that class or of a
// class that is derived from it, as except does in Python. So errors.Is(err, Exception("ValueError")) is true for a
// JSONDecodeError. The name may be bare, such as "JSONDecodeError", or full, such as "json.decoder.JSONDecodeError". A
// bare name matches the class in every module. The names are those that the worker sends: a class that is an alias in
// Python, such as IOError, has its real name, OSError.
type Exception string //nolint:errname // as in Python

// Error returns the name.
func (x Exception) Error() string { return string(x) }

func (x Exception) matches(e *RemoteError) bool {
	full := e.Type
	if e.Module != "" {
		full = e.Module + "." + e.Type
	}
	return x.names(full) || slices.ContainsFunc(e.Bases, x.names)
}

// names reports whether x is the full name of a class, or its end after a point.
func (x Exception) names(full string) bool {
	before, ends := strings.CutSuffix(full, string(x))
	return ends && x != "" && (before == "" || strings.HasSuffix(before, "."))
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

// Error returns the cause in a line of its own, then the details indented, and last the hint.
func (e *StartError) Error() string {
	cause, remedy := e.cause()
	first, rest, _ := strings.Cut(cause, "\n")
	details := []string{rest}
	var remote *RemoteError
	if errors.As(e.Err, &remote) {
		trace := "\n" + strings.TrimSuffix(remote.Traceback(), "\n")
		end := strings.Join(append([]string{"\n" + remote.Error()}, remote.Notes...), "\n")
		if before, found := strings.CutSuffix(trace, end); found { // the first line has it
			trace = before + strings.TrimPrefix(end, "\n"+remote.Error())
		}
		details = append(details, strings.TrimPrefix(trace, "\n"))
	}
	if e.Command != "" {
		details = append(details, "command: "+e.Command)
	}
	if e.Adapter != "" {
		details = append(details, "adapter: "+e.Adapter)
	}
	if errors.Is(e.Err, ErrProtocol) {
		for _, r := range e.Refused { // for any other error they are not the cause
			details = append(details, fmt.Sprintf("%s was refused: %v", r.Adapter, r.Err))
		}
	}
	if len(e.Output) > 0 {
		details = append(details, "its last output:\n  "+strings.Join(e.Output, "\n  "))
	}
	var b strings.Builder
	b.WriteString(first)
	for _, detail := range details {
		if detail != "" {
			b.WriteString("\n  " + strings.ReplaceAll(detail, "\n", "\n  "))
		}
	}
	if remedy != "" {
		b.WriteString("\nhint: " + remedy)
	}
	return b.String()
}

// cause returns what happened, without the remedy, and the remedy.
func (e *StartError) cause() (text, remedy string) {
	text, remedy = e.Err.Error(), e.Remedy
	if _, own := Explain(e.Err); own != "" {
		for _, before := range []string{"; to get it: ", "; "} { // of an UnavailableError, of a RemedyError
			if cut, found := strings.CutSuffix(text, before+own); found {
				return cut, cmp.Or(remedy, own)
			}
		}
	}
	return text, remedy
}

func (e *StartError) Unwrap() error { return e.Err }
