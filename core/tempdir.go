package core

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	dirPrefix = "snakepit-pool-" // of the names of private directories
	maxDir    = 80               // of a private directory's path; a socket's has about 104 bytes in all
)

// makeTempDir makes a directory that only this user can enter, in parent, or under /tmp if parent's name is too long for sockets in it. The
// directory is in use as long as claim is open; claim is nil on systems without such locks. What hosts that were killed have left there is
// removed.
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
		return "", nil, fmt.Errorf("%s is too long for the names of sockets in it, and no other directory can be made: %w", parent, err)
	}
	return dir, claim, nil
}

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
				return dir, nil, nil // this file system has no locks, so nobody will take the directory for one that was left
			}
			continue // another host's sweep came between
		}
		if isSameDir(dir, claim) {
			return dir, claim, nil
		}
		_ = claim.Close() // likewise
	}
}

// sweep removes the directories that hosts could not remove because they were killed. They are those that nobody claims.
func sweep(parent string) {
	entries, _ := os.ReadDir(parent) // an error shows when the directory is made
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
			_ = os.RemoveAll(dir) // the next sweep tries again
		}
		_ = claim.Close()
	}
}

// isSameDir reports whether the path is that of the open directory, and not of none or another one.
func isSameDir(path string, dir *os.File) bool {
	at, err := os.Lstat(path)
	if err != nil {
		return false
	}
	info, err := dir.Stat()
	return err == nil && os.SameFile(at, info)
}
