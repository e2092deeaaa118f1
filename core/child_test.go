//go:build unix

package core

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// childMode is the environment variable that makes the test binary one of the children below.
const childMode = "CORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode))
	}
	os.Exit(m.Run())
}

func child(mode string) int {
	switch mode {
	case "describe": // prints environment and descriptors as JSON
		d := description{Env: os.Environ()}
		for fd := range 64 {
			target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err == nil && (strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "socket:")) {
				d.Files = append(d.Files, fd)
			}
		}
		_ = json.NewEncoder(os.Stdout).Encode(d)
	case "escapee": // leaves behind a child in its own session that holds every descriptor
		c := exec.Command("sleep", "1000")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		for _, name := range []string{"SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD"} {
			if fd, err := strconv.Atoi(os.Getenv(name)); err == nil {
				c.ExtraFiles = append(c.ExtraFiles, os.NewFile(uintptr(fd), name))
			}
		}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "grandchild", c.Process.Pid)
		return 7
	case "long line":
		b := bytes.Repeat([]byte("x"), 1<<20)
		for range 10 {
			_, _ = os.Stdout.Write(b)
		}
		fmt.Println("\nend")
	case "many lines":
		w := bufio.NewWriter(os.Stdout)
		for i := range manyLines {
			fmt.Fprintf(w, "line %06d %s\n", i, strings.Repeat("y", 80))
		}
		_ = w.Flush()
	case "host": // a host that only has a worker with a child
		h, err := newSpawner(Command{Path: "sh", Args: []string{"-c", familyScript}}, spawnerOptions{
			Name: "test", Log: newLogQueue(hclog.New(&hclog.LoggerOptions{Output: os.Stdout, JSONFormat: true})),
		})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if _, err = h.attempt(0).launch(context.Background(), Spec{Protocol: "none"}); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("dir", h.dir)
		select {}
	}
	return 0
}

type description struct {
	Env   []string
	Files []int
}

const manyLines = 50_000

// familyScript prints the process ids of a worker and its child, then waits forever.
const familyScript = `(exec 3>&-; exec sleep 1000) & echo "family $$ $!"; wait`

// self returns the command that runs the test binary as a child.
func self(mode string) Command {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Command{Path: path, Env: []string{childMode + "=" + mode, "GORACE=atexit_sleep_ms=0"}}
}

func shell(script string) Command { return Command{Path: "sh", Args: []string{"-c", script}} }

func killHost(t *testing.T) {
	cmd := self("host")
	host := exec.Command(cmd.Path)
	host.Env = append(os.Environ(), cmd.Env...)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Wait() }()
	defer func() { _ = host.Process.Kill() }()
	var worker, grandchild int
	var dir string
	for lines := bufio.NewScanner(out); (worker == 0 || dir == "") && lines.Scan(); {
		if after, ok := strings.CutPrefix(lines.Text(), "dir "); ok {
			dir = after
		}
		if _, after, ok := strings.Cut(lines.Text(), "family "); ok {
			if _, err := fmt.Sscanf(after, "%d %d", &worker, &grandchild); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing else would remove it
	if dir == "" || !alive(worker) || !alive(grandchild) {
		t.Fatal("the family is not complete", dir, worker, grandchild)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker is gone", func() bool { return !alive(worker) })
	eventually(t, "the grandchild is gone", func() bool { return !alive(grandchild) })
}
