package otel

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	"github.com/snakepit-go/snakepit/core"
)

// instruments are those that calls record to. The others are read by report.
type instruments struct {
	clientDuration, serverDuration, queueTime metric.Float64Histogram
}

// queueBuckets are in seconds.
var queueBuckets = []float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
}

func (i *instruments) make(m metric.Meter) error {
	client, err1 := rpcconv.NewClientCallDuration(m)
	server, err2 := rpcconv.NewServerCallDuration(m)
	i.clientDuration, i.serverDuration = client.Inst(), server.Inst()
	var err3 error
	i.queueTime, err3 = m.Float64Histogram("snakepit.call.queue.duration", metric.WithUnit("s"),
		metric.WithDescription("How long the calls that had to wait for a worker waited."),
		metric.WithExplicitBucketBoundaries(queueBuckets...))
	return errors.Join(err1, err2, err3)
}

// reporter makes the instruments that are read at each collection.
type reporter struct {
	meter metric.Meter
	all   []metric.Observable
	err   error
}

func (r *reporter) counter(name, unit, description string) metric.Int64ObservableCounter {
	i, err := r.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	r.all, r.err = append(r.all, i), errors.Join(r.err, err)
	return i
}

func (r *reporter) amount(name, unit, description string) metric.Int64ObservableUpDownCounter {
	i, err := r.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	r.all, r.err = append(r.all, i), errors.Join(r.err, err)
	return i
}

// states are those that a worker of a pool can have.
var states = [...]core.WorkerState{core.StateStarting, core.StateReady, core.StateDraining, core.StateStopping}

// report makes the instruments of the pool's state, and the one function that reads them.
func (o *observer) report(meter metric.Meter) (metric.Registration, error) {
	r := &reporter{meter: meter}
	callItems := r.counter("snakepit.call.items", "{item}", "Items of calls of workers.")
	callBytes := r.counter("snakepit.call.bytes", "By", "Encoded values of calls of workers.")
	functionItems := r.counter("snakepit.function.items", "{item}", "Items of calls of functions by workers.")
	functionBytes := r.counter("snakepit.function.bytes", "By", "Encoded values of calls of functions by workers.")

	running := r.amount("snakepit.pool.calls.running", "{call}", "Calls that hold a slot of a worker.")
	waiting := r.amount("snakepit.pool.calls.waiting", "{call}", "Calls that wait for a worker.")
	saturated := r.counter("snakepit.pool.calls.saturated", "{call}", "Calls that were refused as the pool was full.")
	cancelled := r.counter("snakepit.pool.calls.cancelled", "{call}", "Calls that were cancelled while they ran.")
	sessions := r.amount("snakepit.pool.sessions", "{session}", "Live sessions.")
	size := r.amount("snakepit.pool.size", "{worker}", "How many workers the pool may have.")
	inState := r.amount("snakepit.pool.workers", "{worker}", "Workers by state.")
	restarts := r.counter("snakepit.pool.restarts", "{worker}", "Workers that replaced a lost one or a failed start.")
	replaced := r.counter("snakepit.pool.replacements", "{worker}", "Workers that left as their replacement was ready.")
	startFails := r.counter("snakepit.pool.start_failures", "{start}", "Starts of workers that failed.")
	terminated := r.counter("snakepit.pool.terminations", "{worker}", "Workers that were ended by force.")
	losses := r.counter("snakepit.pool.losses", "{worker}", "Workers that ended unexpectedly, by cause.")

	memory := r.amount("snakepit.worker.memory", "By", "Resident memory of a worker's process tree.")
	processor, err := meter.Float64ObservableCounter("snakepit.worker.cpu.time", metric.WithUnit("s"),
		metric.WithDescription("Processor time of the process trees of a worker and its predecessors."))
	r.all, r.err = append(r.all, processor), errors.Join(r.err, err)
	oldest, err := meter.Float64ObservableGauge("snakepit.pool.oldest_wait", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest waiting call has waited."))
	r.all, r.err = append(r.all, oldest), errors.Join(r.err, err)
	if r.err != nil {
		return nil, r.err
	}

	pool := keyPool.String(o.poolName)
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, pool)...))
	}
	alone := with()
	byState := map[core.WorkerState]metric.MeasurementOption{}
	for _, s := range states {
		byState[s] = with(attribute.String("snakepit.state", string(s)))
	}
	var byCause [len(lossCauses)]metric.MeasurementOption
	for i, cause := range lossCauses {
		byCause[i] = with(keyCause.String(cause))
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		o.calls.report(to, callItems, callBytes)
		o.functions.report(to, functionItems, functionBytes)
		s := o.pool.Stats()
		to.ObserveInt64(running, int64(s.Running), alone)
		to.ObserveInt64(waiting, int64(s.Waiting), alone)
		to.ObserveInt64(saturated, s.Saturated, alone)
		to.ObserveInt64(cancelled, s.Cancelled, alone)
		to.ObserveInt64(sessions, int64(s.Sessions), alone)
		to.ObserveInt64(size, int64(o.pool.Size()), alone)
		to.ObserveInt64(restarts, s.Restarts, alone)
		to.ObserveInt64(replaced, s.Replaced, alone)
		to.ObserveInt64(startFails, s.StartFails, alone)
		to.ObserveInt64(terminated, s.Terminated, alone)
		to.ObserveFloat64(oldest, s.OldestWait.Seconds(), alone)
		count := map[core.WorkerState]int64{}
		for _, w := range s.Workers {
			count[w.State]++
		}
		for _, state := range states {
			to.ObserveInt64(inState, count[state], byState[state])
		}
		for i := range byCause {
			to.ObserveInt64(losses, o.losses[i].Load(), byCause[i])
		}
		for index, u := range o.usage() {
			worker := with(keyWorker.Int(index))
			if u.memory > 0 {
				to.ObserveInt64(memory, u.memory, worker)
			}
			if u.processor > 0 {
				to.ObserveFloat64(processor, u.processor.Seconds(), worker)
			}
		}
		return nil
	}, r.all...)
}

// report reports the items and bytes of the commands.
func (cs *commands) report(to metric.Observer, items, bytes metric.Int64Observable) {
	one := func(c *command) {
		for i := range c.volumes {
			v := &c.volumes[i]
			to.ObserveInt64(items, v.items.Load(), v.options...)
			to.ObserveInt64(bytes, v.bytes.Load(), v.options...)
		}
	}
	for _, c := range cs.all.snapshot() {
		one(c)
	}
	if cs.unknown.used() {
		one(cs.unknown)
	}
}

// used reports whether anything was counted.
func (c *command) used() bool {
	for i := range c.volumes {
		if c.volumes[i].items.Load() != 0 || c.volumes[i].bytes.Load() != 0 {
			return true
		}
	}
	return false
}

// used is what the workers of one index use.
type used struct {
	memory    int64         // of those that live, in bytes
	processor time.Duration // of all since Observe
}

// processorTimes adds up the processor time of the workers that had the same index, one after another.
type processorTimes struct {
	mu    sync.Mutex
	total map[int]time.Duration // by index
	last  map[int]time.Duration // by process
}

// usage returns what the workers use, by index. What a worker uses between the last collection and its end is lost.
func (o *observer) usage() map[int]used {
	t := &o.processors
	t.mu.Lock()
	defer t.mu.Unlock()
	all, last := map[int]used{}, map[int]time.Duration{}
	if t.total == nil {
		t.total = map[int]time.Duration{}
	}
	for _, u := range o.pool.Usage() {
		now := max(u.CPU, t.last[u.PID]) // a child that has ended may take its time along
		t.total[u.Index] += now - t.last[u.PID]
		last[u.PID] = now
		all[u.Index] = used{all[u.Index].memory + u.Memory, t.total[u.Index]}
	}
	t.last = last
	return all
}
