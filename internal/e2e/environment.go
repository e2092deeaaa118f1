//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/fallback"
	"github.com/snakepit-go/snakepit/internal/venv"
)

// Environment is a test's own virtual environment. Packages can be added to it and removed from it.
type Environment struct {
	*testing.T
	*venv.Environment

	starts string // a file with one line for each start of the interpreter
}

// NewEnvironment makes an environment with the named packages, out of grpcio, protobuf and msgpack.
func NewEnvironment(t *testing.T, packages ...string) *Environment {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "env")
	made, err := venv.New(t.Context(), Interpreter(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	e := &Environment{t, made, filepath.Join(dir, "starts")}
	File(t, filepath.Join(e.Site, "sitecustomize.py"),
		"with open("+string(Must(json.Marshal(e.starts)))+", 'a') as f: f.write('started\\n')")
	for _, name := range packages {
		e.install(name)
	}
	return e
}

// Must returns v. It panics if there is an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (e *Environment) install(name string) {
	e.Helper()
	if err := e.Install(name); err != nil {
		e.Fatal(err)
	}
}

func (e *Environment) uninstall(name string) {
	e.Helper()
	if err := e.Uninstall(name); err != nil {
		e.Fatal(err)
	}
}

// count returns how many times the environment's interpreter was started.
func (e *Environment) count() int {
	text, _ := os.ReadFile(e.starts)
	return strings.Count(string(text), "started")
}

// NewChain returns a new default chain, without remembered refusals.
func NewChain() *fallback.Chain {
	return fallback.New(grpc.Adapter{}, msgpack.Adapter{}, jsonstdio.Adapter{})
}
