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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// spawnerOptions configure a spawner, in addition to the command.
type spawnerOptions struct {
	Name     string
	Dir      string // the parent of the private directory; "" means os.TempDir()
	MaxFrame int    // the value of SNAKEPIT_MAX_FRAME
	Log      *logQueue
	// StartTimeout bounds the import of a fork server. 0 means 60 s.
	StartTimeout time.Duration
	Limits       Limits
	WatchMemory  bool                     // Launcher.WatchMemory
	EnvOf        func(index int) []string // returns more variables for the worker at an index, or is nil
}

// spawner launches the processes of one pool.
type spawner struct {
	cmd     Command
	opts    spawnerOptions
	runID   string
	dir     string
	claim   *os.File // its lock shows that dir is in use
	env     []string // the environment that all workers share
	oom     *oomCounter
	groups  *memoryGroups // nil without Limits.Memory
	servers forkServers
	forks   chan func()
	forkEnd chan struct{}
	size    atomic.Int32 // the number of workers that share the processors, or 0

	mu     sync.Mutex // guards closed
	closed bool
	owned  sync.WaitGroup // launches under way and processes not yet Done
}

// newSpawner makes the pool's private directory and starts the goroutine that forks.
func newSpawner(cmd Command, o spawnerOptions) (*spawner, error) {
	for what, list := range map[string][]string{
		"Command.Path": {cmd.Path}, "Command.Args": cmd.Args, "Command.Dir": {cmd.Dir}, "Options.Name": {o.Name},
	} {
		if i := slices.IndexFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return nil, fmt.Errorf("%s has a NUL byte in %q", what, list[i])
		}
	}
	if err := checkEnv("Command.Env", cmd.Env); err != nil {
		return nil, err
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 60 * time.Second
	}
	cmd.Args, cmd.Env = slices.Clone(cmd.Args), slices.Clone(cmd.Env)
	dir, claim, err := makeTempDir(o.Dir)
	if err != nil {
		return nil, err
	}
	sp := &spawner{
		cmd: cmd, opts: o, runID: o.Name + "-" + strings.ToLower(rand.Text()[:10]), dir: dir, claim: claim,
		oom: newOOMCounter(), forks: make(chan func()), forkEnd: make(chan struct{}),
	}
	if o.Limits.Memory > 0 {
		if sp.groups, err = newMemoryGroups(o.Limits.Memory, filepath.Base(dir)); err != nil {
			_ = os.RemoveAll(dir)
			closeFiles([]*os.File{claim})
			return nil, err
		}
	}
	own := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(launchVars, name)
	})
	var pwd []string
	if cmd.Dir != "" && runtime.GOOS != "windows" {
		if abs, err := filepath.Abs(cmd.Dir); err == nil {
			pwd = []string{"PWD=" + abs}
		}
	}
	sp.env = mergeEnv(own, pwd, cmd.Env)
	go sp.fork()
	return sp, nil
}

// fork runs the functions sent to it on one thread that lives as long as the spawner. The kernel kills a process with
// Pdeathsig when the thread that forked it ends.
func (sp *spawner) fork() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(sp.forkEnd)
	for f := range sp.forks {
		f()
	}
}

// command returns the command line, for errors.
func (sp *spawner) command() string {
	words := []string{sp.cmd.Path}
	for _, arg := range sp.cmd.Args {
		if arg == "" || strings.ContainsAny(arg, " \t\r\n\"'\\$`") {
			arg = strconv.Quote(arg)
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// attempt begins a worker's start.
func (sp *spawner) attempt(index int) *attempt {
	return &attempt{
		spawner: sp, index: index, hostToken: rand.Text(), workerToken: rand.Text(),
		env: sync.OnceValues(func() ([]string, error) { return sp.envOf(index) }),
	}
}

// start starts one process. control is the pipe that its report comes from, or nil.
func (sp *spawner) start(ctx context.Context, at *attempt, s Spec) (p *Process, control *os.File, err error) {
	if !sp.owns() {
		return nil, nil, ErrClosed
	}
	launched := false
	defer func() {
		if !launched {
			sp.owned.Done()
		}
	}()

	path, err := sp.executable()
	if err != nil {
		return nil, nil, err
	}
	p = sp.newProcess(path)
	own, err := at.env()
	if err != nil {
		return nil, nil, err
	}
	files, err := openChildFiles(p, s, sp.cmd.Reports)
	defer files.closeTheirs()
	env := mergeEnv(sp.withThreads(mergeEnv(sp.env, own)), sp.contractEnv(at, s), files.env, s.Env)
	switch {
	case err != nil:
	case sp.cmd.ForkServer:
		err = sp.forkFromServer(ctx, p, files, env)
	default:
		err = sp.forkExec(p, files, sp.groups, env)
	}
	if err != nil {
		files.closeOurs()
		return nil, nil, err
	}
	limitErr := sp.opts.Limits.apply(p.pid)
	sp.watchOver(p, at.index)
	launched = true
	go func() {
		defer sp.owned.Done()
		p.supervise(s.Input)
		_ = os.Remove(filepath.Join(sp.dir, stacksFile(p.pid))) // an error: the worker has made none
	}()
	if limitErr != nil {
		p.kill()
		<-p.done
		closeFiles([]*os.File{p.Stdin, p.Stdout, files.control})
		return nil, nil, limitErr
	}
	return p, files.control, nil
}

// owns counts one more process, or returns false if the spawner is closed. owned.Done ends it.
func (sp *spawner) owns() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !sp.closed {
		sp.owned.Add(1)
	}
	return !sp.closed
}

// newProcess returns a process that is not started yet.
func (sp *spawner) newProcess(path string) *Process {
	return &Process{
		name: path, limits: &sp.opts.Limits, oom: sp.oom,
		exited: make(chan struct{}), done: make(chan struct{}), asking: make(chan struct{}, 1),
	}
}

// watchOver has the kernel end a process that has just started with this program, and logs what it prints. index is a
// worker's, or noWorker.
func (sp *spawner) watchOver(p *Process, index int) {
	if p.lifelineRead != nil {
		if err := armLifeline(p.lifelineRead, p.pid); err != nil { // the worker still reads the end of file
			sp.opts.Log.events(index).Warn("worker would outlive a killed host for a while", "error", err)
		}
	}
	p.out = newOutput(sp.opts.Log, index)
}

// envOf returns the variables for the worker at an index.
func (sp *spawner) envOf(index int) ([]string, error) {
	if sp.opts.EnvOf == nil {
		return nil, nil
	}
	var env []string
	if err := isolate("Options.WorkerEnv", func() error { env = sp.opts.EnvOf(index); return nil }); err != nil {
		return nil, err
	}
	if err := checkEnv("Options.WorkerEnv", env); err != nil {
		return nil, err
	}
	return env, nil
}

// checkEnv returns an error if a variable is not of the form KEY=value. from names where it is from.
func checkEnv(from string, env []string) error {
	for _, v := range env {
		switch {
		case strings.ContainsRune(v, 0):
			return fmt.Errorf("%s has a NUL byte in %q", from, v)
		case strings.IndexByte(v, '=') <= 0:
			return fmt.Errorf("%s has %q: use KEY=value", from, v)
		}
	}
	return nil
}

// withThreads adds to an environment the variables that share the processors among the workers.
func (sp *spawner) withThreads(env []string) []string {
	return mergeEnv(threadEnv(env, int(sp.size.Load())), env)
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

// forkExec runs the command with its descriptors and its environment, in a control group of its own if groups is not
// nil.
func (sp *spawner) forkExec(p *Process, files *childFiles, groups *memoryGroups, env []string) error {
	attr := &os.ProcAttr{Dir: sp.cmd.Dir, Env: env, Files: files.child, Sys: sysProcAttr()}
	argv := append([]string{p.name}, sp.cmd.Args...)
	p.oomBase = sp.oom.base()
	forked := make(chan error, 1)
	var proc *os.Process
	if groups != nil {
		var err error
		if p.group, err = groups.add(); err != nil {
			return err
		}
	}
	sp.forks <- func() {
		leave, err := p.group.enter(attr.Sys)
		if err == nil {
			defer leave()
			proc, err = os.StartProcess(p.name, argv, attr)
		}
		forked <- err
	}
	if err := <-forked; err != nil {
		p.group.remove()
		var known *RemedyError
		if errors.As(err, &known) {
			return err
		}
		return sp.addRemedy(p.name, err)
	}
	p.body, p.pid = &ownChild{proc: proc}, proc.Pid
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

const limitRemedy = "raise the limit that is reached (ulimit -a shows it), or make the pool smaller"

// isLimit reports whether an error of the system says that a limit is reached.
func isLimit(err error) bool {
	for _, limit := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM, syscall.ENOBUFS, syscall.ETOOMANYREFS,
	} {
		if errors.Is(err, limit) {
			return true
		}
	}
	return false
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
	case isLimit(err):
		remedy = limitRemedy
	}
	return &RemedyError{fmt.Errorf("%s cannot be started: %w", path, err), remedy}
}

// close waits for all processes, which their owners stop, and then removes the private directory. Nothing can be
// launched once close has begun.
func (sp *spawner) close() {
	sp.mu.Lock()
	if sp.closed {
		sp.mu.Unlock()
		<-sp.forkEnd
		return
	}
	sp.closed = true
	sp.mu.Unlock()
	sp.servers.close()
	sp.owned.Wait()
	close(sp.forks)
	<-sp.forkEnd
	if err := os.RemoveAll(sp.dir); err != nil {
		sp.opts.Log.events(noWorker).Warn("the pool's private directory cannot be removed", "error", err)
	}
	closeFiles([]*os.File{sp.claim})
}
