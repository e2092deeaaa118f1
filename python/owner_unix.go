//go:build unix

package python

import (
	"io/fs"
	"os"
	"syscall"
)

// ours reports whether only this user and root can change the file.
func ours(info fs.FileInfo) bool {
	uid := owner(info)
	return (uid == os.Geteuid() || uid == 0) && info.Mode().Perm()&0o022 == 0
}

// trusted reports whether a virtual environment belongs to this user, to root, or to the owner of start, the
// directory where the search began.
func trusted(env, start string) bool {
	info, err := os.Stat(env)
	if err != nil {
		return false
	}
	uid := owner(info)
	if uid == os.Geteuid() || uid == 0 {
		return true
	}
	info, err = os.Stat(start)
	return err == nil && uid == owner(info)
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
