package core

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// procStat is a part of what the file stat of a process or thread says; see proc_pid_stat(5).
type procStat struct {
	name          string
	state         byte
	parent, group int
	ticks         int64 // of processor time, with those of reaped children
}

// readStat reads the file stat in the directory of a process or thread. It returns false if that is gone.
func readStat(dir string) (procStat, bool) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return procStat{}, false
	}
	return parseStat(text)
}

// parseStat returns false if the text is not that of a file stat. The name is in parentheses and may contain any bytes.
func parseStat(text []byte) (procStat, bool) {
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return procStat{}, false
	}
	fields := strings.Fields(string(text[to+1:]))
	if len(fields) < 3 {
		return procStat{}, false
	}
	parent, parentErr := strconv.Atoi(fields[1])
	group, groupErr := strconv.Atoi(fields[2])
	stat := procStat{name: string(text[from+1 : to]), state: fields[0][0], parent: parent, group: group}
	if len(fields) > 14 { // utime, stime, cutime and cstime
		for _, field := range fields[11:15] {
			n, _ := strconv.ParseInt(field, 10, 64) // a number of the kernel's
			stat.ticks += n
		}
	}
	return stat, parentErr == nil && groupErr == nil
}
