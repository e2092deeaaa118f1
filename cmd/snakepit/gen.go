package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/schema"
)

const aboutGen = `Gen starts a worker, asks it for its commands and writes typed Go code that calls them: a struct
for the arguments of each command, types for the classes and enums of the worker, and a client with
a method for each command. The types come from the worker's annotations.

The code is the same each time. --check compares it with the file and writes nothing, for CI. To
write the file by go generate, put this line into a Go file beside the worker:

  //go:generate snakepit gen worker.py -o worker_gen.go

With "go tool snakepit" in place of snakepit, everybody uses the version in go.mod. For that run
once: go get -tool github.com/snakepit-go/snakepit/cmd/snakepit

Exit codes:
  0    the code is written, or with --check the file is up to date
  1    --check finds another file; or the worker has no schemas, or the file can't be written
  2    wrong usage
  3    no worker could be started
  4    the worker does not answer
  5    the worker was lost
  130, 143  interrupted by Ctrl-C, terminated by SIGTERM`

// genError means that the code is not written, or not up to date.
type genError struct{ error }

func (g genError) Unwrap() error { return g.error }

// generator holds the flags of gen.
type generator struct {
	worker
	output string
	pkg    string
	client string
	check  bool
}

func genCommand() *cobra.Command {
	var g generator
	cmd := &cobra.Command{
		Use: "gen WORKER", Short: "Write typed Go code that calls a worker's commands", Long: aboutGen,
		Args: atMost(1, words("WORKER")),
		Example: "  snakepit gen worker.py -o worker_gen.go\n  snakepit gen worker.py -o worker_gen.go --check\n" +
			"  snakepit gen trainer.py -o trainer_gen.go --client Trainer",
	}
	g.register(cmd)
	cmd.Flags().StringVarP(&g.output, "output", "o", "", "the file to write (default: standard output)")
	cmd.Flags().StringVar(&g.pkg, "package", "",
		"name of the Go package (default: that of the other Go files in the directory, else main)")
	cmd.Flags().StringVar(&g.client, "client", "Client", "name of the Go type that has the methods")
	cmd.Flags().BoolVar(&g.check, "check", false, "only check that the file of -o is up to date")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.resolve(); err != nil {
			return err
		}
		commands, err := g.commands(cmd, args[0])
		if err != nil {
			return err
		}
		source, err := g.source(args[0], commands)
		if err != nil {
			return runError{err}
		}
		if g.output == "" {
			return write(cmd.OutOrStdout(), string(source))
		}
		if err := g.finish(source, commands); err != nil {
			return runError{err}
		}
		return nil
	}
	return cmd
}

// resolve checks the flags and chooses the package.
func (g *generator) resolve() error {
	if g.check && g.output == "" {
		return errors.New("--check needs -o FILE, the file to check")
	}
	if !token.IsIdentifier(g.client) || !token.IsExported(g.client) {
		return fmt.Errorf("--client %q is not the name of an exported Go type, such as Client", g.client)
	}
	if g.pkg == "" {
		g.pkg = packageOf(filepath.Dir(g.output))
	}
	if !token.IsIdentifier(g.pkg) {
		return fmt.Errorf("--package %q is not the name of a Go package", g.pkg)
	}
	return nil
}

// packageOf returns the package of the Go files in a directory, or main.
func packageOf(dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil { // the directory's name is a bad pattern
		return "main"
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly)
		if err == nil {
			return parsed.Name.Name
		}
	}
	return "main"
}

// source returns the code for the commands.
func (g *generator) source(worker string, commands []schema.Command) ([]byte, error) {
	without := slices.DeleteFunc(slices.Clone(commands), func(c schema.Command) bool { return c.Schema != nil })
	if len(without) > 0 || len(commands) == 0 {
		return nil, genError{fmt.Errorf("there is no code for %s: %s", worker, lacks(len(commands), without))}
	}
	c := client{worker: filepath.Base(worker), pkg: g.pkg, name: g.client, commands: commands}
	source, err := c.source()
	if err != nil {
		return nil, genError{err}
	}
	return source, nil
}

// lacks says why there is no code for a worker with so many commands.
func lacks(count int, without []schema.Command) string {
	switch {
	case count == 0:
		return "it offers no commands"
	case len(without) == count:
		return "it does not describe the types of its commands; a worker in another language than Python has to add " +
			"schema to its answer to snakepit.describe, see docs/protocol.md"
	default:
		return "it does not describe the types of the command " + without[0].Name
	}
}

// finish writes the file, or checks it.
func (g *generator) finish(source []byte, commands []schema.Command) error {
	old, err := os.ReadFile(g.output)
	switch {
	case errors.Is(err, fs.ErrNotExist) && g.check:
		return genError{fmt.Errorf("%s is missing; run snakepit gen without --check", g.output)}
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return genError{err}
	case bytes.Equal(old, source):
		return nil
	case !bytes.HasPrefix(old, []byte(header)):
		return genError{fmt.Errorf("%s was not written by snakepit gen; remove it, or name another file by -o",
			g.output)}
	case g.check:
		return genError{fmt.Errorf("%s is not up to date: %s; run go generate", g.output,
			g.drift(old, source, commands))}
	}
	if err := os.WriteFile(g.output, source, 0o644); err != nil {
		return genError{err}
	}
	return nil
}

// drift says how generated code differs from what it should be.
func (g *generator) drift(old, source []byte, commands []schema.Command) string {
	before, err := schema.Parse(constant(old, client{name: g.client}.schemaName()))
	if err == nil {
		if changes := schema.Diff(before, commands); len(changes) > 0 {
			return strings.Join(changes, "; ")
		}
	}
	was, is := bytes.Split(old, []byte("\n")), bytes.Split(source, []byte("\n"))
	for i, line := range was {
		if i >= len(is) || !bytes.Equal(line, is[i]) {
			return fmt.Sprintf("the commands are the same, but line %d differs: %q", i+1, line)
		}
	}
	return "the commands are the same, but lines are missing at the end"
}

// constant returns the value of a constant in a Go file, or "".
func constant(source []byte, name string) string {
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if err != nil {
		return ""
	}
	value := ""
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == name && len(spec.Values) == 1 {
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				value, err = strconv.Unquote(literal.Value)
			}
		}
		return err == nil
	})
	return value
}
