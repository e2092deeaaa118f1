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
	all := func(n int) (env []string) {
		for _, name := range threadVars {
			env = append(env, name+"="+strconv.Itoa(n))
		}
		return env
	}
	if got := threadEnv([]string{"HOME=/root"}, 1); !slices.Equal(got, all(runtime.GOMAXPROCS(0))) {
		t.Error(got)
	}
	if got := threadEnv(nil, 1000); !slices.Equal(got, all(1)) {
		t.Error(got)
	}
	if got := threadEnv([]string{"HOME=/root", threadVars[1] + "=8"}, 1000); got != nil {
		t.Error("set by the user, and yet:", got)
	}
	if got := threadEnv(nil, 0); got != nil {
		t.Error("without a pool:", got)
	}
}

// The count is that of the pool's size at the worker's start. The program, its command and WorkerEnv can set another.
func TestThreadsOfAWorker(t *testing.T) {
	for _, name := range threadVars {
		t.Setenv(name, "") // restores the variable after the test
		_ = os.Unsetenv(name)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	threads := func(f *fixture, size int) string {
		t.Helper()
		f.size.Store(int32(size))
		f.launch(Spec{})
		return f.log.line(t, "threads ")
	}
	cmd := shell(`echo "threads $OMP_NUM_THREADS/$MKL_NUM_THREADS"; exec sleep 1000`)
	for size, want := range map[int]string{1: "8/8", 2: "4/4", 3: "2/2", 64: "1/1"} {
		if got := threads(newFixture(t, cmd), size); got != want {
			t.Errorf("with a size of %d they are %s, not %s", size, got, want)
		}
	}
	own := newFixture(t, cmd)
	own.opts.EnvOf = func(int) []string { return []string{"MKL_NUM_THREADS=5"} }
	if got := threads(own, 2); got != "/5" {
		t.Error("set by WorkerEnv, and yet:", got)
	}
	cmd.Env = []string{"MKL_NUM_THREADS=6"}
	if got := threads(newFixture(t, cmd), 2); got != "/6" {
		t.Error("set for the command, and yet:", got)
	}
	t.Setenv("OMP_NUM_THREADS", "7")
	cmd.Env = nil
	if got := threads(newFixture(t, cmd), 2); got != "7/" {
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
