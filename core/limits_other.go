//go:build !linux

package core

import (
	"os"
	"syscall"
)

// hasLimits says that this system has the limits of Limits.
const hasLimits = false

func (l *Limits) apply(pid int) error { return l.applyNice(pid) }

func (l *Limits) reached(exitStatus, *os.ProcessState) string { return "" }

type (
	memoryGroups struct{}
	memoryGroup  struct{}
)

func newMemoryGroups(int64, string) (*memoryGroups, error) { return nil, nil }

func (*memoryGroups) add() (*memoryGroup, error) { return nil, nil }

func (*memoryGroup) enter(*syscall.SysProcAttr) (func(), error) { return func() {}, nil }
func (*memoryGroup) reached() string                            { return "" }
func (*memoryGroup) remove()                                    {}
