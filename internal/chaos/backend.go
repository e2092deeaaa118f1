//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit/adapters/remote"
)

// backend is a back end of the adapter remote. It outlives the hosts. Only one goroutine at a time may use it.
type backend struct {
	name    string // a part of the environment of all its processes
	address string
	command []string
	env     []string
	log     string // the file for what it prints
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd has ended
	pipes   int           // how many it has without a worker
	done    map[string]int
	wrong   []string
}

// backEndGrace is how long workers may go on after a SIGTERM of their back end. The host's calls and sessions end in
// less time, so none of them is lost. goneTime is how long the processes of a killed back end may be there.
const (
	backEndGrace = 10 * time.Second
	goneTime     = 2 * time.Second
)

// startBackEnds starts two back ends, so one can end while the other one serves.
func (r *referee) startBackEnds() error {
	r.certificates = filepath.Join(r.dir, "certificates")
	if err := remote.WriteCertificates(r.certificates, nil, 24*time.Hour); err != nil {
		return err
	}
	bridge, err := filepath.Abs("python")
	if err != nil {
		return err
	}
	for i := range 2 {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		b := &backend{name: fmt.Sprintf("%s-backend%d", filepath.Base(r.dir), i), address: address}
		b.log = filepath.Join(r.dir, fmt.Sprintf("backend%d", i))
		b.command = []string{
			"-m", "snakepit_bridge.serve", "--listen", address, "--workers", "6", "--certificates", r.certificates,
			"--grace", fmt.Sprint(backEndGrace.Seconds()), "internal/chaos/worker.py",
		}
		b.command = append([]string{r.python}, b.command...)
		b.env = append(os.Environ(), "PYTHONPATH="+bridge, "TMPDIR="+r.tmp, "CHAOS_BACKEND="+b.name)
		r.backends = append(r.backends, b)
		if err := b.start(); err != nil {
			return err
		}
		b.pipes = b.countPipes()
	}
	return nil
}

// freeAddress returns an address of this machine that nothing listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// endBackEnds ends the back ends in order, and returns what is wrong.
func (r *referee) endBackEnds() []string {
	var wrong []string
	for _, b := range r.backends {
		b.wrong = nil
		b.end()
		wrong = append(wrong, b.wrong...)
	}
	r.backends = nil
	return wrong
}

// harmBackEnds does harm to the back ends until the returned function is called. That returns when all of them serve
// again: what was done, and what was wrong. In a gentle life they only get SIGTERM, one after the other.
func (r *referee) harmBackEnds(gentle bool) (stop func() (done map[string]int, wrong []string, err error)) {
	ctx, cancel := context.WithCancel(context.Background())
	errs := make([]error, len(r.backends))
	var turn sync.Mutex
	var running sync.WaitGroup
	for i, b := range r.backends {
		b.done, b.wrong = map[string]int{}, nil
		running.Go(func() {
			if gentle {
				errs[i] = b.harm(ctx, func() error {
					turn.Lock()
					defer turn.Unlock()
					return b.terminate()
				})
			} else {
				errs[i] = b.harm(ctx, b.terminate, b.kill, b.stall)
			}
		})
	}
	return func() (map[string]int, []string, error) {
		cancel()
		running.Wait()
		done, wrong := map[string]int{}, []string{}
		for _, b := range r.backends {
			for name, n := range b.done {
				done[name] += n
			}
			wrong = append(wrong, b.wrong...)
		}
		return done, wrong, errors.Join(errs...)
	}
}

// harm does one of the faults after another, until ctx is done.
func (b *backend) harm(ctx context.Context, faults ...func() error) error {
	for {
		pause(ctx, time.Duration(500+rand.IntN(4000))*time.Millisecond)
		if ctx.Err() != nil {
			return nil
		}
		if err := faults[rand.IntN(len(faults))](); err != nil {
			return err
		}
	}
}

// terminate ends the back end in order, and starts it again.
func (b *backend) terminate() error {
	b.done["back-end-SIGTERM"]++
	b.end()
	return b.start()
}

// kill kills the back end, and starts it again.
func (b *backend) kill() error {
	b.done["back-end-SIGKILL"]++
	_ = b.cmd.Process.Kill()
	<-b.ended
	b.expectGone()
	return b.start()
}

// stall stops the back end for a while.
func (b *backend) stall() error {
	b.done["back-end-SIGSTOP"]++
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(time.Duration(100+rand.IntN(3000)) * time.Millisecond)
	return b.cmd.Process.Signal(syscall.SIGCONT)
}

// start starts the back end, and waits until it serves.
func (b *backend) start() error {
	log, err := os.OpenFile(b.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // nothing was written
	before, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	b.cmd = exec.Command(b.command[0], b.command[1:]...)
	b.cmd.Env, b.cmd.Stderr = b.env, log
	if err := b.cmd.Start(); err != nil {
		return err
	}
	b.ended = make(chan struct{})
	go func() {
		_ = b.cmd.Wait() // ProcessState has the result
		close(b.ended)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(b.log)
		if err != nil {
			return err
		}
		printed := string(text[before:])
		if strings.Contains(printed, "serving ") {
			return nil
		}
		select {
		case <-b.ended:
			return fmt.Errorf("the back end at %s does not start: %s", b.address, printed)
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("the back end at %s does not serve: %s", b.address, printed)
		}
	}
}

// end ends the back end in order.
func (b *backend) end() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
		if how := b.cmd.ProcessState; !how.Success() {
			b.wrong = append(b.wrong, fmt.Sprintf("the back end at %s has ended with %s", b.address, how))
		}
	case <-time.After(backEndGrace + 10*time.Second):
		b.wrong = append(b.wrong, fmt.Sprintf("the back end at %s does not end", b.address))
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
	b.expectGone()
}

// expectGone notes the processes that have outlived the back end.
func (b *backend) expectGone() {
	left := settled(func() []string { return processesWith("CHAOS_BACKEND=" + b.name) }, goneTime)
	for _, process := range left {
		b.wrong = append(b.wrong, fmt.Sprintf("%s has outlived the back end at %s", process, b.address))
	}
}

// left returns what hosts that are gone have left in the back end.
func (b *backend) left() []string {
	if n := b.countPipes(); n > b.pipes {
		return []string{fmt.Sprintf("%d pipes more in the back end at %s", n-b.pipes, b.address)}
	}
	return nil
}

func (b *backend) countPipes() int {
	n := 0
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.cmd.Process.Pid))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// inUse reports whether a process has locked a directory.
func inUse(dir string) bool {
	file, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // it gives the lock back
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
