package main

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// memory reports how much memory is left for workers: that of the system, or the rest of the control group's limit.
func memory() check {
	c := check{Name: "memory", Status: good}
	available, ok := meminfo("MemAvailable")
	if !ok {
		c.Text = "unknown on " + runtime.GOOS
		return c
	}
	c.Text = fmt.Sprintf("%s available", bytesText(available))
	if limit, used, ok := groupMemory(); ok {
		left := max(0, limit-used)
		c.Text = fmt.Sprintf("%s available; the control group has %s left of %s", bytesText(available), bytesText(left),
			bytesText(limit))
		available = min(available, left)
	}
	if available < 256<<20 {
		c.Status, c.Fix = warning,
			"free memory or raise the limit: a worker that imports NumPy takes some 50 MiB, with PyTorch ten times that"
	}
	return c
}

// meminfo reads a line of /proc/meminfo.
func meminfo(field string) (bytes int64, ok bool) {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, field+":"); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// groupMemory returns the tightest limit of this process's control groups, version 1 or 2, and the memory used of it.
func groupMemory() (limit, used int64, ok bool) {
	read := func(file string) (int64, bool) {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" means no limit
		return n, err == nil
	}
	consider := func(limitFile, usedFile string) {
		l, limited := read(limitFile)
		u, known := read(usedFile)
		if limited && known && l < 1<<60 && (!ok || l-u < limit-used) {
			limit, used, ok = l, u, true
		}
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 || parts[0] != "0" {
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			dir := path.Join("/sys/fs/cgroup", group)
			consider(dir+"/memory.max", dir+"/memory.current")
			if group == "/" {
				break
			}
		}
	}
	consider("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
	return limit, used, ok
}

func bytesText(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
