package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme copies the README's snippets into a new module and runs them as a reader would.
func TestReadme(t *testing.T) {
	readme := readPage(t, "README.md")
	dir := newModule(t)
	want := paste(t, dir, readme)
	run(t, dir, nil, "go", "build", "-mod=mod", "-o", "example", ".")
	for _, adapters := range []string{"", "jsonstdio"} {
		t.Run("adapters="+adapters, func(t *testing.T) {
			got := run(t, dir, []string{"SNAKEPIT_ADAPTERS=" + adapters}, filepath.Join(dir, "example"))
			got = strings.ReplaceAll(got, dir, "/home/you/example")
			if masked(got) != masked(want) {
				t.Errorf("printed:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// newModule makes a directory with a go.mod. It replaces this module with the checkout and requires all of its
// dependencies. Requirements it does not need do no harm.
func newModule(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const module = "github.com/snakepit-go/snakepit"
	writeFile(t, filepath.Join(dir, "go.mod"),
		strings.Replace(readPage(t, "go.mod"), "module "+module+"\n", "module example\n", 1)+
			"\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+here+"\n")
	writeFile(t, filepath.Join(dir, "go.sum"), readPage(t, "go.sum"))
	return dir
}

var fence = regexp.MustCompile("(?ms)^```(python|go|text)\n(?:# (test_\\w+\\.py)\n)?(.*?)^```$")

// paste writes a page's code blocks to files in dir, each file once. It returns the output that the page shows.
func paste(t *testing.T, dir, page string) (prints string) {
	t.Helper()
	files := map[string]string{}
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		name := map[string]string{"python": "worker.py", "go": "main.go", "text": "text"}[block[1]]
		if block[2] != "" {
			name = block[2]
		}
		if _, twice := files[name]; twice {
			t.Fatalf("two blocks for %s:\n%s", name, block[3])
		}
		files[name] = block[3]
	}
	prints = files["text"]
	delete(files, "text")
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content)
	}
	return prints
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in dir and returns its output.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, &stderr)
	}
	return string(out)
}
