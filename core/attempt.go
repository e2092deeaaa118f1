package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// attempt is the start of one worker. It may launch several processes, one after another. One of them is kept.
type attempt struct {
	spawner     *spawner
	index       int
	hostToken   string
	workerToken string
	env         func() ([]string, error) // returns what Options.WorkerEnv returns for this start
	adapter     string                   // the adapter's name; set before its Start is called

	mu       sync.Mutex // guards the fields below
	launched []*Process // or adopted
	returned *Process   // the last process that Launch or Adopt returned to an adapter
}

// isolate calls the adapter's code like the function isolate, and logs a panic with its stack.
func (at *attempt) isolate(what string, f func() error) error {
	err := isolate(what, f)
	if p, ok := err.(*panicError); ok {
		at.spawner.opts.Log.events(at.index).Error(p.Error(), "stack", p.stack)
	}
	return err
}

// launcher returns the Launcher for the adapter's Start.
func (at *attempt) launcher() (*Launcher, error) {
	sp := at.spawner
	own, err := at.env()
	if err != nil {
		return nil, err
	}
	return &Launcher{
		Launch: at.launch, Adopt: at.adopt, Dir: sp.dir, RunID: sp.runID, Env: slices.Concat(sp.cmd.Env, own),
		WatchMemory: sp.opts.WatchMemory, Index: at.index, MaxFrame: sp.opts.MaxFrame,
		HostToken: at.hostToken, WorkerToken: at.workerToken,
	}, nil
}

// launch is Launcher.Launch.
func (at *attempt) launch(ctx context.Context, s Spec) (*Process, error) {
	defer closeFiles(s.Files)
	if len(s.Files) > 0 && !inheritsFiles {
		return nil, &UnavailableError{Reason: "a worker cannot inherit a connection on " + runtime.GOOS}
	}
	if s.Stdio && len(s.Input) > 0 {
		return nil, errors.New("the adapter's Spec has both Stdio and Input: standard input can have only one of them")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", at.spawner.cmd.Path, err)
	}
	p, control, err := at.spawner.start(ctx, at, s)
	if err != nil {
		return nil, err
	}
	at.launchedOne(p)
	if control != nil {
		defer func() { _ = control.Close() }()
		if err := p.awaitReport(ctx, control); err != nil {
			p.kill()
			closeFiles([]*os.File{p.Stdin, p.Stdout})
			return nil, err
		}
	}
	at.returns(p)
	return p, nil
}

func (at *attempt) launchedOne(p *Process) {
	at.mu.Lock()
	defer at.mu.Unlock()
	at.launched = append(at.launched, p)
}

func (at *attempt) returns(p *Process) {
	at.mu.Lock()
	defer at.mu.Unlock()
	at.returned = p
}

// abandon ends all launched processes except keep, and waits until they are gone. It lets them exit by themselves for
// up to outputGrace, so that errors show their own exit codes.
func (at *attempt) abandon(keep *Process) {
	at.mu.Lock()
	launched := slices.Clone(at.launched)
	at.mu.Unlock()
	timer := time.NewTimer(outputGrace)
	defer timer.Stop()
	for _, p := range launched {
		if p == keep {
			continue
		}
		select {
		case <-p.exited:
		case <-timer.C:
			timer.Reset(0)
			p.kill()
		}
		<-p.done
	}
}

// exitedEarly returns the process that the adapter got, if it ended by itself, else nil. It is valid after abandon.
func (at *attempt) exitedEarly() *Process {
	at.mu.Lock()
	defer at.mu.Unlock()
	if p := at.returned; p != nil && p.exitedByItself() {
		return p
	}
	return nil
}

// output returns the last lines that the last process printed.
func (at *attempt) output() []string {
	at.mu.Lock()
	defer at.mu.Unlock()
	if len(at.launched) == 0 {
		return nil
	}
	return at.launched[len(at.launched)-1].lastOutput(time.Time{})
}
