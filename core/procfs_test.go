//go:build linux

package core

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for text, want := range map[string]procStat{
		"12 (sh) S 3 12 1 0\n":                             {name: "sh", state: 'S', parent: 3, group: 12},
		"12 (a) (b)) Z 4 5 1\n":                            {name: "a) (b)", state: 'Z', parent: 4, group: 5},
		"12 (line\nfeed) R 9 9 1\n":                        {name: "line\nfeed", state: 'R', parent: 9, group: 9},
		"12 (sh) S 3 12 1 0 -1 4 5 6 7 8 10 20 30 40 20 0": {name: "sh", state: 'S', parent: 3, group: 12, ticks: 100},
		"":                                   {},
		"12":                                 {},
		"12 (sh":                             {},
		"12 )sh( S 3 12":                     {},
		"12 (sh) S 3":                        {},
		"12 (sh) S 99999999999999999999 1 1": {},
	} {
		if got, ok := parseStat([]byte(text)); ok != (want != procStat{}) || ok && got != want {
			t.Errorf("%q: %+v, %t", text, got, ok)
		}
	}
	if got, ok := readStat(procDir(os.Getpid())); !ok || got.parent != os.Getppid() {
		t.Errorf("%+v, %t", got, ok)
	}
}

func TestProcessTableSumsAProcessTree(t *testing.T) {
	table := processTable{
		10: {parent: 1, group: 10, ticks: 100},
		11: {parent: 10, group: 10, ticks: 20},
		12: {parent: 11, group: 12, ticks: 3}, // a descendant in a group of its own
		13: {parent: 1, group: 10, ticks: 4},  // an orphan of the group
		14: {parent: 1, group: 14, ticks: 1000},
	}
	if got := table.processorTime(10); got != 1270*time.Millisecond {
		t.Error(got)
	}
	if got := table.processorTime(99); got != 0 {
		t.Error(got)
	}
	own := readProcesses()
	before := own.processorTime(os.Getpid())
	if n := own.memory(os.Getpid(), math.MaxInt64); n < 1<<20 || before < 0 {
		t.Error(n, before)
	}
	for i := 0; readProcesses().processorTime(os.Getpid()) <= before; i++ { // reading it takes time
		if i == 1_000_000 {
			t.Fatal("the time of a busy process stands still")
		}
	}
}
