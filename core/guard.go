package core

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
)

// User code is code that the pool calls but does not contain: methods of values while they are encoded or decoded, an
// input's iterator, Options.Functions and the errors that they return, contexts, an adapter and its errors, Observers,
// and the logger. User code may panic, end its goroutine, hang, or call the pool.
//
//   - No user code runs under a lock.
//   - On the pool's goroutines it runs inside guard, isolate or guardAdapter. They turn a panic and runtime.Goexit into
//     an error. The adapter's codec runs there too, even when it encodes the pool's own values.
//   - On the caller's goroutine a panic passes through to the caller, after the slot has been released (Pool.openCall).
//   - captureError asks an adapter's error for its text once, where the error comes in.
//   - An Observer is told of calls inside watcher.guard, which logs its panic. Its Event runs as the logger does.
//   - The logger runs on a goroutine of its own (logQueue).

// panicError is a panic of user code, or the end of its goroutine.
type panicError struct {
	what  string // the code that ran, such as "the function"
	text  string // the text of the panic's value; "" if runtime.Goexit was called
	stack string
}

func (e *panicError) Error() string {
	if e.text == "" {
		return e.what + " called runtime.Goexit"
	}
	return e.what + " panicked: " + e.text
}

// remote returns the panic in the form that is sent.
func (e *panicError) remote() *RemoteError {
	if e.text == "" {
		return &RemoteError{Type: "runtime.Goexit", Message: e.Error()}
	}
	return &RemoteError{Type: "panic", Message: e.text}
}

// guard calls f, which runs user code, and then calls end with its error, on the same goroutine and exactly once. If f
// panics or calls runtime.Goexit, the error is a *panicError. After runtime.Goexit the goroutine ends. end runs no user
// code.
func guard(what string, f func() error, end func(error)) {
	var err error
	returned := false
	defer func() {
		if bad := caught(what, recover(), returned); bad != nil {
			err = bad
		}
		end(err)
	}()
	err = f()
	returned = true
}

// caught returns the *panicError of user code that did not return, else nil. p is what recover returned.
func caught(what string, p any, returned bool) error {
	switch {
	case p != nil:
		return &panicError{what: what, text: panicText(p), stack: string(debug.Stack())}
	case !returned:
		return &panicError{what: what}
	}
	return nil
}

// isolate runs f, which is user code, on a goroutine of its own. It returns f's error; a panic or runtime.Goexit
// becomes a *panicError.
func isolate(what string, f func() error) error {
	done := make(chan error, 1)
	go guard(what, f, func(err error) { done <- err })
	return <-done
}

// guardAdapter runs f, which is an adapter's code, on the calling goroutine. It returns f's error; a panic becomes a
// *panicError. If f calls runtime.Goexit, guardAdapter calls exited with a *panicError, and the goroutine ends.
func guardAdapter(what string, f func() error, exited func(error)) (err error) {
	returned := false
	defer func() {
		p := recover()
		if bad := caught(what, p, returned); p != nil {
			err = bad
		} else if bad != nil {
			exited(bad)
		}
	}()
	err = captureError(f())
	returned = true
	return err
}

// panicText returns the text of a panic's value. A value that is not a string may have methods that are user code. They
// run on a goroutine of their own, because they may end it.
func panicText(p any) string {
	if text, ok := p.(string); ok {
		return nonEmpty(text)
	}
	text := make(chan string, 1)
	go func() {
		s := fmt.Sprintf("a %T", p)
		defer func() { text <- nonEmpty(s) }()
		s = fmt.Sprint(p) // it recovers from a panic of p's methods
	}()
	return <-text
}

func nonEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// capturedError is an error of user code together with its text. The text can be used under a lock, because no user
// code runs for it.
type capturedError struct {
	text string
	end  error // io.EOF or io.ErrUnexpectedEOF, if err wraps one of them
	err  error

	reason string // from Explain
	noRoom bool   // it says only that there is no room
}

func (e *capturedError) Error() string { return e.text }
func (e *capturedError) Unwrap() error { return e.err }

// captureError captures an error of user code. It is called where user code is guarded.
func captureError(err error) error {
	switch err.(type) {
	case nil, *capturedError, *panicError:
		return err
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return err
	}
	f := &capturedError{text: err.Error(), err: err, noRoom: saysNoRoom(err)}
	f.reason, _ = Explain(err)
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, end) {
			f.end = end
		}
	}
	return f
}

// saysNoRoom reports whether an error is ErrNoRoom, and no adapter of a chain was refused for another reason.
func saysNoRoom(err error) bool {
	if !errors.Is(err, ErrNoRoom) {
		return false
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool {
				return e != ErrUnavailable && errors.Is(e, ErrUnavailable) && !saysNoRoom(e)
			})
		}
	}
	return true
}

// captureIsolated is captureError for places where nothing is guarded.
func captureIsolated(err error) error {
	var captured error
	if p := isolate("an error", func() error { captured = captureError(err); return nil }); p != nil {
		return p
	}
	return captured
}

// endOf returns io.EOF or io.ErrUnexpectedEOF if err wraps one of them, else nil. err has been captured.
func endOf(err error) error {
	if f, ok := err.(*capturedError); ok {
		return f.end
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return err
	}
	return nil
}
