package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	blocks = regexp.MustCompile("(?ms)^```(python|console)\n(.*?)^```$")
	// These parts differ from run to run: figures, versions, paths.
	figures = regexp.MustCompile(`[0-9][0-9.]*(µs|ms|ns|s|h|m)?`)
	paths   = regexp.MustCompile(`/[^ ",]*`)
	blanks  = regexp.MustCompile(`  +`)
)

// TestDocs runs the commands of docs/command.md and compares what they print.
func TestDocs(t *testing.T) {
	python, packages := scriptPython(t)
	if !packages {
		t.Skip("the page shows a Python with grpcio and msgpack")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "command.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	shown := 0
	for _, block := range blocks.FindAllStringSubmatch(string(page), -1) {
		if block[1] == "python" {
			if err := os.WriteFile(filepath.Join(dir, "worker.py"), []byte(block[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for part := range strings.SplitSeq(strings.TrimPrefix(block[2], "$ "), "\n$ ") {
			line, want, _ := strings.Cut(part, "\n")
			shown++
			cmd := exec.Command("sh", "-c", line)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "SNAKEPIT_PYTHON="+python, "SNAKEPIT_ADAPTERS=", "SNAKEPIT_LOG=")
			got, err := cmd.CombinedOutput()
			if exit, failed := err.(*exec.ExitError); err != nil && (!failed || exit.ExitCode() > 2) {
				t.Errorf("%s: %v: %s", line, err, got)
			}
			exact := strings.Contains(line, "call") || strings.Contains(line, "stream")
			exact = exact && !strings.Contains(line, "--trace")
			if g, w := essence(string(got), exact), essence(want, exact); g != w {
				t.Errorf("%s\nprinted\n%s\nthe page has\n%s\n\nthat is, compared,\n%s\nand\n%s", line, got, want, g, w)
			}
		}
	}
	if shown < 10 {
		t.Errorf("the page shows %d commands", shown)
	}
}

// essence keeps the text that is the same in each run. For results that includes numbers.
func essence(text string, exact bool) string {
	var kept []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n ")
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "✓ "), " ")
		switch {
		case strings.HasPrefix(line, "✓ ") && name != "worker.py" && name != "grpc" && name != "msgpack" &&
			name != "jsonstdio":
			line = "✓ " + name // specific to this machine
		case strings.Contains(line, "up to "), // a bar of the histogram
			strings.Contains(line, "still waiting"),       // a busy machine
			line != "" && strings.Trim(line, " ~^") == "": // the carets of a traceback: 3.10 and earlier have none
			continue
		}
		if line = paths.ReplaceAllString(line, "/"); !exact {
			line = figures.ReplaceAllString(line, "N")
		}
		kept = append(kept, strings.TrimSpace(blanks.ReplaceAllString(line, " ")))
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}
