package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// notPrinted lists the texts of the library with names of Go that this command does not print, with the reason.
var notPrinted = map[string]string{
	"Command.Path": "words the check of a Go program's Command", "Command.Args": "the same",
	"Command.Dir": "the command sets none", "Command.Env": "the same", "Options.Name": "the command sets none",
	"correct Command.Dir":                                    "the command sets none",
	"make it, or correct Command.Dir":                        "the command sets none",
	"make Options.Size larger":                               "the command waits for one worker",
	"a function in Options.Functions":                        "the command has no functions",
	"the directory of Options.Dir":                           "the command sets none",
	"raise Options.Size":                                     "the command has no functions",
	"the queue is full (Options.Queue":                       "the command makes one call",
	"the logger in Options.Logger":                           "the command's logger writes to standard error",
	"set Program.Script":                                     "the command requires WORKER",
	"Options.MaxSessions allows":                             "the command has no sessions",
	"or raise Options.MaxSnapshot":                           "sessions of the command end with it",
	"Options.OnEvent":                                        "the command has no hook",
	"Command.ForkServer needs Linux":                         "the same",
	"Options.WorkerEnv":                                      "the same",
	"the limit is {self._max_frame}; raise Options.MaxFrame": "other gRPC clients get it",
	"set Command.Reports":                                    "conformance has --reports, and its own text",
	"Options.Limits bound only workers on this machine":      "the command has no workers elsewhere",
	"or name its files by Program.FS":                        "the command opens no pool on a Ray cluster",
}

// The library's texts with names of Go and the words that the command replaces are the same.
func TestFlagWords(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{
		"core/*.go", "python/*.go", "fallback/*.go", "adapters/*/*.go",
		"python/snakepit_bridge/*.py", "python/snakepit_bridge/grpc/*.py",
	} {
		paths, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
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
	for text := range notPrinted {
		if !strings.Contains(source.String(), text) {
			t.Errorf("no source has %q", text)
		}
	}
	names := regexp.MustCompile("[\"'`][^\"`\n]*\\b(Options|Program|Command)\\.[A-Z]\\w+[^\"`\n]*")
	for line := range strings.Lines(source.String()) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "//") || strings.HasPrefix(text, "#") {
			continue
		}
		for _, text := range names.FindAllString(line, -1) {
			known := inFlags.Replace(text) != text
			for other := range notPrinted {
				known = known || strings.Contains(text, other)
			}
			if !known {
				t.Errorf("flagWords has no words for %s", text)
			}
		}
	}
}

// Errors of the library name flags and commands, not Go.
func TestErrorsNameFlags(t *testing.T) {
	dir := t.TempDir()
	worker := filepath.Join(dir, "worker.py")
	const source = `
import threading
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def slow():
    threading.Event().wait()  # until it is cancelled

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
