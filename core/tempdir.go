package core

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	dirPrefix = "snakepit-pool-" // begins the names of private directories
	maxDir    = 80               // bytes of a private directory's path; a socket's path may have about 104
)

// makeTempDir makes a directory that only this user can enter, in parent, or in /tmp if parent's path is too long for
// sockets. The directory is in use as long as claim is open. claim is nil on systems without locks. Directories left
// behind by killed hosts are removed.
func makeTempDir(parent string) (dir string, claim *os.File, err error) {
	remedy := "set Options.Dir to a directory that can be written to"
	if parent == "" {
		parent = os.TempDir()
		remedy = "set TMPDIR to a directory that can be written to"
	}
	parent, err = filepath.Abs(parent) // a worker may have another working directory
	if err != nil {
		return "", nil, fmt.Errorf("the directory of Options.Dir: %w", err)
	}
	if dir, claim, err = claimTempDir(parent); err != nil {
		return "", nil, &RemedyError{fmt.Errorf("the pool's private directory cannot be made: %w", err), remedy}
	}
	if len(dir) <= maxDir || runtime.GOOS == "windows" {
		return dir, claim, nil
	}
	_ = os.Remove(dir)
	closeFiles([]*os.File{claim})
	if dir, claim, err = claimTempDir("/tmp"); err != nil {
		return "", nil, fmt.Errorf(
			"%s is too long for the names of sockets in it, and no other directory can be made: %w", parent, err)
	}
	return dir, claim, nil
}

// claimTempDir makes a private directory in parent and locks it, after a sweep.
func claimTempDir(parent string) (string, *os.File, error) {
	sweep(parent)
	for {
		dir, err := os.MkdirTemp(parent, dirPrefix) // mode 0700
		if err != nil {
			return "", nil, err
		}
		claim, _ := lockDir(dir, true)
		if claim == nil {
			if _, err := os.Lstat(dir); err == nil {
				return dir, nil, nil // this file system has no locks, so no sweep removes the directory
			}
			continue // another host's sweep has removed it
		}
		if isSameDir(dir, claim) {
			return dir, claim, nil
		}
		_ = claim.Close() // another host's sweep has removed it
	}
}

// sweep removes this user's directories that killed hosts left behind. No process holds their locks.
func sweep(parent string) {
	entries, _ := os.ReadDir(parent) // MkdirTemp reports an error of parent
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		if !strings.HasPrefix(e.Name(), dirPrefix) || !e.IsDir() {
			continue
		}
		claim, ours := lockDir(dir, false)
		if claim == nil {
			continue
		}
		if ours && isSameDir(dir, claim) {
			_ = os.RemoveAll(dir) // on an error the next sweep tries again
		}
		_ = claim.Close()
	}
}

// isSameDir reports whether path still names the open directory dir.
func isSameDir(path string, dir *os.File) bool {
	at, err := os.Lstat(path)
	if err != nil {
		return false
	}
	info, err := dir.Stat()
	return err == nil && os.SameFile(at, info)
}
