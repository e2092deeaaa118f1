package core

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// sysProcAttr puts the child into a process group of its own, and has the kernel kill it when the thread that forks it ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// armLifeline makes the kernel kill the process group when the pipe's writing end closes, which is when this program has ended, however it
// ended. The settings belong to the open file r, which must not be gone before the writing end is. This program alone should hold it
// therefore: a process that ends lets go of its files from the highest descriptor down, and of a pipe that is the writing end. Unlike
// Pdeathsig this reaches grandchildren.
func armLifeline(r *os.File, pgid int) error {
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	fcntl := func(fd uintptr, cmd int, arg int) {
		if errno == 0 {
			_, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, uintptr(cmd), uintptr(arg))
		}
	}
	err = raw.Control(func(fd uintptr) {
		fcntl(fd, syscall.F_SETOWN, -pgid)
		fcntl(fd, syscall.F_SETSIG, int(syscall.SIGKILL))
		fcntl(fd, syscall.F_SETFL, syscall.O_ASYNC)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// reopen returns a second open file of a pipe's reading end, for the worker. Without one, should there be no /proc, the worker shares r; and
// if Pdeathsig ends it in the very moment between this program's letting go of r and of the writing end, its group lives on.
func reopen(r *os.File) *os.File {
	path := ""
	if raw, err := r.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { path = "/proc/self/fd/" + strconv.Itoa(int(fd)) }) // an error: there is no path then
	}
	if again, err := os.Open(path); err == nil {
		return again
	}
	return r
}

// waitExit returns when the process has exited, and nil, because it leaves it to be reaped: until then neither its id nor its group's can
// be a stranger's.
func waitExit(proc *os.Process) *os.ProcessState {
	const pPID = 1
	var info [128]byte // siginfo_t
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(proc.Pid), uintptr(unsafe.Pointer(&info)),
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if !errors.Is(errno, syscall.EINTR) {
			return nil
		}
	}
}
