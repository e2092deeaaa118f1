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
	host        *host
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
		at.host.opts.Log.events(at.index).Error(p.Error(), "stack", p.stack)
	}
	return err
}

// attempt begins a worker's start.
func (h *host) attempt(index int) *attempt {
	return &attempt{host: h, index: index, hostToken: rand.Text(), workerToken: rand.Text()}
}

// launcher returns the Launcher for the adapter's Start.
func (a *attempt) launcher() *Launcher {
	return &Launcher{
		Launch: a.launch, Dir: a.host.dir, Index: a.index, MaxFrame: a.host.opts.MaxFrame,
		HostToken: a.hostToken, WorkerToken: a.workerToken,
	}
}

// launch is Launcher.Launch.
func (a *attempt) launch(ctx context.Context, s Spec) (*Process, error) {
	defer closeFiles(s.Files)
	if len(s.Files) > 0 && !inheritsFiles {
		return nil, &UnavailableError{Reason: "a worker cannot inherit a connection on " + runtime.GOOS}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", a.host.cmd.Path, err)
	}
	p, control, err := a.host.start(a, s)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.launched = append(a.launched, p)
	a.mu.Unlock()
	if control != nil {
		defer func() { _ = control.Close() }()
		if err := p.awaitReport(ctx, control); err != nil {
			p.kill()
			closeFiles([]*os.File{p.Stdin, p.Stdout})
			return nil, err
		}
	}
	a.mu.Lock()
	a.returned = p
	a.mu.Unlock()
	return p, nil
}

// abandon ends all launched processes except keep, and waits until they are gone. It lets them exit by themselves for
// up to outputGrace, so that errors show their own exit codes.
func (a *attempt) abandon(keep *Process) {
	a.mu.Lock()
	launched := slices.Clone(a.launched)
	a.mu.Unlock()
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
func (a *attempt) exitedEarly() *Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.returned; p != nil && p.exitedByItself() {
		return p
	}
	return nil
}

// output returns the last lines that the last process printed.
func (a *attempt) output() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.launched) == 0 {
		return nil
	}
	return a.launched[len(a.launched)-1].lastOutput(time.Time{})
}

// start starts one process. control is the pipe that its report comes from, or nil.
func (h *host) start(a *attempt, s Spec) (p *Process, control *os.File, err error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, nil, ErrClosed
	}
	h.owned.Add(1)
	h.mu.Unlock()
	defer func() {
		if err != nil {
			h.owned.Done()
		}
	}()

	path, err := h.executable()
	if err != nil {
		return nil, nil, err
	}
	// ours stay open here. theirs are closed here once the child has them. Other children inherit none of them: all are
	// close-on-exec.
	var ours, theirs []*os.File
	defer func() {
		closeFiles(theirs)
		if err != nil {
			closeFiles(ours)
		}
	}()
	pipe := func(childReads bool) (our, their *os.File) {
		r, w, pipeErr := os.Pipe()
		if pipeErr != nil {
			err = errors.Join(err, fmt.Errorf("a pipe to %s: %w", path, pipeErr))
			return nil, nil
		}
		our, their = r, w
		if childReads {
			our, their = w, r
		}
		ours, theirs = append(ours, our), append(theirs, their)
		return our, their
	}

	p = &Process{name: path, oom: h.oom, exited: make(chan struct{}), done: make(chan struct{})}
	var files []*os.File
	capture, printed := pipe(false)
	p.capture = capture
	if s.Stdio {
		var in, out *os.File
		p.Stdin, in = pipe(true)
		p.Stdout, out = pipe(false)
		files = []*os.File{in, out, printed}
	} else {
		null, nullErr := os.Open(os.DevNull)
		if nullErr != nil {
			return nil, nil, fmt.Errorf("the standard input of %s: %w", path, nullErr)
		}
		theirs = append(theirs, null)
		files = []*os.File{null, printed, printed}
	}
	env := []string{
		"SNAKEPIT_PROTOCOL=" + s.Protocol, "SNAKEPIT_RUN_ID=" + h.runID,
		"SNAKEPIT_WORKER_INDEX=" + strconv.Itoa(a.index), "SNAKEPIT_DIR=" + h.dir,
		"SNAKEPIT_MAX_FRAME=" + strconv.Itoa(h.opts.MaxFrame),
	}
	inherit := func(name string, f ...*os.File) {
		env = append(env, name+"="+strconv.Itoa(len(files)))
		files = append(files, f...)
	}
	if len(s.Files) > 0 {
		inherit("SNAKEPIT_CONN_FD", s.Files...)
	}
	if !s.Stdio && len(s.Files) == 0 { // the connection is not inherited, so each side has to prove its identity
		env = append(env, "SNAKEPIT_HOST_TOKEN="+a.hostToken, "SNAKEPIT_WORKER_TOKEN="+a.workerToken)
	}
	if inheritsFiles {
		if h.cmd.Reports {
			var report *os.File
			control, report = pipe(false)
			inherit("SNAKEPIT_CONTROL_FD", report)
		}
		r, w, pipeErr := os.Pipe()
		if pipeErr != nil {
			return nil, nil, fmt.Errorf("a pipe to %s: %w", path, pipeErr)
		}
		p.lifeline, p.armed = w, r
		ours = append(ours, w, r)
		read := reopen(r)
		if read != r {
			theirs = append(theirs, read)
		}
		inherit("SNAKEPIT_LIFELINE_FD", read)
	}
	if err != nil {
		return nil, nil, err
	}

	attr := &os.ProcAttr{Dir: h.cmd.Dir, Env: mergeEnv(h.env, env, s.Env), Files: files, Sys: sysProcAttr()}
	argv := append([]string{path}, h.cmd.Args...)
	p.oomBase = h.oom.base()
	forked := make(chan struct{})
	h.forks <- func() {
		defer close(forked)
		p.proc, err = os.StartProcess(path, argv, attr)
	}
	<-forked
	if err != nil {
		return nil, nil, h.explain(path, err)
	}
	p.pid = p.proc.Pid
	if p.armed != nil {
		if err := armLifeline(p.armed, p.pid); err != nil { // the worker still reads the end of file
			h.opts.Log.events(a.index).Warn("worker would outlive a killed host for a while", "error", err)
		}
	}
	p.out = newOutput(h.opts.Log, a.index)
	go func() {
		defer h.owned.Done()
		p.supervise()
	}()
	return p, control, nil
}

// executable finds the command's file.
func (h *host) executable() (string, error) {
	dir, path := h.cmd.Dir, h.cmd.Path
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
	return "", h.explain(path, err)
}

// explain adds a remedy to the error of a start.
func (h *host) explain(path string, err error) error {
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
