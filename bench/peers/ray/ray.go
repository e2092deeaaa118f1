// Package ray measures calls of a Ray actor. The caller is a Python program: Ray has no Go client.
package ray

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed driver.py
var driver []byte

// Result holds the measured times of one run.
type Result struct {
	P50       time.Duration `json:"p50_ns"`     // median time of a call
	PerSecond float64       `json:"per_second"` // calls answered per second
}

// Measure starts Ray and a driver, warms up an actor and calls it so many times. The driver keeps callers calls in
// flight. Measure returns when Ray's processes have ended and their files are removed. If ctx ends earlier, the driver
// is interrupted and Measure returns an error. Standard error of the driver goes to that of this program.
func Measure(ctx context.Context, python string, callers, calls int) (result Result, err error) {
	if callers < 1 || calls < 1 {
		return result, fmt.Errorf("ray: %d callers, %d calls: both must be positive", callers, calls)
	}
	// Ray's sockets are in this directory, some 60 bytes deeper. Their paths are limited to 107 bytes.
	directory, err := os.MkdirTemp("", "ray")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	script := filepath.Join(directory, "driver.py")
	if err := os.WriteFile(script, driver, 0o600); err != nil {
		return result, err
	}
	cmd := exec.CommandContext(ctx, python, script, directory, strconv.Itoa(callers), strconv.Itoa(calls))
	cmd.Env = append(os.Environ(), "RAY_USAGE_STATS_ENABLED=0")
	cmd.Stderr = os.Stderr
	// An interrupted driver ends Ray's processes. A killed one leaves this to them.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return result, fmt.Errorf("ray: %w", errors.Join(ctx.Err(), err))
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return result, fmt.Errorf("ray: %q: %w", out, err)
	}
	return result, nil
}
