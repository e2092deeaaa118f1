package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// TestGenerated checks that the generated code in this repository is up to date.
func TestGenerated(t *testing.T) {
	python, _ := scriptPython(t)
	found, err := filepath.Glob(filepath.Join("..", "..", "examples", "*", "worker_gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 2 {
		t.Errorf("there are only %q", found)
	}
	for _, file := range append(found, filepath.Join("..", "..", "internal", "e2e", "typedworker", "worker_gen.go")) {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			worker := strings.TrimSuffix(file, "_gen.go") + ".py"
			var stderr bytes.Buffer
			args := []string{"gen", worker, "-o", file, "--check", "--python", python}
			if code := run(t.Context(), args, &stderr, &stderr); code != exitOK {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
		})
	}
}
