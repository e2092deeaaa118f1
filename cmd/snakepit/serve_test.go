//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/remote"
)

// TestServe starts a back end with certificates of the command, calls a worker of it, and ends it by a signal.
func TestServe(t *testing.T) {
	python, _ := scriptPython(t)
	if err := exec.Command(python, "-c", "import grpc, google.protobuf, cryptography").Run(); err != nil {
		t.Skipf("%s lacks what back ends need", python)
	}
	certs := filepath.Join(t.TempDir(), "certs")
	outputOf(t, "snakepit", "certificates", certs, "--days", "1")
	cmd := exec.Command("snakepit", "serve", filepath.Join("testdata", "worker.py"), "--listen", "127.0.0.1:0",
		"--workers", "1", "--certificates", certs, "--grace", "0", "--python", python, "--", "unused")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended
	lines := bufio.NewReader(said)
	line, err := lines.ReadString('\n')
	ready := regexp.MustCompile(`^serving testdata/worker.py at (127\.0\.0\.1:\d+), 1 worker\n$`)
	found := ready.FindStringSubmatch(line)
	if found == nil {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("it says %q, %v: %s", line, err, rest)
	}
	tls, err := remote.LoadCertificates(certs)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := snakepit.OpenWith(t.Context(), remote.Adapter{Targets: []string{found[1]}, TLS: tls}, remote.Served{},
		&snakepit.Options{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := snakepit.Execute[int](t.Context(), pool, "add", map[string]any{"a": 2, "b": 3})
	if sum != 5 || err != nil {
		t.Error(sum, err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// What the commands refuse has the exit code that the help states.
func TestServeRefuses(t *testing.T) {
	worker := filepath.Join("testdata", "worker.py")
	taken := t.TempDir()
	if err := os.WriteFile(filepath.Join(taken, remote.ProgramKeyFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"serve worker.sh": {2, "worker.sh is no Python file"},
		"serve gone.py":   {1, "gone.py"},
		"serve":           {2, "serve needs WORKER"},
		"serve " + worker + " --plaintext --listen 10.0.0.5:1": {2, "others could listen in at 10.0.0.5"},
		"serve " + worker + " --plaintext --listen 7000":       {2, "snakepit serve: error: --listen 7000"},
		"serve " + worker + " --certificates gone":             {1, "hint: bring backend.pem"},
		"ray " + worker + " --listen 7000":                     {2, "snakepit ray: error: --listen 7000"},
		"ray worker.sh":                                        {2, "worker.sh is no Python file"},
		"certificates":                                         {2, "certificates needs DIR"},
		"certificates x --days 0":                              {2, "--days is 0"},
		"certificates " + taken:                                {1, "is there already"},
		"doctor --ray head:8265":                               {3, ""},
	} {
		cmd := exec.Command("snakepit", strings.Fields(args)...)
		out, _ := cmd.CombinedOutput() // the exit code tells
		if code := cmd.ProcessState.ExitCode(); code != want.code || !strings.Contains(string(out), want.says) {
			t.Errorf("%s: exit code %d, %s", args, code, out)
		}
	}
}
