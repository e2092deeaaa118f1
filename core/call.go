package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Target is where a call can go: a *Pool, or a *Session of one.
type Target interface {
	target() (p *Pool, session string, err error)
}

func (p *Pool) target() (*Pool, string, error) { return p, "", nil }

func (s *Session) target() (*Pool, string, error) {
	if s.id == "" { // would be no session
		return nil, "", errors.New("the session's id must not be empty")
	}
	return s.pool, s.id, nil
}

// CallOption changes one call.
type CallOption func(*request)

// Timeout bounds one call, waiting for a worker included, in place of Options.CallTimeout or StreamTimeout; negative means no limit.
// A deadline of the context holds all the same.
func Timeout(d time.Duration) CallOption { return func(r *request) { r.timeout = d } }

// Result has the stream's result, a Python generator's return value, decoded into v, a non-nil pointer, when the stream has ended
// normally. A stream without one leaves v as it is.
func Result(v any) CallOption { return func(r *request) { r.result = v } }

// Input streams values to the handler, which reads them from ctx.input. seq is ranged over once, in a goroutine of the
// pool's that ends with the call; a call with an input is never tried again on another worker once seq has begun. seq
// must not block for ever. A panic in it, or in a method of its values, becomes the call's error; the stack is logged.
func Input[T any](seq iter.Seq[T]) CallOption {
	return func(r *request) {
		r.input = func(yield func(any) bool) {
			for v := range seq {
				if !yield(v) {
					return
				}
			}
		}
	}
}

type metadataKey struct{}

// WithMetadata returns a context whose calls carry a copy of md to the handler, as ctx.metadata. It replaces what the
// context carried before.
func WithMetadata(ctx context.Context, md map[string]string) context.Context {
	return context.WithValue(ctx, metadataKey{}, maps.Clone(md))
}

// request is a call that a user asked for.
type request struct {
	command string
	args    any
	session string
	timeout time.Duration // 0: the pool's; negative: none
	result  any
	input   iter.Seq[any]
	begun   bool // input has been ranged over
	stream  bool

	limit  time.Duration // the time limit that holds, for the error; 0: the deadline of the caller's context
	source string        // what set it
}

// What sets the limit of a call that says nothing of its own.
const (
	callLimit   = "Options.CallTimeout; the call option Timeout changes it for one call"
	streamLimit = "Options.StreamTimeout; the call option Timeout changes it for one call"
)

// Execute calls a command and returns its result. args becomes the handler's arguments: a struct or map keyword
// arguments, nil none, and anything else one positional argument, of which a nil slice is an empty one. A command that
// streams is refused. Every error is a *CallError, whose MayHaveRun says whether it is safe to try again; the sentinels
// of this package, *RemoteError, and the context's own errors are inside.
//
// When ctx ends, Execute returns at once, and the worker is told to stop. It may be called from any number of
// goroutines. args is encoded on the caller's goroutine, which also gets a panic in a method of args; no slot is lost
// by it.
func Execute[Out any](ctx context.Context, t Target, command string, args any, opts ...CallOption) (Out, error) {
	var out Out
	p, session, err := t.target()
	if err != nil {
		return out, notReached(command, err)
	}
	r := &request{command: command, args: args, session: session}
	for _, o := range opts {
		o(r)
	}
	if r.result != nil {
		return out, notReached(command, errors.New("option Result is for ExecuteStream; Execute returns the result"))
	}
	if err := p.execute(ctx, r, &out); err != nil {
		return *new(Out), err // not what was decoded up to the error
	}
	return out, nil
}

// ExecuteStream calls a command and yields what it sends. An *ItemError is one item's and the stream goes on; any other error is the
// last thing yielded, a *CallError as of Execute. Breaking out of the loop cancels the call. A command that does not stream yields its
// result as its one item. The sequence may be ranged over once, by one goroutine; the call begins then.
func ExecuteStream[Out any](ctx context.Context, t Target, command string, args any, opts ...CallOption) iter.Seq2[Out, error] {
	p, session, err := t.target()
	r := &request{command: command, args: args, session: session, stream: true}
	for _, o := range opts {
		o(r)
	}
	var used atomic.Bool
	return func(yield func(Out, error) bool) {
		if used.Swap(true) {
			yield(*new(Out), notReached(command, errors.New("the stream has been ranged over before; call ExecuteStream again")))
			return
		}
		if err != nil {
			yield(*new(Out), notReached(command, err))
			return
		}
		p.executeStream(ctx, r, func(m *mux, it item, err error) bool {
			var v Out
			if err == nil {
				if err = m.decode(it.bytes, &v); err != nil {
					v, err = *new(Out), &ItemError{Index: it.index, Err: err}
				}
			}
			return yield(v, err)
		})
	}
}

// maxRetries bounds how often a call that did not run is taken to another worker.
const maxRetries = 8

// execute makes a call with one result.
func (p *Pool) execute(ctx context.Context, r *request, out any) error {
	ctx, cancel := withLimit(ctx, r, p.opts.CallTimeout, callLimit)
	defer cancel()
	for moves := 0; ; moves++ {
		f, err := p.dispatch(ctx, r)
		if err == nil {
			err = f.awaitResult(ctx, out)
		}
		if err == nil {
			return nil
		}
		if !r.mayRetry(err, moves) {
			return p.callError(ctx, r, f, err)
		}
	}
}

// executeStream makes a call with many results. The last thing that yield gets is an error, if there is one.
func (p *Pool) executeStream(ctx context.Context, r *request, yield func(*mux, item, error) bool) {
	ctx, cancel := withLimit(ctx, r, p.opts.StreamTimeout, streamLimit)
	defer cancel()
	for moves := 0; ; moves++ {
		left := false
		f, err := p.dispatch(ctx, r)
		if err == nil {
			err = f.forwardItems(ctx, func(it item, err error) bool {
				left = !yield(f.stream.mux, it, err)
				return !left
			})
		}
		if err == nil || left {
			return
		}
		if !r.mayRetry(err, moves) {
			yield(nil, item{}, p.callError(ctx, r, f, err))
			return
		}
	}
}

// mayRetry reports whether the call may be tried on another worker: it certainly did not run.
func (r *request) mayRetry(err error, moves int) bool {
	var not *notRunError
	return errors.As(err, &not) && not.elsewhere && moves < maxRetries && !r.begun
}

// withLimit applies the call's own time limit, or the standard one where the caller's context has none.
func withLimit(ctx context.Context, r *request, standard time.Duration, source string) (context.Context, context.CancelFunc) {
	d := r.timeout
	deadline, own := ctx.Deadline()
	switch {
	case d != 0:
		source = "the call option Timeout"
	case !own:
		d = standard
	}
	if d <= 0 || own && time.Until(deadline) <= d {
		return ctx, func() {}
	}
	r.limit, r.source = d, source
	return context.WithTimeout(ctx, d)
}

// explainTimeout adds to the error of a context that has ended the cause that it was cancelled with, or which time limit it was.
func (r *request) explainTimeout(ctx context.Context, err error) error {
	late := err == context.DeadlineExceeded // before our own clock says so
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		late = ended == context.DeadlineExceeded
		if cause := context.Cause(ctx); cause != ended {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}
	if !late {
		return err
	}
	what, when := "no answer", "by the deadline of the caller's context"
	if r.stream {
		what = "the stream has not ended"
	}
	if r.limit > 0 {
		when = fmt.Sprintf("within %s (%s)", r.limit, r.source)
	}
	return fmt.Errorf("%s %s: %w", what, when, err)
}

// inflight is a call that is with a worker.
type inflight struct {
	pool    *Pool
	worker  *Worker
	session *session
	stream  *stream
	request *request

	// guarded by pool.mu
	grace   *time.Timer // runs since the call was cancelled
	overdue bool        // the grace is over
}

// dispatch takes a slot and opens the call there.
func (p *Pool) dispatch(ctx context.Context, r *request) (*inflight, error) {
	if err := ctx.Err(); err != nil {
		return nil, &notRunError{err: err}
	}
	if s := servedBy(ctx); s != nil && slices.Contains(s.sessions, sessionKey{p, r.session}) {
		return nil, &notRunError{err: fmt.Errorf("session %q is itself waiting for this call; it would wait for ever", r.session)}
	}
	w, s, err := p.acquire(ctx, r.session)
	if err != nil {
		return nil, &notRunError{err: err}
	}
	return p.openCall(ctx, r, w, s)
}

// openCall opens a call in a slot that is the caller's. The slot goes back when the call ends, whoever still waits for it;
// if the call does not begin, at once, also when user code panics here.
func (p *Pool) openCall(ctx context.Context, r *request, w *Worker, s *session) (*inflight, error) {
	f := &inflight{pool: p, worker: w, session: s, request: r}
	begun := false
	defer func() {
		if !begun {
			f.release(false)
		}
	}()
	frame, err := f.frame(ctx)
	if err != nil {
		return f, &notRunError{err: err}
	}
	deadline, _ := ctx.Deadline()
	var sessions []sessionKey
	if sv := servedBy(ctx); sv != nil {
		sessions = sv.sessions
	}
	if s != nil {
		sessions = append(slices.Clip(sessions), sessionKey{p, s.id})
	}
	if r.input != nil && !p.addGoroutine() {
		return f, &notRunError{err: ErrClosed}
	}
	if f.stream, err = w.mux.open(frame, deadline, sessions, f.release); err != nil {
		if r.input != nil {
			p.goroutines.Done()
		}
		if errors.Is(err, errLeaving) {
			w.retire("its connection takes no new calls") // so that the next try goes elsewhere
		}
		return f, err
	}
	begun = true
	if r.input != nil {
		r.begun = true
		go func() {
			defer p.goroutines.Done()
			guard("the input", func() error { f.sendInput(r.input); return nil }, f.inputEnded)
		}()
	}
	return f, nil
}

// addGoroutine counts a goroutine that is about to be started, unless the pool is closing and may have stopped to wait for any.
func (p *Pool) addGoroutine() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return false
	}
	p.goroutines.Add(1)
	return true
}

// frame makes the call frame, or says why the worker can't be asked.
func (f *inflight) frame(ctx context.Context) (Frame, error) {
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
		if info.Stream && !r.stream {
			return frame, fmt.Errorf("%s sends a stream: call it by ExecuteStream", r.command)
		}
	}
	if r.input != nil {
		frame.Flags = 0
	}
	if v := reflect.ValueOf(r.result); r.result != nil && (v.Kind() != reflect.Pointer || v.IsNil()) {
		return frame, fmt.Errorf("option Result needs a non-nil pointer, not %T", r.result)
	}
	if sv := servedBy(ctx); sv != nil && sv.mux == w.mux {
		frame.Parent = sv.stream.id
	}
	frame.Meta, _ = ctx.Value(metadataKey{}).(map[string]string)
	if err := checkText(&frame); err != nil {
		return frame, err
	}
	if r.args == nil {
		return frame, nil
	}
	args := r.args
	if v := reflect.ValueOf(args); v.Kind() == reflect.Slice && v.IsNil() { // an empty list, and not no argument
		args = reflect.MakeSlice(v.Type(), 0, 0).Interface()
	}
	var err error
	frame.Body, err = w.mux.terms.codec.Append(nil, args)
	return frame, err
}

// checkText makes sure that what travels as text is text on every adapter: one call's bad name must not end the connection.
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

// release gives the slot back. It is called once, when the call has release for the worker, or never reached it.
func (f *inflight) release(answered bool) {
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
	if answered {
		w.completed = true
		p.failures[w.index] = startFailures{}
	}
	if f.session != nil {
		p.leaveSession(f.session)
	}
	p.releaseSlot(w)
}

// awaitResult waits for the result of a call that has just awaitResult.
func (f *inflight) awaitResult(ctx context.Context, out any) error {
	s := f.stream
	for _, err := range s.items(ctx) {
		if err == nil || errors.As(err, new(*ItemError)) {
			err = fmt.Errorf("%s sends a stream: call it by ExecuteStream", f.request.command)
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
	if err := s.mux.decode(body, out); err != nil {
		return fmt.Errorf("decoding the result: %w", err)
	}
	return nil
}

// forwardItems yields the items of a call, and decodes its result.
func (f *inflight) forwardItems(ctx context.Context, yield func(item, error) bool) error {
	s, r := f.stream, f.request
	defer f.abandon(ctx)                                      // also when yield panics; of a call that has ended it does nothing
	defer context.AfterFunc(ctx, func() { f.abandon(ctx) })() // also when yield does not return
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
	if s.taken == 0 && !info.Stream && (listed || r.result == nil) && !yield(item{bytes: body}, nil) {
		return nil
	}
	if r.result != nil {
		if err := s.mux.decode(body, r.result); err != nil {
			return fmt.Errorf("decoding the stream's result: %w", err)
		}
	}
	return nil
}

// abandon tells the worker to stop a call that nobody waits for any more, and sees to it that it does.
func (f *inflight) abandon(ctx context.Context) {
	reason := "the caller has left"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = "deadline exceeded"
	}
	if !f.stream.abandon(reason) {
		if f.stream.unheard() { // it came at the same moment
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
	if f.stream.isClosed() { // at the same moment
		f.grace.Stop()
	}
}

// sendInput sends the caller's input, until it ends or no more is wanted. What can't be sent ends the call.
func (f *inflight) sendInput(input iter.Seq[any]) {
	for v := range input {
		if err := f.stream.send(f.pool.ctx, v, 0); err != nil {
			if err != io.EOF { // io.EOF: the call takes no more input
				f.stream.failLocally(fmt.Errorf("input: %w", err))
			}
			return
		}
	}
	f.stream.endInput()
}

// inputEnded is called when feed has ended, with its panic if there was one. That ends the call.
func (f *inflight) inputEnded(err error) {
	var p *panicError
	if errors.As(err, &p) {
		f.worker.log.Error(p.Error(), "command", f.request.command, "stack", p.stack)
		f.stream.failLocally(p)
	}
}

// callError adds what is known of a failed call to its error. f is nil if no worker was reached.
func (p *Pool) callError(ctx context.Context, r *request, f *inflight, err error) error {
	e := notReached(r.command, err)
	var not *notRunError
	if errors.As(err, &not) {
		e.Err = not.err
	}
	defer func() { e.Err = r.explainTimeout(ctx, e.Err) }()
	if f == nil {
		return e
	}
	e.Worker, e.Adapter = f.worker.index, f.worker.link.Adapter
	if f.stream == nil || not != nil {
		return e
	}
	e.MayHaveRun = f.stream.wasWritten()
	if _, limited := ctx.Deadline(); limited && wasCancelled(err) {
		e.Err = context.DeadlineExceeded // the worker's clock was a little earlier than ours
		f.stream.mux.logLate(f.stream)   // what it raised instead, if it did
	}
	var gone *lostError
	if errors.As(err, &gone) {
		e.Err = p.lossError(ctx, f.worker, gone.err)
	}
	return e
}

// wasCancelled reports whether the worker says that the call was cancelled, or something failed there because it was: time that is over in
// the worker, or in a function that it called here, is so a moment before the caller knows.
func wasCancelled(err error) bool {
	var remote *RemoteError
	if !errors.As(err, &remote) {
		return false
	}
	for remote.Cause != nil && remote.Type != TypeCancelled {
		remote = remote.Cause
	}
	return remote.Type == TypeCancelled
}

// lossError says how a worker was lost. Its own goroutine is about to find out, if it has not yet.
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

// served is what the context of a Function says of the call that it serves.
type served struct {
	mux      *mux
	stream   *stream
	parent   *stream      // the call of ours whose handler made it, or nil
	sessions []sessionKey // that wait for its end
}

type servedKey struct{}

func servedBy(ctx context.Context) *served {
	s, _ := ctx.Value(servedKey{}).(*served)
	return s
}

// withServed notes in ctx that it belongs to an incoming call, made by the handler of parent, a call of ours, or nil.
func withServed(ctx context.Context, m *mux, call, parent *stream) context.Context {
	s := &served{mux: m, stream: call, parent: parent}
	if parent != nil {
		s.sessions = parent.sessions
	}
	return context.WithValue(ctx, servedKey{}, s)
}
