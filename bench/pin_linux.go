package main

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

const canPin = true

// startPinned starts a command on one processor, the last that this process may use. Its children inherit that. It is
// what taskset(1) does.
func startPinned(cmd *exec.Cmd) error {
	runtime.LockOSThread() // a new process inherits the processors of the thread that starts it
	var all, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			last.Zero()
			last.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &last); err != nil {
		return err
	}
	startErr := cmd.Start()
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return err // the thread stays locked, and Go ends it with its goroutine
	}
	runtime.UnlockOSThread()
	return startErr
}
