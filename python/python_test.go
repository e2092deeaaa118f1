package python

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/snakepit-go/snakepit/core"
)

// sandbox gives the test its own home, directory for temporary files, working directory and empty PATH. It clears the
// variables that choose a Python. It returns the directory that holds all of these.
func sandbox(t *testing.T) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"home", "tmp", "bin", "work"} {
		mkdir(t, filepath.Join(root, name))
	}
	t.Setenv("HOME", filepath.Join(root, "home"))
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("TMPDIR", filepath.Join(root, "tmp"))
	t.Setenv("PATH", filepath.Join(root, "bin"))
	for _, key := range []string{"SNAKEPIT_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"} {
		t.Setenv(key, "")
	}
	t.Chdir(filepath.Join(root, "work"))
	return root
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// write makes a file and its directories, and returns its path.
func write(t *testing.T, path, content string) string {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func command(t *testing.T, p Program) core.Command {
	t.Helper()
	cmd, err := p.Command()
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// fails checks that Command fails, and that the error has these words.
func fails(t *testing.T, p Program, words ...string) {
	t.Helper()
	_, err := p.Command()
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error does not mention %q: %v", word, err)
		}
	}
}

// realPython returns a Python that is no shim. It must be called before sandbox, which empties PATH.
func realPython(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output()
	if err != nil {
		t.Skipf("no python3 here: %v", err)
	}
	return string(out)
}

func TestEverySourceFileIsEmbedded(t *testing.T) {
	err := filepath.WalkDir("snakepit_bridge", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "__pycache__" {
				return fs.SkipDir
			}
			return nil
		}
		if _, err := fs.Stat(bridge, filepath.ToSlash(path)); err != nil {
			t.Errorf("%s is not embedded: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(bridge, ".", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() && !strings.HasSuffix(path, ".py") && filepath.Base(path) != "py.typed" {
			t.Errorf("%s is embedded and should not be", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommand(t *testing.T) {
	root := sandbox(t)
	python := write(t, filepath.Join(root, "bin", "python3"), "")
	script := write(t, filepath.Join(root, "work", "mein Wörker", "arbeiter é.py"), "")
	cmd := command(t, Program{
		Script: filepath.Join("mein Wörker", "arbeiter é.py"), Args: []string{"-v", "x y"}, Env: []string{"A=1"},
		Dir: "/",
	})
	if cmd.Path != python || cmd.Dir != "/" || !cmd.Reports {
		t.Errorf("got %+v", cmd)
	}
	if want := []string{cmd.Args[0], script, "-v", "x y"}; !slices.Equal(cmd.Args, want) {
		t.Errorf("arguments are %q, want %q", cmd.Args, want)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "snakepit")
	if want := []string{"SNAKEPIT_CACHE=" + cache, "A=1"}; !slices.Equal(cmd.Env, want) {
		t.Errorf("environment is %q, want %q", cmd.Env, want)
	}
	bridge := filepath.Dir(cmd.Args[0])
	if filepath.Dir(bridge) != cache {
		t.Errorf("unpacked to %s, want a directory in %s", bridge, cache)
	}
	for _, name := range []string{
		"__main__.py", "snakepit_bridge/transport.py", "snakepit_bridge/grpc/snakepit_pb2.py",
	} {
		if _, err := os.Stat(filepath.Join(bridge, name)); err != nil {
			t.Error(err)
		}
	}
	if again := command(t, Program{Script: script}); again.Args[0] != cmd.Args[0] {
		t.Errorf("unpacked to %s and then to %s", cmd.Args[0], again.Args[0])
	}
}

func TestEmbeddedWorker(t *testing.T) {
	root := sandbox(t)
	write(t, filepath.Join(root, "bin", "python3"), "")
	files := fstest.MapFS{
		"app/worker.py":            {Data: []byte("import helper")},
		"app/helper.py":            {Data: []byte("")},
		"app/_data/model.bin":      {Data: []byte{0, 1, 2}},
		"app/__pycache__/junk.pyc": {Data: []byte("junk")},
	}
	cmd := command(t, Program{Script: "app/worker.py", FS: files})
	directory := filepath.Dir(cmd.Args[1])
	if got, err := os.ReadFile(filepath.Join(directory, "_data", "model.bin")); err != nil || len(got) != 3 {
		t.Errorf("read %v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(directory, "__pycache__")); err == nil {
		t.Error("compiled files were unpacked")
	}
	files["app/helper.py"] = &fstest.MapFile{Data: []byte("new = True")}
	if other := command(t, Program{Script: "app/worker.py", FS: files}); other.Args[1] == cmd.Args[1] {
		t.Error("other content has the same directory")
	}
	fails(t, Program{Script: "worker.py", FS: files}, `"worker.py"`, "which have app", "not exist")
	fails(t, Program{Script: "app", FS: files}, "is a directory")
}

func TestMissingScript(t *testing.T) {
	root := sandbox(t)
	write(t, filepath.Join(root, "bin", "python3"), "")
	work := filepath.Join(root, "work")
	fails(t, Program{}, "Program.Script")
	fails(t, Program{Script: "gone.py"}, `"gone.py"`, filepath.Join(work, "gone.py"), "the working directory is "+work)
	fails(t, Program{Script: work}, "is a directory")
}

func TestInterpreter(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows an environment has another layout")
	}
	root := sandbox(t)
	in := func(parts ...string) string { return filepath.Join(append([]string{root}, parts...)...) }
	script := write(t, in("work", "repo", "workers", "w.py"), "")
	choose := func(p Program, want string) {
		t.Helper()
		p.Script = script
		if got := command(t, p).Path; got != want {
			t.Errorf("chose %s, want %s", got, want)
		}
		if got, err := p.Choose(); err != nil || got.Interpreter != want || got.By == "" {
			t.Errorf("Choose says %+v, %v; want %s", got, err, want)
		}
	}

	fails(t, Program{Script: script},
		"no Python found", "VIRTUAL_ENV", ".venv", in("work", "repo"), "python3 or python in PATH", "install")
	choose(Program{Interpreter: write(t, in("own", "python"), "")}, in("own", "python"))
	write(t, in("bin", "python"), "")
	choose(Program{}, in("bin", "python"))
	write(t, in("bin", "python3"), "")
	choose(Program{}, in("bin", "python3"))

	// Local environments: the nearest first, only inside a project, never in directories above it.
	write(t, in(".venv", "pyvenv.cfg"), "")
	write(t, in(".venv", "bin", "python"), "")
	choose(Program{}, in("bin", "python3"))
	write(t, in("work", "repo", "venv", "pyvenv.cfg"), "")
	write(t, in("work", "repo", "venv", "bin", "python"), "")
	mkdir(t, in("work", "repo", ".git"))
	choose(Program{}, in("work", "repo", "venv", "bin", "python"))
	write(t, in("work", "repo", "workers", ".venv", "bin", "python"), "")
	choose(Program{}, in("work", "repo", "venv", "bin", "python")) // a .venv without pyvenv.cfg does not count
	write(t, in("work", "repo", "workers", ".venv", "pyvenv.cfg"), "version = 3.12.1\n")
	choose(Program{}, in("work", "repo", "workers", ".venv", "bin", "python"))
	t.Chdir(in("work", "repo"))
	fromFS := Program{Script: "w.py", FS: fstest.MapFS{"w.py": {}}}
	if got := command(t, fromFS).Path; got != in("work", "repo", "venv", "bin", "python") {
		t.Errorf("an embedded worker got %s", got)
	}

	// An active environment goes before a local one, SNAKEPIT_PYTHON before that, and the option before all.
	write(t, in("conda", "bin", "python3"), "")
	t.Setenv("CONDA_PREFIX", in("conda"))
	choose(Program{}, in("conda", "bin", "python3"))
	t.Setenv("CONDA_DEFAULT_ENV", "base")
	choose(Program{}, in("work", "repo", "workers", ".venv", "bin", "python"))
	write(t, in("active", "bin", "python3"), "")
	t.Setenv("VIRTUAL_ENV", in("active"))
	choose(Program{}, in("active", "bin", "python3"))
	t.Setenv("SNAKEPIT_PYTHON", "python")
	choose(Program{}, in("bin", "python"))
	choose(Program{Env: []string{"SNAKEPIT_PYTHON=x", "SNAKEPIT_PYTHON=" + in("bin", "python3")}}, in("bin", "python3"))
	choose(Program{Interpreter: in("own", "python")}, in("own", "python"))

	fails(t, Program{Script: script, Interpreter: in("nowhere", "python")},
		"the given interpreter", in("nowhere", "python"), "name a Python")
	t.Setenv("SNAKEPIT_PYTHON", "python9")
	fails(t, Program{Script: script}, "SNAKEPIT_PYTHON", `"python9"`)
	t.Setenv("SNAKEPIT_PYTHON", "")
	t.Setenv("VIRTUAL_ENV", in("deleted"))
	fails(t, Program{Script: script}, "VIRTUAL_ENV "+in("deleted"), "bin/python", "make it anew")
	t.Setenv("VIRTUAL_ENV", in("active"))
	write(t, in("active", "pyvenv.cfg"), "home = /usr/bin\nversion = 3.6.9\n")
	fails(t, Program{Script: script}, "VIRTUAL_ENV "+in("active"), "has Python 3.6", "needs 3.8")
}

func TestChoose(t *testing.T) {
	root := sandbox(t)
	own := write(t, filepath.Join(root, "own", "python"), "")
	t.Setenv("SNAKEPIT_PYTHON", own)
	if got, err := (Program{}).Choose(); err != nil || got != (Choice{own, "SNAKEPIT_PYTHON"}) {
		t.Errorf("without a script: %+v, %v", got, err)
	}
	got, err := Program{Script: filepath.Join(root, "gone.py")}.Choose()
	if err == nil || !strings.Contains(err.Error(), "gone.py") {
		t.Errorf("with a script that is not there: %+v, %v", got, err)
	}
	t.Setenv("SNAKEPIT_PYTHON", filepath.Join(root, "no", "python"))
	if got, err := (Program{}).Choose(); err == nil || !strings.Contains(err.Error(), "SNAKEPIT_PYTHON is ") {
		t.Errorf("with an interpreter that is not there: %+v, %v", got, err)
	}
	t.Chdir(root)
	script := write(t, filepath.Join(root, "worker.py"), "")
	fails(t, Program{Script: script, Interpreter: filepath.Join("no", "python")},
		"(the working directory is "+root+"); name a Python executable")
}

func TestForeignVirtualEnvironmentIsIgnored(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make another user's files")
	}
	root := sandbox(t)
	python := write(t, filepath.Join(root, "bin", "python3"), "")
	script := write(t, filepath.Join(root, "work", "repo", "w.py"), "")
	env := filepath.Join(root, "work", ".venv")
	write(t, filepath.Join(env, "pyvenv.cfg"), "")
	write(t, filepath.Join(env, "bin", "python"), "")
	if err := os.Chown(env, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if got := command(t, Program{Script: script}).Path; got != python {
		t.Errorf("chose %s", got)
	}
	if err := os.Chown(filepath.Dir(script), 65534, 65534); err != nil { // a script of the same user may choose it
		t.Fatal(err)
	}
	if got := command(t, Program{Script: script}).Path; got != filepath.Join(env, "bin", "python") {
		t.Errorf("chose %s", got)
	}
}

func TestShimIsResolved(t *testing.T) {
	python := realPython(t)
	root := sandbox(t)
	shims := filepath.Join(root, "shims")
	write(t, filepath.Join(shims, "python3"), fmt.Sprintf("#!/bin/sh\nexec %q \"$@\"\n", python))
	t.Setenv("PATH", shims)
	script := write(t, filepath.Join(root, "work", "w.py"), "")
	if got := command(t, Program{Script: script}).Path; got != python {
		t.Errorf("got %s, want %s", got, python)
	}
	wrapper := write(t, filepath.Join(root, "bin", "python3"), "#!/bin/sh\nexec nice "+python+" \"$@\"\n")
	if got := command(t, Program{Script: script, Interpreter: wrapper}).Path; got != wrapper {
		t.Errorf("a user's own script was replaced by %s", got)
	}
	write(t, filepath.Join(shims, "python3"), "#!/bin/sh\necho no version is set >&2\nexit 127\n")
	fails(t, Program{Script: script}, "the shim "+shims, "127", "no version is set", "SNAKEPIT_PYTHON")
}

// TestOldPython starts the bridge on each Python of this machine that is too old. The bridge has to say so.
func TestOldPython(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	var old []string
	for _, version := range []string{"2.7", "3.5", "3.6", "3.7"} {
		found, err := filepath.Glob(filepath.Join(home, ".pyenv", "versions", version+".*", "bin", "python"))
		if err != nil {
			t.Fatal(err)
		}
		if path, err := exec.LookPath("python" + version); err == nil {
			found = append(found, path)
		}
		old = append(old, found...)
	}
	tested := 0
	root := sandbox(t)
	script := write(t, filepath.Join(root, "work", "w.py"), "")
	for _, python := range old {
		if exec.Command(python, "-c", "").Run() != nil {
			continue // a shim without a Python behind it
		}
		tested++
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(t, Program{Script: script, Interpreter: python})
		start := exec.Command(cmd.Path, cmd.Args...)
		start.Env = append(append(os.Environ(), cmd.Env...), "SNAKEPIT_CONTROL_FD=3")
		start.ExtraFiles = []*os.File{w}
		printed, err := start.CombinedOutput()
		w.Close()
		report, readErr := io.ReadAll(r)
		r.Close()
		if err == nil || readErr != nil {
			t.Errorf("%s: it ran (%v), or no report: %v", python, err, readErr)
		}
		var said struct {
			Failed core.RemoteError `json:"failed"`
		}
		err = json.Unmarshal(report, &said)
		if err != nil || !strings.Contains(said.Failed.Message, "is too old for a worker: it needs 3.8") {
			t.Errorf("%s: reported %s, %v", python, report, err)
		}
		if !strings.Contains(string(printed), said.Failed.Message) || strings.Contains(string(printed), "Traceback") {
			t.Errorf("%s: printed %s", python, printed)
		}
	}
	if tested == 0 {
		t.Skip("no Python here is too old")
	}
}

func TestVirtualEnvironmentKeepsItsPackages(t *testing.T) {
	python := realPython(t)
	root := sandbox(t)
	env := filepath.Join(root, "work", ".venv")
	if out, err := exec.Command(python, "-m", "venv", "--without-pip", env).CombinedOutput(); err != nil {
		t.Skipf("no venv module here: %v: %s", err, out)
	}
	cmd := command(t, Program{Script: write(t, filepath.Join(root, "work", "w.py"), "")})
	out, err := exec.Command(cmd.Path, "-c", "import sys; print(sys.prefix, end='')").Output()
	if err != nil || string(out) != env {
		t.Errorf("the interpreter's prefix is %s (%v), want %s", out, err, env)
	}
}

func TestUnpackRepairs(t *testing.T) {
	root := sandbox(t)
	p := Program{Cache: filepath.Join(root, "one writable", "directory")}
	files := fstest.MapFS{"a.py": {Data: []byte("a = 1")}, "sub/_b.py": {Data: []byte("b = 2")}}
	cache, dir, err := p.unpack("x", files)
	if err != nil || cache != filepath.Join(p.Cache, "snakepit") || filepath.Dir(dir) != cache {
		t.Fatal(cache, dir, err)
	}
	for name, damage := range map[string]func() error{
		"truncated":          func() error { return os.Truncate(filepath.Join(dir, "a.py"), 2) },
		"missing":            func() error { return os.RemoveAll(filepath.Join(dir, "sub")) },
		"link":               func() error { return link(filepath.Join(dir, "a.py")) },
		"writable":           func() error { return os.Chmod(filepath.Join(dir, "sub"), 0o777) },
		"writable directory": func() error { return os.Chmod(dir, 0o770) },
		"a file":             func() error { return os.WriteFile(gone(dir), nil, 0o600) },
		"empty":              func() error { return os.Mkdir(gone(dir), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.HasPrefix(name, "writable") {
				t.Skip("Windows has no such modes")
			}
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			if compare(dir, files) == nil {
				t.Fatal("the damage was not seen")
			}
			if _, again, err := p.unpack("x", files); err != nil || again != dir {
				t.Fatal(again, err)
			}
			if err := compare(dir, files); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("kept", func(t *testing.T) { // compiled files stay
		compiled := write(t, filepath.Join(dir, "__pycache__", "a.pyc"), "")
		if _, _, err := p.unpack("x", files); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(compiled); err != nil {
			t.Error(err)
		}
	})
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// link replaces a file by a symbolic link to an equal one.
func link(path string) error {
	other := path + ".other"
	if err := os.Rename(path, other); err != nil {
		return err
	}
	return os.Symlink(other, path)
}

func gone(dir string) string {
	os.RemoveAll(dir)
	return dir
}

// TestUnpackAtOnce unpacks to a damaged directory from many goroutines in several processes at once.
func TestUnpackAtOnce(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 20 {
		files[fmt.Sprintf("d%d/f.py", i)] = &fstest.MapFile{Data: []byte(strings.Repeat("x", 1000*i))}
	}
	unpack := func(cache string) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				_, dir, err := Program{Cache: cache}.unpack("x", files)
				if err == nil {
					err = compare(dir, files)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	const key = "SNAKEPIT_TEST_UNPACK"
	if cache := os.Getenv(key); cache != "" {
		unpack(cache)
		return
	}
	cache := t.TempDir()
	_, dir, err := Program{Cache: cache}.unpack("x", files)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := os.Truncate(filepath.Join(dir, "d7", "f.py"), 1); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				cmd := exec.Command(os.Args[0], "-test.run=^TestUnpackAtOnce$")
				cmd.Env = append(os.Environ(), key+"="+cache)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		all.Wait()
	}
	if entries, err := os.ReadDir(filepath.Join(cache, "snakepit")); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestUnpackPlaces(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows the directories have other names, and no modes")
	}
	root := sandbox(t)
	files := fstest.MapFS{"a.py": {}}
	tmp := filepath.Join(root, "tmp")
	unpacked := func(p Program, prefix string) {
		t.Helper()
		cache, dir, err := p.unpack("x", files)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cache)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", cache, info.Mode(), err)
		}
		if !strings.HasPrefix(cache, prefix) || filepath.Dir(dir) != cache {
			t.Errorf("unpacked to %s, want %s", dir, prefix)
		}
	}
	shared := filepath.Join(tmp, fmt.Sprintf("snakepit-%d", os.Geteuid()))

	t.Setenv("HOME", "") // no home at all
	unpacked(Program{}, shared)
	t.Setenv("HOME", "home") // a home that depends on the working directory
	unpacked(Program{}, shared)
	t.Setenv("HOME", write(t, filepath.Join(root, "file"), "")) // a home that can't be written
	unpacked(Program{}, shared)
	if err := os.Chmod(shared, 0o777); err != nil { // a directory that other users can write to
		t.Fatal(err)
	}
	unpacked(Program{}, filepath.Join(tmp, "snakepit-"))
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 2 {
		t.Errorf("want the shared directory and a private one, got %v, %v", entries, err)
	}
	if err := os.Remove(gone(shared)); err == nil {
		t.Fatal("still there")
	}
	if err := os.Symlink(root, shared); err != nil {
		t.Fatal(err)
	}
	unpacked(Program{}, filepath.Join(tmp, "snakepit-"))

	t.Setenv("TMPDIR", filepath.Join(root, "file"))
	script := write(t, filepath.Join(root, "work", "w.py"), "")
	write(t, filepath.Join(root, "bin", "python3"), "")
	fails(t, Program{Script: script},
		"no directory to unpack", filepath.Join(root, "file"), "set TMPDIR to a directory that can be written to")
	fails(t, Program{Script: script, Cache: filepath.Join(root, "file")}, filepath.Join(root, "file"), "Program.Cache")
	unpacked(Program{Cache: filepath.Join(root, "var")}, filepath.Join(root, "var", "snakepit"))
}

func TestOtherUsersDirectoryIsNotUsed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make another user's files")
	}
	root := sandbox(t)
	theirs := filepath.Join(root, "snakepit")
	mkdir(t, theirs)
	if err := os.Chown(theirs, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cache, _, err := Program{Cache: root}.unpack("x", fstest.MapFS{"a.py": {}})
	if err != nil || cache == theirs {
		t.Errorf("unpacked to %s, %v", cache, err)
	}
}
