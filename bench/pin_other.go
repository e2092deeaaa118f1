//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

const canPin = false

func startPinned(*exec.Cmd) error {
	return errors.New("only on Linux can processes be pinned to a processor here")
}
