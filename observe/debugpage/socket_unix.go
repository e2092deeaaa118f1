//go:build unix

package debugpage

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// isOwn reports whether a directory belongs to this user, and nobody else may write there.
func isOwn(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}

// isRefused reports whether nobody listens at a socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
