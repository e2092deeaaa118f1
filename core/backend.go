package core

import (
	"context"

	"github.com/hashicorp/go-hclog"
)

// A back end starts workers for an adapter, perhaps on other machines. This file is what such an adapter needs in
// addition to adapter.go.

// Lease is a worker process that a back end holds for an adapter, perhaps on another machine. Launcher.Adopt makes it a
// Process.
type Lease struct {
	Name   string // which process it is, for errors, such as "the worker at gpu-1:7000"
	Host   string // the machine where it runs, for people; never ""
	PID    int    // its id there
	Holder Holder
}

// Holder tells what happens to a leased process, and ends it.
type Holder interface {
	// Next returns the next event as soon as it occurs. The caller owns it and everything that it points to. The
	// last event has Exit. An error means that the lease ended first. The exit of the process is unknown. After
	// the last event or an error Next is not called again. Only one goroutine calls Next.
	Next() (LeaseEvent, error)

	// Signal asks the process and its children to end, or ends them if kill is set. It does not block, and a process
	// that has ended gets no signal. Any goroutine may call Signal.
	Signal(kill bool)

	// Close ends the lease, and so the process and its children. It unblocks Next, which then returns an error. It does
	// not wait for the end. Any goroutine may call Close, more than once.
	Close() error
}

// LeaseEvent is what has happened to a leased process. Exactly one field is set.
type LeaseEvent struct {
	Output []byte     // what it has printed
	Report []byte     // all that it has written to its control pipe, not nil; it comes at most once
	Memory int64      // its resident memory and that of its children, in bytes; see Launcher.WatchMemory
	Ending string     // its back end is about to end: why; it serves until then, and the pool replaces it
	Exit   *LeaseExit // it has ended, its children too, and all of its output has come
}

// LeaseExit says how a leased process ended.
type LeaseExit struct {
	Code   int    // -1 if a signal ended it
	Signal string // such as "killed"; "" if it exited by itself
	OOM    bool   // the system killed it because memory ran out
}

// PoolAdapter is an Adapter that keeps something for a pool as a whole, such as a connection to a back end that all of
// its workers use. A pool calls ForPool once, before its first Start, and then uses the result in the adapter's place.
type PoolAdapter interface {
	Adapter

	// ForPool returns the adapter of one pool. It does not block, and it starts nothing: the first Start does that.
	ForPool(info PoolInfo) OwnedAdapter
}

// OwnedAdapter is the adapter of one pool.
type OwnedAdapter interface {
	Adapter

	// Close releases everything that the adapter keeps for the pool. The pool calls it once, after every Start has
	// returned and every link is closed, or once code of the program has held that up for too long. A Start may then
	// still run. It returns at the latest when ctx is done. After it, Start returns an error.
	Close(ctx context.Context) error
}

// PoolInfo is what an adapter may know of its pool.
type PoolInfo struct {
	RunID   string  // Launcher.RunID
	Command Command // the program, only to read
	// Log queues a message for the pool's logger, for what concerns no single worker. It does not block.
	Log func(level hclog.Level, message string, args ...any)
}
