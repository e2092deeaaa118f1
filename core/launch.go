package core

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// attempt is the start of one worker. It may launch several processes, one after another. One of them is kept.
type attempt struct {
	spawner     *spawner
	index       int
	hostToken   string
	workerToken string
	adapter     string // the adapter's name; set before its Start is called

	mu       sync.Mutex // guards the fields below
	launched []*Process
	returned *Process // the last process that Launch returned to an adapter
}

// isolate calls the adapter's code like the function isolate, and logs a panic with its stack.
func (at *attempt) isolate(what string, f func() error) error {
	err := isolate(what, f)
	if p, ok := err.(*panicError); ok {
		at.spawner.opts.Log.events(at.index).Error(p.Error(), "stack", p.stack)
	}
	return err
}

// attempt begins a worker's start.
func (sp *spawner) attempt(index int) *attempt {
	return &attempt{spawner: sp, index: index, hostToken: rand.Text(), workerToken: rand.Text()}
}

// launcher returns the Launcher for the adapter's Start.
func (at *attempt) launcher() *Launcher {
	return &Launcher{
		Launch: at.launch, Dir: at.spawner.dir, Index: at.index, MaxFrame: at.spawner.opts.MaxFrame,
		HostToken: at.hostToken, WorkerToken: at.workerToken,
	}
}

// launch is Launcher.Launch.
func (at *attempt) launch(ctx context.Context, s Spec) (*Process, error) {
	defer closeFiles(s.Files)
	if len(s.Files) > 0 && !inheritsFiles {
		return nil, &UnavailableError{Reason: "a worker cannot inherit a connection on " + runtime.GOOS}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", at.spawner.cmd.Path, err)
	}
	p, control, err := at.spawner.start(at, s)
	if err != nil {
		return nil, err
	}
	at.mu.Lock()
	at.launched = append(at.launched, p)
	at.mu.Unlock()
	if control != nil {
		defer func() { _ = control.Close() }()
		if err := p.awaitReport(ctx, control); err != nil {
			p.kill()
			closeFiles([]*os.File{p.Stdin, p.Stdout})
			return nil, err
		}
	}
	at.mu.Lock()
	at.returned = p
	at.mu.Unlock()
	return p, nil
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

// start starts one process. control is the pipe that its report comes from, or nil.
func (sp *spawner) start(at *attempt, s Spec) (p *Process, control *os.File, err error) {
	sp.mu.Lock()
	if sp.closed {
		sp.mu.Unlock()
		return nil, nil, ErrClosed
	}
	sp.owned.Add(1)
	sp.mu.Unlock()
	defer func() {
		if err != nil {
			sp.owned.Done()
		}
	}()

	path, err := sp.executable()
	if err != nil {
		return nil, nil, err
	}
	p = &Process{name: path, oom: sp.oom, exited: make(chan struct{}), done: make(chan struct{})}
	files, err := openChildFiles(p, s, sp.cmd.Reports)
	defer files.closeTheirs()
	if err == nil {
		err = sp.forkExec(p, files, mergeEnv(sp.env, sp.contractEnv(at, s), files.env, s.Env))
	}
	if err != nil {
		files.closeOurs()
		return nil, nil, err
	}
	if p.lifelineRead != nil {
		if err := armLifeline(p.lifelineRead, p.pid); err != nil { // the worker still reads the end of file
			sp.opts.Log.events(at.index).Warn("worker would outlive a killed host for a while", "error", err)
		}
	}
	p.out = newOutput(sp.opts.Log, at.index)
	go func() {
		defer sp.owned.Done()
		p.supervise()
	}()
	return p, files.control, nil
}

// contractEnv returns the variables of the launch contract, except those that name descriptors.
func (sp *spawner) contractEnv(at *attempt, s Spec) []string {
	env := []string{
		"SNAKEPIT_PROTOCOL=" + s.Protocol, "SNAKEPIT_RUN_ID=" + sp.runID,
		"SNAKEPIT_WORKER_INDEX=" + strconv.Itoa(at.index), "SNAKEPIT_DIR=" + sp.dir,
		"SNAKEPIT_MAX_FRAME=" + strconv.Itoa(sp.opts.MaxFrame),
	}
	if !s.Stdio && len(s.Files) == 0 { // the connection is not inherited, so each side has to prove its identity
		env = append(env, "SNAKEPIT_HOST_TOKEN="+at.hostToken, "SNAKEPIT_WORKER_TOKEN="+at.workerToken)
	}
	return env
}

// forkExec runs the command with its descriptors and its environment.
func (sp *spawner) forkExec(p *Process, files *childFiles, env []string) error {
	attr := &os.ProcAttr{Dir: sp.cmd.Dir, Env: env, Files: files.child, Sys: sysProcAttr()}
	argv := append([]string{p.name}, sp.cmd.Args...)
	p.oomBase = sp.oom.base()
	forked := make(chan error, 1)
	sp.forks <- func() {
		var err error
		p.proc, err = os.StartProcess(p.name, argv, attr)
		forked <- err
	}
	if err := <-forked; err != nil {
		return sp.addRemedy(p.name, err)
	}
	p.pid = p.proc.Pid
	return nil
}

// executable finds the command's file.
func (sp *spawner) executable() (string, error) {
	dir, path := sp.cmd.Dir, sp.cmd.Path
	if path == "" {
		return "", &RemedyError{errors.New("the command's Path is empty"), "name the worker's executable"}
	}
	if dir != "" {
		switch info, err := os.Stat(dir); {
		case err != nil:
			err = fmt.Errorf("the working directory of %s: %w", path, err)
			return "", &RemedyError{err, "make it, or correct Command.Dir"}
		case !info.IsDir():
			err = fmt.Errorf("the working directory of %s: %s is not a directory", path, dir)
			return "", &RemedyError{err, "correct Command.Dir"}
		}
		if filepath.Base(path) != path && !filepath.IsAbs(path) { // a path with a separator is relative to Command.Dir
			abs, err := filepath.Abs(filepath.Join(dir, path))
			if err != nil {
				return "", fmt.Errorf("the path of %s: %w", path, err)
			}
			path = abs
		}
	}
	found, err := exec.LookPath(path)
	if err == nil {
		return found, nil
	}
	return "", sp.addRemedy(path, err)
}

// addRemedy adds a remedy to the error of a start.
func (sp *spawner) addRemedy(path string, err error) error {
	var notFound *exec.Error
	if errors.As(err, &notFound) {
		err = notFound.Err
	}
	info, statErr := os.Stat(path)
	remedy := "correct the path"
	switch {
	case errors.Is(err, exec.ErrNotFound):
		remedy = "install it, add its directory to PATH, or give its full path"
	case errors.Is(err, exec.ErrDot):
		remedy = "give its full path"
	case statErr == nil && info.IsDir():
		remedy = "it is a directory: correct the path"
	case statErr == nil && errors.Is(err, os.ErrPermission) && info.Mode()&0o111 != 0:
		remedy = "let this user run it and enter its working directory"
	case statErr == nil && errors.Is(err, os.ErrPermission):
		remedy = "make it executable (chmod +x), or run it by its interpreter"
	case statErr == nil && errors.Is(err, os.ErrNotExist):
		remedy = "install the interpreter that its first line or its format names: the file itself is there"
	case statErr == nil && errors.Is(err, syscall.ENOEXEC):
		remedy = "use a program of this system; the first line of a script has to begin with #!"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		remedy = "raise the limit that is reached (ulimit -a shows it), or make the pool smaller"
	}
	return &RemedyError{fmt.Errorf("%s cannot be started: %w", path, err), remedy}
}
