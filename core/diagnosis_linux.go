package core

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// looker looks at the threads of a process. A nil looker sees nothing: the worker is no process that we see.
type looker struct {
	pid     int
	ended   bool
	looks   int
	threads map[int]*threadLooks // by their ids: those of the latest look
}

// threadLooks is what the looks at one thread have shown.
type threadLooks struct {
	name  string
	state byte // at the latest look
	ran   int  // at how many looks it ran
}

// looker returns a looker for the worker's process.
func (w *Worker) looker() *looker {
	if w.link.Process == nil {
		return nil
	}
	proc, err := w.link.Process.worker(w.hello.PID)
	switch {
	case errors.Is(err, ErrWorkerLost):
		return &looker{ended: true}
	case err != nil:
		return nil
	}
	_ = proc.Release()
	return &looker{pid: w.hello.PID, threads: map[int]*threadLooks{}}
}

func (l *looker) dir(thread int) string {
	return filepath.Join(procDir(l.pid), "task", strconv.Itoa(thread))
}

// look looks at each thread once. It says whether the process lives.
func (l *looker) look() processState {
	if l == nil {
		return processLives
	}
	entries, err := os.ReadDir(filepath.Join(procDir(l.pid), "task"))
	if l.ended || err != nil {
		return processGone
	}
	l.looks++
	found := map[int]*threadLooks{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // it is no thread
		}
		stat, ok := readStat(l.dir(id))
		if !ok {
			continue // it has ended
		}
		t := l.threads[id]
		if t == nil {
			t = &threadLooks{}
		}
		if t.name, t.state = stat.name, stat.state; t.state == 'R' {
			t.ran++
		}
		found[id] = t
	}
	l.threads = found
	switch main := found[l.pid]; {
	case main == nil, main.state == 'Z', main.state == 'X':
		return processGone
	case main.state == 'T', main.state == 't':
		return processStopped
	}
	return processLives
}

// seen reports whether there were enough looks for a judgement.
func (l *looker) seen() bool { return l == nil || l.looks >= fewestLooks }

// busy returns how many threads ran on average, or how much of the time the main thread did.
func (l *looker) busy(onMain bool) float64 {
	ran := 0
	for id, t := range l.threads {
		if id == l.pid || !onMain {
			ran += t.ran
		}
	}
	return float64(ran) / float64(l.looks)
}

// mainLocked reports whether the main thread waits for a lock.
func (l *looker) mainLocked() bool {
	wait := l.wait(l.pid)
	return strings.HasPrefix(wait, "futex") || wait == systemCall(strconv.Itoa(syscall.SYS_FUTEX))
}

// wait returns where a thread waits, or "".
func (l *looker) wait(thread int) string {
	if text, err := os.ReadFile(l.dir(thread) + "/wchan"); err == nil && len(text) > 1 { // "0" if it is hidden
		return string(text)
	}
	text, err := os.ReadFile(l.dir(thread) + "/syscall")
	number, _, found := strings.Cut(string(text), " ")
	if err != nil || !found || number == "-1" {
		return ""
	}
	return systemCall(number)
}

func systemCall(number string) string { return "system call " + number }

// states returns the threads, the main thread first, then the busiest.
func (l *looker) states() []ThreadState {
	if l == nil {
		return nil
	}
	var states []ThreadState
	for _, id := range slices.Sorted(maps.Keys(l.threads)) {
		t := l.threads[id]
		s := ThreadState{ID: id, Name: t.name, State: string(t.state), Busy: float64(t.ran) / float64(l.looks)}
		if t.state == 'S' || t.state == 'D' {
			s.Wait = l.wait(id)
		}
		states = append(states, s)
	}
	slices.SortStableFunc(states, func(a, b ThreadState) int {
		if a.ID == l.pid || b.ID == l.pid {
			return cmp.Compare(boolToInt(b.ID == l.pid), boolToInt(a.ID == l.pid))
		}
		return cmp.Compare(b.Busy, a.Busy)
	})
	return states
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
