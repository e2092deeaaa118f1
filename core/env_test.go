//go:build unix

package core

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
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
