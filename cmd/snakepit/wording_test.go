package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The library still has the words that the command replaces.
func TestFlagWords(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"core/*.go", "python/*.go", "python/snakepit_bridge/*.py"} {
		paths, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	for i := 0; i < len(flagWords); i += 2 {
		if !strings.Contains(source.String(), flagWords[i]) {
			t.Errorf("no source has %q", flagWords[i])
		}
	}
}

// Errors of the library name flags and commands, not Go.
func TestErrorsNameFlags(t *testing.T) {
	dir := t.TempDir()
	worker := filepath.Join(dir, "worker.py")
	const source = `
import time
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def slow():
    time.sleep(60)

@worker.command
def hidden():
    return (i for i in range(3))

@worker.command
def large():
    return "x" * (65 << 20)
`
	if err := os.WriteFile(worker, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"call", worker, "slow", "--timeout", "100ms"}, "--timeout"},
		{[]string{"call", worker, "hidden"}, "use snakepit stream"},
		{[]string{"call", worker, "large"}, "; send it in smaller items"},
		{[]string{"call", worker, "slow", "--python", filepath.Join(dir, "none")}, "the given interpreter"},
		{[]string{"call", worker, "slow", "--start-timeout", "1ms"}, "--start-timeout"},
	} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), c.args, &stdout, &stderr)
		text := stderr.String()
		for _, word := range []string{"Options.", "Program.", "call option", "ExecuteStream"} {
			if strings.Contains(text, word) {
				t.Errorf("%v speaks of %q: %s", c.args[2:], word, text)
			}
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%v does not name %q: %s", c.args[2:], c.want, text)
		}
	}
}
