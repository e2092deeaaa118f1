package otel_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The programs of docs/tracing.md work together: the Go program gets its result, and the spans of both arrive.
func TestPage(t *testing.T) {
	if os.Getenv("SNAKEPIT_PYTHON") == "" {
		t.Skip("SNAKEPIT_PYTHON names no Python with the packages that this test needs")
	}
	page, err := os.ReadFile("../../docs/tracing.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for lang, name := range map[string]string{"go": "main.go", "python": "worker.py"} {
		blocks := regexp.MustCompile("(?ms)^```"+lang+"\n(.*?)^```$").FindAllSubmatch(page, -1)
		if len(blocks) != 1 {
			t.Fatalf("the page has %d blocks of %s", len(blocks), lang)
		}
		if err := os.WriteFile(filepath.Join(dir, name), blocks[0][1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-o", program, filepath.Join(dir, "main.go"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	to := newReceiver(t)
	cmd := exec.Command(program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+to.address)
	out, err := cmd.Output()
	if err != nil || string(out) != "total: 3.5\n" {
		t.Fatalf("%v: %q", err, out)
	}
	call := to.find(t, "", "CLIENT", "total")
	served := to.find(t, "", "SERVER", "total")
	add := to.find(t, "", "INTERNAL", "add")
	if string(served.ParentSpanId) != string(call.SpanId) || string(add.ParentSpanId) != string(served.SpanId) {
		t.Errorf("the spans are not nested: %v", to.spans)
	}
	// The page names every attribute and event of the spans and metrics that these sources name.
	for _, source := range []string{"command.go", "call.go", "metrics.go"} {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`"(snakepit\.[a-z_.]+)"`).FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(page), "`"+name[1]+"`") {
				t.Errorf("docs/tracing.md does not name %s", name[1])
			}
		}
	}
}
