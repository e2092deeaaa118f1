//go:build unix

package remote

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a back end that runs as a process of its own.
type program struct {
	Adapter
	cmd *exec.Cmd
	log string // what it has printed until it was ready
}

// serve starts a back end with this worker. args are more options, and after "--" arguments of the worker.
func serve(t *testing.T, secure bool, worker string, args ...string) *program {
	t.Helper()
	return serveAt(t, "127.0.0.1:0", secure, worker, args...)
}

// serveAt is serve at an address.
func serveAt(t *testing.T, address string, secure bool, worker string, args ...string) *program {
	t.Helper()
	python := os.Getenv("SNAKEPIT_PYTHON")
	if python == "" {
		python = "python3"
	}
	if err := exec.Command(python, "-c", "import grpc, google.protobuf, cryptography").Run(); err != nil {
		t.Skipf("%s lacks grpcio, protobuf or cryptography: make dev-setup installs them", python)
	}
	file, err := filepath.Abs(worker)
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := filepath.Abs(filepath.Join("..", "..", "python"))
	if err != nil {
		t.Fatal(err)
	}
	p := &program{}
	options := []string{"-m", "snakepit_bridge.serve", "--listen", address, "--workers", "64", "--grace", "0.1"}
	if secure {
		dir := t.TempDir()
		if err := WriteCertificates(dir, nil, time.Hour); err != nil {
			t.Fatal(err)
		}
		options = append(options, "--certificates", dir)
		if p.TLS, err = LoadCertificates(dir); err != nil {
			t.Fatal(err)
		}
	} else {
		options = append(options, "--plaintext")
		p.Plaintext = true
	}
	options = append(append(options, file), args...)
	p.cmd = exec.Command(python, options...)
	p.cmd.Env = append(os.Environ(), "PYTHONPATH="+bridge)
	printed, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended
		if p.cmd.ProcessState != nil {
			return // the test has waited for it
		}
		if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState.ExitCode() >= 0 { // it may have been killed
			t.Errorf("the back end has ended with %v", err)
		}
	})
	lines := bufio.NewScanner(printed)
	for lines.Scan() {
		p.log += lines.Text() + "\n"
		if _, after, ready := strings.Cut(lines.Text(), " at "); ready && strings.HasPrefix(lines.Text(), "serving ") {
			address, _, _ := strings.Cut(after, ",")
			if _, _, err := net.SplitHostPort(address); err != nil {
				t.Fatal(lines.Text(), err)
			}
			p.Targets = []string{address}
			go func() { // what it prints later must not block it
				for lines.Scan() {
					t.Log("back end: ", lines.Text())
				}
			}()
			return p
		}
	}
	t.Fatalf("the back end does not start:\n%s", p.log)
	return nil
}
