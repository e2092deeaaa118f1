package core

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// spawnerOptions configure a spawner, in addition to the command.
type spawnerOptions struct {
	Name     string
	Dir      string   // the parent of the private directory; "" means os.TempDir()
	MaxFrame int      // the value of SNAKEPIT_MAX_FRAME
	Env      []string // the pool's own variables, "KEY=value"; the user's variables override them
	Log      *logQueue
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
	forks   chan func()
	forkEnd chan struct{}

	mu     sync.Mutex // guards closed
	closed bool
	owned  sync.WaitGroup // launches under way and processes not yet Done
}

// newSpawner makes the pool's private directory and starts the goroutine that forks.
func newSpawner(cmd Command, o spawnerOptions) (*spawner, error) {
	for what, list := range map[string][]string{
		"Command.Path": {cmd.Path}, "Command.Args": cmd.Args, "Command.Dir": {cmd.Dir}, "Command.Env": cmd.Env,
		"Options.Name": {o.Name},
	} {
		if i := slices.IndexFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return nil, fmt.Errorf("%s has a NUL byte in %q", what, list[i])
		}
	}
	if i := slices.IndexFunc(cmd.Env, func(s string) bool { return strings.IndexByte(s, '=') <= 0 }); i >= 0 {
		return nil, fmt.Errorf("the command's Env has %q: use KEY=value", cmd.Env[i])
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
	sp.env = mergeEnv(o.Env, own, pwd, cmd.Env)
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
	sp.owned.Wait()
	close(sp.forks)
	<-sp.forkEnd
	if err := os.RemoveAll(sp.dir); err != nil {
		sp.opts.Log.events(noWorker).Warn("the pool's private directory cannot be removed", "error", err)
	}
	closeFiles([]*os.File{sp.claim})
}
