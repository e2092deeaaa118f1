//go:build unix && !solaris && !illumos && !aix

package core

import (
	"os"
	"syscall"
)

// lockDir opens a directory and locks it until f is closed or this process ends. It returns nil on failure, or if the
// lock is taken and wait is false. ours says that the directory belongs to this user.
func lockDir(dir string, wait bool) (f *os.File, ours bool) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	info, err := f.Stat()
	for err == nil {
		if err = syscall.Flock(int(f.Fd()), how); err == nil {
			stat, ok := info.Sys().(*syscall.Stat_t)
			return f, ok && int(stat.Uid) == os.Geteuid()
		}
		if err == syscall.EINTR {
			err = nil
		}
	}
	_ = f.Close()
	return nil, false
}
