//go:build unix

package debugpage

import (
	"errors"
	"syscall"
)

// isRefused reports whether nobody listens at a socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
