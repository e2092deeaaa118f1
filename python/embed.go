// Package python makes core.Commands for workers written in Python. It carries the worker's side, the Python package
// snakepit_bridge, inside the Go binary. So a program needs no pip install for JSON over stdio, and both sides always
// fit together.
package python

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// The patterns name files, not directories: compiled files and tests stay out, and files that begin with an
// underscore are included.
//
//go:embed __main__.py conformance_worker.py snakepit_bridge/*.py snakepit_bridge/*/*.py snakepit_bridge/py.typed
var bridge embed.FS

// Program is a worker written in Python. Only Script is required.
type Program struct {
	// Script is the worker's file. A relative path is relative to the host's working directory, or to the root of FS
	// if that is set.
	Script string
	// FS holds a worker that is embedded in the Go binary. All of it is unpacked, so the script may import and read
	// the files beside it.
	FS fs.FS
	// Args are the script's own arguments.
	Args []string
	// Env has variables, as "KEY=value", that are added to the host's environment.
	Env []string
	// ForkServer starts one process that imports the script up to worker.run(), and forks the workers from it. All of
	// them together take the time of about one import, and share its memory until they use it. The script must not
	// start threads or use CUDA before worker.run(); Open says so if it does. Connections that the script has opened
	// until then are shared by all workers, and the variables of Options.WorkerEnv are not there yet. It needs Linux.
	ForkServer bool
	// Debug is an address, such as "127.0.0.1:5678", where the worker waits for a debugger before it loads the script.
	// The environment needs the package debugpy. It is for a pool of one worker with a long Options.StartTimeout and no
	// other time limits; "snakepit call --debug" has such a pool. Whoever reaches the address can run any code. ""
	// means no debugger.
	Debug string
	// Dir is the worker's working directory. "" means the host's.
	Dir string
	// Interpreter is the Python to run: a path, or a name to look up in PATH. "" means the first of these:
	//
	//  1. SNAKEPIT_PYTHON.
	//  2. An active virtual environment: VIRTUAL_ENV, then CONDA_PREFIX unless it is conda's base.
	//  3. A virtual environment .venv or venv in the script's directory or in one above it, up to the outermost
	//     project. A project is a directory with .git, go.mod or pyproject.toml, or the working directory. For an
	//     embedded script the search begins in the working directory.
	//  4. python3 or python in PATH.
	Interpreter string
	// Cache is the only directory that is written to. A directory "snakepit" in it holds the unpacked files and their
	// compiled form. "" means the user's cache directory or, if that can't be written, os.TempDir().
	Cache string
}

// Conformance returns a worker for package conformance. It offers the commands that docs/protocol.md lists under
// "Conformance". It accepts concurrency calls at once.
func Conformance(concurrency int) Program {
	return Program{Script: "conformance_worker.py", FS: bridge, Args: []string{strconv.Itoa(concurrency)}}
}

// Command unpacks the embedded files, chooses the interpreter and returns the command that starts the worker. It may
// be called from many goroutines and processes at once. Its errors name what is missing and what to do.
func (p Program) Command() (core.Command, error) {
	cmd, err := p.command()
	if err != nil {
		return core.Command{}, fmt.Errorf("python worker: %w", err)
	}
	return cmd, nil
}

func (p Program) command() (core.Command, error) {
	if p.Debug != "" && p.ForkServer {
		return core.Command{}, errors.New("Program has both Debug and ForkServer; a forked worker can't be debugged")
	}
	script, err := p.find()
	if err != nil {
		return core.Command{}, err
	}
	chosen, err := p.choose(script)
	if err != nil {
		return core.Command{}, err
	}
	cache, boot, err := p.unpack("bridge", bridge)
	if err != nil {
		return core.Command{}, err
	}
	found := script
	var sources []string
	if p.FS == nil {
		sources = []string{script, filepath.Join(filepath.Dir(script), "*.py")}
	} else {
		_, root, err := p.unpack("worker", p.FS)
		if err != nil {
			return core.Command{}, err
		}
		script = filepath.Join(root, filepath.FromSlash(script))
	}
	// The file, not its directory: to run a directory Python imports runpy. In 3.9 the imports of runpy may find a
	// stray re.py in PYTHONPATH.
	boot = filepath.Join(boot, "__main__.py")
	args, remedy := []string{boot, script}, fmt.Sprintf("use a Python %d.%d or later: %s, chosen by %s, may be none",
		oldest[0], oldest[1], chosen.Interpreter, chosen.By)
	if p.Debug != "" {
		args = append([]string{
			"-X", "frozen_modules=off", "-m", "debugpy", "--listen", p.Debug, "--wait-for-client",
		}, args...)
		remedy = fmt.Sprintf("install the debugger: %s -m pip install debugpy", chosen.Interpreter)
	}
	return core.Command{
		Path:       chosen.Interpreter,
		Args:       append(args, p.Args...),
		Dir:        p.Dir,
		Env:        append([]string{"SNAKEPIT_CACHE=" + cache}, p.Env...),
		Reports:    true,
		ForkServer: p.ForkServer,
		Sources:    sources,
		Source:     p.source(found),
		Remedy:     remedy,
	}, nil
}

// source returns the files of a script, whose path find has returned.
func (p Program) source(script string) *core.Source {
	s := &core.Source{Files: p.FS, Script: script, Args: p.Args, Support: support{bridge}}
	if p.FS == nil {
		s.Files, s.Script = os.DirFS(filepath.Dir(script)), filepath.Base(script)
	}
	return s
}

// support is the Python package alone.
type support struct{ embed.FS }

// ReadDir leaves the files beside the package out.
func (s support) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := s.FS.ReadDir(name)
	if name == "." {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() })
	}
	return entries, err
}

// Elsewhere is a Program that runs only on other machines, by an adapter such as remote.Ray. It needs no Python on this
// one. Interpreter, ForkServer, Dir and Cache have no meaning.
type Elsewhere Program

// Command returns a command that has a Source and no Path.
func (e Elsewhere) Command() (core.Command, error) {
	p := Program(e)
	script, err := p.find()
	if err != nil {
		return core.Command{}, fmt.Errorf("python worker: %w", err)
	}
	return core.Command{Env: p.Env, Reports: true, Source: p.source(script)}, nil
}

// find returns the script's absolute path, or its path inside FS. It is an error if there is no such file.
func (p Program) find() (string, error) {
	if p.Script == "" {
		return "", &core.RemedyError{
			Err: errors.New("no script"), Remedy: "set Program.Script to the worker's .py file",
		}
	}
	if p.FS != nil {
		name := path.Clean(p.Script)
		info, err := fs.Stat(p.FS, name)
		if err != nil {
			return "", fmt.Errorf("script %q in the embedded files (%s): %w", p.Script, listing(p.FS), err)
		}
		if info.IsDir() {
			return "", &core.RemedyError{
				Err:    fmt.Errorf("script %q in the embedded files is a directory", p.Script),
				Remedy: "name the .py file",
			}
		}
		return name, nil
	}
	cwd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	script := p.Script
	if !filepath.IsAbs(script) {
		script = filepath.Join(cwd, script)
	}
	info, err := os.Stat(script)
	if err != nil {
		return "", &core.RemedyError{
			Err:    fmt.Errorf("script %q: %w (the working directory is %s)", p.Script, err, cwd),
			Remedy: "name an existing file, best by its absolute path",
		}
	}
	if info.IsDir() {
		return "", &core.RemedyError{
			Err:    fmt.Errorf("script %q is a directory (the working directory is %s)", p.Script, cwd),
			Remedy: "name the .py file",
		}
	}
	return script, nil
}

// listing lists the root of embedded files for an error. The usual mistake is a directory too many or too few.
func listing(fsys fs.FS) string {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return err.Error()
	}
	const most = 8
	names := []string{}
	for _, e := range entries[:min(most, len(entries))] {
		names = append(names, e.Name())
	}
	if len(entries) > most {
		names = append(names, "...")
	}
	return "which have " + strings.Join(names, ", ")
}
