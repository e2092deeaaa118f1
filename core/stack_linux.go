package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// signalPatience is how long the text of a worker that was asked by a signal may take.
const signalPatience = 5 * time.Second

// The numbers of the real-time signals for programs. The system uses the others itself, and the C library 32 and 33, so
// a worker that announces one of those is not believed.
const firstRealTime, lastRealTime = 34, 64

// canAnswer returns an error if the worker's process certainly can't answer now.
func (w *Worker) canAnswer() error {
	if w.link.Process == nil {
		return nil
	}
	proc, err := w.link.Process.worker(w.hello.PID)
	if err != nil {
		return nil // perhaps it runs elsewhere, and answers
	}
	_ = proc.Release()
	switch state := stateOf(procDir(w.hello.PID)); state {
	case 'T', 't':
		return fmt.Errorf("%s is stopped by a signal or a debugger: let it go on with kill -CONT %d", w, w.hello.PID)
	case 'Z', 'X', 0:
		return fmt.Errorf("%w: the process %d of %s has ended", ErrWorkerLost, w.hello.PID, w)
	}
	return nil
}

// worker returns the process pid if it is p, or of p's group because a shell has started it. The result stands for that
// process even if its id is used again.
func (p *Process) worker(pid int) (*os.Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hasExited() {
		return nil, fmt.Errorf("%w: its process has ended", ErrWorkerLost)
	}
	if p.host != "" {
		return nil, fmt.Errorf("%w: it runs on %s", errors.ErrUnsupported, p.host)
	}
	if pid <= 0 {
		return nil, fmt.Errorf("%w: its hello has no process id", errors.ErrUnsupported)
	}
	proc, err := os.FindProcess(pid) // by a pidfd, where the system has them
	if err != nil {
		return nil, fmt.Errorf("the process %d: %w", pid, err)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != p.pid {
		_ = proc.Release()
		return nil, fmt.Errorf("%w: the process %d of its hello is not of the group %d that the pool has started",
			errors.ErrUnsupported, pid, p.pid)
	}
	return proc, nil
}

// stacks asks the worker's process by a signal for its stacks, which it appends to a file in dir.
//
// Nothing in the text says where it ends. But the system blocks the signal in the thread that handles it. So the text
// is complete once there is some, the signal is not pending, and no thread blocks it that did not before.
func (p *Process) stacks(ctx context.Context, pid, number int, dir string) (string, error) {
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return "", endOfContext(ctx)
	}
	proc, err := p.worker(pid)
	if err != nil {
		return "", err
	}
	defer func() { _ = proc.Release() }()
	if number < firstRealTime || number > lastRealTime {
		return "", fmt.Errorf("%w: it has announced %d, which is no real-time signal", ErrProtocol, number)
	}
	file, err := os.OpenFile(filepath.Join(dir, stacksFile(p.pid)), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", fmt.Errorf("the file that it writes them to: %w", err)
	}
	defer func() { _ = file.Close() }()
	at := procDir(pid)
	status, err := signalsOf(at)
	if err != nil {
		return "", err
	}
	if !status.caught.has(number) {
		return "", fmt.Errorf("%w: its program has taken its handler of signal %d away", errors.ErrUnsupported, number)
	}
	before := blocking(at, number)
	if !status.pending.has(number) { // otherwise it still has to handle an earlier one
		if err := file.Truncate(0); err != nil {
			return "", fmt.Errorf("the file that it writes them to: %w", err)
		}
		if err := proc.Signal(syscall.Signal(number)); err != nil {
			return "", fmt.Errorf("signal %d to process %d: %w", number, pid, err)
		}
	}
	end := time.NewTimer(signalPatience)
	defer end.Stop()
	for !written(file, at, number, before) {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-p.exited:
			return "", fmt.Errorf("%w: it ended while it wrote them", ErrWorkerLost)
		case <-ctx.Done():
			return "", endOfContext(ctx)
		case <-end.C:
			return "", fmt.Errorf("%w: signal %d was sent to process %d, and nothing was written within %s",
				context.DeadlineExceeded, number, pid, signalPatience)
		}
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxStack))
	if err != nil {
		return "", fmt.Errorf("the file that it writes them to: %w", err)
	}
	_ = file.Truncate(0) // only to free the space
	return strings.ToValidUTF8(string(text), "?"), nil
}

// written reports whether the text in the file is complete.
func written(file *os.File, at string, number int, before map[string]bool) bool {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	status, err := signalsOf(at)
	if err != nil || status.pending.has(number) {
		return false
	}
	for thread, blocks := range blocking(at, number) {
		if old, known := before[thread]; blocks && known && !old {
			return false
		}
	}
	return true
}

// signalSet is a set of signals as /proc shows it.
type signalSet uint64

func (s signalSet) has(number int) bool { return s>>(number-1)&1 == 1 }

// signals are the sets of one thread. pending is that of its process.
type signals struct{ pending, blocked, caught signalSet }

// signalsOf reads the file status in the directory of a process or a thread.
func signalsOf(dir string) (s signals, err error) {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return s, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":\t")
		set, _ := strconv.ParseUint(value, 16, 64) // the other lines are not used
		switch name {
		case "ShdPnd":
			s.pending = signalSet(set)
		case "SigBlk":
			s.blocked = signalSet(set)
		case "SigCgt":
			s.caught = signalSet(set)
		}
	}
	return s, nil
}

// blocking says of each thread of a process whether it blocks the signal.
func blocking(dir string, number int) map[string]bool {
	threads := map[string]bool{}
	entries, _ := os.ReadDir(dir + "/task") // an error: it has ended
	for _, e := range entries {
		if s, err := signalsOf(filepath.Join(dir, "task", e.Name())); err == nil {
			threads[e.Name()] = s.blocked.has(number)
		}
	}
	return threads
}

// stateOf returns the state of the process or thread in a directory of /proc, such as 'S', or 0 if it is gone.
func stateOf(dir string) byte {
	stat, _ := readStat(dir)
	return stat.state
}
