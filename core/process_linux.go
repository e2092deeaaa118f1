package core

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// sysProcAttr puts the child into a process group of its own, and has the kernel kill it when the thread that forks it ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// armLifeline makes the kernel kill the process group when the pipe's writing end closes, which is when this program has ended, however it
// ended. The settings belong to the open file, which the child inherits and this program keeps: it must not be gone before the writing
// end is. A process that ends closes both, the one with the higher descriptor first, which of a pipe is the writing end. Unlike Pdeathsig
// this reaches grandchildren.
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
