//go:build !linux

package core

import (
	"context"
	"errors"
)

// hasForkServer says that this system has fork servers.
const hasForkServer = false

type (
	forkServers struct{}
	forked      struct {
		ended  chan struct{}
		code   int
		signal string
	}
)

func (*forkServers) renew()       {}
func (*forkServers) close()       {}
func (*forked) guard(func()) bool { return false }
func (*forked) expectEnd()        {}
func (*forked) reap()             {}

func (sp *spawner) forkFromServer(context.Context, *Process, *childFiles, []string) error {
	return errors.ErrUnsupported
}
