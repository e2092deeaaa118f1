package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// With --watch a call is made again after each change, and a broken file leaves the old worker serving.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	worker := filepath.Join(dir, "worker.py")
	write := func(answer string) {
		t.Helper()
		source := "from snakepit_bridge import Worker\nworker = Worker()\n\n@worker.command\ndef ask():\n" +
			"    return " + answer + "\n\nworker.run()\n"
		if err := os.WriteFile(worker, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("4")
	stdout, out := io.Pipe()
	stderr, errs := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"call", worker, "ask", "--adapter", "jsonstdio", "--watch"}, out, errs)
		_, _ = out.Close(), errs.Close()
	}()
	broken := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "SyntaxError: ") {
				select {
				case broken <- lines.Text():
				default:
				}
			}
		}
	}()
	results := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if got, err := results.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("%q, not %q, %v", got, want, err)
		}
	}
	expect("4")
	write("55")
	expect("55")
	write("= 666")
	<-broken
	write("7777")
	expect("7777")
	cancel(signalled{os.Interrupt})
	if got := <-code; got != 0 {
		t.Errorf("the exit code is %d", got)
	}
	if got := run(t.Context(), []string{"call", "/bin/cat", "ask", "--watch"}, io.Discard, io.Discard); got == 0 {
		t.Error("an executable cannot be watched")
	}
}
