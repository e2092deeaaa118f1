package core

import (
	"fmt"
	"runtime/debug"
)

// User code is what the pool calls but did not write: methods of values while they are encoded or decoded, an input's
// iterator, Options.Functions and the errors that they return, an adapter, and the logger. It may panic, end its
// goroutine, hang, or call the pool.
//
//   - None of it runs under a lock.
//   - On a goroutine of the pool's it runs inside guard, which turns a panic and runtime.Goexit into an error.
//   - On the caller's goroutine a panic goes through to the caller, once the slot has been given back (Pool.open).
//   - The logger has a goroutine of its own (logbook).

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

// caught is deferred around user code that has no reason to call runtime.Goexit, such as an adapter: a panic becomes
// *err.
func caught(what string, err *error) {
	if p := recover(); p != nil {
		*err = &panicError{what: what, text: panicText(p), stack: string(debug.Stack())}
	}
}

// panicText returns the text of a panic's value. The value may be an error or a Stringer of the user's, so it is asked
// on a goroutine of its own, which it may end.
func panicText(p any) string {
	switch p := p.(type) {
	case string:
		return nonEmpty(p)
	case fmt.Stringer, error:
		text := make(chan string, 1)
		go func() {
			s := fmt.Sprintf("a %T", p)
			defer func() { text <- nonEmpty(s) }()
			s = fmt.Sprint(p) // which takes care of a panic
		}()
		return <-text
	}
	return nonEmpty(fmt.Sprint(p))
}

func nonEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}
