//go:build unix

package core

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A line without an end uses no memory and delays nothing.
func TestLongLine(t *testing.T) {
	f := newFixture(t, self("long line"))
	p := f.launch(Spec{})
	await(t, p)
	logged(t, p.out.log)
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
	logged := 0
	for _, record := range f.log.all() {
		text := record["@message"].(string)
		if len(text) > maxLine {
			t.Errorf("a record has %d bytes", len(text))
		}
		logged += strings.Count(text, "x")
		if bytes, ok := record["bytes"].(float64); ok {
			logged += int(bytes) // dropped, and the log says so
		}
	}
	if logged < 10<<20 || logged > 10<<20+len("\nend") {
		t.Errorf("%d bytes were logged or counted", logged)
	}
	last := p.lastOutput(time.Time{})
	if len(last) != lastLines || last[lastLines-1] != "end" || len(last[0]) > maxLastLine+40 {
		t.Errorf("the last output is %d lines: %q", len(last), last[len(last)-1])
	}
}

// A logger that hangs delays neither the worker nor Done. The lines it missed are counted.
func TestLoggerHangs(t *testing.T) {
	f := newFixture(t, self("many lines"))
	f.log.gate = make(chan struct{})
	p := f.launch(Spec{})
	await(t, p)
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
	if last := p.lastOutput(time.Time{}); len(last) != lastLines ||
		!strings.HasPrefix(last[lastLines-1], fmt.Sprintf("line %06d", manyLines-1)) {
		t.Errorf("the last output is %q", last)
	}
	close(f.log.gate)
	logged(t, p.out.log)
	lines := 0
	for _, record := range f.log.all() {
		if n, ok := record["count"].(float64); ok {
			lines += int(n)
		} else {
			lines++
		}
	}
	if lines != manyLines {
		t.Errorf("%d lines were logged or counted", lines)
	}
}

// messages is a codec that encodes only the messages of log records.
type messages struct{}

func (messages) Name() string                             { return "messages" }
func (messages) Append(dst []byte, _ any) ([]byte, error) { return dst, nil }
func (messages) Decode(b []byte, v any) error {
	v.(*logRecord).Message = string(b)
	return nil
}

// If a logger hangs, log records are dropped and counted. The queue stays within its memory limit.
func TestLogQueueIsBounded(t *testing.T) {
	for name, size := range map[string]int{"many": 100, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			log := &recorder{gate: make(chan struct{})}
			logs := newLogQueue(log.logger())
			q := newRecords(logs, 2, messages{})
			const sent = 3000
			body := bytes.Repeat([]byte("x"), size)
			for range sent {
				q.put(body)
			}
			logs.mu.Lock()
			if n := q.log.bytes; n > logBytes+size {
				t.Errorf("%d bytes are waiting", n)
			}
			logs.mu.Unlock()
			close(log.gate)
			if err := logs.close(10 * time.Second); err != nil {
				t.Error(err)
			}
			logged := 0
			for _, record := range log.all() {
				if n, ok := record["count"].(float64); ok {
					logged += int(n)
				} else {
					logged++
				}
			}
			if logged != sent {
				t.Errorf("%d records were logged or counted, of %d", logged, sent)
			}
		})
	}
}

// A logger that hangs forever does not stop the host from closing.
func TestCloseWithHungLogger(t *testing.T) {
	log := &recorder{gate: make(chan struct{})}
	logs := newLogQueue(log.logger())
	h, err := newSpawner(shell("echo hello; echo more"), spawnerOptions{Name: "test", Log: logs})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.attempt(0).launch(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	await(t, p)
	if err := logs.close(time.Hour); err == nil || !strings.Contains(err.Error(), "1 log records are lost") {
		t.Errorf("closing the log: %v", err)
	}
	close(log.gate)
	<-logs.done
}

func TestOutputFromConnection(t *testing.T) {
	f := newFixture(t, shell("cat"))
	p := f.launch(Spec{Stdio: true})
	p.LogOutput([]byte("hook one\r\nhook \x1b[31mtwo\nhel"))
	f.log.line(t, "hel")
	_ = p.Stdin.Close()
	await(t, p)
	p.LogOutput([]byte("last words")) // the adapter read it after the process had ended
	logged(t, p.out.log)
	want := []string{"hook one", `hook \x1b[31mtwo`, "hel", "last words"}
	if !slices.Equal(p.lastOutput(time.Time{}), want) {
		t.Errorf("the last output is %q", p.lastOutput(time.Time{}))
	}
	var got []string
	for _, record := range f.log.all() {
		got = append(got, record["@message"].(string))
		if record["@level"] != "info" || record["worker"] != 2.0 {
			t.Errorf("a record is %v", record)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
}
