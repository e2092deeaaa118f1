//go:build !unix || solaris || illumos || aix

package core

import "os"

// lockDir returns nil: these systems have no such locks, so sweep cannot tell which directories are in use.
func lockDir(string, bool) (*os.File, bool) { return nil, false }
