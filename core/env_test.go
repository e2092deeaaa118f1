//go:build unix

package core

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=1"}, []string{"B=2", "C=a=b"}, []string{"A="})
	if !slices.Equal(got, []string{"A=", "B=2", "C=a=b"}) {
		t.Error(got)
	}
}

// Numeric libraries share the processors between the workers, unless the user set the thread count.
func TestThreadEnv(t *testing.T) {
	for _, name := range threadVars {
		t.Setenv(name, "") // restores the variable after the test
		_ = os.Unsetenv(name)
	}
	all := func(n int) (env []string) {
		for _, name := range threadVars {
			env = append(env, name+"="+strconv.Itoa(n))
		}
		return env
	}
	if got := threadEnv(nil, 1); !slices.Equal(got, all(runtime.GOMAXPROCS(0))) {
		t.Error(got)
	}
	if got := threadEnv(nil, 1000); !slices.Equal(got, all(1)) {
		t.Error(got)
	}
	if got := threadEnv([]string{threadVars[1] + "=8"}, 1000); got != nil {
		t.Error("set for the command, and yet:", got)
	}
	t.Setenv(threadVars[0], "7")
	if got := threadEnv(nil, 1000); got != nil {
		t.Error("set by the user, and yet:", got)
	}
}

// The variables of the launch contract are those that the protocol's page lists. A host that is a worker itself passes
// on none of its own.
func TestLaunchVars(t *testing.T) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## The launch contract\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var listed []string
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[1], "SNAKEPIT_") {
			for name := range strings.SplitSeq(cells[1], ",") {
				listed = append(listed, strings.Trim(name, " `"))
			}
		}
	}
	slices.Sort(listed)
	if want := slices.Sorted(slices.Values(launchVars)); !slices.Equal(listed, want) {
		t.Errorf("the page lists %v; core has %v", listed, want)
	}
	for _, name := range launchVars {
		t.Setenv(name, "of the outer host")
	}
	logs := newLogQueue(hclog.NewNullLogger())
	defer func() { _ = logs.close(0) }()
	sp, err := newSpawner(Command{Path: "sh"}, spawnerOptions{Name: "test", Log: logs})
	if err != nil {
		t.Fatal(err)
	}
	defer sp.close()
	for _, e := range sp.env {
		if strings.HasSuffix(e, "=of the outer host") {
			t.Errorf("a worker would get %s", e)
		}
	}
}
