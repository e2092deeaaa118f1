package core

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

const (
	maxLine     = 64 << 10 // bytes; a longer line of output is logged in pieces
	lastLines   = 20       // how many lines a WorkerExit shows
	maxLastLine = 1 << 10  // bytes of each of these lines
)

// output is the output of one process. It keeps the last lines for a WorkerExit, and queues all lines for the logger. A
// slow logger blocks the worker for at most logWait at a time. After that lines are dropped, counted and reported.
type output struct {
	log *logSource

	mu   sync.Mutex // guards last
	last []logLine  // at most lastLines, the newest last
}

// logLine is a line of output or a log record.
type logLine struct {
	text string
	at   time.Time // when it was printed or logged
}

func newOutput(logs *logQueue, worker int) *output {
	return &output{log: logs.source(worker, "output was dropped because the logger is slow")}
}

// read reads r until its end or its read deadline. At the deadline it also reads the bytes that are already in the
// pipe.
func (o *output) read(r *os.File) {
	s := splitter{emit: o.line}
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		s.write(buf[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.write(readAvailable(r))
		}
		s.flush()
		return
	}
}

// line keeps and queues one line.
func (o *output) line(b []byte) {
	text := escapeControl(string(b), false)
	if strings.TrimSpace(text) == "" {
		return
	}
	o.mu.Lock()
	if len(o.last) == lastLines {
		o.last = slices.Delete(o.last, 0, 1)
	}
	o.last = append(o.last, logLine{truncate(text, maxLastLine), time.Now()})
	o.mu.Unlock()
	o.log.putBlocking(len(text), func(l hclog.Logger) { l.Info(text) })
}

// tail returns the last lines that were printed at or after since, the newest last.
func (o *output) tail(since time.Time) []logLine {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.last), func(line logLine) bool { return line.at.Before(since) })
}

// splitter splits a stream of bytes into lines. A carriage return also ends a line. Otherwise a progress bar would be
// one line that never ends.
type splitter struct {
	emit func(line []byte) // must not retain line
	part []byte            // the start of a line that has not ended; at most maxLine
}

func (s *splitter) write(b []byte) {
	for len(b) > 0 {
		if end := bytes.IndexAny(b[:min(len(b), maxLine-len(s.part))], "\r\n"); end >= 0 {
			s.put(b[:end])
			s.flush()
			b = b[end+1:]
			continue
		}
		n := min(len(b), maxLine-len(s.part))
		s.put(b[:n])
		b = b[n:]
		if len(s.part) == maxLine {
			keep := partialRune(s.part)
			rest := slices.Clone(s.part[maxLine-keep:])
			s.part = s.part[:maxLine-keep]
			s.flush()
			s.put(rest)
		}
	}
}

func (s *splitter) put(b []byte) { s.part = append(s.part, b...) }

func (s *splitter) flush() {
	if len(s.part) > 0 {
		s.emit(s.part)
	}
	s.part = s.part[:0]
}

// partialRune returns how many bytes at the end of b are an incomplete character.
func partialRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
