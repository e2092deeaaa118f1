// Package venv makes virtual environments whose packages can be taken away and put back: they are links to those of
// another interpreter.
package venv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Environment is a virtual environment. Its methods may be called from one goroutine at a time.
type Environment struct {
	Python string // its interpreter
	Site   string // its site-packages
	from   map[string][]string
}

const script = `
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
`

// New makes an environment in dir, which must not exist, without packages. It offers grpcio, protobuf and msgpack as
// far as python has them.
func New(ctx context.Context, python, dir string) (*Environment, error) {
	out, err := exec.CommandContext(ctx, python, "-c", script, dir).Output()
	var found struct {
		Site string              `json:"site"`
		From map[string][]string `json:"from"`
	}
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		return nil, fmt.Errorf("a virtual environment by %s: %w", python, err)
	}
	return &Environment{filepath.Join(dir, "bin", "python3"), found.Site, found.From}, nil
}

// Install adds a package.
func (e *Environment) Install(name string) error {
	for _, from := range e.from[name] {
		if err := os.Symlink(from, e.link(from)); err != nil {
			return err
		}
	}
	return nil
}

// Uninstall removes a package.
func (e *Environment) Uninstall(name string) error {
	for _, from := range e.from[name] {
		if err := os.Remove(e.link(from)); err != nil {
			return err
		}
	}
	return nil
}

// Links returns the paths in Site of a package's files and directories.
func (e *Environment) Links(name string) []string {
	var links []string
	for _, from := range e.from[name] {
		links = append(links, e.link(from))
	}
	return links
}

func (e *Environment) link(from string) string { return filepath.Join(e.Site, filepath.Base(from)) }
