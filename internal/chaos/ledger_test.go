//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each kind of breach is found, and a clean ledger is clean.
func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		host, worker string
		killed       bool
		gentle       bool
		wrong        string
	}{
		"clean":             {"begin a\nbegin b\nend b lost true\nend a ok true\n", "a\nb\n", false, false, ""},
		"did not run":       {"begin a\nend a saturated false\n", "", false, false, ""},
		"no outcome":        {"begin a\n", "a\n", false, false, "call a has 0 outcomes"},
		"killed":            {"begin a\n", "a\n", true, false, ""},
		"two outcomes":      {"begin a\nend a ok true\nend a late true\n", "a\n", false, false, "a has 2 outcomes"},
		"two after a kill":  {"begin a\nend a ok true\nend a late true\n", "a\n", true, false, "call a has 2 outcomes"},
		"ran all the same":  {"begin a\nend a late false\n", "a\n", false, false, "its error says that it did not"},
		"ran twice":         {"begin a\nend a ok true\n", "a\na\n", false, false, "call a ran 2 times"},
		"not of this life":  {"begin a\nend a ok true\n", "a\nz\n", false, false, `nobody made call "z"`},
		"another's result":  {"begin a\nwrong a: it got b\nend a ok true\n", "a\n", false, false, "it got b"},
		"gentle":            {"begin a\nend a ok true\n", "a\n", false, true, ""},
		"gentle, but lost":  {"begin a\nend a lost true\n", "a\n", false, true, "call a is lost"},
		"no call got there": {"begin a\nend a late false\n", "-", false, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			host, worker := filepath.Join(dir, "host"), filepath.Join(dir, "worker")
			for path, text := range map[string]string{host: c.host, worker: c.worker} {
				if text == "-" {
					continue
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a, err := settle(host, worker, c.killed, c.gentle)
			if err != nil {
				t.Fatal(err)
			}
			found := slices.ContainsFunc(a.wrong, func(w string) bool { return strings.Contains(w, c.wrong) })
			if c.wrong == "" && len(a.wrong) > 0 || c.wrong != "" && !found {
				t.Errorf("%q, not %q", a.wrong, c.wrong)
			}
		})
	}
}
