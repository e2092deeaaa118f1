package conformance

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// settles waits until a count is back at its former value.
func (t *trial) settles(what string, before int, count func() int) {
	for end := time.Now().Add(atOnce); count() > before; {
		if time.Now().After(end) {
			t.Fatalf("%d %s are left, and there were %d before", count(), what, before)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// leavesNothing calls f twice. The second call must leave no goroutine and no descriptor behind. The first call may
// leave some that are made once for all.
func (t *trial) leavesNothing(f func()) {
	f()
	files := descriptors()
	const label = "snakepit conformance"
	mark := fmt.Sprintf("%p", &files) // of this call alone
	pprof.Do(t.Context(), pprof.Labels(label, mark), func(context.Context) { f() })
	mine := regexp.MustCompile(`(?m)^(\d+) @.*\n# labels: .*` + regexp.QuoteMeta(fmt.Sprintf("%q:%q", label, mark)))
	t.settles("goroutines", 0, func() (n int) { // a goroutine inherits its labels
		var profile strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // a Builder never fails
		for _, found := range mine.FindAllStringSubmatch(profile.String(), -1) {
			some, _ := strconv.Atoi(found[1]) // digits
			n += some
		}
		return n
	})
	t.settles("descriptors", files, descriptors)
}

// descriptors returns how many descriptors this process has open, or 0 if the system does not tell.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// leftIn returns the names of what a directory holds. One that is gone holds nothing.
func leftIn(dir string) []string {
	names := []string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
