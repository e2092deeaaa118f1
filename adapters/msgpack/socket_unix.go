//go:build unix

package msgpack

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// socketPair returns the host's end of a new connection, and the worker's end as the one file to inherit.
func socketPair() (ours socket, theirs []*os.File, err error) {
	syscall.ForkLock.RLock() // a process that is started meanwhile must not inherit either end
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("a socket pair for a worker: %w", err)
	}
	host, worker := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "worker")
	c, err := net.FileConn(host) // a copy that does not block
	_ = host.Close()             // its error does not matter: nothing was written to it
	if err != nil {
		_ = worker.Close()
		return nil, nil, fmt.Errorf("a socket pair for a worker: %w", err)
	}
	return c.(*net.UnixConn), []*os.File{worker}, nil
}
