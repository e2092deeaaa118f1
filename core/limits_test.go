//go:build linux

package core

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// limited returns a host with limits.
func limited(t *testing.T, script string, l Limits) *fixture {
	t.Helper()
	f := newFixture(t, shell(script))
	f.opts.Limits = l
	return f
}

func TestLimitsAreSet(t *testing.T) {
	f := limited(t, "exec sleep 1000",
		Limits{OpenFiles: 77, FileSize: 1 << 20, AddressSpace: 1 << 30, CPUTime: 33 * time.Second, Nice: 5})
	before, _ := os.ReadFile("/proc/self/limits")
	p := f.launch(Spec{})
	text, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID()), "limits"))
	for name, want := range map[string]string{
		"Max open files": "77", "Max file size": "1048576", "Max address space": "1073741824", "Max cpu time": "33",
	} {
		_, rest, _ := strings.Cut(string(text), name)
		if got := strings.Fields(rest); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %q, not %s", name, got[:min(1, len(got))], want)
		}
	}
	after, _ := os.ReadFile("/proc/self/limits")
	if string(before) != string(after) {
		t.Error("the host has other limits now")
	}
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(p.PID()), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	if nice := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[16]; nice != "5" {
		t.Errorf("the nice value is %s", nice)
	}
}

func TestExitNamesTheLimit(t *testing.T) {
	for _, script := range []string{"while :; do :; done", "trap '' XCPU; while :; do :; done"} {
		f := limited(t, script, Limits{CPUTime: time.Second})
		p := f.launch(Spec{})
		await(t, p)
		if end := p.status(); end.limit != "Limits.CPUTime (1s)" ||
			!strings.Contains(end.String(), "it reached Limits.CPUTime") {
			t.Errorf("%q: %+v", script, end)
		}
	}
	f := limited(t, "kill -9 $$", Limits{CPUTime: time.Second})
	p := f.launch(Spec{})
	await(t, p)
	if end := p.status(); end.limit != "" {
		t.Errorf("%+v", end)
	}
}

// withGroups gives the host a memory limit, or skips the test if this system has no control groups for it.
func withGroups(t *testing.T, f *fixture, limit int64) {
	t.Helper()
	groups, err := newMemoryGroups(limit, "test")
	if err != nil {
		t.Skipf("this user may not make control groups: %v", err)
	}
	f.groups = groups
}

func TestMemoryLimit(t *testing.T) {
	// The child is in a session of its own. It is in the control group all the same.
	gate := filepath.Join(t.TempDir(), "gate")
	f := newFixture(t, shell("mkfifo "+gate+"; setsid sh -c 'echo child $$; echo >"+gate+"; exec sleep 1000' & "+
		"read line <"+gate+"; x=1234567890123456; while :; do x=$x$x; done"))
	withGroups(t, f, 64<<20)
	p := f.launch(Spec{})
	await(t, p)
	end := p.status()
	if end.limit != "Limits.Memory (67108864 bytes)" || !end.oom ||
		!strings.Contains(end.String(), "it reached Limits.Memory") {
		t.Errorf("%+v", end)
	}
	pid, err := strconv.Atoi(f.log.line(t, "child "))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child is gone", func() bool { return !alive(pid) })
	// Other programs may have groups there, too.
	if left, _ := filepath.Glob(filepath.Join(f.groups.parent, "snakepit-"+itoa(os.Getpid())+"-*")); len(left) > 0 {
		t.Errorf("control groups %q are left", left)
	}
}

// With version 2 the process begins in its group, and all that is left there is ended.
func TestControlGroupOfVersion2(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	for line := range strings.Lines(string(mounts)) {
		if at, kind, _ := strings.Cut(line, " - "); strings.HasPrefix(kind, "cgroup2 ") {
			root = strings.Fields(at)[4]
		}
	}
	if root == "" {
		t.Skip("this system has no control groups of version 2")
	}
	g := &memoryGroup{filepath.Join(root, "snakepit-test-"+itoa(os.Getpid())), &memoryGroups{version: 2}}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("this user may not make control groups: %v", err)
	}
	attr := sysProcAttr()
	leave, err := g.enter(attr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "setsid sleep 1000 & grep ^0:: /proc/self/cgroup; wait")
	attr.Pdeathsig = 0
	cmd.SysProcAttr = attr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	leave()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasSuffix(strings.TrimSpace(line), filepath.Base(g.dir)) {
		t.Errorf("it is in %q, %v", line, err)
	}
	go func() { _ = cmd.Wait() }()
	g.remove()
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("its group is left:", err)
	}
}

// The empty control groups of a killed host are removed by the next pool.
func TestStaleControlGroups(t *testing.T) {
	f := newFixture(t, shell("exit"))
	withGroups(t, f, 64<<20)
	await(t, f.launch(Spec{}))
	gone := f.launch(Spec{})
	await(t, gone)
	dir := filepath.Join(f.groups.parent, "snakepit-"+itoa(gone.PID())+"-killed-1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := newMemoryGroups(64<<20, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("it is left:", err)
	}
}

func TestWorkerEnv(t *testing.T) {
	f := newFixture(t, shell("echo device $DEVICE; exec sleep 1000"))
	f.opts.EnvOf = func(index int) []string { return []string{"DEVICE=cuda:" + itoa(index)} }
	f.launch(Spec{}) // of the worker with index 2
	if got := f.log.line(t, "device "); got != "cuda:2" {
		t.Error(got)
	}
	for want, env := range map[string]func(int) []string{
		`Options.WorkerEnv has "NONSENSE": use KEY=value`: func(int) []string { return []string{"NONSENSE"} },
		"Options.WorkerEnv panicked: ouch":                func(int) []string { panic("ouch") },
	} {
		f.opts.EnvOf = env
		if _, err := f.fails(t.Context(), Spec{}); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}
