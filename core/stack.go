package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Stack is what the threads of a worker were doing at one moment.
type Stack struct {
	// Text is for people. It has at most 1 MiB. A worker in Python has the form of its faulthandler: of each thread the
	// innermost 100 frames, the most recent call first, of at most 100 threads.
	Text string
	// Threads are the threads in Text, the main thread first. It is empty if Text has another form, as that of a worker
	// in Go.
	Threads []StackThread
}

// StackThread is one thread of a Stack.
type StackThread struct {
	ID     uint64       // in Python threading.get_ident()
	Name   string       // such as "MainThread"; "" if it is unknown
	Main   bool         // it is the main thread, which runs the calls of a worker with one slot
	Frames []TraceFrame // the innermost first, without source; in Python at most 100
}

// String returns Text.
func (s Stack) String() string { return s.Text }

// featureStacks is the feature of a worker whose pong has its stacks, if the ping has this name.
const featureStacks = "stacks"

// stacksHello is how a worker can be asked for its stacks while it answers no pings.
type stacksHello struct {
	Signal int    `json:"signal"`
	Main   uint64 `json:"main"` // the ID of the main thread
}

const (
	stackPatience = time.Second // how long a worker has to answer before it is asked by a signal
	maxStack      = 1 << 20     // bytes of a text
)

// Stack returns what every thread of the worker is doing. It works while calls run, and they go on.
//
// It first asks by a ping. If there is no answer within a second, or half of the time that ctx leaves, it asks by the
// signal that the worker has announced. A Python worker then writes its stacks, even if C code holds the interpreter's
// lock. This is possible on Linux, for a process that the pool has started. The signal has two risks. It interrupts
// system calls such as sleep and poll, so C code that does not repeat them goes on early. And if the worker goes on
// while it writes, it can crash.
//
// The error is ctx's if ctx is done first. It wraps errors.ErrUnsupported if the worker offers no stacks, or does not
// answer and can't be asked by a signal. It is ErrWorkerLost if the worker has not said hello, or has ended. Any
// goroutine may call Stack. Only one signal at a time is under way to a worker.
func (w *Worker) Stack(ctx context.Context) (Stack, error) {
	m, id := w.nextPing()
	if m == nil {
		return Stack{}, fmt.Errorf("%w: %s has not said hello", ErrWorkerLost, w)
	}
	if !slices.Contains(w.hello.Features, featureStacks) {
		return Stack{}, fmt.Errorf("%w: %s (%s, %s) offers no stacks", errors.ErrUnsupported, w, w.hello.Runtime,
			w.hello.Library)
	}
	if err := w.canAnswer(); err != nil {
		return Stack{}, err
	}
	patience := stackPatience
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end)/2)
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := m.ping(asking, id, featureStacks)
	var text string
	switch {
	case err == nil:
		var pong struct {
			Stacks string `json:"stacks"`
		}
		if err := m.decode(body, &pong); err != nil {
			return Stack{}, fmt.Errorf("the stacks of %s: %w", w, err)
		}
		if text = pong.Stacks; text == "" {
			return Stack{}, fmt.Errorf("%w: %s has answered without the stacks that it offers", ErrProtocol, w)
		}
	case ctx.Err() != nil:
		return Stack{}, endOfContext(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		if text, err = w.stackBySignal(ctx); err != nil {
			return Stack{}, err
		}
	default:
		return Stack{}, err
	}
	var main uint64
	if w.hello.Stacks != nil {
		main = w.hello.Stacks.Main
	}
	return Stack{Text: text, Threads: parseStack(text, main)}, nil
}

// stackBySignal asks a worker that does not answer pings.
func (w *Worker) stackBySignal(ctx context.Context) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("%w: %s does not answer, and it can't be asked by a signal: %s", errors.ErrUnsupported, w,
			why)
	}
	switch {
	case w.hello.Stacks == nil:
		return refuse("it has announced none, as workers do only on Linux")
	case w.link.Process == nil:
		return refuse("it is no process of this pool")
	}
	text, err := w.link.Process.stacks(ctx, w.hello.PID, w.hello.Stacks.Signal, w.pool.spawner.dir)
	if err != nil {
		return "", fmt.Errorf("the stacks of %s: %w", w, err)
	}
	return text, nil
}

// stacksFile is the file in the private directory to which the worker in a process group writes its stacks.
func stacksFile(group int) string { return "stacks." + strconv.Itoa(group) }

// parseStack reads the text of faulthandler. main is the ID of the main thread, or 0.
func parseStack(text string, main uint64) []StackThread {
	var threads []StackThread
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if head, found := strings.CutSuffix(line, " (most recent call first):"); found {
			if t, ok := parseThread(head); ok {
				t.Main = t.ID == main && main != 0
				threads = append(threads, t)
			}
		} else if f, ok := parseFrame(line); ok && len(threads) > 0 {
			last := &threads[len(threads)-1]
			last.Frames = append(last.Frames, f)
		}
	}
	slices.SortStableFunc(threads, func(a, b StackThread) int {
		switch {
		case a.Main == b.Main:
			return 0
		case a.Main:
			return -1
		}
		return 1
	})
	return threads
}

// parseThread reads "Current thread 0x00007f1b2e5ca503 [MainThread]". Only some versions have names.
func parseThread(head string) (t StackThread, ok bool) {
	_, rest, found := strings.Cut(head, "hread 0x")
	digits, name, _ := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(digits, 16, 64)
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	return StackThread{ID: id, Name: name}, found && err == nil
}

// parseFrame reads `  File "worker.py", line 12 in load`.
func parseFrame(line string) (f TraceFrame, ok bool) {
	rest, found := strings.CutPrefix(line, `  File "`)
	at := strings.LastIndex(rest, `", line `)
	if !found || at < 0 {
		return f, false
	}
	number, function, _ := strings.Cut(rest[at+len(`", line `):], " in ")
	n, err := strconv.Atoi(number)
	return TraceFrame{File: rest[:at], Line: n, Function: function}, err == nil
}

// goStacks returns the stacks of all goroutines of this program. A JSON string of them takes at most limit bytes.
func goStacks(limit int) string {
	text := make([]byte, min(maxStack, limit))
	text = text[:runtime.Stack(text, true)]
	for {
		valid := strings.ToValidUTF8(string(text), "")
		if escaped, err := json.Marshal(valid); err == nil && len(escaped) <= limit {
			return valid
		}
		text = text[:len(text)/2]
	}
}
