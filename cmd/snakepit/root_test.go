package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	worker := filepath.Join("testdata", "worker.py")
	broken := filepath.Join(t.TempDir(), "broken.py")
	if err := os.WriteFile(broken, []byte("import no_such_module\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		stdout string   // all of it
		stderr []string // parts of it
	}{
		{"integers", []string{"call", worker, "add", "a=5", "b=3"}, exitOK, "8\n", nil},
		{"floats", []string{"call", worker, "add", "a=5.0", "b=3"}, exitOK, "8.0\n", nil},
		{"text", []string{"call", worker, "add", "a=5", `b="3"`}, exitFailed, "",
			[]string{"TypeError", "worker.py", "line 11, in add"}},
		{"text without quotes", []string{"call", worker, "add", "a=snake", "b=pit"}, exitOK, "\"snakepit\"\n", nil},
		{"large", []string{"call", worker, "echo", "value=18446744073709551615"}, exitOK, "18446744073709551615\n",
			nil},
		{"too large", []string{"call", worker, "echo", "value=18446744073709551616"}, exitUsage, "",
			[]string{"argument value"}},
		{"binary", []string{"call", worker, "echo", `value={"$bytes":"AAE="}`}, exitOK, "{\"$bytes\":\"AAE=\"}\n", nil},
		{"one value", []string{"call", worker, "echo", `[1, null]`}, exitOK, "[1,null]\n", nil},
		{"object", []string{"call", worker, "echo", `{"value": "x"}`}, exitOK, "\"x\"\n", nil},
		{"adapters", []string{"call", worker, "echo", "1", "--adapter", "jsonstdio"}, exitOK, "1\n", nil},
		{"stream", []string{"stream", worker, "count", "n=2"}, exitOK, "0\n1\n", nil},
		{"stream with result", []string{"stream", worker, "count", "n=2", "--result"}, exitOK, "0\n1\n\"done\"\n", nil},
		{"handler raises", []string{"call", worker, "fail"}, exitFailed, "",
			[]string{"Traceback", "ValueError: bad operand"}},
		{"unknown command", []string{"call", worker, "ad"}, exitUsage, "", []string{"unknown command", "add"}},
		{"stream by call", []string{"call", worker, "count", "n=1"}, exitUsage, "",
			[]string{"count sends a stream: use snakepit stream"}},
		{"broken JSON", []string{"call", worker, "echo", `{"value": 1`}, exitUsage, "",
			[]string{"broken JSON", "unexpected end of JSON input"}},
		{"no such command", []string{"doctr"}, exitUsage, "",
			[]string{`there is no command "doctr"; did you mean doctor? `}},
		{"no argument name", []string{"call", worker, "add", "5", "3"}, exitUsage, "",
			[]string{`"5" is not KEY=VALUE`, `JSON, such as '"text"', or @FILE`}},
		{"argument twice", []string{"call", worker, "add", "a=5", "a=3"}, exitUsage, "", []string{"given twice"}},
		{"unknown adapter", []string{"call", worker, "add", "--adapter", "smoke"}, exitUsage, "",
			[]string{"--adapter", "smoke", "grpc", "msgpack", "jsonstdio"}},
		{"unknown flag", []string{"call", worker, "add", "--loud"}, exitUsage, "",
			[]string{"--loud", "; see snakepit call --help"}},
		{"misspelt flag", []string{"call", worker, "add", "--adaptor", "grpc"}, exitUsage, "",
			[]string{"unknown flag: --adaptor; did you mean --adapter? see snakepit call --help"}},
		{"duration without a unit", []string{"call", worker, "add", "--timeout", "10"}, exitUsage, "",
			[]string{"--timeout", "; a duration has a unit, as in 10s or 2m"}},
		{"unknown verb", []string{"cal"}, exitUsage, "", []string{`"cal"; did you mean call? see snakepit --help`}},
		{"unknown shell", []string{"completion", "csh"}, exitUsage, "",
			[]string{`"csh"; did you mean bash or fish or zsh? see snakepit completion --help`}},
		{"unknown topic", []string{"help", "quux"}, exitUsage, "", []string{`"quux"; see snakepit --help`}},
		{"too few", []string{"call", worker}, exitUsage, "",
			[]string{"call needs WORKER and COMMAND; see snakepit call --help"}},
		{"empty worker", []string{"call", "", "add"}, exitUsage, "",
			[]string{"WORKER is empty; see snakepit call --help"}},
		{"empty command", []string{"call", worker, ""}, exitUsage, "",
			[]string{"COMMAND is empty; see snakepit call --help"}},
		{"too few for a stream", []string{"stream"}, exitUsage, "",
			[]string{"stream needs WORKER and COMMAND; see snakepit stream --help"}},
		{"no script", []string{"call", "gone.py", "add"}, exitNoWorker, "", []string{`"gone.py"`}},
		{"broken script", []string{"call", broken, "add"}, exitNoWorker, "", []string{"no_such_module"}},
		{"no executable", []string{"call", "./gone", "add"}, exitNoWorker, "",
			[]string{"./gone: no such file; a worker is a .py file or an executable"}},
		{"no program", []string{"call", "gone", "add"}, exitNoWorker, "",
			[]string{"gone: no such file, nor a program in PATH; a worker is"}},
		{"not executable", []string{"call", "root.go", "add"}, exitNoWorker, "",
			[]string{"root.go is not executable; a worker is"}},
		{"directory", []string{"call", "./testdata", "add"}, exitNoWorker, "",
			[]string{"./testdata is a directory; a worker is"}},
		{"no interpreter", []string{"call", worker, "add", "--python", "python9"}, exitNoWorker, "",
			[]string{`the given interpreter is "python9"`}},
		{"start limit", []string{"call", worker, "add", "--start-timeout", "1ns"}, exitNoWorker, "",
			[]string{"longer --start-timeout"}},
		{"negative start limit", []string{"call", worker, "add", "--start-timeout", "-1s"}, exitUsage, "",
			[]string{"--start-timeout is -1s"}},
		{"timeout", []string{"call", worker, "sleep", "--timeout", "200ms"}, exitTimeout, "", []string{"deadline"}},
		{"lost", []string{"call", worker, "die"}, exitLost, "", []string{"exited with code 7"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), test.args, &stdout, &stderr)
			if code != test.code || stdout.String() != test.stdout {
				t.Errorf("code %d, want %d; printed %q, want %q; stderr: %s", code, test.code, &stdout, test.stdout,
					&stderr)
			}
			for _, part := range test.stderr {
				if !strings.Contains(stderr.String(), part) {
					t.Errorf("stderr does not have %q: %s", part, &stderr)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"call", "--help"}, {"stream", "--help"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitOK ||
			!strings.Contains(stdout.String(), "Exit codes:") {
			t.Errorf("%q: code %d, printed %q, %q", args, code, &stdout, &stderr)
		}
	}
	for _, args := range [][]string{{"version"}, {"--version"}} {
		var stdout bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stdout); code != exitOK ||
			!strings.HasPrefix(stdout.String(), "snakepit ") {
			t.Errorf("%q printed %q with code %d", args, &stdout, code)
		}
	}
}

func TestAdaptersOfTheEnvironment(t *testing.T) {
	t.Setenv("SNAKEPIT_ADAPTERS", "smoke")
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"call", filepath.Join("testdata", "worker.py"), "add"}, &stdout, &stderr)
	if code != exitUsage || !strings.Contains(stderr.String(), "snakepit: the environment's SNAKEPIT_ADAPTERS: ") {
		t.Errorf("code %d: %s", code, &stderr)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	worker := filepath.Join("testdata", "worker.py")
	for _, args := range [][]string{{"call", worker, "echo", "1"}, {"stream", worker, "count", "n=2"}, {"version"},
		{"completion", "bash"},
		{"conformance", "--format", "json", "--", "gone"}} {
		var stderr bytes.Buffer
		const want = "snakepit: standard output cannot be written to: no space left\n"
		if code := run(t.Context(), args, full{}, &stderr); code != exitFailed || stderr.String() != want {
			t.Errorf("%q: code %d: %s", args, code, &stderr)
		}
	}
}

func TestLog(t *testing.T) {
	t.Setenv("PYTHONPATH", t.TempDir())
	blocked := []byte("import sys\nsys.modules['grpc'] = None\n")
	if err := os.WriteFile(filepath.Join(os.Getenv("PYTHONPATH"), "sitecustomize.py"), blocked, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"call", filepath.Join("testdata", "worker.py"), "say", `"printed"`, "--adapter", "grpc,jsonstdio"}
	for level, want := range map[string]struct{ printed, degraded, remedy bool }{
		"": {printed: true}, "warn": {}, "info": {printed: true, degraded: true}, "debug": {true, true, true},
	} {
		t.Setenv("SNAKEPIT_LOG", level)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &stdout, &stderr)
		log := stderr.String()
		got := struct{ printed, degraded, remedy bool }{
			strings.Contains(log, "printed"), strings.Contains(log, "protocol degraded"), strings.Contains(log,
				"-m pip install"),
		}
		if code != exitOK || got != want {
			t.Errorf("at %q: code %d, %+v: %s", level, code, got, log)
		}
	}
}

// interrupter interrupts the program at its first output, while the call runs.
type interrupter struct {
	cancel context.CancelFunc
	bytes.Buffer
}

func (i *interrupter) Write(b []byte) (int, error) {
	i.cancel()
	return i.Buffer.Write(b)
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := &interrupter{cancel: cancel}
	var stderr bytes.Buffer
	args := []string{"stream", filepath.Join("testdata", "worker.py"), "count", "n=1000000000"}
	if code := run(ctx, args, stdout, &stderr); code != exitInterrupted ||
		!strings.HasSuffix(stderr.String(), "snakepit: interrupted\n") {
		t.Errorf("code %d, stderr: %s", code, &stderr)
	}
}
