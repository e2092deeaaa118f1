package core

import (
	"context"
	"os"
)

// This file is all that the author of an adapter reads. An adapter carries frames between the pool and one worker. It knows no calls:
// ids, credit, cancellation and deadlines are core's, and so are the processes that it launches.

// Adapter connects to workers over one protocol. Its zero value should work; exported fields are its options. The pool calls Start
// from several goroutines at once.
type Adapter interface {
	// Name is the protocol's name as it stands in logs, in Stats and in SNAKEPIT_ADAPTERS: lower case letters and digits. A chain's is a
	// comma list of such.
	Name() string

	// Start connects to one new worker, launching it by l where the adapter owns processes. It neither reads nor writes a frame.
	// It returns when the connection is there, and at the latest when ctx is done; ctx does not end what Start returned.
	// An error that wraps ErrUnavailable means "this protocol is unavailable here": a chain then tries its next adapter. Any other
	// error is about the worker itself and is final; core makes a *StartError of it, or completes the one that a chain made. After an error nothing of this adapter's own is left; processes are reaped
	// by core.
	Start(ctx context.Context, l *Launcher) (*Link, error)
}

// Link is a new connection to one worker.
type Link struct {
	Conn     Conn
	Adapter  string    // the name of the adapter that made it; a chain passes on what the chosen one set; "" means Name()
	Refused  []Refusal // what a chain tried before, and why not
	Codecs   []Codec   // at least one, of different names, in order of preference; the first that the worker has too is used
	MaxFrame int       // the largest Frame.Size that Conn carries, 4096 or more, if that is less than Launcher.MaxFrame asks for; else 0
	Endpoint string    // where other clients may reach the worker, such as "unix:/tmp/x.sock"; "" if nowhere
	Token    string    // what the worker's hello must show; "" if the connection itself is proof enough
	Process  *Process  // nil: the worker is not ours; then there is no WorkerExit, and stopping ends at Conn.Close
}

// Refusal says why a chain did not use an adapter.
type Refusal struct {
	Adapter string
	Err     error
}

// Conn carries frames to and from one worker, in order, whole or not at all. It knows no calls.
type Conn interface {
	// Read returns the next frames, at least one, as soon as any has come; it does not wait to fill a batch. The caller
	// owns them and all that they point to. It returns io.EOF when the peer closed its side between two frames, and
	// another error for anything that is not a frame, such as one that was cut off or is larger than Launcher.MaxFrame;
	// it never returns frames and an error together, and after an error only errors. One goroutine reads.
	Read() ([]Frame, error)

	// Write sends the frames in order, in as few system calls or messages as it can, and returns when they are handed
	// on, to the operating system or to a library that holds back none. It retains nothing of them. It may split a
	// batch, never a frame. It blocks while the peer does not read. When the peer has gone it returns an error, of
	// these frames or of the next ones. After an error any of them may have arrived, and every later Write returns an
	// error. One goroutine writes, while another one reads.
	Write(frames []Frame) error

	// CloseWrite delivers what Write took; after that the peer's Read returns io.EOF. Read goes on. The writing goroutine calls it.
	CloseWrite() error

	// Close releases everything at once and unblocks Read and Write, which return errors. What Write took may be lost. It may be
	// called from any goroutine, more than once, and returns without waiting for the peer.
	Close() error
}

// Codec turns values into the bodies of frames and back. It has no state: any number of goroutines use one at once.
type Codec interface {
	// Name is how hello calls it: "json", "msgpack".
	Name() string

	// Append appends v's encoding to dst and returns the extended slice. On an error dst is returned as it was, and the error names
	// the path to what could not be encoded inside v.
	Append(dst []byte, v any) ([]byte, error)

	// Decode decodes one value, the whole of b, into v, which must be a non-nil pointer. It keeps nothing of b. It
	// never panics, whatever b holds and v's methods do; nesting is at most 500 levels, and what it allocates is
	// bounded by a multiple of len(b). An error names the path to what did not fit.
	Decode(b []byte, v any) error
}

// Launcher starts worker processes for an adapter. Core makes one for each Start. A wrapper may hand on a changed copy.
type Launcher struct {
	// Launch starts one worker process. Core owns the process, reads its output and reaps it. If the worker's program reports
	// (Command.Reports), Launch waits for the report: that the worker has the protocol, and where it listens. A worker that lacks the
	// protocol is an *UnavailableError. Launch closes s.Files in every case.
	Launch func(ctx context.Context, s Spec) (*Process, error)

	// Dir is the pool's private directory, mode 0700. Its path is short enough for the name of a socket in it. Core removes it.
	Dir string

	// Index is the worker's place in the pool, from 0. A replacement has its predecessor's.
	Index int

	// MaxFrame is the pool's limit on Frame.Size. The worker reads it from SNAKEPIT_MAX_FRAME. A Conn that carries less says so in
	// Link.MaxFrame.
	MaxFrame int

	// HostToken is what an adapter that dials shows to the worker, which knows it as SNAKEPIT_HOST_TOKEN. WorkerToken is what the
	// worker's hello then has to show, as Link.Token. Both are new for each worker.
	HostToken   string
	WorkerToken string
}

// Spec is what an adapter asks of a new process, beyond what the user's Command says.
type Spec struct {
	Protocol string     // SNAKEPIT_PROTOCOL: tells the worker which transport to use, such as "msgpack" or "module:Class"
	Stdio    bool       // the worker's stdin and stdout are the connection: Process.Stdin and Process.Stdout
	Files    []*os.File // descriptors to inherit; the first has the number in SNAKEPIT_CONN_FD
	Env      []string   // more variables for the worker, "KEY=value"
}
