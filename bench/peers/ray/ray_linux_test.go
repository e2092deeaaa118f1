package ray

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers/peertest"
)

func python(t *testing.T) string { return peertest.Python(t, "ray") }

// adoptOrphans makes this process the parent of descendants that outlive theirs.
func adoptOrphans(t *testing.T) {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		t.Fatal(errno)
	}
}

// checkNothingLeft reports running children and files in directory.
func checkNothingLeft(t *testing.T, directory string) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, _ := os.ReadFile(path) // pid (name) state ppid
		after := text[bytes.LastIndexByte(text, ')')+1:]
		var state string
		var parent int
		if _, err := fmt.Sscan(string(after), &state, &parent); err == nil && parent == os.Getpid() && state != "Z" {
			t.Errorf("a process is left: %s", strings.TrimSuffix(string(text), string(after)))
		}
	}
	files, err := os.ReadDir(directory)
	if err != nil || len(files) != 0 {
		t.Errorf("files are left: %v, %v", files, err)
	}
}

// temporary makes a directory for temporary files. The names of t.TempDir are too long for a socket.
func temporary(t *testing.T) string {
	directory, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	t.Setenv("TMPDIR", directory)
	return directory
}

func TestMeasure(t *testing.T) {
	python := python(t)
	adoptOrphans(t)
	directory := temporary(t)
	for _, callers := range []int{1, 64} {
		result, err := Measure(t.Context(), python, callers, 320)
		if err != nil || result.P50 <= 0 || result.PerSecond <= 0 {
			t.Errorf("Measure with %d callers = %+v, %v", callers, result, err)
		}
		t.Logf("%d callers: %+v", callers, result)
	}
	checkNothingLeft(t, directory)
}

func TestCancel(t *testing.T) {
	python := python(t)
	adoptOrphans(t)
	directory := temporary(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	if result, err := Measure(ctx, python, 1, 1e9); err == nil {
		t.Errorf("Measure = %+v after the end of ctx", result)
	}
	checkNothingLeft(t, directory)
}
