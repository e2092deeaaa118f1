//go:build linux

package core

import (
	"os"
	"testing"
)

func TestParseStat(t *testing.T) {
	for text, want := range map[string]procStat{
		"12 (sh) S 3 12 1 0\n":               {"sh", 'S', 3, 12},
		"12 (a) (b)) Z 4 5 1\n":              {"a) (b)", 'Z', 4, 5},
		"12 (line\nfeed) R 9 9 1\n":          {"line\nfeed", 'R', 9, 9},
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
