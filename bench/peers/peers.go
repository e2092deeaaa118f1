// Package peers says what each of its packages offers: a way to call Python from Go without this library. Each is set
// up as its own documentation advises, and its folder says where that is written. Package loops is the exception: its
// bare loops are the least that any such way has to do.
package peers

import "context"

// Process is one process of Python or more.
type Process interface {
	// PIDs lists the processes that answer calls now.
	PIDs() []int
	// Close ends these processes and waits for them. Nothing may be called at the same time or later.
	Close() error
}

// Peer is a running way to call Python. Its handler returns the arguments of each call.
type Peer interface {
	Process
	// Call sends a map there and returns the map that came back. Any number of goroutines may call it at once.
	Call(ctx context.Context, args map[string]any) (map[string]any, error)
}

// Echo is a running way to send bytes to Python and back. One goroutine uses it.
type Echo interface {
	Process
	// Echo returns the bytes that came back. They are not the memory of data.
	Echo(ctx context.Context, data []byte) ([]byte, error)
}

// Start starts a peer with the interpreter of that path. Standard error of its processes goes to that of this program.
type Start func(ctx context.Context, python string) (Peer, error)
