package core

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processTable is a snapshot of the system's processes.
type processTable map[int]procStat

// hasTreeMemory says that this system shows the memory of process trees.
const hasTreeMemory = true

// readProcesses reads /proc/PID/stat of all processes.
func readProcesses() processTable {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	names, _ := dir.Readdirnames(-1) // what could be read is enough
	_ = dir.Close()
	table := processTable{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if stat, ok := readStat(procDir(pid)); ok { // otherwise it has ended
			table[pid] = stat
		}
	}
	return table
}

// memory returns the resident memory, in bytes, of a process, its group and its descendants. The kernel's quick count
// has pages that several processes share once for each of them, such as those that workers share with their fork
// server. If that sum is above limit, the exact count decides. A process that has ended counts as nothing.
func (t processTable) memory(leader int, limit int64) int64 {
	tree := t.tree(leader)
	quick, exact := int64(0), int64(0)
	for _, pid := range tree {
		quick += residentMemory(pid)
	}
	if quick <= limit {
		return quick
	}
	for _, pid := range tree {
		exact += proportionalMemory(pid)
	}
	return exact
}

// tree returns the ids of a process, its group and its descendants.
func (t processTable) tree(leader int) []int {
	tree := []int{leader}
	for pid, e := range t {
		if e.group == leader && pid != leader {
			tree = append(tree, pid)
		}
	}
	for i := 0; i < len(tree); i++ {
		for pid, e := range t {
			if e.parent == tree[i] && !slices.Contains(tree, pid) {
				tree = append(tree, pid)
			}
		}
	}
	return tree
}

// processorTime returns the processor time that a process, its group and its descendants have used, with that of their
// ended children.
func (t processTable) processorTime(leader int) time.Duration {
	var ticks int64
	for _, pid := range t.tree(leader) {
		ticks += t[pid].ticks
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond)
}

// ticksPerSecond is the kernel's USER_HZ, in which /proc shows times: 100 on all platforms that Go supports. See
// proc_pid_stat(5) and sysconf(3).
const ticksPerSecond = 100

// residentMemory reads /proc/PID/statm; see proc_pid_statm(5).
func residentMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// proportionalMemory reads /proc/PID/smaps_rollup: a page that n processes share counts as 1/n. Without that file it
// returns the resident memory. See proc_pid_smaps(5).
func proportionalMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return residentMemory(pid)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return residentMemory(pid)
}
