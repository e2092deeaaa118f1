package python

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// oldest is the oldest supported version of Python, major and minor.
var oldest = [2]int{3, 8}

// Choice is the Python that a Program's workers run on, and the reason for it.
type Choice struct {
	Interpreter string // the executable's path
	// By is the reason: ByProgram, "SNAKEPIT_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "the virtual environment" or
	// "PATH".
	By string
}

// ByProgram is Choice.By if Program.Interpreter named the interpreter.
const ByProgram = "Program.Interpreter"

// Choose returns the interpreter that Command takes, in the order that Program.Interpreter states. It is for programs
// that show or examine the interpreter. It unpacks nothing, and runs nothing but the shim of a version manager.
// Without a Script it chooses as for an embedded one. Its errors are those of Command.
func (p Program) Choose() (Choice, error) {
	var script string
	var err error
	if p.Script != "" {
		script, err = p.find()
	}
	if err == nil {
		var c Choice
		if c, err = p.choose(script); err == nil {
			return c, nil
		}
	}
	return Choice{}, fmt.Errorf("python worker: %w", err)
}

// choose is Choose for a script that exists, or for none.
func (p Program) choose(script string) (c Choice, err error) {
	directory := filepath.Dir(script)
	if p.FS != nil || script == "" {
		if directory, err = os.Getwd(); err != nil {
			return c, err
		}
	}
	c.Interpreter, c.By, err = p.interpreter(directory)
	return c, err
}

// interpreter finds the Python to run, in the order that Program.Interpreter states. It looks for local virtual
// environments in directory and above it. chosenBy says where the Python was found.
func (p Program) interpreter(directory string) (path, chosenBy string, err error) {
	named := func(what, name string) (string, string, error) {
		path, err := p.named(what, name)
		return path, what, err
	}
	inside := func(what, env string) (string, string, error) {
		path, err := inside(what, env)
		return path, what, err
	}
	if p.Interpreter != "" {
		return named(ByProgram, p.Interpreter)
	}
	if name := p.getenv("SNAKEPIT_PYTHON"); name != "" {
		return named("SNAKEPIT_PYTHON", name)
	}
	if env := p.getenv("VIRTUAL_ENV"); env != "" {
		return inside("VIRTUAL_ENV", env)
	}
	// Conda activates its base in every shell. The project did not choose that one, and PATH leads there anyway.
	if env := p.getenv("CONDA_PREFIX"); env != "" && p.getenv("CONDA_DEFAULT_ENV") != "base" {
		return inside("CONDA_PREFIX", env)
	}
	directories := projectDirectories(directory)
	for _, dir := range directories {
		for _, name := range []string{".venv", "venv"} {
			env := filepath.Join(dir, name)
			if _, err := os.Stat(filepath.Join(env, "pyvenv.cfg")); err == nil && trusted(env, directory) {
				return inside("the virtual environment", env)
			}
		}
	}
	names := []string{"python3", "python"}
	if runtime.GOOS == "windows" {
		names = []string{"python", "python3"} // python3 is often a stub that opens the Microsoft Store
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			path, err = p.unshim(path)
			return path, "PATH", err
		}
	}
	return "", "", &core.RemedyError{
		Err: fmt.Errorf("no Python found: SNAKEPIT_PYTHON, VIRTUAL_ENV and CONDA_PREFIX are not set, "+
			"no .venv or venv in %s, and no python3 or python in PATH", strings.Join(directories, ", ")),
		Remedy: fmt.Sprintf("install Python %d.%d or later, or set SNAKEPIT_PYTHON to one", oldest[0], oldest[1]),
	}
}

// named looks up an interpreter that the user chose. what says where the user did.
func (p Program) named(what, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		directory := ""
		if cwd, err := os.Getwd(); err == nil && filepath.Base(name) != name && !filepath.IsAbs(name) {
			directory = " (the working directory is " + cwd + ")"
		}
		if what == ByProgram {
			what = "the given interpreter"
		}
		return "", &core.RemedyError{
			Err: fmt.Errorf("%s is %q: %w%s", what, name, err, directory), Remedy: "name a Python executable",
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	return p.unshim(path)
}

// inside returns the interpreter of a virtual environment. It does not resolve the symbolic link: Python finds the
// environment's packages by it.
func inside(what, env string) (string, error) {
	env, err := filepath.Abs(env)
	if err != nil {
		return "", err
	}
	candidates := []string{"bin/python3", "bin/python"}
	if runtime.GOOS == "windows" {
		candidates = []string{`Scripts\python.exe`, "python.exe"}
	}
	for _, name := range candidates {
		path := filepath.Join(env, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if v, ok := configured(env); ok && (v[0] < oldest[0] || v[0] == oldest[0] && v[1] < oldest[1]) {
			return "", &core.RemedyError{
				Err: fmt.Errorf("%s %s has Python %d.%d, but a worker needs %d.%d or later",
					what, env, v[0], v[1], oldest[0], oldest[1]),
				Remedy: "make it anew with a newer Python, or set SNAKEPIT_PYTHON",
			}
		}
		return path, nil
	}
	return "", &core.RemedyError{
		Err:    fmt.Errorf("%s %s has no working %s", what, env, strings.Join(candidates, " or ")),
		Remedy: fmt.Sprintf("make it anew (python3 -m venv %s), or set SNAKEPIT_PYTHON", env),
	}
}

// configured returns the version that a virtual environment was made for. It reads pyvenv.cfg and so starts no process.
func configured(env string) (v [2]int, ok bool) {
	text, err := os.ReadFile(filepath.Join(env, "pyvenv.cfg"))
	if err != nil {
		return v, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); key != "version" && key != "version_info" {
			continue
		}
		parts := strings.Split(strings.TrimSpace(value), ".")
		if len(parts) < 2 {
			continue
		}
		major, err1 := strconv.Atoi(parts[0])
		minor, err2 := strconv.Atoi(parts[1])
		if errors.Join(err1, err2) == nil {
			return [2]int{major, minor}, true
		}
	}
	return v, false
}

// projectDirectories returns start and the directories above it, up to the outermost one that is a project. So
// nothing is found in directories such as / or /tmp.
func projectDirectories(start string) []string {
	cwd, _ := os.Getwd()
	var directories []string
	last := 1
	for dir := start; ; dir = filepath.Dir(dir) {
		directories = append(directories, dir)
		project := dir == cwd
		for _, mark := range []string{".git", "go.mod", "pyproject.toml"} {
			_, err := os.Stat(filepath.Join(dir, mark))
			project = project || err == nil
		}
		if project {
			last = len(directories)
		}
		if dir == filepath.Dir(dir) {
			return directories[:last]
		}
	}
}

// unshim returns the interpreter that a version manager's shim runs. The shims of pyenv and asdf are shell scripts
// that add some 50 ms to each start. Other scripts are kept: a user who wraps Python wants the wrapper to run.
func (p Program) unshim(path string) (string, error) {
	if filepath.Base(filepath.Dir(path)) != "shims" || !isScript(path) {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-c", "import sys; sys.stdout.write(sys.executable)")
	cmd.Dir = p.Dir // a version manager's choice depends on it
	cmd.Env = append(os.Environ(), p.Env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", &core.RemedyError{
			Err: fmt.Errorf("the shim %s does not start Python: %w: %s",
				path, err, strings.Join(strings.Fields(stderr.String()), " ")),
			Remedy: "choose a version for it, or set SNAKEPIT_PYTHON",
		}
	}
	if len(out) == 0 {
		return path, nil
	}
	return string(out), nil
}

func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [2]byte
	n, _ := f.Read(head[:])
	return string(head[:n]) == "#!"
}

// getenv returns a variable as the worker will see it. Env takes precedence over the host's environment, and the last
// entry in Env over earlier ones.
func (p Program) getenv(key string) string {
	for i := len(p.Env) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(p.Env[i], "="); k == key {
			return v
		}
	}
	return os.Getenv(key)
}
