package remote

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// unpack returns the files of an archive.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range r.File {
		file, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(text)
	}
	return files
}

// The archive has the program's files without caches, environments and hidden ones. What runs it cannot be replaced.
func TestPack(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o755} }
	source := &core.Source{
		Script: "worker.py",
		Files: fstest.MapFS{
			"worker.py": file("w"), "models/m.bin": file("m"), ".git/config": file("x"), ".env": file("x"),
			"lib/__pycache__/a.pyc": file("x"), "env/pyvenv.cfg": file("x"), "env/lib/a.py": file("x"),
			"support/other.py": file("o"), "json.py": file("theirs"), "certs/program.key": file("x"),
		},
		Support: fstest.MapFS{"support/run.py": file("ours")},
	}
	first, err := pack(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"program/worker.py": "w", "program/models/m.bin": "m", "support/run.py": "ours",
		"program/support/other.py": "o",
		"program/json.py":          "theirs",
	}
	got := unpack(t, first)
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s has %q", name, got[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	if again, err := pack(t.Context(), source); err != nil || !bytes.Equal(first, again) {
		t.Error("the same files give another archive", err)
	}
}

// The files of a Python program are those beside its script, and the package that runs it.
func TestPackPython(t *testing.T) {
	for what, e := range map[string]python.Elsewhere{
		"a file":   {Script: write(t, "print(1)")},
		"embedded": {Script: "worker.py", FS: fstest.MapFS{"worker.py": &fstest.MapFile{Data: []byte("print(1)")}}},
	} {
		cmd, err := e.Command()
		if err != nil || cmd.Path != "" || cmd.Source == nil || cmd.Source.Script != "worker.py" {
			t.Fatalf("%s: %+v %v", what, cmd, err)
		}
		archive, err := pack(t.Context(), cmd.Source)
		if err != nil {
			t.Fatal(err)
		}
		files := unpack(t, archive)
		if files["program/worker.py"] != "print(1)" || files["snakepit_bridge/serve.py"] == "" ||
			files["conformance_worker.py"] != "" || files["__main__.py"] != "" {
			t.Errorf("%s: %d files", what, len(files))
		}
	}
}

// endless is a file system with one file that is too large.
type endless struct{ fstest.MapFS }

func (e endless) Stat(name string) (fs.FileInfo, error) {
	info, err := e.MapFS.Stat(name)
	if err == nil && info.Mode().IsRegular() {
		info = large{info}
	}
	return info, err
}

type large struct{ fs.FileInfo }

func (large) Size() int64 { return maxArchive + 1 }

func TestPackTooMuch(t *testing.T) {
	files := endless{fstest.MapFS{"data.bin": &fstest.MapFile{}}}
	_, err := pack(t.Context(), &core.Source{Script: "worker.py", Files: files})
	if err == nil || !strings.Contains(err.Error(), "more than 100 MiB; put the program into a directory of its own") {
		t.Errorf("%v", err)
	}
}

// The entry point is a line for a shell.
func TestEntryPoint(t *testing.T) {
	r := Ray{
		GPUs: 0.5, Memory: 1 << 30, Resources: map[string]float64{"it's": 1}, Strategy: "SPREAD", WorkerPorts: "1-2",
	}
	got := r.entryPoint(&core.Source{Script: "my worker.py", Args: []string{"--model", "$HOME", ""}}, "X")
	want := `exec $(command -v python || command -v python3) -m snakepit_bridge.ray 'program/my worker.py' ` +
		`--for-one-host --announce X --num-cpus 1 --num-gpus 0.5 ` +
		`--memory 1073741824 --resources '{"it'\''s":1}' --strategy SPREAD --worker-ports 1-2 -- --model '$HOME' ''`
	if got != want {
		t.Errorf("%s\n%s", got, want)
	}
	if got := (Ray{CPUs: -1}).entryPoint(&core.Source{Script: "w.py"}, "X"); !strings.Contains(got, "--num-cpus 0 ") {
		t.Error(got)
	}
}
