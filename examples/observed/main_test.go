package main

import (
	"bytes"
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/snakepit-go/snakepit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTraces runs the example on each adapter. The trace of a request nests Go, Python, Go and Python.
func TestTraces(t *testing.T) {
	choice, err := snakepit.Python("").Choose()
	if err != nil {
		t.Skipf("the workers need a Python, and there is none: %v", err)
	}
	python := ` +quote +server +worker\.py .*\n +rate +server +observed .*\n +convert +client +observed .*\n` +
		` +convert +server +worker\.py `
	if exec.Command(choice.Interpreter, "-c", "import opentelemetry.exporter.otlp.proto.grpc").Run() != nil {
		t.Log("without the spans of Python")
		python = ` +rate +server +observed .*\n +convert +client +observed `
	}
	tree := regexp.MustCompile(`\n +request +internal +observed .*\n +quote +client +observed .*\n` + python)
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio"} {
		t.Run(adapter, func(t *testing.T) {
			var out, log bytes.Buffer
			if code := run(t.Context(), []string{"-adapter", adapter, "-for", "2s"}, &out, &log); code != 0 {
				t.Fatalf("exit code %d: %s", code, &log)
			}
			if !tree.Match(out.Bytes()) {
				t.Errorf("the trace is not nested as it should be:\n%s", &out)
			}
			for _, want := range []string{
				`{rpc_method="prices"}`, `{error_type="KeyError", rpc_method="convert"}`, `{snakepit_cause="exit"}`,
				`{snakepit_worker="1"}`,
			} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("Prometheus does not know %s:\n%s", want, &out)
				}
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for text, args := range map[string][]string{
		`"more" is not a flag`:                     {"more"},
		"-for is 0s, but it must be positive":      {"-for", "0s"},
		`there is no adapter "carrier"`:            {"-adapter", "carrier"},
		"flag provided but not defined: -nonsense": {"-nonsense"},
	} {
		var out, log bytes.Buffer
		if code := run(context.Background(), args, &out, &log); code != 2 || !strings.Contains(log.String(), text) {
			t.Errorf("%q: %d, %s", args, code, &log)
		}
	}
	var out, log bytes.Buffer
	code := run(context.Background(), []string{"-h"}, &out, &log)
	if code != 0 || !strings.Contains(log.String(), "-serve") {
		t.Error(code, &log)
	}
}
