package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// leaseKillTime is how long a back end may take to tell the end of a process that was killed. After that the lease is
// closed: its end kills the process wherever the back end still works, and no other way is left.
const leaseKillTime = 2 * time.Second

// leased is a Process's body that a back end holds.
type leased struct {
	Lease
	process *Process
	report  chan []byte   // capacity 1
	ask     chan struct{} // capacity 1: the process is to be asked to end
	kill    chan struct{} // capacity 1: the process is to be killed
	sent    chan struct{} // closed when Holder.Signal is not called any more
	done    chan struct{} // closed when the last event has come
	ended   exitStatus    // set before done is closed
}

// wait passes the output on until the process has ended.
func (l *leased) wait() {
	defer close(l.done)
	printed := splitter{emit: l.process.out.line}
	defer printed.flush()
	for {
		var e LeaseEvent
		err := isolate("the adapter's Next", func() (err error) {
			e, err = l.Holder.Next()
			return captureError(err)
		})
		switch {
		case err != nil:
			l.ended = exitStatus{code: -1, lost: err}
			return
		case e.Exit != nil:
			l.ended = exitStatus{code: e.Exit.Code, signal: e.Exit.Signal, oom: e.Exit.OOM}
			return
		case e.Report != nil:
			select {
			case l.report <- e.Report:
			default: // only the first one counts
			}
		case e.Memory > 0:
			l.process.memory.Store(e.Memory)
		case e.Ending != "":
			select {
			case l.process.ending <- escapeControl(e.Ending, false):
			default: // it is known
			}
		default:
			printed.write(e.Output)
		}
	}
}

// signal queues the signal: the adapter's code does not run under Process.mu.
func (l *leased) signal(kill bool) bool {
	if isDone(l.done) {
		return false
	}
	if kill {
		signal(l.kill)
	} else {
		signal(l.ask)
	}
	return true
}

// send sends the queued signals. If a killed process does not end in time, it ends the lease.
func (l *leased) send() {
	defer close(l.sent)
	pass := func(kill bool) {
		_ = isolate("the adapter's Signal", func() error { l.Holder.Signal(kill); return nil })
	}
	var patience <-chan time.Time
	for {
		select {
		case <-l.ask:
			pass(false)
		case <-l.kill:
			pass(true)
			if patience == nil {
				patience = time.After(leaseKillTime)
			}
		case <-patience:
			l.end()
		case <-l.done:
			return
		}
	}
}

// end ends the lease.
func (l *leased) end() { _ = isolate("the adapter's Close", l.Holder.Close) } // nothing is left to do about an error

func (l *leased) collect() (exitStatus, *os.ProcessState) { return l.ended, nil }

func (l *leased) release() {
	<-l.sent
	l.end()
}

// adopt is Launcher.Adopt.
func (at *attempt) adopt(ctx context.Context, lease Lease) (*Process, error) {
	p, l, err := at.spawner.adopt(at, lease)
	if err != nil {
		return nil, err
	}
	at.launchedOne(p)
	if err := p.awaitLeased(ctx, l); err != nil {
		p.kill()
		return nil, err
	}
	at.returns(p)
	return p, nil
}

// adopt makes a Process of a lease. After an error the lease is closed.
func (sp *spawner) adopt(at *attempt, lease Lease) (*Process, *leased, error) {
	l := &leased{
		Lease: lease, report: make(chan []byte, 1), ask: make(chan struct{}, 1),
		kill: make(chan struct{}, 1), sent: make(chan struct{}), done: make(chan struct{}),
	}
	if sp.opts.Limits != (Limits{}) {
		l.end()
		return nil, nil, &RemedyError{
			Err:    errors.New("Options.Limits bound only workers on this machine"),
			Remedy: "unset them, and set limits where the workers run",
		}
	}
	if lease.Host == "" {
		l.end()
		return nil, nil, errors.New("the adapter's lease names no host")
	}
	if !sp.owns() {
		l.end()
		return nil, nil, ErrClosed
	}
	p := sp.newProcess(lease.Name)
	p.body, p.pid, p.out = l, lease.PID, newOutput(sp.opts.Log, at.index)
	p.host = escapeControl(truncate(lease.Host, 200), false)
	p.ending, l.process = make(chan string, 1), p
	go l.send()
	go func() {
		defer sp.owned.Done()
		p.supervise(nil)
	}()
	return p, l, nil
}

// awaitLeased waits for the report of a leased process, its end or ctx.
func (p *Process) awaitLeased(ctx context.Context, l *leased) error {
	var raw []byte
	select {
	case raw = <-l.report:
	case <-p.exited:
		select {
		case raw = <-l.report: // it came before the end
		default:
			if lost := p.status().lost; lost != nil {
				return fmt.Errorf("%s: its back end is gone: %w", p.name, lost)
			}
		}
	case <-ctx.Done():
		return p.notReported(ctx)
	}
	return p.judge(ctx, cutReport(raw, nil))
}
