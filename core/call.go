package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Execute calls a command and returns its result. args becomes the handler's arguments. A struct or a map becomes
// keyword arguments, nil becomes no argument, and any other value becomes one positional argument. A nil slice counts
// as an empty one. A command that streams is an error. Every error is a *CallError: its MayHaveRun says whether a retry
// is safe, and it wraps a sentinel of this package, a *RemoteError, or the context's own error.
//
// When ctx ends, Execute returns at once, and the worker is told to stop the call. Any number of goroutines may call
// Execute. args is encoded on the caller's goroutine. A panic in a method of args reaches the caller and costs no slot.
func Execute[Out any](ctx context.Context, t Target, command string, args any, opts ...CallOption) (Out, error) {
	var out Out
	r := &request{command: command, args: args}
	p, err := t.target(r)
	if err != nil {
		return out, notReached(command, err)
	}
	for _, o := range opts {
		o(r)
	}
	if r.result != nil {
		return out, notReached(command, errors.New("option Result is for ExecuteStream; Execute returns the result"))
	}
	if err := p.execute(ctx, r, &out); err != nil {
		return *new(Out), err // drop a partly decoded value
	}
	return out, nil
}

// ExecuteStream calls a command and yields its items. An *ItemError is the error of one item, and the stream continues;
// any other error is a *CallError as for Execute, and ends the stream. Breaking out of the loop cancels the call. A
// command that does not stream yields its result as its only item. One goroutine may range over the sequence, once. The
// call begins then.
func ExecuteStream[Out any](
	ctx context.Context, t Target, command string, args any, opts ...CallOption,
) iter.Seq2[Out, error] {
	r := &request{command: command, args: args, wantsItems: true}
	p, err := t.target(r)
	for _, o := range opts {
		o(r)
	}
	var used atomic.Bool
	return func(yield func(Out, error) bool) {
		if used.Swap(true) {
			err := errors.New("the stream has been ranged over before; call ExecuteStream again")
			yield(*new(Out), notReached(command, err))
			return
		}
		if err != nil {
			yield(*new(Out), notReached(command, err))
			return
		}
		p.executeStream(ctx, r, func(m *mux, it item, err error) bool {
			var v Out
			if err == nil {
				if err = m.decodeOwned(it.bytes, &v); err != nil {
					v, err = *new(Out), &ItemError{Index: it.index, Err: err}
				}
			}
			return yield(v, err)
		})
	}
}

// maxRetries bounds how often a call that did not run is retried on another worker.
const maxRetries = 8

// execute makes a call with one result.
func (p *Pool) execute(caller context.Context, r *request, out any) (err error) {
	ctx, cancel := r.context(caller, p.opts.CallTimeout, callLimit)
	defer cancel()
	p.observe(caller, r)
	var f *inflight
	retries, failed := 0, errUnwound
	defer func() { r.ended(f, retries, false, failed) }()
	for ; ; retries++ {
		if f, err = p.dispatch(ctx, r); err == nil {
			err = f.awaitResult(ctx, out)
		}
		if err == nil || !r.mayRetry(err, retries) {
			if err != nil {
				err = p.callError(ctx, r, f, err)
			}
			failed = err
			return err
		}
	}
}

// errUnwound is the error of a call whose caller's code panicked, for observers.
var errUnwound = errors.New("the caller's code panicked or called runtime.Goexit")

// executeStream makes a call with many results. An error that is not an *ItemError is the last value that yield gets.
func (p *Pool) executeStream(caller context.Context, r *request, yield func(*mux, item, error) bool) {
	ctx, cancel := r.context(caller, p.opts.StreamTimeout, streamLimit)
	defer cancel()
	p.observe(caller, r)
	var f *inflight
	retries, left, failed := 0, false, errUnwound
	defer func() { r.ended(f, retries, left, failed) }()
	for ; ; retries++ {
		var err error
		if f, err = p.dispatch(ctx, r); err == nil {
			err = f.forwardItems(ctx, func(it item, err error) bool {
				r.watch.item(ToHost, len(it.bytes))
				left = !yield(f.stream.mux, it, err)
				return !left
			})
		}
		if err == nil || left {
			failed = nil
			return
		}
		if !r.mayRetry(err, retries) {
			failed = p.callError(ctx, r, f, err)
			yield(nil, item{}, failed)
			return
		}
	}
}

// mayRetry reports whether the call may be retried on another worker: it certainly did not run.
func (r *request) mayRetry(err error, retries int) bool {
	var not *notRunError
	return errors.As(err, &not) && not.retryable && retries < maxRetries && !r.inputBegun
}

// inflight is a call that has a slot of a worker.
type inflight struct {
	pool    *Pool
	worker  *Worker
	session *session
	stream  *stream
	request *request

	restoring *restoring // if this is the call that restores the session, else nil

	// guarded by pool.mu
	grace   *time.Timer // Options.CancelGrace, since the call was cancelled
	overdue bool        // the grace has passed, and the call still runs
	lent    bool        // the slot belongs to a restore that goes on after the call
}

// dispatch takes a slot and opens the call in it.
func (p *Pool) dispatch(ctx context.Context, r *request) (*inflight, error) {
	if err := ctx.Err(); err != nil {
		return nil, &notRunError{err: err}
	}
	if s := r.caller.served; s != nil && !r.hint && slices.Contains(s.sessions, sessionKey{p, r.session}) {
		err := fmt.Errorf("session %q is itself waiting for this call; it would wait for ever", r.session)
		return nil, &notRunError{err: err}
	}
	w, s, err := p.acquire(ctx, r)
	if err != nil {
		return nil, &notRunError{err: err}
	}
	return p.openCall(ctx, r, w, s)
}

// openCall opens a call in a slot that it takes over from the caller. The slot is released when the call ends, even if
// nobody waits for it any more. If the call does not begin, or user code panics here, the slot is released at once.
func (p *Pool) openCall(ctx context.Context, r *request, w *Worker, s *session) (*inflight, error) {
	f := &inflight{pool: p, worker: w, session: s, request: r}
	begun := false
	defer func() {
		if !begun && !f.lent {
			f.release(nil)
		}
	}()
	frame, err := f.frame()
	if err != nil {
		return f, &notRunError{err: err}
	}
	if err := ctx.Err(); err != nil { // the caller has left, perhaps while its arguments were encoded
		return f, &notRunError{err: err}
	}
	if err := f.prepare(ctx, &frame); err != nil {
		return f, err
	}
	if r.input != nil && !p.addGoroutine() {
		return f, &notRunError{err: ErrClosed}
	}
	if err := f.open(ctx, frame, f.sessionKeys()); err != nil {
		if r.input != nil {
			p.goroutines.Done()
		}
		return f, err
	}
	begun = true
	if r.input != nil {
		r.inputBegun = true
		go func() {
			defer p.goroutines.Done()
			guard("the input", func() error { f.sendInput(r.input); return nil }, f.inputEnded)
		}()
	}
	return f, nil
}

// open sends the call's frame.
func (f *inflight) open(ctx context.Context, frame Frame, sessions []sessionKey) (err error) {
	deadline, _ := ctx.Deadline()
	if f.stream, err = f.worker.mux.open(frame, deadline, sessions, f); errors.Is(err, errLeaving) {
		f.worker.retire("its connection accepts no new calls") // so that a retry goes to another worker
	}
	return err
}

// sessionKeys returns the sessions that wait for the call's end.
func (f *inflight) sessionKeys() []sessionKey {
	var sessions []sessionKey
	if sv := f.request.caller.served; sv != nil {
		sessions = sv.sessions
	}
	if f.session != nil {
		sessions = append(slices.Clip(sessions), sessionKey{f.pool, f.session.id})
	}
	return sessions
}

// addGoroutine counts a goroutine that is about to start. It returns false if the pool is closing: Close may then have
// finished its wait for goroutines.
func (p *Pool) addGoroutine() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return false
	}
	p.goroutines.Add(1)
	return true
}

// frame makes the call frame. An error says why this worker cannot be called.
func (f *inflight) frame() (Frame, error) {
	r, w := f.request, f.worker
	frame := Frame{Name: r.command, Session: r.session, Flags: NoInput}
	if f.session != nil {
		frame.Session = f.session.id
	}
	if w.commands != nil {
		info, known := w.commands[r.command]
		if !known {
			return frame, fmt.Errorf("%w %q%s", ErrUnknownCommand, r.command, suggest(r.command, w.commands))
		}
		if info.Stream && !r.wantsItems {
			return frame, fmt.Errorf("%s sends a stream: use ExecuteStream", r.command)
		}
	}
	if r.input != nil {
		frame.Flags = 0
	}
	if v := reflect.ValueOf(r.result); r.result != nil && (v.Kind() != reflect.Pointer || v.IsNil()) {
		return frame, fmt.Errorf("option Result needs a non-nil pointer, not %T", r.result)
	}
	if sv := r.caller.served; sv != nil && sv.mux == w.mux {
		frame.Parent = sv.stream.id
	}
	frame.Meta = r.caller.metadata
	if err := checkText(&frame); err != nil {
		return frame, err
	}
	var err error
	frame.Body, err = encodeArguments(w.mux.terms.codec, r.args)
	return frame, err
}

// encodeArguments returns the body of a call frame, or an *argumentError.
func encodeArguments(codec Codec, args any) ([]byte, error) {
	if args == nil {
		return nil, nil
	}
	if v := reflect.ValueOf(args); v.Kind() == reflect.Slice && v.IsNil() { // an empty list; null means no argument
		args = reflect.MakeSlice(v.Type(), 0, 0).Interface()
	}
	body, err := codec.Append(nil, args)
	if err != nil {
		return nil, &argumentError{err}
	}
	return body, nil
}

// argumentError is the error of arguments that can't be sent. Often they come from a client of the program, as JSON.
type argumentError struct{ err error }

func (e *argumentError) Error() string        { return e.err.Error() }
func (e *argumentError) Unwrap() error        { return e.err }
func (e *argumentError) Is(target error) bool { return target == ErrBadArguments }

// checkText checks that the text fields are valid UTF-8. On some adapters bad text would end the connection, and one
// call's bad name must not do that.
func checkText(f *Frame) error {
	if !utf8.ValidString(f.Name) {
		return fmt.Errorf("the command's name %q is not valid UTF-8", f.Name)
	}
	if !utf8.ValidString(f.Session) {
		return fmt.Errorf("the session's id %q is not valid UTF-8", f.Session)
	}
	for k, v := range f.Meta {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("the metadata entry %q is not valid UTF-8; encode binary values, such as by base64", k)
		}
	}
	return nil
}

// release gives the slot back. It is called once: when the worker has finished the call or is lost, or if the call
// never reached it. end is the call's stream, or nil if the call never reached the worker.
func (f *inflight) release(end *stream) {
	p, w := f.pool, f.worker
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.grace != nil {
		f.grace.Stop()
	}
	if f.overdue {
		if w.overdue--; w.overdue == 0 && w.kill == nil {
			w.stuck = ""
		}
	}
	if end != nil && end.err == nil { // the worker has answered
		w.completed = true
		if w.place.worker == w {
			p.resetFailures(w.place)
		}
	}
	if f.restoring != nil && !f.restored(end) {
		return // the call that needs the state has the slot
	}
	if f.session != nil {
		p.leaveSession(f.session)
	}
	p.releaseSlot(w)
}

// awaitResult waits for the result of a call that has one result, and decodes it into out, which may be nil.
func (f *inflight) awaitResult(ctx context.Context, out any) error {
	s := f.stream
	for _, err := range s.items(ctx) {
		if err == nil || errors.As(err, new(*ItemError)) {
			err = fmt.Errorf("%s sends a stream: use ExecuteStream", f.request.command)
		}
		f.abandon(ctx)
		return err
	}
	body, err := s.outcome()
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := s.mux.decodeOwned(body, out); err != nil {
		return fmt.Errorf("decoding the result: %w", err)
	}
	return nil
}

// forwardItems yields the items of a call, and decodes its result.
func (f *inflight) forwardItems(ctx context.Context, yield func(item, error) bool) error {
	s, r := f.stream, f.request
	defer f.abandon(ctx)                                      // also if yield panics; an ended call stays as it is
	defer context.AfterFunc(ctx, func() { f.abandon(ctx) })() // also while yield does not return
	for it, err := range s.items(ctx) {
		if err != nil && !errors.As(err, new(*ItemError)) {
			return err
		}
		if !yield(it, err) {
			return nil
		}
	}
	if s.wasAbandoned() {
		return ctx.Err()
	}
	body, err := s.outcome()
	if err != nil || len(body) == 0 {
		return err
	}
	info, listed := f.worker.commands[r.command]
	// If the command does not stream, its result is its only item.
	if onlyItem := s.taken == 0 && !info.Stream && (listed || r.result == nil); onlyItem {
		only := item{bytes: body}
		if r.result != nil { // the item's value may become a part of its body, and the caller may change it
			only.bytes = bytes.Clone(body)
		}
		if !yield(only, nil) {
			return nil
		}
	}
	if r.result != nil {
		if err := s.mux.decode(body, r.result); err != nil {
			return fmt.Errorf("decoding the stream's result: %w", err)
		}
	}
	return nil
}

// abandon tells the worker to stop a call that nobody waits for any more. If the call goes on for longer than
// Options.CancelGrace, it becomes overdue.
func (f *inflight) abandon(ctx context.Context) {
	reason := "the caller has left"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = "deadline exceeded"
	}
	if !f.stream.abandon(reason) {
		if f.stream.undelivered() { // the answer came at the same moment
			f.stream.mux.logLate(f.stream)
		}
		return
	}
	p, w := f.pool, f.worker
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Cancelled++
	f.grace = time.AfterFunc(p.opts.CancelGrace, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if f.stream.isClosed() || f.overdue {
			return
		}
		f.overdue = true
		w.overdue++
		if w.stuck == "" {
			w.stuck = f.request.command
		}
		signal(w.wake)
	})
	if f.stream.isClosed() { // it ended at the same moment
		f.grace.Stop()
	}
}

// sendInput sends the caller's input until it ends or the handler wants no more. A value that cannot be sent ends the
// call.
func (f *inflight) sendInput(input iter.Seq[any]) {
	for v := range input {
		size, err := f.stream.send(f.pool.ctx, v)
		if err != nil {
			if err != io.EOF { // io.EOF: the handler wants no more input
				f.stream.failLocally(fmt.Errorf("input: %w", err))
			}
			return
		}
		f.request.watch.item(ToWorker, size)
	}
	f.stream.endInput()
}

// inputEnded is called when sendInput has ended. If it panicked, err is the panic, which ends the call.
func (f *inflight) inputEnded(err error) {
	var p *panicError
	if errors.As(err, &p) {
		f.worker.log.Error(p.Error(), "command", f.request.command, "stack", p.stack)
		f.stream.failLocally(p)
	}
}

// callError returns the *CallError of a failed call. f is nil if the call reached no worker.
func (p *Pool) callError(ctx context.Context, r *request, f *inflight, err error) error {
	e := notReached(r.command, err)
	e.Waited = r.waited
	if f != nil {
		e.Worker, e.Adapter = f.worker.index, f.worker.link.Adapter
	}
	var not *notRunError
	switch {
	case errors.As(err, &not):
		err = not.err
	case f != nil && f.stream != nil:
		e.MayHaveRun = f.stream.wasWritten()
		err = p.causeOf(ctx, f, err)
	}
	e.Err = r.explainTimeout(ctx, err)
	return e
}

// causeOf returns why a call that reached its worker failed.
func (p *Pool) causeOf(ctx context.Context, f *inflight, err error) error {
	var lost *lostError
	if errors.As(err, &lost) {
		return p.lossError(ctx, f.worker, lost.err)
	}
	if _, limited := ctx.Deadline(); limited && wasCancelled(err) {
		f.stream.mux.logLate(f.stream)  // the caller does not see what the handler raised
		return context.DeadlineExceeded // the worker's clock reached the deadline before ours
	}
	return err
}

// wasCancelled reports whether the worker says that the call was cancelled, or failed because of its cancellation. The
// deadline can pass in the worker, or in a function that it called here, a moment before it passes for the caller.
func wasCancelled(err error) bool {
	var remote *RemoteError
	return errors.As(err, &remote) && remote.some(maxLinks, func(e *RemoteError) bool { return e.is(TypeCancelled) })
}

// lossError returns the error for the loss of w. It waits for w's own goroutine to find out how the worker ended, until
// ctx is done.
func (p *Pool) lossError(ctx context.Context, w *Worker, err error) error {
	if errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	select {
	case <-w.ended:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.exit != nil {
		return w.exit
	}
	if p.closing {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrWorkerLost, err)
}
