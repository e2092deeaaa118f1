package core

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// hasLimits says that this system has the limits of Limits.
const hasLimits = true

// apply sets the limits of a process that has just started, except Memory. Its children inherit them.
func (l *Limits) apply(pid int) error {
	for _, r := range []struct {
		name      string
		resource  int
		soft, max uint64
	}{
		{"AddressSpace", syscall.RLIMIT_AS, uint64(l.AddressSpace), uint64(l.AddressSpace)},
		// The kernel sends SIGXCPU at the soft limit, and SIGKILL a second later.
		{"CPUTime", syscall.RLIMIT_CPU, uint64(l.CPUTime.Seconds()), uint64(l.CPUTime.Seconds()) + 1},
		{"OpenFiles", syscall.RLIMIT_NOFILE, uint64(l.OpenFiles), uint64(l.OpenFiles)},
		{"FileSize", syscall.RLIMIT_FSIZE, uint64(l.FileSize), uint64(l.FileSize)},
	} {
		if r.soft == 0 {
			continue
		}
		limit := syscall.Rlimit{Cur: r.soft, Max: r.max}
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(r.resource),
			uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		if errno != 0 && !errors.Is(errno, syscall.ESRCH) { // ESRCH: it has ended
			return fmt.Errorf("the limit Limits.%s cannot be set: %w", r.name, errno)
		}
	}
	return l.applyNice(pid)
}

// reached returns the limit that ended a process, or "". state may be nil.
func (l *Limits) reached(end exitStatus, state *os.ProcessState) string {
	switch {
	case l.CPUTime == 0 || end.killed:
	case end.signal == syscall.SIGXCPU.String(),
		end.signal == killSignal && state != nil && state.UserTime()+state.SystemTime() >= l.CPUTime:
		return fmt.Sprintf("Limits.CPUTime (%s)", l.CPUTime)
	}
	return ""
}

// memoryGroups makes the control groups of a pool's workers. A control group bounds the memory of all its processes.
type memoryGroups struct {
	own     string // the group of this process
	parent  string
	limit   int64
	version int // of the control groups
	name    string
	count   atomic.Int64
}

// memoryGroup is the control group of one worker.
type memoryGroup struct {
	dir  string
	pool *memoryGroups
}

// newMemoryGroups finds the place for a pool's groups. name makes the names of its groups unique.
func newMemoryGroups(limit int64, name string) (*memoryGroups, error) {
	own, version, err := ownGroup()
	if err != nil {
		return nil, noGroups(err)
	}
	// With version 2, a group that has processes cannot have groups with a limit. So the place may be beside our own.
	parents := []string{own, filepath.Dir(own)}
	if version == 1 {
		parents = parents[:1]
	}
	for _, parent := range parents {
		g := &memoryGroups{
			own: own, parent: parent, limit: limit, version: version,
			name: fmt.Sprintf("snakepit-%d-%s", os.Getpid(), name),
		}
		g.removeStale()
		var group *memoryGroup
		if group, err = g.add(); err == nil {
			group.remove()
			return g, nil
		}
	}
	return nil, err
}

func noGroups(err error) error {
	return &RemedyError{
		Err: fmt.Errorf("option Limits.Memory: this program may not make control groups: %w", err),
		Remedy: "run it as a systemd service with Delegate=memory and DelegateSubgroup=main, or as root; " +
			"Recycle.Memory needs no control group",
	}
}

// ownGroup returns the directory of this process's memory group; see cgroups(7).
func ownGroup() (dir string, version int, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[1] == "memory" {
			return filepath.Join("/sys/fs/cgroup/memory", fields[2]), 1, nil
		}
		if len(fields) == 3 && fields[0] == "0" {
			dir, version = filepath.Join("/sys/fs/cgroup", fields[2]), 2
		}
	}
	if dir == "" {
		return "", 0, errors.New("the system has no control groups for memory")
	}
	return dir, version, nil
}

// add makes a group for one worker.
func (g *memoryGroups) add() (*memoryGroup, error) {
	group := &memoryGroup{filepath.Join(g.parent, fmt.Sprintf("%s-%d", g.name, g.count.Add(1))), g}
	if g.version == 2 {
		// An error shows below: the group has no file for its limit.
		_ = os.WriteFile(filepath.Join(g.parent, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	if err := os.Mkdir(group.dir, 0o755); err != nil {
		return nil, noGroups(err)
	}
	files := []string{"memory.max", "memory.swap.max", "memory.oom.group"}
	values := []int64{g.limit, 0, 1}
	if g.version == 1 {
		files = []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
		values = []int64{g.limit, g.limit}
	}
	for i, name := range files {
		err := group.write(name, values[i])
		if err != nil && i == 0 { // the others are missing on some systems
			group.remove()
			return nil, noGroups(err)
		}
	}
	return group, nil
}

// write writes an existing file of the group.
func (g *memoryGroup) write(name string, value int64) error {
	f, err := os.OpenFile(filepath.Join(g.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatInt(value, 10))
	return errors.Join(err, f.Close())
}

// enter has the next process that attr starts on this thread begin in the group, so that its children are there, too.
// The caller calls leave after that. g may be nil.
func (g *memoryGroup) enter(attr *syscall.SysProcAttr) (leave func(), err error) {
	switch {
	case g == nil:
		return func() {}, nil
	case g.pool.version == 2:
		dir, err := os.Open(g.dir)
		if err != nil {
			return nil, noGroups(err)
		}
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
		return func() { _ = dir.Close() }, nil
	}
	// With version 1 a thread can change its group, and its child begins there. The memory of this process counts in
	// the group of its first thread, which is another one.
	if err := g.write("tasks", 0); err != nil {
		return nil, noGroups(err)
	}
	own := &memoryGroup{dir: g.pool.own}
	return func() { _ = own.write("tasks", 0) }, nil
}

// join moves a running process into the group. g may be nil.
func (g *memoryGroup) join(pid int) error {
	if g == nil {
		return nil
	}
	if err := g.write("cgroup.procs", int64(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
		return noGroups(err)
	}
	return nil
}

// reached returns the limit if the kernel has ended a process because of it, or "".
func (g *memoryGroup) reached() string {
	if g == nil {
		return ""
	}
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		c := oomCounter{path: filepath.Join(g.dir, name)}
		if n, err := c.read(); err == nil && n > 0 {
			return fmt.Sprintf("Limits.Memory (%d bytes)", g.pool.limit)
		}
	}
	return ""
}

// groupGrace is how long the system may take to end the processes of a group. They may have much memory.
const groupGrace = 2 * time.Second

// remove ends all processes that are left in the group, also those that have left the worker's process group, and
// removes it. It gives up after groupGrace. Once this program has ended, the next pool on this machine removes the
// empty group.
func (g *memoryGroup) remove() {
	if g == nil {
		return
	}
	for end := time.Now().Add(groupGrace); ; time.Sleep(time.Millisecond) {
		if os.Remove(g.dir) == nil || time.Now().After(end) {
			return
		}
		if g.write("cgroup.kill", 1) == nil {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs")) // version 1, or a kernel before 5.14
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err == nil && pid > 0 && pid != os.Getpid() { // 0 stands for the last threads of a reaped process
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// removeStale removes the empty groups of killed hosts.
func (g *memoryGroups) removeStale() {
	dirs, _ := filepath.Glob(filepath.Join(g.parent, "snakepit-*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(dir), "-")[1])
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.Remove(dir)
		}
	}
}
