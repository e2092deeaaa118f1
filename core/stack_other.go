//go:build !linux

package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// canAnswer returns nil: these systems do not say what a process does.
func (w *Worker) canAnswer() error { return nil }

// stacks returns an error: no worker announces a signal on these systems.
func (p *Process) stacks(context.Context, int, int, string) (string, error) {
	return "", fmt.Errorf("%w: no signal asks for them on %s", errors.ErrUnsupported, runtime.GOOS)
}
