package core

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// sysProcAttr puts the child into a process group of its own. The kernel kills the child when the thread that forked it
// ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// armLifeline makes the kernel kill the process group when the pipe's write end closes. The write end closes when
// this program ends, in whatever way. Unlike Pdeathsig this reaches grandchildren. The settings belong to the open
// file r, so r must not close before the write end. Therefore only this program should hold r: an ending process
// closes its files from the highest descriptor down, and of the two ends of a pipe the write end is the higher one.
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

// reopen returns a second open file of the pipe's read end, for the worker. Without /proc it returns r itself, and the
// worker shares r. The group then survives if Pdeathsig ends the worker after this program has closed r and before it
// has closed the write end.
func reopen(r *os.File) *os.File {
	path := ""
	if raw, err := r.SyscallConn(); err == nil {
		// On an error path stays "".
		_ = raw.Control(func(fd uintptr) { path = "/proc/self/fd/" + strconv.Itoa(int(fd)) })
	}
	if again, err := os.Open(path); err == nil {
		return again
	}
	return r
}

// waitExit waits until the process has exited. It returns nil because it does not reap the process. Until it is reaped,
// no other process or group can get its id.
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
