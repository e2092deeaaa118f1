//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/fallback"
)

// Environment is a test's own virtual environment. Packages can be added to it and removed from it.
type Environment struct {
	*testing.T
	Python string              // its interpreter
	Site   string              // its site-packages
	from   map[string][]string // a package's installed files and directories
	starts string              // a file with one line for each start of the interpreter
}

// NewEnvironment makes an environment with the named packages, out of grpcio, protobuf and msgpack.
func NewEnvironment(t *testing.T, packages ...string) *Environment {
	t.Helper()
	env := filepath.Join(t.TempDir(), "env")
	out, err := exec.CommandContext(t.Context(), Interpreter(t), "-c", `
import glob, importlib.util, json, os, subprocess, sys, venv
env = sys.argv[1]
subprocess.run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", "--without-pip", env], check=True)
def places(*names):
    specs = [importlib.util.find_spec(name) for name in names]
    return [s.submodule_search_locations[0] if s.submodule_search_locations else s.origin for s in specs if s]
json.dump({
    "site": glob.glob(os.path.join(env, "lib", "python*", "site-packages"))[0],
    "from": {"grpcio": places("grpc", "typing_extensions"), "protobuf": places("google"), "msgpack": places("msgpack")},
}, sys.stdout)
`, env).Output()
	var found struct {
		Site string
		From map[string][]string
	}
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e := &Environment{t, filepath.Join(env, "bin", "python3"), found.Site, found.From, filepath.Join(env, "starts")}
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
	for _, from := range e.from[name] {
		if err := os.Symlink(from, filepath.Join(e.Site, filepath.Base(from))); err != nil {
			e.Fatal(err)
		}
	}
}

func (e *Environment) uninstall(name string) {
	e.Helper()
	for _, from := range e.from[name] {
		if err := os.Remove(filepath.Join(e.Site, filepath.Base(from))); err != nil {
			e.Fatal(err)
		}
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
