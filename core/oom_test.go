//go:build unix

package core

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Each rise of the kernel's count explains one death, and no earlier one.
func TestOOMCounter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.events")
	set := func(n int) {
		t.Helper()
		if err := os.WriteFile(path,
			fmt.Appendf(nil, "low 0\nhigh 7\nmax 9\noom 5\noom_kill %d\noom_group_kill 3\n", n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &oomCounter{path: path}
	set(3)
	first, second := c.base(), c.base()
	if c.claim(first) {
		t.Error("claimed without a rise")
	}
	set(5)
	third := c.base()
	if !c.claim(first) || !c.claim(second) || c.claim(first) {
		t.Error("two rises are two deaths")
	}
	if c.claim(third) {
		t.Error("claimed what was before")
	}
	set(6)
	if !c.claim(third) || c.claim(third) {
		t.Error("one rise is one death")
	}
	if none := (&oomCounter{}); none.base() != 0 || none.claim(0) {
		t.Error("claimed without a counter")
	}
}

// A SIGKILL that we did not send counts as out of memory if the kernel counted one. Our own SIGKILL never does.
func TestOOMExit(t *testing.T) {
	f := newFixture(t, shell("echo ready; exec sleep 1000"))
	path := filepath.Join(t.TempDir(), "memory.events")
	count := func(n string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("oom_kill "+n+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count("0")
	f.oom = &oomCounter{path: path}
	ours, kernels := f.launch(Spec{}), f.launch(Spec{})
	count("1")
	ours.kill()
	await(t, ours)
	if _, _, oom := ours.Exit(); oom {
		t.Error("our own SIGKILL is put down to memory")
	}
	if err := syscall.Kill(kernels.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, kernels)
	if _, signal, oom := kernels.Exit(); signal != "killed" || !oom ||
		!strings.Contains(kernels.status().String(), "memory") {
		t.Errorf("it was ended by %q, out of memory: %v", signal, oom)
	}
}
