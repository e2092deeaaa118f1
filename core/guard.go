package core

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
)

// User code is what the pool calls but did not write: methods of values while they are encoded or decoded, an input's
// iterator, Options.Functions and the errors that they return, contexts, an adapter and its errors, and the logger. It
// may panic, end its goroutine, hang, or call the pool.
//
//   - None of it runs under a lock.
//   - On a goroutine of the pool's it runs inside guard, apart or outside, which turn a panic and runtime.Goexit into an
//     error. So does a codec, which is the adapter's, also where it encodes the pool's own values.
//   - On the caller's goroutine a panic goes through to the caller, once the slot has been given back (Pool.open).
//   - An error of an adapter's is asked for its text once, where it comes in (freeze).
//   - The logger has a goroutine of its own (logQueue).

// panicError is a panic of user code, or the end of its goroutine.
type panicError struct {
	what  string // what ran, such as "the function"
	text  string // of the panic's value; "" if runtime.Goexit was called
	stack string
}

func (e *panicError) Error() string {
	if e.text == "" {
		return e.what + " called runtime.Goexit"
	}
	return e.what + " panicked: " + e.text
}

// remote returns the panic in the form in which it travels.
func (e *panicError) remote() *RemoteError {
	if e.text == "" {
		return &RemoteError{Type: "runtime.Goexit", Message: e.Error()}
	}
	return &RemoteError{Type: "panic", Message: e.text}
}

// guard calls f, which runs user code, and then hands its error to end, on the same goroutine and exactly once: also if
// f panics, whose error is a *panicError, or calls runtime.Goexit, after which the goroutine ends. end runs no user
// code.
func guard(what string, f func() error, end func(error)) {
	var err error
	returned := false
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{what: what, text: panicText(p), stack: string(debug.Stack())}
		} else if !returned {
			err = &panicError{what: what}
		}
		end(err)
	}()
	err = f()
	returned = true
}

// isolate runs f, which is user code, on a goroutine of its own, and returns its error, its panic or the goroutine's end.
func isolate(what string, f func() error) error {
	done := make(chan error, 1)
	go guard(what, f, func(err error) { done <- err })
	return <-done
}

// guardCall runs f, which is an adapter's, on the calling goroutine, and returns its error or panic. If f ends the
// goroutine, exited gets that as an error before it does.
func guardCall(what string, f func() error, exited func(error)) (err error) {
	returned := false
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{what: what, text: panicText(p), stack: string(debug.Stack())}
		} else if !returned {
			exited(&panicError{what: what})
		}
	}()
	err = captureError(f())
	returned = true
	return err
}

// panicText returns the text of a panic's value. What is no plain text may have methods of the user's, so it is asked
// on a goroutine of its own, which it may end.
func panicText(p any) string {
	if text, ok := p.(string); ok {
		return nonEmpty(text)
	}
	text := make(chan string, 1)
	go func() {
		s := fmt.Sprintf("a %T", p)
		defer func() { text <- nonEmpty(s) }()
		s = fmt.Sprint(p) // which takes care of a panic
	}()
	return <-text
}

func nonEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// capturedError is an error of user code that has been asked for its text, so that nobody has to ask it again under a lock.
type capturedError struct {
	text string
	end  error // io.EOF or io.ErrUnexpectedEOF if it is one of them
	err  error

	reason string // as Explain says
}

func (e *capturedError) Error() string { return e.text }
func (e *capturedError) Unwrap() error { return e.err }

// captureError asks an error of user code what it is. It is called where such code is guarded.
func captureError(err error) error {
	switch err.(type) {
	case nil, *capturedError, *panicError:
		return err
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return err
	}
	f := &capturedError{text: err.Error(), err: err}
	f.reason, _ = Explain(err)
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, end) {
			f.end = end
		}
	}
	return f
}

// captureIsolated is freeze where nothing is guarded.
func captureIsolated(err error) error {
	var cold error
	if p := isolate("an error", func() error { cold = captureError(err); return nil }); p != nil {
		return p
	}
	return cold
}

// endOf returns io.EOF or io.ErrUnexpectedEOF if err, which has been frozen, says that the connection has ended so.
func endOf(err error) error {
	if f, ok := err.(*capturedError); ok {
		return f.end
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return err
	}
	return nil
}
