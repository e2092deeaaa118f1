package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestRun runs the program on a cluster of its own. The output is that of README.md, but for places, times and counts.
func TestRun(t *testing.T) {
	python := os.Getenv("SNAKEPIT_PYTHON")
	if python == "" {
		python = "python3"
	}
	if err := exec.Command(python, "-c", "import ray, sklearn, grpc, cryptography").Run(); err != nil {
		t.Skipf("%s lacks Ray: make install-ray installs it", python)
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(page), "```text\n")
	want, _, _ = strings.Cut(want, "```")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
	// Ray decides where workers are.
	vary := regexp.MustCompile(`📍.*\n|[0-9a-f]{8}|[0-9.]+m?s\b|lost: [1-9]\d*|again: \d+`)
	if got := vary.ReplaceAllString(stdout.String(), "?"); got != vary.ReplaceAllString(want, "?") {
		t.Errorf("printed:\n%s\nREADME.md has:\n%s", &stdout, want)
	}
	if !strings.Contains(stderr.String(), "worker lost") {
		t.Errorf("no worker was lost:\n%s", &stderr)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{"-h": 0, "-workers=0": 2, "-no-such-flag": 2} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{args}, &stdout, &stderr); code != want || stderr.Len() == 0 {
			t.Errorf("%s: %d %s", args, code, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-dashboard", "http://127.0.0.1:1"}, &stdout, &stderr); code != 1 ||
		!strings.Contains(stderr.String(), "connection refused") {
		t.Errorf("%d %s", code, &stderr)
	}
}
