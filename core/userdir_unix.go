//go:build unix

package core

import (
	"io/fs"
	"os"
	"syscall"
)

// isOwn reports whether a directory belongs to this user, and nobody else may write there.
func isOwn(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}
