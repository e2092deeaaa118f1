//go:build !linux

package core

import (
	"context"
	"errors"
)

// hasForkServer says that this system has fork servers.
const hasForkServer = false

type forkServers struct{}

func (*forkServers) renew() {}
func (*forkServers) close() {}

func (sp *spawner) forkFromServer(context.Context, *Process, *childFiles, []string) error {
	return errors.ErrUnsupported
}
