//go:build unix

package core

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestPrivateDir(t *testing.T) {
	parent := t.TempDir()
	dir, claim, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = claim.Close(), os.RemoveAll(dir) }()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 80))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	short, other, err := makeTempDir(long)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = other.Close(), os.RemoveAll(short) }()
	if len(short) > maxDir || filepath.Dir(short) != "/tmp" {
		t.Errorf("the shorter directory is %s", short)
	}
	if left, _ := os.ReadDir(long); len(left) != 0 {
		t.Errorf("left in the longer one: %v", left)
	}
	if _, _, err := makeTempDir("/no/such/dir"); !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "Options.Dir") ||
		!strings.Contains(err.Error(), "/no/such/dir") || strings.Contains(err.Error(), "TMPDIR") {
		t.Error(err)
	}
	t.Setenv("TMPDIR", "/no/such/tmp") // a variable that a program's user can change
	_, _, err = makeTempDir("")
	if err == nil || !strings.HasSuffix(err.Error(), "set TMPDIR to a directory that can be written to") {
		t.Error(err)
	}
}

// A directory left behind by a killed host is removed, and nothing else.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	used, claim, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = claim.Close() }()
	left, dead, err := makeTempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close() // the system does this when the process ends
	for _, path := range []string{filepath.Join(left, "0.sock"), filepath.Join(parent, "a-file"),
		filepath.Join(parent, dirPrefix+"file")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(parent, filepath.Join(parent, dirPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	sweep(parent)
	var names []string
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"a-file", filepath.Base(used), dirPrefix + "file", dirPrefix + "link"}
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("%q are there, not %q", names, want)
	}
}

// A pool that opens while others sweep the same parent gets a directory that exists.
func TestSweepBesideOpen(t *testing.T) {
	parent := t.TempDir()
	stop := make(chan struct{})
	var sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					sweep(parent)
				}
			}
		})
	}
	for range 300 {
		dir, claim, err := claimTempDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil || claim == nil {
			t.Errorf("the directory is gone (%v), or nobody's", err)
		}
		closeFiles([]*os.File{claim})
		_ = os.RemoveAll(dir) // a sweep may have removed it
	}
	close(stop)
	sweepers.Wait()
}
