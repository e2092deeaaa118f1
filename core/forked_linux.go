package core

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"time"
)

// forked is one worker that a fork server has forked.
type forked struct {
	server *forkServer
	pid    int
	ended  chan struct{} // closed when it has exited; it is a zombie until release
	status exitStatus    // set before ended is closed
	// lost says that the server ended before it reaped the worker. The worker's id may be used again. Guarded by
	// server.mu.
	lost bool
}

// isWorkerOf reports whether a process is a child of another one, and leads its own group.
func isWorkerOf(pid, parent int) bool {
	if pid <= 1 {
		return false
	}
	stat, ok := readStat(procDir(pid))
	return ok && stat.parent == parent && stat.group == pid
}

func (c *forked) wait() { <-c.ended }

// signal: the worker is a zombie until release, so its id is its own until then, or until the server ends.
func (c *forked) signal(kill bool) bool {
	number := syscall.SIGTERM
	if kill {
		number = syscall.SIGKILL
	}
	kept := c.guard(func() { _ = syscall.Kill(-c.pid, number) }) // an error: no process is left
	if kept && kill && !c.isEnded() {
		c.expectEnd()
	}
	return kept
}

func (c *forked) collect() (exitStatus, *os.ProcessState) {
	return c.status, nil
}

// discard ends a worker that nobody waits for. It may be nil.
func (fs *forkServer) discard(c *forked) {
	if c == nil {
		return
	}
	c.signal(true)
	<-c.ended
	c.release()
}

// expectEnd gives the server up if it does not report the end of the worker, which was killed, although it has ended.
// Otherwise nobody would hear of it while no start asks the server.
func (c *forked) expectEnd() {
	time.AfterFunc(forkSilent, func() {
		switch {
		case c.isEnded():
		case stateOf(procDir(c.pid)) == 'Z':
			c.server.giveUp()
		default: // the system still ends it
			c.expectEnd()
		}
	})
}

// guard calls signal, which sends a signal to the worker or its group, unless their id may be used again. It returns
// whether it did. The worker is a zombie until release, so its id is its own until then, or until the server ends.
func (c *forked) guard(signal func()) bool {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.lost {
		return false
	}
	signal()
	return true
}

func (c *forked) isEnded() bool { return isDone(c.ended) }

// release has the server reap the worker, which has ended.
func (c *forked) release() {
	fs := c.server
	fs.mu.Lock()
	known := fs.children[c.pid] == c
	if known {
		delete(fs.children, c.pid)
	}
	fs.mu.Unlock()
	if !known {
		return
	}
	if request, err := json.Marshal(map[string]int{"reap": c.pid}); err == nil {
		_ = fs.conn.SetWriteDeadline(time.Now().Add(forkSilent)) // an error: it is closed, as the write tells
		switch _, err := fs.conn.Write(request); {
		case err == nil || isHangUp(err): // if it has ended, the system reaps its children
		case errors.Is(err, os.ErrDeadlineExceeded):
			fs.giveUp()
		default: // the worker stays a zombie until the server ends
			fs.retire()
		}
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.endRetired()
}
