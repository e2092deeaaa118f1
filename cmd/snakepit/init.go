package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

//go:embed template/*.tmpl
var templates embed.FS

const library = "github.com/snakepit-go/snakepit"

const aboutInit = `Init makes a project in a new directory: a Go program, a worker, tests of both sides, a ` +
	`Makefile and a
Dockerfile. NAME is the directory. Its last part is the module's name.

The project requires the library's version that this command was built with. Then init runs go mod
tidy. A command built from a checkout has no published version. The project then takes the library
from that checkout. --replace names another one.

Exit codes:
  0  the project is complete
  1  it can't be written, or go mod tidy fails
  2  wrong usage, or NAME exists and is not empty
  130, 143  interrupted by Ctrl-C, terminated by SIGTERM`

// errProject means that files could not be written or modules were unavailable.
var errProject = errors.New("the project is not complete")

// project holds the values for the templates.
type project struct {
	Name    string // of the directory and the program
	Module  string
	Version string // of the library, or "" if it is unknown
	Replace string // the directory of a checkout of the library, or ""
}

// moduleNames matches module names that need no escaping anywhere.
var moduleNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)

func initCommand() *cobra.Command {
	var p project
	cmd := &cobra.Command{
		Use: "init NAME", Short: "Make a new project that runs at once", Long: aboutInit,
		Args: atMost(1, words("NAME")),
		Example: `  snakepit init hello && cd hello && make run
  snakepit init hello --module example.com/me/hello
  snakepit init hello --replace ../snakepit`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&p.Module, "module", "", "path of the Go module (default NAME)")
	cmd.Flags().StringVar(&p.Replace, "replace", "", "take the library from this checkout")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := args[0]
		if err := p.resolve(dir); err != nil {
			return err
		}
		written, err := p.write(dir)
		if err != nil {
			return runError{fmt.Errorf("%w: %w", errProject, err)}
		}
		text := fmt.Sprintf("made %s with %s\n", dir, strings.Join(written, ", "))
		if err := write(cmd.OutOrStdout(), text); err != nil {
			return err
		}
		if p.Version != "" {
			if err := p.tidy(cmd, dir); err != nil {
				return runError{fmt.Errorf("%w: %w", errProject, err)}
			}
		}
		return write(cmd.OutOrStdout(), p.next(dir))
	}
	return cmd
}

// resolve checks names and directories, and chooses the library's version.
func (p *project) resolve(dir string) error {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	p.Name = filepath.Base(whole)
	if p.Module == "" {
		p.Module = p.Name
	}
	for _, name := range []string{p.Name, p.Module} {
		if !moduleNames.MatchString(name) {
			return fmt.Errorf(
				"%q can't be the name of a Go module or its program; use letters, digits, - and _, as in hello", name)
		}
	}
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("%s exists and is not a readable directory; name a new one", dir)
	case len(entries) > 0:
		return fmt.Errorf("the directory %s is not empty; name a new one", dir)
	}
	b := version()
	if b.released {
		p.Version = b.Snakepit
	}
	if p.Replace == "" && p.Version == "" {
		p.Replace = source()
	}
	if p.Replace == "" {
		return nil
	}
	p.Version = "v0.0.0"
	checkout, err := filepath.Abs(p.Replace)
	if err != nil {
		return err
	}
	if !isCheckout(checkout) {
		problem := "its go.mod names another module"
		if _, err := os.Stat(filepath.Join(checkout, "go.mod")); err != nil {
			problem = err.Error()
		}
		return fmt.Errorf("--replace %s is not a checkout of %s: %s", p.Replace, library, problem)
	}
	p.Replace = filepath.ToSlash(checkout)
	return nil
}

// write executes the templates and returns the names of the files.
func (p *project) write(dir string) (written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	all, err := template.ParseFS(templates, "template/*.tmpl")
	if err != nil {
		return nil, err
	}
	for _, t := range all.Templates() {
		name := strings.TrimSuffix(t.Name(), ".tmpl")
		if strings.HasSuffix(name, "ignore") {
			name = "." + name
		}
		var text strings.Builder
		if err := t.Execute(&text, p); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text.String()), 0o644); err != nil {
			return nil, err
		}
		written = append(written, name)
	}
	slices.Sort(written)
	return written, nil
}

// tidy runs go mod tidy to find the modules that the project needs.
func (p *project) tidy(cmd *cobra.Command, dir string) error {
	tidy := exec.CommandContext(cmd.Context(), "go", "mod", "tidy")
	tidy.Dir = dir
	said, err := tidy.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go mod tidy in %s: %w%s; when that is fixed, run go mod tidy there", dir, err,
			cause(string(said)))
	}
	return nil
}

// cause returns the first line with a reason from the output of go mod tidy. Earlier lines name the importers.
// Later lines repeat this for other modules.
func cause(said string) string {
	for line := range strings.Lines(said) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "go: ")
		if strings.Contains(line, ": ") {
			return ": " + strings.TrimSuffix(line, ":")
		}
	}
	return ""
}

// next returns the next steps for the user.
func (p *project) next(dir string) string {
	text := "\n"
	if filepath.Clean(dir) != "." {
		text += fmt.Sprintf("  cd %s\n", quoted(dir))
	}
	if p.Version == "" {
		text += fmt.Sprintf("  go mod edit -require %[1]s@v0.0.0 -replace %[1]s=/path/to/a/checkout\n"+
			"  go mod tidy\n", library)
	}
	text += "  make run\n  make test\n"
	switch {
	case p.Version == "":
		text += "\nthis snakepit has no released version for go.mod, so the project takes the library from a " +
			"checkout; see also --replace\n"
	case p.Replace != "":
		text += fmt.Sprintf("\nthe project takes the library from the checkout %s\n", p.Replace)
	}
	return text
}

func isCheckout(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && strings.HasPrefix(string(text), "module "+library+"\n")
}

// source returns the checkout that this program was built from, or "" if it is gone.
func source() string {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "..", "..")
	if !filepath.IsAbs(dir) || !isCheckout(dir) { // -trimpath removes the directory
		return ""
	}
	return dir
}

// plain matches words that need no quotes in a shell.
var plain = regexp.MustCompile(`^[\pL\pN_./+-]+$`)

// quoted quotes a word for a shell.
func quoted(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
