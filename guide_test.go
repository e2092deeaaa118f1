//go:build unix

package snakepit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuide does what TestReadme does with each section of the guide: its Python and Go are one program, or a worker and its test in pytest.
func TestGuide(t *testing.T) {
	dir := newModule(t)
	type section struct{ title, name, want string }
	var programs, tests []section
	for _, text := range strings.Split(readPage(t, "docs/guide.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(text, "\n")
		s := section{title: title, name: strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(title, ",", ""), " ", "-"))}
		in := filepath.Join(dir, s.name)
		if err := os.Mkdir(in, 0o700); err != nil {
			t.Fatal(err)
		}
		switch s.want = paste(t, in, text); {
		case strings.Contains(text, "\n```go\n"):
			programs = append(programs, s)
		case strings.Contains(text, "\n```python\n"):
			tests = append(tests, s)
		}
	}
	if len(programs) < 8 || len(tests) != 1 {
		t.Fatalf("found %d programs and %d tests", len(programs), len(tests))
	}
	bin := t.TempDir()
	run(t, dir, nil, "go", "build", "-mod=mod", "-o", bin+string(filepath.Separator), "./...")
	python := interpreter(t)
	for _, s := range programs {
		t.Run(s.name, func(t *testing.T) {
			for _, adapters := range []string{"", "jsonstdio"} {
				env := []string{"SNAKEPIT_ADAPTERS=" + adapters, "SNAKEPIT_PYTHON=" + python}
				if got := run(t, filepath.Join(dir, s.name), env, filepath.Join(bin, s.name)); got != s.want {
					t.Errorf("with adapters %q printed:\n%s\nwant:\n%s", adapters, got, s.want)
				}
			}
		})
	}
	bridge, err := filepath.Abs("python")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range tests {
		t.Run(s.name, func(t *testing.T) {
			out := run(t, filepath.Join(dir, s.name), []string{"PYTHONPATH=" + bridge}, python, "-m", "pytest", "-p", "no:cacheprovider", ".")
			if !strings.Contains(out, "3 passed") {
				t.Error(out)
			}
		})
	}
}
