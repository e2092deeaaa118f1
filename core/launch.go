package core

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxReport   = 64 << 10
	reportGrace = time.Second // how long a process that reported nonsense may take to exit, for its exit code
)

// hostOptions is what a host needs to know beyond the command.
type hostOptions struct {
	Name     string
	Dir      string   // where the private folder goes; "" means os.TempDir()
	MaxFrame int      // what SNAKEPIT_MAX_FRAME tells the worker
	Env      []string // the pool's own variables, "KEY=value"; what the user set wins
	Log      *logbook
}

// host launches the processes of one pool.
type host struct {
	cmd     Command
	opts    hostOptions
	runID   string
	dir     string
	claim   *os.File // says that dir is in use
	env     []string // what all workers have in common
	oom     *oomCounter
	forks   chan func()
	forkEnd chan struct{}

	mu     sync.Mutex // guards closed
	closed bool
	owned  sync.WaitGroup // launches under way and processes not yet Done
}

// newHost makes the pool's private folder and starts the goroutine that forks.
func newHost(cmd Command, o hostOptions) (*host, error) {
	for what, list := range map[string][]string{"Command.Path": {cmd.Path}, "Command.Args": cmd.Args, "Command.Dir": {cmd.Dir},
		"Command.Env": cmd.Env, "Options.Name": {o.Name}} {
		if i := slices.IndexFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return nil, fmt.Errorf("%s has a NUL byte in %q", what, list[i])
		}
	}
	if i := slices.IndexFunc(cmd.Env, func(s string) bool { return strings.IndexByte(s, '=') <= 0 }); i >= 0 {
		return nil, fmt.Errorf("the command's Env has %q: use KEY=value", cmd.Env[i])
	}
	cmd.Args, cmd.Env = slices.Clone(cmd.Args), slices.Clone(cmd.Env)
	dir, claim, err := privateDir(o.Dir)
	if err != nil {
		return nil, err
	}
	h := &host{
		cmd: cmd, opts: o, runID: o.Name + "-" + strings.ToLower(rand.Text()[:10]), dir: dir, claim: claim, oom: newOOMCounter(),
		forks: make(chan func()), forkEnd: make(chan struct{}),
	}
	own := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(contract, name)
	})
	var pwd []string
	if cmd.Dir != "" && runtime.GOOS != "windows" {
		if abs, err := filepath.Abs(cmd.Dir); err == nil {
			pwd = []string{"PWD=" + abs}
		}
	}
	h.env = mergeEnv(o.Env, own, pwd, cmd.Env)
	go h.fork()
	return h, nil
}

// contract is what the launch contract puts into a worker's environment. A host that is itself a worker, or a worker's child, must not
// pass on what it was told.
var contract = []string{
	"SNAKEPIT_PROTOCOL", "SNAKEPIT_RUN_ID", "SNAKEPIT_WORKER_INDEX", "SNAKEPIT_CONN_FD", "SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD",
	"SNAKEPIT_DIR", "SNAKEPIT_MAX_FRAME", "SNAKEPIT_HOST_TOKEN", "SNAKEPIT_WORKER_TOKEN", "SNAKEPIT_CACHE",
}

// mergeEnv joins lists of "KEY=value"; of two with one key the later counts.
func mergeEnv(lists ...[]string) []string {
	var env []string
	at := map[string]int{}
	for _, e := range slices.Concat(lists...) {
		name, _, ok := strings.Cut(e, "=")
		if i, seen := at[name]; seen && ok {
			env[i] = e
			continue
		}
		at[name] = len(env)
		env = append(env, e)
	}
	return env
}

// fork runs what is sent to it on one thread that lives as long as the host: a process with Pdeathsig is killed when the thread that forked
// it ends.
func (h *host) fork() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(h.forkEnd)
	for f := range h.forks {
		f()
	}
}

// command returns the command line, for errors.
func (h *host) command() string {
	words := []string{h.cmd.Path}
	for _, arg := range h.cmd.Args {
		if arg == "" || strings.ContainsAny(arg, " \t\r\n\"'\\$`") {
			arg = strconv.Quote(arg)
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// close waits until all processes have ended, which is their owners' to bring about, and removes the private folder. Nothing can be
// launched after it.
func (h *host) close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		<-h.forkEnd
		return
	}
	h.closed = true
	h.mu.Unlock()
	h.owned.Wait()
	close(h.forks)
	<-h.forkEnd
	if err := os.RemoveAll(h.dir); err != nil {
		h.opts.Log.events(noWorker).Warn("the pool's private folder cannot be removed", "error", err)
	}
	closeFiles([]*os.File{h.claim})
}

// attempt is one worker's start: it may launch several processes, one after another, of which one is kept.
type attempt struct {
	host        *host
	index       int
	hostToken   string
	workerToken string
	adapter     string // its name; set when it is asked to start

	mu       sync.Mutex // guards what follows
	launched []*Process
	handed   *Process // the latest of them that an adapter got
}

var _ Launcher = (*attempt)(nil)

// apart calls the adapter's code, as the function of that name does, and logs a panic with its stack.
func (at *attempt) apart(what string, f func() error) error {
	err := apart(what, f)
	if p, ok := err.(*panicError); ok {
		at.host.opts.Log.events(at.index).Error(p.Error(), "stack", p.stack)
	}
	return err
}

// attempt begins a worker's start.
func (h *host) attempt(index int) *attempt {
	return &attempt{host: h, index: index, hostToken: rand.Text(), workerToken: rand.Text()}
}

func (a *attempt) Dir() string         { return a.host.dir }
func (a *attempt) Index() int          { return a.index }
func (a *attempt) MaxFrame() int       { return a.host.opts.MaxFrame }
func (a *attempt) HostToken() string   { return a.hostToken }
func (a *attempt) WorkerToken() string { return a.workerToken }

func (a *attempt) Launch(ctx context.Context, s Spec) (*Process, error) {
	defer closeFiles(s.Files)
	if len(s.Files) > 0 && !inheritsFiles {
		return nil, fmt.Errorf("%w: a worker cannot inherit a connection on %s", ErrUnavailable, runtime.GOOS)
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
	a.handed = p
	a.mu.Unlock()
	return p, nil
}

// abandon ends everything that was launched but keep, and returns when that is done. A process that is about to end by itself may, so that
// its own exit code is seen.
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

// deserter returns the process with which an adapter could not do anything because it had ended by itself, or nil. It is valid after
// abandon.
func (a *attempt) deserter() *Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.handed; p != nil && p.leftByItself() {
		return p
	}
	return nil
}

// output returns the last lines that the latest process printed.
func (a *attempt) output() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.launched) == 0 {
		return nil
	}
	return a.launched[len(a.launched)-1].lastOutput(time.Time{})
}

// start starts one process. control is where its report will come, or nil.
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
	// ours stays here, theirs is closed here once the child has it. All of it is closed on exec in other children.
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
		"SNAKEPIT_PROTOCOL=" + s.Protocol, "SNAKEPIT_RUN_ID=" + h.runID, "SNAKEPIT_WORKER_INDEX=" + strconv.Itoa(a.index), "SNAKEPIT_DIR=" + h.dir,
		"SNAKEPIT_MAX_FRAME=" + strconv.Itoa(h.opts.MaxFrame),
	}
	inherit := func(name string, f ...*os.File) {
		env = append(env, name+"="+strconv.Itoa(len(files)))
		files = append(files, f...)
	}
	if len(s.Files) > 0 {
		inherit("SNAKEPIT_CONN_FD", s.Files...)
	}
	if !s.Stdio && len(s.Files) == 0 { // the connection is not inherited, so each side has to prove itself
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
		if err := armLifeline(p.armed, p.pid); err != nil { // then there is still the end of file that the worker reads
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
		return "", errors.New("the command's Path is empty: name the worker's executable")
	}
	if dir != "" {
		switch info, err := os.Stat(dir); {
		case err != nil:
			return "", fmt.Errorf("the working folder of %s: %w; make it, or correct Command.Dir", path, err)
		case !info.IsDir():
			return "", fmt.Errorf("the working folder of %s: %s is no folder; correct Command.Dir", path, dir)
		}
		if filepath.Base(path) != path && !filepath.IsAbs(path) { // a path with a separator is relative to where the command runs
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

// explain adds to the error of a start what to do about it.
func (h *host) explain(path string, err error) error {
	var notFound *exec.Error
	if errors.As(err, &notFound) {
		err = notFound.Err
	}
	info, statErr := os.Stat(path)
	hint := "correct Command.Path"
	switch {
	case errors.Is(err, exec.ErrNotFound):
		hint = "install it, add its folder to PATH, or give Command.Path in full"
	case errors.Is(err, exec.ErrDot):
		hint = "give Command.Path in full"
	case statErr == nil && info.IsDir():
		hint = "it is a folder: correct Command.Path"
	case statErr == nil && errors.Is(err, os.ErrPermission) && info.Mode()&0o111 != 0:
		hint = "this user may not run it, or not enter Command.Dir"
	case statErr == nil && errors.Is(err, os.ErrPermission):
		hint = "make it executable (chmod +x), or run it by an interpreter that is named in Command.Path"
	case statErr == nil && errors.Is(err, os.ErrNotExist):
		hint = "the file is there, but not the interpreter that its first line or its format names"
	case statErr == nil && errors.Is(err, syscall.ENOEXEC):
		hint = "it is no program of this system; a script's first line has to begin with #!"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		hint = "a limit of the system is reached: see ulimit -a, or make the pool smaller"
	}
	return fmt.Errorf("%s cannot be started: %w; %s", path, err, hint)
}

// report is the worker's one line on its control pipe.
type report struct {
	Endpoint    string       `json:"endpoint"`
	Unavailable string       `json:"unavailable"`
	Remedy      string       `json:"remedy"`
	Failed      *RemoteError `json:"failed"`
}

// remedyFollows stands between what is wrong and what to do.
const remedyFollows = "; to get it: "

// awaitReport waits for the report, the process's exit or ctx.
func (p *Process) awaitReport(ctx context.Context, control *os.File) error {
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := readReport(control)
		read <- result{line, err}
	}()
	var got result
	select {
	case got = <-read:
	case <-p.exited: // the report may still be in the pipe, which a child may hold open
		_ = control.SetReadDeadline(time.Now().Add(outputGrace))
		got = <-read
	case <-ctx.Done():
		_ = control.SetReadDeadline(time.Now())
		<-read
		return &noReport{fmt.Errorf("%s has not reported that it can start: %w", p.name, ctx.Err())}
	}

	var r report
	switch {
	case got.err != nil:
		return p.withFate(ctx, got.err)
	case !bytes.HasPrefix(bytes.TrimSpace(got.line), []byte("{")):
		return p.withFate(ctx, fmt.Errorf("its report is no JSON object but %q", cut(string(got.line), 200)))
	}
	if err := json.Unmarshal(got.line, &r); err != nil {
		return p.withFate(ctx, fmt.Errorf("its report is unreadable (%w): %q", err, cut(string(got.line), 200)))
	}
	switch {
	case r.Failed != nil:
		return r.Failed
	case r.Unavailable != "" && r.Remedy != "":
		return fmt.Errorf("%w: %s%s%s", ErrUnavailable, harmless(r.Unavailable, false), remedyFollows, harmless(r.Remedy, false))
	case r.Unavailable != "":
		return fmt.Errorf("%w: %s", ErrUnavailable, harmless(r.Unavailable, false))
	}
	p.Endpoint = r.Endpoint
	return nil
}

var errNoReport = errors.New("it closed its control pipe without a report")

// readReport reads one line, which the end of the pipe ends too.
func readReport(r *os.File) ([]byte, error) {
	var line []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		more := buf[:n]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			more = readAvailable(r)
		}
		line = append(line, more...)
		if end := bytes.IndexByte(line, '\n'); end >= 0 && end <= maxReport {
			return line[:end], nil
		}
		switch {
		case len(line) > maxReport:
			return nil, fmt.Errorf("its report is longer than %d bytes", maxReport)
		case err != nil && len(line) > 0:
			return line, nil
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errNoReport
		case err != nil:
			return nil, fmt.Errorf("its report: %w", err)
		}
	}
}

// withFate adds to a missing or unusable report how the process ended, which it gets a moment for.
func (p *Process) withFate(ctx context.Context, err error) error {
	timer := time.NewTimer(reportGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
		<-p.done
	case <-timer.C:
	case <-ctx.Done():
	}
	if !p.hasExited() {
		p.kill()
		<-p.done
	}
	if errors.Is(err, errNoReport) {
		return &noReport{fmt.Errorf("%s ended before it reported that it can start: %s", p.name, p.fate())}
	}
	return &noReport{fmt.Errorf("%s cannot be used: %w; %s", p.name, err, p.fate())}
}

// noReport: what was started is perhaps not the program that it should be.
type noReport struct{ err error }

func (e *noReport) Error() string { return e.err.Error() }
func (e *noReport) Unwrap() error { return e.err }

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // what counts has been said already
		}
	}
}
