package core

import (
	"context"
	"os"
)

// The author of an adapter needs only this file and frame.go, and backend.go if others start its workers. An adapter
// carries frames between the pool and one worker. It knows no calls: core owns ids, credit, cancellation and deadlines,
// and the processes that it launches or adopts.

// Adapter connects to workers over one protocol. Its zero value should work; exported fields are its options. The pool
// calls Start from several goroutines at once.
type Adapter interface {
	// Name is the protocol's name in logs, in Stats and in SNAKEPIT_ADAPTERS: lower case letters and digits. A chain's
	// name is a comma-separated list of such names.
	Name() string

	// Start connects to one new worker. If the adapter owns processes, it launches the worker with l. It neither reads
	// nor writes a frame. It returns once connected, and at the latest when ctx is done. ctx bounds only Start: the
	// returned Link outlives it. An error that wraps ErrUnavailable means "this protocol is unavailable here": a chain
	// then tries its next adapter. Any other error is about the worker itself and is final. Core wraps it in a
	// *StartError, or completes the *StartError that a chain made. After an error the adapter leaves nothing of its own
	// behind; core reaps the processes.
	Start(ctx context.Context, l *Launcher) (*Link, error)
}

// Link is a new connection to one worker.
type Link struct {
	Conn     Conn
	Adapter  string    // the adapter that made the link; "" means Name(); a chain fills it in if it is ""
	Refused  []Refusal // the adapters that a chain tried before, and why each was refused
	Default  bool      // the program did not name the adapters, so the pool logs its first choice at info
	Codecs   []Codec   // at least one, of different names, the preferred first; the first that the worker has is used
	MaxFrame int       // Conn's own limit on Frame.Size, at least 4096; 0 means Launcher.MaxFrame
	Endpoint string    // where other clients can reach the worker, such as "unix:/tmp/x.sock"; "" if nowhere
	Token    string    // the token that the worker's hello must show; "" if the connection itself is proof enough

	// Process is nil if core neither launched nor adopted it: WorkerExit then has no PID, and stopping ends at
	// Conn.Close.
	Process *Process
}

// Refusal says why a chain did not use an adapter.
type Refusal struct {
	Adapter string
	Err     error
}

// Conn carries frames to and from one worker, in order, whole or not at all. It knows no calls.
type Conn interface {
	// Read returns the next frames, at least one, as soon as any has arrived. It does not wait to fill a batch. The
	// caller owns the frames and everything they point to. Read returns io.EOF if the peer closed its side between two
	// frames. It returns another error for anything that is not a frame, such as one that is cut off or larger than
	// Launcher.MaxFrame. It never returns frames and an error together, and after an error it returns only errors. Only
	// one goroutine calls Read.
	Read() ([]Frame, error)

	// Write sends the frames in order, with as few system calls or messages as possible. It returns once it has handed
	// them to the operating system, or to a library that holds none back. It retains no part of them. It may split a
	// batch, never a frame. It blocks while the peer does not read. If the peer is gone, this Write or the next one
	// returns an error. After an error any of the frames may have arrived, and every later Write returns an error. Only
	// one goroutine calls Write, while another one calls Read.
	Write(frames []Frame) error

	// CloseWrite delivers all written frames; after them the peer's Read returns io.EOF. Read still works. The writing
	// goroutine calls CloseWrite.
	CloseWrite() error

	// Close releases everything at once and unblocks Read and Write, which then return errors. Frames already written
	// may be lost. Any goroutine may call Close, more than once. It does not wait for the peer.
	Close() error
}

// Codec encodes values into the bodies of frames, and decodes them. It has no state: any number of goroutines use it at
// once.
type Codec interface {
	// Name is the codec's name in hellos, such as "json" or "msgpack".
	Name() string

	// Append appends v's encoding to dst and returns the extended slice. On an error it returns dst unchanged, and the
	// error names the path to the value inside v that cannot be encoded.
	Append(dst []byte, v any) ([]byte, error)

	// Decode decodes one value, the whole of b, into v, a non-nil pointer. It retains no part of b. It never panics,
	// whatever b contains and v's methods do. It accepts at most 500 levels of nesting. Its allocations are bounded by
	// a multiple of len(b). An error names the path to the value that did not fit.
	Decode(b []byte, v any) error
}

// Launcher starts worker processes for an adapter. Core makes one for each Start. A wrapping adapter may pass on a
// changed copy.
type Launcher struct {
	// Launch starts one worker process. Core owns the process, reads its output and reaps it. If the program writes a
	// report (Command.Reports), Launch waits for it. The report says whether the worker has the protocol, and where
	// it listens. If the worker lacks the protocol, the error is an *UnavailableError. Launch closes s.Files in every
	// case.
	Launch func(ctx context.Context, s Spec) (*Process, error)

	// Adopt takes a worker process that a back end has started for the adapter, perhaps on another machine. Core owns
	// the lease from then on. It reads the lease's events, passes the output on and closes the lease, also if Adopt
	// returns an error. Adopt waits for the worker's report and judges it as Launch does.
	Adopt func(ctx context.Context, lease Lease) (*Process, error)

	// Dir is the pool's private directory, mode 0700. Its path is short enough for sockets inside it. Core
	// removes it.
	Dir string

	// RunID is the pool's name and a random part. The worker reads it from SNAKEPIT_RUN_ID.
	RunID string

	// Env has the variables that the program has set for this worker, "KEY=value": Command.Env, and behind them those
	// of Options.WorkerEnv. Launch sets them itself. They are for adapters that have workers started elsewhere.
	Env []string

	// WatchMemory says that the pool limits the worker's memory. A leased worker then has to tell it about once a
	// second.
	WatchMemory bool

	// Index is the worker's place in the pool, from 0. A replacement has its predecessor's index, and often starts
	// while the predecessor still serves.
	Index int

	// MaxFrame is the pool's limit on Frame.Size. The worker reads it from SNAKEPIT_MAX_FRAME. An adapter whose Conn
	// carries less sets Link.MaxFrame.
	MaxFrame int

	// HostToken proves the host to the worker: an adapter that dials shows it, and the worker compares it with
	// SNAKEPIT_HOST_TOKEN. WorkerToken proves the worker to the host: the adapter sets it as Link.Token, and the
	// worker's hello must show it. Both are new for each worker.
	HostToken   string
	WorkerToken string
}

// Spec says what an adapter needs of a new process, in addition to the user's Command. Input is the place for secrets:
// the system shows a process's arguments to all users, and its environment to others of the same user.
type Spec struct {
	Protocol string     // SNAKEPIT_PROTOCOL: the transport that the worker uses, such as "msgpack" or "module:Class"
	Stdio    bool       // the worker's stdin and stdout are the connection: Process.Stdin and Process.Stdout
	Files    []*os.File // descriptors that the worker inherits; SNAKEPIT_CONN_FD has the number of the first
	Input    []byte     // what the worker reads from its standard input up to the end of file; not with Stdio
	Env      []string   // more environment variables, "KEY=value"
}
