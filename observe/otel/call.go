package otel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/snakepit-go/snakepit/core"
)

// The attributes of spans and their events that metrics do not have.
const (
	keySession = attribute.Key("snakepit.session")
	keyQueue   = attribute.Key("snakepit.queue_seconds") // before the call had a worker
	keyRetries = attribute.Key("snakepit.retries")       // how often another worker got the call, as it had not run
	keyReason  = attribute.Key("snakepit.reason")        // of a cancel
	keySignal  = attribute.Key("snakepit.exit.signal")   // that ended a lost worker
	keyCause   = attribute.Key("snakepit.cause")         // of a loss
)

var volumeKeys = [len(directions)]struct{ items, bytes attribute.Key }{
	core.ToHost:   {"snakepit.to_host.items", "snakepit.to_host.bytes"},
	core.ToWorker: {"snakepit.to_worker.items", "snakepit.to_worker.bytes"},
}

// The names of the events of spans.
const (
	eventFirstItem = "snakepit.first_item"
	eventCancel    = "snakepit.cancel"
)

// call is the core.CallObserver of one call.
type call struct {
	commands  *commands
	command   *command // nil for a name that no call has used before
	name      string
	span      trace.Span      // or nil
	ctx       context.Context // with the span
	began     time.Time
	recording bool        // the span is sampled
	first     atomic.Bool // the span has the event of the first item

	// bytes are those of items, by direction. After the end they are far below zero.
	bytes [len(directions)]atomic.Int64
}

const ended = -1 << 62

// begin begins the span of a call.
func (o *observer) begin(ctx context.Context, cs *commands, start *core.CallStart) *call {
	c := &call{commands: cs, command: cs.find(start.Command), name: start.Command, began: time.Now()}
	if c.ctx = ctx; o.tracer == nil {
		return c
	}
	var options []trace.SpanStartOption
	if c.command != nil {
		options = c.command.start
	} else {
		options = cs.startOptions(semconv.RPCMethod(start.Command))
	}
	c.ctx, c.span = o.tracer.Start(ctx, start.Command, options...)
	if c.recording = c.span.IsRecording(); c.recording {
		if start.Session != "" {
			c.span.SetAttributes(keySession.String(start.Session))
		}
		if start.Worker != nil {
			c.span.SetAttributes(o.workerAttributes(start.Worker)...)
		}
	}
	return c
}

// Item counts an item.
func (c *call) Item(to core.Direction, size int) {
	command := c.command
	if command == nil {
		command = c.commands.exists(c.name)
	}
	v := &command.volumes[to]
	v.items.Add(1)
	if c.bytes[to].Add(int64(size)) >= 0 {
		v.bytes.Add(int64(size))
	}
	if c.recording && !c.first.Load() && (to == core.ToHost) == (c.commands.kind == trace.SpanKindClient) &&
		c.first.CompareAndSwap(false, true) {
		c.span.AddEvent(eventFirstItem)
	}
}

// End ends the span, and adds the call to the metrics.
func (c *call) End(end *core.CallEnd) {
	seconds := time.Since(c.began).Seconds()
	command := c.command
	if command == nil {
		command = c.commands.resolve(c.name, end)
	}
	for to, all := range [...]core.Volume{core.ToHost: end.ToHost, core.ToWorker: end.ToWorker} {
		// The rest are the bytes of the arguments and the result.
		command.volumes[to].bytes.Add(all.Bytes - c.bytes[to].Swap(ended))
	}
	command.record(c.ctx, seconds, end)
	if c.recording {
		c.describe(command, end)
	}
	if c.span != nil {
		c.span.End()
	}
}

// describe completes the span.
func (c *call) describe(command *command, end *core.CallEnd) {
	o, span := c.commands.observer, c.span
	all := make([]attribute.KeyValue, 0, 12)
	if command == c.commands.unknown {
		span.SetName("snakepit") // the conventions' name for a method that is not known
		all = append(all, command.method, semconv.RPCMethodOriginal(c.name))
	}
	client := c.commands.kind == trace.SpanKindClient
	if client {
		if end.Worker != nil {
			all = append(all, o.workerAttributes(end.Worker)...)
		}
		all = append(all, keyQueue.Float64(end.Waited.Seconds()))
	}
	if end.Retries > 0 {
		all = append(all, keyRetries.Int(end.Retries))
	}
	for to, v := range [...]core.Volume{core.ToHost: end.ToHost, core.ToWorker: end.ToWorker} {
		all = append(all, volumeKeys[to].items.Int64(v.Items), volumeKeys[to].bytes.Int64(v.Bytes))
	}
	switch {
	case end.Left:
		span.AddEvent(eventCancel, trace.WithAttributes(keyReason.String("the caller has left the stream")))
	case client && (errors.Is(end.Err, context.Canceled) || errors.Is(end.Err, context.DeadlineExceeded)):
		span.AddEvent(eventCancel, trace.WithAttributes(keyReason.String(text(end.Err))))
	}
	if end.Err != nil {
		all = append(all, semconv.ErrorTypeKey.String(errorType(end.Err)))
		span.AddEvent(semconv.ExceptionEventName, trace.WithAttributes(exception(end.Err)...))
		span.SetStatus(codes.Error, text(end.Err))
	}
	span.SetAttributes(all...)
}

func (o *observer) workerAttributes(w *core.Worker) []attribute.KeyValue {
	facts := o.factsOf(w)
	return []attribute.KeyValue{keyWorker.Int(facts.index), keyAdapter.String(facts.adapter)}
}

// text returns the first line of an error.
func text(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// sentinels are the errors of core and the context, and their values of error.type.
var sentinels = []struct {
	err  error
	name string
}{
	{context.Canceled, "cancelled"},
	{context.DeadlineExceeded, "timeout"},
	{core.ErrUnknownCommand, "unknown_command"},
	{core.ErrBadArguments, "bad_arguments"},
	{core.ErrFrameTooLarge, "too_large"},
	{core.ErrSaturated, "saturated"},
	{core.ErrWorkerLost, "worker_lost"},
	{core.ErrSessionLost, "session_lost"},
	{core.ErrCrashLoop, "crash_loop"},
	{core.ErrProtocol, "protocol"},
	{core.ErrClosed, "closed"},
}

// errorType returns the value of error.type: the name of one of the errors above, or the class of an exception.
func errorType(err error) string {
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.name
		}
	}
	var remote *core.RemoteError
	if errors.As(err, &remote) {
		return className(remote)
	}
	return other
}

// className returns the name of an exception's class, such as "ValueError" or "json.decoder.JSONDecodeError".
func className(e *core.RemoteError) string {
	if e.Module == "" || e.Module == "builtins" {
		return e.Type
	}
	return e.Module + "." + e.Type
}

// exception returns the attributes of an error's event: those of the exception in the worker, of the lost worker's
// exit, or of an error of Go.
func exception(err error) []attribute.KeyValue {
	var remote *core.RemoteError
	if errors.As(err, &remote) {
		return []attribute.KeyValue{
			semconv.ExceptionType(className(remote)), semconv.ExceptionMessage(remote.Message),
			semconv.ExceptionStacktrace(remote.Traceback()),
		}
	}
	var exit *core.WorkerExit
	if errors.As(err, &exit) {
		all := []attribute.KeyValue{
			semconv.ExceptionType("snakepit.WorkerExit"), semconv.ExceptionMessage(exit.Error()),
			keyCause.String(causeOf(exit)), semconv.ProcessPID(exit.PID),
		}
		if exit.Signal != "" {
			all = append(all, keySignal.String(exit.Signal))
		} else if exit.ExitCode >= 0 {
			all = append(all, semconv.ProcessExitCode(exit.ExitCode))
		}
		if exit.Stacks != "" {
			all = append(all, semconv.ExceptionStacktrace(exit.Stacks))
		}
		return all
	}
	cause := err
	var failed *core.CallError
	if errors.As(err, &failed) {
		cause = failed.Err
	}
	return []attribute.KeyValue{
		semconv.ExceptionType(fmt.Sprintf("%T", cause)), semconv.ExceptionMessage(cause.Error()),
	}
}

// The causes of losses. They are a fixed set.
const (
	causeExit       = "exit"       // it exited by itself
	causeSignal     = "signal"     // a signal ended it, for instance a crash in C code
	causeOOM        = "oom"        // the kernel killed it because memory ran out
	causeLimit      = "limit"      // it reached one of core.Limits
	causeBackEnd    = "backend"    // its back end or the machine was lost
	causeConnection = "connection" // its connection ended, and no process of this pool belongs to it
)

var lossCauses = [...]string{causeExit, causeSignal, causeOOM, causeLimit, causeBackEnd, causeConnection}

// causeOf returns the cause of a loss.
func causeOf(exit *core.WorkerExit) string {
	switch {
	case exit.Lost != nil:
		return causeBackEnd
	case exit.Limit != "":
		return causeLimit
	case exit.OOM:
		return causeOOM
	case exit.Signal != "":
		return causeSignal
	case exit.PID == 0:
		return causeConnection
	}
	return causeExit
}
