package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit"
)

// trial is a property to try on each way.
type trial struct {
	name string
	try  func(*attempt) (verdict, error) // an error means that it could not be tried
}

var trials = []trial{
	{"`print()` is safe", printing},
	{"`kill -9` of the host leaves no worker", killing},
	{"cancel reaches Python", cancelling},
	{"the traceback is kept", tracing},
	{"memory stays flat", flowing},
	{"the next call survives a crash", crashing},
}

// verdict is the outcome of a trial.
type verdict struct {
	yes    bool
	figure string
}

func (a verdict) String() string {
	word := "no"
	if a.yes {
		word = "yes"
	}
	if a.figure == "" {
		return word
	}
	return word + ": " + a.figure
}

// patience is the time limit for an event that may never come.
const patience = 5 * time.Second

// leastBytes exceeds the allowed growth of memory. With fewer bytes the answer would always be yes.
const leastBytes = (memoryLimit + 16) << 20

// attempt is the environment of a trial: its own way and a directory.
type attempt struct {
	way
	name, python, directory string
	bytes                   int64 // to stream, at least leastBytes
}

// run tries the property on a way.
func (t trial) run(python, name string, bytes int64) (a verdict, err error) {
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return a, err
	}
	defer os.RemoveAll(directory)
	w, err := openWay(python, name)
	if err != nil {
		return a, err
	}
	if _, err = w.call(context.Background(), "echo", arguments); err == nil {
		a, err = t.try(&attempt{w, name, python, directory, max(bytes, leastBytes)})
	}
	if err = errors.Join(err, w.close()); err != nil {
		err = fmt.Errorf("%s, %s: %w", t.name, name, err)
	}
	return a, err
}

var none = map[string]any{}

// printing calls twice, because printed text may damage the next call.
func printing(t *attempt) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	for range 2 {
		result, err := t.call(ctx, "chatter", map[string]any{"lines": 5000})
		if err != nil {
			return verdict{figure: last(err)}, nil
		}
		if fmt.Sprint(result) != "5000" {
			return verdict{figure: fmt.Sprintf("the result is %v", result)}, nil
		}
	}
	return verdict{yes: true}, nil
}

// killing kills one host between calls and another in the middle of a call.
func killing(t *attempt) (verdict, error) {
	idle, idleErr := t.kill(false)
	busy, busyErr := t.kill(true)
	text := func(took time.Duration) string {
		if took >= patience {
			return fmt.Sprintf("lives on after %.0f s", patience.Seconds())
		}
		return "gone after " + short(took)
	}
	figure := fmt.Sprintf("%s; in mid-call %s", text(idle), text(busy))
	return verdict{max(idle, busy) < patience, figure}, errors.Join(idleErr, busyErr)
}

// kill starts a host and kills it. It returns how long the host's processes live on.
func (t *attempt) kill(busy bool) (time.Duration, error) {
	note := filepath.Join(t.directory, fmt.Sprint("busy-", busy))
	mark := markVariable + "=" + note
	host, err := startChild(free, mark, "TMPDIR="+t.directory)
	if err != nil {
		return 0, err
	}
	if err := host.send(order{Job: "host", Way: t.name, Note: note, Busy: busy}); err != nil {
		return 0, err
	}
	if err = exists(note); err == nil && len(marked(mark)) < 2 {
		err = errors.New("/proc does not show the host and its Python; this trial needs Linux")
	}
	_ = host.cmd.Process.Kill()
	_ = host.cmd.Wait()
	begin := time.Now()
	for err == nil && time.Since(begin) < patience && len(marked(mark)) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(begin)
	for _, pid := range marked(mark) {
		if process, err := os.FindProcess(pid); err == nil {
			_ = process.Kill()
		}
	}
	return took, err
}

// markVariable marks the processes that something has started, because they inherit it.
const markVariable = "SNAKEPIT_BENCH_MARK"

// hostJob is such a host.
func hostJob(b *bed, o order) (any, error) {
	w, err := openWay(b.python, o.Way)
	if err != nil {
		return nil, err
	}
	if _, err := w.call(context.Background(), "echo", arguments); err != nil {
		return nil, err
	}
	if o.Busy {
		return w.call(context.Background(), "work", map[string]any{"seconds": 60, "note": o.Note})
	}
	if err := os.WriteFile(o.Note, nil, 0o600); err != nil {
		return nil, err
	}
	time.Sleep(time.Minute)
	return nil, errors.New("nobody killed the host")
}

// marked lists the processes that have a variable in their environment.
func marked(variable string) (pids []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range entries {
		env, _ := os.ReadFile(path) // an ended process has none
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && bytes.Contains(env, []byte(variable+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cancelling cancels a call and a stream.
func cancelling(t *attempt) (verdict, error) {
	ways := []struct {
		name string
		do   func(ctx context.Context, note string) error
	}{
		{"call", func(ctx context.Context, note string) error {
			_, err := t.call(ctx, "work", map[string]any{"seconds": 60, "note": note})
			return err
		}},
		{"stream", func(ctx context.Context, note string) error {
			return t.stream(ctx, "ticks", map[string]any{"n": 600, "seconds": 0.1, "note": note}, func(any) {})
		}},
	}
	a := verdict{yes: true}
	var figures []string
	for _, w := range ways {
		before, err := t.pid()
		if err != nil {
			return a, err
		}
		took, ran, err := cancelNoted(filepath.Join(t.directory, w.name), w.do)
		if err != nil {
			return a, err
		}
		after, err := t.pid()
		if err != nil {
			return a, err
		}
		a.yes = a.yes && ran && before == after
		switch {
		case before != after:
			figures = append(figures, w.name+" killed")
		case ran:
			figures = append(figures, w.name+" ended after "+short(took))
		default:
			figures = append(figures, w.name+" runs on")
		}
	}
	a.figure = strings.Join(figures, ", ")
	return a, nil
}

func (t *attempt) pid() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	pid, err := t.call(ctx, "pid", none)
	return fmt.Sprint(pid), err
}

// cancelNoted runs do, which creates the note and works on, and cancels it. It reports whether the handler's
// finally ran, and after which time.
func cancelNoted(
	note string, do func(ctx context.Context, note string) error,
) (took time.Duration, ran bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- do(ctx, note) }()
	if err := exists(note); err != nil {
		return 0, false, err
	}
	begin := time.Now()
	cancel()
	if err := <-ended; err == nil {
		return 0, false, errors.New("the call ended before it was cancelled")
	}
	for time.Since(begin) < patience {
		text, err := os.ReadFile(note)
		if err != nil {
			return 0, false, err
		}
		if bytes.HasSuffix(text, []byte("\n")) {
			var at int64
			_, err := fmt.Sscan(string(text), &at)
			return time.Unix(0, at).Sub(begin), true, err
		}
		time.Sleep(time.Millisecond)
	}
	return 0, false, nil
}

// exists waits for a file.
func exists(path string) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil || time.Since(begin) > 4*patience {
			return err
		}
	}
}

// tracing raises an exception with a cause. It looks for the places of both.
func tracing(t *attempt) (verdict, error) {
	_, err := t.call(context.Background(), "share", map[string]any{"total": 10, "people": 0})
	if err == nil {
		return verdict{}, errors.New("no error")
	}
	text, figure := err.Error(), "as text"
	var remote *snakepit.RemoteError
	if errors.As(err, &remote) {
		text, figure = remote.Traceback(), "as text and as fields"
	}
	for _, part := range []string{"functions.py", "return divide(total, people)", "return total / people",
		"ZeroDivisionError", "ValueError"} {
		if !strings.Contains(text, part) {
			return verdict{figure: last(err)}, nil
		}
	}
	return verdict{true, figure}, nil
}

// flowing streams through a consumer that takes three times as long as the producer.
func flowing(t *attempt) (verdict, error) {
	var g growth
	if err := inChild(&g, order{Job: "way", Way: t.name, Bytes: t.bytes}); err != nil {
		return verdict{}, err
	}
	flat := max(g.HostPeak, g.WorkerPeak) <= memoryLimit
	text := fmt.Sprintf("%+.0f MiB in Go, %+.0f in Python, of %d", g.HostPeak, g.WorkerPeak, t.bytes>>20)
	return verdict{flat, text}, nil
}

func wayJob(b *bed, o order) (any, error) {
	w, err := openWay(b.python, o.Way)
	if err != nil {
		return nil, err
	}
	t := attempt{way: w}
	text, err := t.pid()
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	var pid int
	if _, err := fmt.Sscan(text, &pid); err != nil {
		return nil, errors.Join(err, w.close())
	}
	g, err := grow(pid, func() error {
		_, err := slowly(3, int(o.Bytes/chunk), func(n int, each func()) error {
			got := 0
			args := map[string]any{"n": n, "size": chunk}
			err := w.stream(context.Background(), "produce", args, func(any) { got++; each() })
			if err == nil && got != n {
				return fmt.Errorf("%d chunks instead of %d", got, n)
			}
			return err
		})
		return err
	})
	return g, errors.Join(err, w.close())
}

// crashing has the Python process killed during a call, as the kernel does when memory runs out.
func crashing(t *attempt) (verdict, error) {
	if _, err := t.call(context.Background(), "crash", none); err == nil {
		return verdict{}, errors.New("no error")
	}
	begin := time.Now()
	if _, err := t.pid(); err != nil {
		return verdict{figure: last(err)}, nil
	}
	return verdict{true, "after " + short(time.Since(begin))}, nil
}

// last is the innermost part of an error's text.
func last(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	parts := strings.Split(line, ": ")
	return strings.TrimSuffix(parts[len(parts)-1], `"`)
}

// short formats a duration to about two figures.
func short(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}
