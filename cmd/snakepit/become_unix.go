//go:build unix

package main

import (
	"context"
	"fmt"
	"syscall"
)

// become runs another program in the place of this one, with its signals and its exit code. It returns only an error.
func become(_ context.Context, argv, env []string) error {
	return runError{serveError{fmt.Errorf("%s: %w", argv[0], syscall.Exec(argv[0], argv, env))}}
}
