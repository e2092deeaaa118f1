package otel

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/snakepit-go/snakepit/core"
)

// The attributes that the conventions of OpenTelemetry do not have.
const (
	keyPool      = attribute.Key("snakepit.pool")      // Options.Name
	keyWorker    = attribute.Key("snakepit.worker")    // the worker's index
	keyAdapter   = attribute.Key("snakepit.adapter")   // such as "grpc"
	keyDirection = attribute.Key("snakepit.direction") // "to_host" or "to_worker"
)

const (
	mostCommands   = 1000 // commands with series of their own, if workers do not list their commands
	mostErrorTypes = 100  // values of error.type in metrics

	other = "_OTHER" // the conventions' name for what has none
)

var (
	system     = semconv.RPCSystemNameKey.String("snakepit")
	directions = [...]attribute.KeyValue{
		core.ToHost:   keyDirection.String("to_host"),
		core.ToWorker: keyDirection.String("to_worker"),
	}
)

// commands are the commands, or the functions, of a pool that metrics know by name.
type commands struct {
	observer *observer
	kind     trace.SpanKind
	all      table[string, *command]
	unknown  *command // stands for the others
}

func newCommands(o *observer, kind trace.SpanKind) *commands {
	cs := &commands{observer: o, kind: kind}
	cs.unknown = cs.newCommand(other)
	return cs
}

// command has what the spans and metrics of one command need, so that a call makes little of it anew.
type command struct {
	*commands
	method  attribute.KeyValue
	start   []trace.SpanStartOption
	queue   []metric.RecordOption
	volumes [len(directions)]volume
	series  table[seriesKey, []metric.RecordOption]
	usual   table[*core.Worker, []metric.RecordOption] // of the series of calls without an error
}

// volume counts what went in one direction.
type volume struct {
	items, bytes atomic.Int64
	options      []metric.ObserveOption
}

// seriesKey names a series of the durations of one command.
type seriesKey struct {
	worker    facts  // with index -1 for calls that no worker had
	errorType string // or ""
}

func (cs *commands) newCommand(name string) *command {
	method, pool := semconv.RPCMethod(name), keyPool.String(cs.observer.poolName)
	c := &command{commands: cs, method: method, start: cs.startOptions(method)}
	c.queue = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(method, pool))}
	for to := range c.volumes {
		set := attribute.NewSet(method, pool, directions[to])
		c.volumes[to].options = []metric.ObserveOption{metric.WithAttributeSet(set)}
	}
	return c
}

// startOptions returns those of a span. Samplers see its attributes.
func (cs *commands) startOptions(method attribute.KeyValue) []trace.SpanStartOption {
	return []trace.SpanStartOption{
		trace.WithSpanKind(cs.kind), trace.WithAttributes(system, method, keyPool.String(cs.observer.poolName)),
	}
}

// find returns the command of that name if a call has found out before that it exists, or nil.
func (cs *commands) find(name string) *command {
	c, _ := cs.all.get(name)
	return c
}

// exists returns the command of that name, which exists.
func (cs *commands) exists(name string) *command {
	if c, ok := cs.all.add(name, mostCommands, func() *command { return cs.newCommand(name) }); ok {
		return c
	}
	return cs.unknown
}

// resolve returns the command of a call that has ended. Names that no worker knows share one, because callers may make
// up any number of them.
func (cs *commands) resolve(name string, end *core.CallEnd) *command {
	switch {
	case errors.Is(end.Err, core.ErrUnknownCommand):
		return cs.unknown
	case end.Worker != nil, cs.observer.listed(name):
		return cs.exists(name)
	}
	return cs.unknown
}

// listed reports whether a worker of the pool lists the command.
func (o *observer) listed(name string) bool {
	return slices.ContainsFunc(o.pool.Workers(), func(w *core.Worker) bool {
		return slices.ContainsFunc(w.Info().Commands, func(c core.CommandInfo) bool { return c.Name == name })
	})
}

// record adds a call that has ended to the metrics.
func (c *command) record(ctx context.Context, seconds float64, end *core.CallEnd) {
	o := c.observer
	options := c.optionsOf(end)
	if c.kind == trace.SpanKindServer {
		o.instruments.serverDuration.Record(ctx, seconds, options...)
		return
	}
	o.instruments.clientDuration.Record(ctx, seconds, options...)
	if end.Waited > 0 { // most calls do not wait, and should not pay for a second histogram
		o.instruments.queueTime.Record(ctx, end.Waited.Seconds(), c.queue...)
	}
}

// optionsOf returns the attributes of a call's duration.
func (c *command) optionsOf(end *core.CallEnd) []metric.RecordOption {
	usual := end.Err == nil && end.Worker != nil
	if usual {
		if options, ok := c.usual.get(end.Worker); ok {
			return options
		}
	}
	o := c.observer
	key := seriesKey{worker: facts{index: -1}}
	if end.Worker != nil {
		key.worker = o.factsOf(end.Worker)
	}
	if end.Err != nil {
		key.errorType = o.errorType(end.Err)
	}
	options, _ := c.series.add(key, math.MaxInt, func() []metric.RecordOption { return c.newSeries(key) })
	if usual {
		c.usual.put(end.Worker, options, o.living())
	}
	return options
}

func (c *command) newSeries(key seriesKey) []metric.RecordOption {
	all := []attribute.KeyValue{system, c.method, keyPool.String(c.observer.poolName)}
	if key.worker.index >= 0 {
		all = append(all, keyWorker.Int(key.worker.index), keyAdapter.String(key.worker.adapter))
	}
	if key.errorType != "" {
		all = append(all, semconv.ErrorTypeKey.String(key.errorType))
	}
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(all...))}
}

// errorType returns the value of error.type in metrics. Beyond mostErrorTypes it is other.
func (o *observer) errorType(err error) string {
	name := errorType(err)
	if _, ok := o.errorTypes.add(name, mostErrorTypes, func() struct{} { return struct{}{} }); !ok {
		return other
	}
	return name
}
