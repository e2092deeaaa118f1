package snakepit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme pastes the README's snippets into files of a new module and runs them as a reader would.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, language := range map[string]string{"main.go": "go", "worker.py": "python"} {
		writeFile(t, filepath.Join(dir, name), snippet(t, readme, language))
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// The module needs what this one needs; what it does not need itself is no harm.
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/snakepit-go/snakepit"
	writeFile(t, filepath.Join(dir, "go.mod"), strings.Replace(string(mod), "module "+module+"\n", "module example\n", 1)+
		"\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+here+"\n")
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "go.sum"), string(sum))
	run(t, dir, nil, "go", "build", "-mod=mod", "-o", "example", ".")

	want := snippet(t, readme, "text")
	for _, adapters := range []string{"", "jsonstdio"} {
		t.Run("adapters="+adapters, func(t *testing.T) {
			got := run(t, dir, []string{"SNAKEPIT_ADAPTERS=" + adapters}, filepath.Join(dir, "example"))
			if got != want {
				t.Errorf("printed:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// snippet returns the README's one code block of a language.
func snippet(t *testing.T, readme []byte, language string) string {
	t.Helper()
	found := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(readme, -1)
	if len(found) != 1 {
		t.Fatalf("README.md has %d blocks of %s, want one", len(found), language)
	}
	return string(found[0][1])
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in dir and returns what it printed.
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
