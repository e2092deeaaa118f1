package snakepit

import "github.com/snakepit-go/snakepit/core"

// The comments repeat those of core. To write them anew: go test . -run TestTypes -update.

// Pool runs workers and gives each call a slot of one: the place of a running call. It owns the processes and
// goroutines that it starts, and Close waits for all of them. Any number of goroutines may use its methods.
//
//	type Pool struct {
//		// contains filtered or unexported fields
//	}
//	func (p *Pool) Calls() []CallStats
//	func (p *Pool) Close() error
//	func (p *Pool) Closed() <-chan struct{}
//	func (p *Pool) Name() string
//	func (p *Pool) Observe(o Observer) (stop func())
//	func (p *Pool) Reload(ctx context.Context) error
//	func (p *Pool) Resize(size int) error
//	func (p *Pool) Session(id string, opts ...SessionOption) *Session
//	func (p *Pool) Sessions(limit int) []SessionStats
//	func (p *Pool) Shutdown(ctx context.Context) error
//	func (p *Pool) Size() int
//	func (p *Pool) Stats() Stats
//	func (p *Pool) Usage() []Usage
//	func (p *Pool) WaitReady(ctx context.Context, n int) error
//	func (p *Pool) Workers() []*Worker
type Pool = core.Pool

// Session is a Target whose calls all go to one worker. The worker keeps state for it: the handler sees the session's
// id and a dict of its own. The first call chooses the worker.
//
// If the worker gives snapshots, the pool keeps the state after the last answered call. When that worker is lost or
// leaves, the next call takes another worker, which restores the state first. If the restore fails, the call fails with
// that error and did not run, and the next call tries again. Without a snapshot, every call after the loss gets
// ErrSessionLost until the session ends, so that no call silently continues with fresh state.
//
// A session ends by Close, or when no call has used it for Options.SessionIdle. Sessions with the same id are the same
// session. Any number of goroutines may use them.
//
//	type Session struct {
//		// contains filtered or unexported fields
//	}
//	func (s *Session) Close()
//	func (s *Session) ID() string
type Session = core.Session

// Stats is a snapshot of a pool. Its counters begin with Open. Its JSON is meant for a health check.
//
//	type Stats struct {
//		Ready      int   `json:"ready"`       // workers that accept calls
//		Running    int   `json:"running"`     // calls that hold a slot, including those whose callers have left
//		Waiting    int   `json:"waiting"`     // callers in the queue
//		Sessions   int   `json:"sessions"`    // live sessions
//		Calls      int64 `json:"calls"`       // calls that got a slot
//		Saturated  int64 `json:"saturated"`   // callers that were rejected: a full queue, or NoWait
//		Waited     int64 `json:"waited"`      // callers that have waited in the queue
//		Cancelled  int64 `json:"cancelled"`   // calls that were cancelled while they ran
//		Lost       int64 `json:"lost"`        // workers that ended unexpectedly
//		Restarts   int64 `json:"restarts"`    // workers that were started after a loss or a failed start
//		Replaced   int64 `json:"replaced"`    // workers that left because their replacement was ready
//		StartFails int64 `json:"start_fails"` // starts that failed
//		Terminated int64 `json:"terminated"`  // workers that were ended by force
//
//		SnapshotBytes int64 `json:"snapshot_bytes"` // the size of all snapshots of sessions
//
//		WaitTime   time.Duration  `json:"-"`                 // of all that have waited; in JSON wait_seconds
//		OldestWait time.Duration  `json:"-"`                 // of the oldest; in JSON oldest_wait_seconds
//		Tenants    map[string]int `json:"tenants,omitempty"` // waiting callers by tenant; nil if none has one
//		Workers    []WorkerStats  `json:"workers"`
//	}
//	func (s Stats) MarshalJSON() ([]byte, error)
type Stats = core.Stats

// WorkerStats is the part of Stats for one worker.
//
//	type WorkerStats struct {
//		Index    int           `json:"index"`
//		State    WorkerState   `json:"state"`
//		PID      int           `json:"pid,omitempty"`
//		Adapter  string        `json:"adapter,omitempty"`
//		Refused  []Refusal     `json:"refused,omitempty"` // the adapters that were tried before, and why each was refused
//		Running  int           `json:"running"`           // slots in use
//		Calls    int64         `json:"calls"`             // calls that got a slot of this worker
//		Sessions int           `json:"sessions"`
//		Age      time.Duration `json:"-"`                  // in JSON age_seconds
//		Reason   string        `json:"reason,omitempty"`   // why it accepts no new callers, or ""
//		Failures int           `json:"failures,omitempty"` // starts of this index that failed in a row
//		Stopped  bool          `json:"stopped,omitempty"`  // its starts fail, and the pool only probes
//		LastErr  error         `json:"-"`                  // the error of the last of them, or nil; in JSON last_error
//	}
//	func (s WorkerStats) MarshalJSON() ([]byte, error)
type WorkerStats = core.WorkerStats

// Options configure a Pool. A nil *Options, and each zero field, means the default that the field's comment states. A
// pool copies its options: later changes have no effect.
//
//	type Options struct {
//		// Name is the pool's name in logs and in the workers' environment. "" means "snakepit".
//		Name string
//		// Size is the number of workers, at most 1024. 0 means the number of processors that this program may
//		// use (GOMAXPROCS, which respects a container's limit), but at most four.
//		Size int
//		// MinSize is the number of workers that the pool keeps without calls. It starts so many, and at least
//		// one, and adds others up to Size as soon as callers wait. A worker that has had no call and no session
//		// for IdleTime leaves. 0 means Size: the pool does not grow or shrink. Negative means none.
//		MinSize int
//		// IdleTime is how long a worker above MinSize may be idle. 0 means 1 min.
//		IdleTime time.Duration
//		// StartLimit is how many workers may be starting at once. 0 means the number of processors that this
//		// program may use, but at least 2.
//		StartLimit int
//		// StartBudget is how many starts of one worker may fail in a row. After that the pool stops trying,
//		// logs why, and only probes: one start every 30 s, for the whole pool. Once a probed worker answers a
//		// call, or has run for 10 s, all are started again. A worker that ends earlier, and has answered no
//		// call, counts as a failed start. 0 means 10; negative means no limit.
//		StartBudget int
//		// Warmup is a call that has to succeed before a worker is ready. StartTimeout includes it.
//		Warmup Warmup
//		// Recycle says when a worker is replaced by a fresh one.
//		Recycle Recycle
//		// Surge is how many workers more than Size may be starting to replace others, for Recycle and
//		// Pool.Reload. So it is also how many are replaced at once. 0 means 1. Negative means none, such as for
//		// a GPU that has no memory for two: one worker at a time leaves before its replacement starts. If it
//		// has sessions without a snapshot, it first waits for their end.
//		Surge int
//		// Limits bound what one worker may use.
//		Limits Limits
//		// WorkerEnv returns more variables, "KEY=value", for the worker at an index, such as
//		// CUDA_VISIBLE_DEVICES. It is called at each start, perhaps from several goroutines at once. A panic in
//		// it is the start's error.
//		WorkerEnv func(index int) []string
//		// Wedged says what the pool does about a worker that has answered no ping for WedgedAfter. 0 is
//		// WedgedLog, after 1 min. The pool pings each worker four times in WedgedAfter.
//		Wedged      WedgedPolicy
//		WedgedAfter time.Duration
//		// Watch reloads the pool when a file of the program changes, for development. See Pool.Reload. If the
//		// program cannot be loaded, the error is logged, and the old workers serve on. It needs
//		// Command.Sources. Package python sets it if the program has no FS.
//		Watch bool
//		// Concurrency limits how many calls one worker runs at once. 0 means the number that the worker
//		// announces.
//		Concurrency int
//		// Queue is how many calls may wait for a worker before ErrSaturated. 0 means 1,000; negative means none
//		// may wait.
//		Queue int
//
//		// CallTimeout bounds Execute, and StreamTimeout bounds ExecuteStream, if the context has no deadline.
//		// They include the wait for a worker. 0 means 30 s and 300 s; negative means no limit.
//		CallTimeout   time.Duration
//		StreamTimeout time.Duration
//		// StartTimeout bounds one worker's start, up to its hello, and with Warmup up to the end of that call. 0
//		// means 60 s.
//		StartTimeout time.Duration
//		// CancelGrace is how long a cancelled call may keep running in its worker. After that the worker
//		// accepts no new calls until that call ends, and it is stopped once no other call runs there. A worker
//		// with sessions accepts calls until such calls hold all its slots. 0 means 5 s.
//		CancelGrace time.Duration
//		// StopTimeout bounds Close, and the stop of one worker: half of it before SIGTERM, the rest before
//		// SIGKILL. 0 means 5 s.
//		StopTimeout time.Duration
//		// SessionIdle is how long an unused session is kept. 0 means 30 min; negative means for ever.
//		SessionIdle time.Duration
//		// MaxSessions is how many sessions the pool may have at once. The first call of another one gets
//		// ErrSaturated. 0 means 10,000; negative means any number.
//		MaxSessions int
//		// MaxSnapshot is the largest snapshot of a session in bytes. The pool keeps the snapshot so that the
//		// session survives its worker. A session whose snapshot is larger is lost with its worker, and the log
//		// says so once. 0 means 1 MiB; negative means that the pool keeps none.
//		MaxSnapshot int
//
//		// MaxFrame is the largest frame in bytes, in both directions. One value has to fit in one frame. 0
//		// means 64 MiB; the maximum is 1 GiB. If the worker or the adapter has a lower limit, that limit
//		// applies.
//		MaxFrame int
//		// WindowItems and WindowBytes are how many items and bytes a stream may send ahead of its consumer. 0
//		// means 1,024 items and 1 MiB.
//		WindowItems int
//		WindowBytes int
//
//		// Functions are the functions that workers may call, by name. See Func and StreamFunc. A function that
//		// calls this pool needs a second slot besides the slot of the call that it serves. If every slot waits
//		// for such a function, it gets ErrSaturated.
//		Functions map[string]Function
//
//		// OnEvent is called with each event of the pool, in order, by one goroutine of the pool and without a
//		// lock. So it may be slow, panic or call the pool. If it is too slow, events are dropped; an
//		// EventsMissed says how many.
//		OnEvent func(Event)
//
//		// Recorder records the last frames of each worker, for the case that it is lost.
//		Recorder Recorder
//
//		// Dir is a writable directory in which the pool makes its private directory for sockets. "" means
//		// os.TempDir().
//		Dir string
//		// Logger receives the pool's log, and the output and log records of workers. nil means standard error,
//		// at the level in SNAKEPIT_LOG, else info. FromSlog makes a Logger from a *slog.Logger. One goroutine
//		// of the pool calls it, without a lock, so it may be slow, panic or call the pool. If it is too slow,
//		// messages are dropped and counted, and the count is logged.
//		Logger hclog.Logger
//	}
type Options = core.Options

// Recycle says when a worker is replaced by a fresh one. A zero field is no reason. The worker serves all callers until
// its replacement is ready. After that it ends its calls, serves its sessions until they end or move, and leaves. A
// session with a snapshot moves. So a worker may exceed a limit for a while.
//
//	type Recycle struct {
//		// Calls replaces a worker after so many calls, and Age after so much time since its start. Each worker
//		// has its own limits, up to a tenth below these, so that workers that started together do not leave
//		// together.
//		Calls int
//		Age   time.Duration
//		// Idle replaces a worker that has served calls and has had no call and no session for so long.
//		Idle time.Duration
//		// Memory replaces a worker whose process tree has more than so many bytes of resident memory. Pages
//		// that several of its processes share count once. The pool looks once a second. It needs Linux. A back
//		// end tells the memory of its workers itself.
//		Memory int64
//	}
type Recycle = core.Recycle

// Recorder says how the pool records the last frames of each worker. When a worker is lost, also because it broke the
// protocol, they are written to a file with its exit and the pool's last events: see ReadRecording.
// WorkerExit.Recording is its path. The zero value records nothing.
//
//	type Recorder struct {
//		// Dir is the directory of the files. It is made if it does not exist. "" means that nothing is recorded.
//		Dir string
//		// Frames is how many frames of each worker are kept, besides the call frames of the calls that run. 0
//		// means 256.
//		Frames int
//		// Bodies records arguments, results, items, errors and metadata, too, so that "snakepit replay" can
//		// repeat a call. They may be secrets. Up to 1 MiB of bodies are kept for each worker.
//		Bodies bool
//		// Files is how many files of this pool's name are kept. The oldest ones are removed. 0 means 20.
//		Files int
//	}
type Recorder = core.Recorder

// Warmup is a call that the pool makes itself. The zero value is none.
//
//	type Warmup struct {
//		Command string
//		Args    any // as in Execute
//	}
type Warmup = core.Warmup

// WedgedPolicy says what the pool does about a worker that answers no pings.
//
//	type WedgedPolicy uint8
type WedgedPolicy = core.WedgedPolicy

// Limits bound what one worker may use. A zero field is no limit. If a limit ends a worker, its WorkerExit.Limit names
// the limit. All of them but Nice need Linux.
//
//	type Limits struct {
//		// Memory bounds the resident memory of the worker and its children together, in bytes. The kernel ends
//		// them if they reach it. The pool makes a control group for each worker, below its own group or beside
//		// it. If it may not make one, Open returns an error that says why. Control groups of version 1 and 2
//		// work.
//		Memory int64
//		// AddressSpace bounds the address space of each process of the worker, in bytes (RLIMIT_AS). Beyond
//		// that Python raises MemoryError. A library may reserve much more than it uses, so Memory is the better
//		// limit in most cases.
//		AddressSpace int64
//		// CPUTime bounds the processor time of each process of the worker, since its start (RLIMIT_CPU), in
//		// whole seconds.
//		CPUTime time.Duration
//		// OpenFiles bounds the descriptors of each process of the worker (RLIMIT_NOFILE). Beyond that Python
//		// raises OSError.
//		OpenFiles int
//		// FileSize bounds each file that a process of the worker writes, in bytes (RLIMIT_FSIZE). Beyond that
//		// Python raises OSError.
//		FileSize int64
//		// Nice is the worker's nice value, from -20 to 19: with a higher one it gets less of a busy processor.
//		// A negative one needs a right (CAP_SYS_NICE). 0 leaves it as it is.
//		Nice int
//	}
type Limits = core.Limits

// Event is something that happened in a pool: one of the types below that have a method String and a field Time. See
// Options.OnEvent. Its String is one line for a log.
//
//	type Event interface {
//		fmt.Stringer
//		// contains filtered or unexported methods
//	}
type Event = core.Event

// Target is where a call can go: a *Pool, or a *Session of one.
//
//	type Target interface {
//		// contains filtered or unexported methods
//	}
type Target = core.Target

// CallOption changes one call.
//
//	type CallOption func(*request)
type CallOption = core.CallOption

// SessionOption changes how the calls of a session choose their worker.
//
//	type SessionOption func(*Session)
type SessionOption = core.SessionOption

// Function answers calls that the peer opens. On the host they come from a worker's ctx.call and ctx.stream. On a
// worker written in Go they are the host's calls. Func and StreamFunc make a Function from a typed function.
//
//	type Function struct {
//		// Run answers one call. Its result or its error is the call's answer. Values sent before it are the items of a
//		// stream. ctx ends when the call is cancelled, its deadline has passed, or the connection is lost. Run may be
//		// called from many goroutines at once. A panic or runtime.Goexit in Run, or in a method of its result or error,
//		// becomes the call's error, and the stack is logged. If the error, or one that it wraps, has a method
//		// SnakepitData() any, the result travels as the error's data: RemoteError.Data decodes it, and in Python it is
//		// RemoteError.data. Data that cannot be sent is left out, and a note says why.
//		Run func(ctx context.Context, call *Incoming) (any, error)
//		// Stream says that Run sends items. A worker announces it in its hello.
//		Stream bool
//	}
type Function = core.Function

// Array is an n-dimensional array in NumPy's form: a numpy.ndarray in Python, nested lists where NumPy is not
// installed. ArrayOf makes one of a slice. When a result is decoded, an array of numbers or booleans also goes into
// slices of as many dimensions, such as []float64 or [][]int; each element is checked as a single number is.
//
// An Array has no lock. Copies share Data.
//
//	type Array struct {
//		DType string // NumPy's dtype string in little endian, such as "<f8" or "|u1"
//		Shape []int  // the length of each dimension; none for a single element
//		Data  []byte // the elements in C order
//	}
//	func (a Array) At(index ...int) any
//	func (a Array) Bools() ([]bool, error)
//	func (a Array) Check() error
//	func (a Array) Float32s() ([]float32, error)
//	func (a Array) Float64s() ([]float64, error)
//	func (a Array) Int32s() ([]int32, error)
//	func (a Array) Int64s() ([]int64, error)
//	func (a Array) Item(i int) any
//	func (a Array) Len() int
//	func (a Array) MarshalJSON() ([]byte, error)
//	func (a Array) Offset(index ...int) int
//	func (a Array) String() string
//	func (a *Array) UnmarshalJSON(text []byte) error
type Array = core.Array

// CallError is the error of every failed call: the command, its worker, the cause, and whether the call may have run.
//
//	type CallError struct {
//		Command    string
//		Worker     int           // index of the worker that had the call; -1 if the call reached none
//		Adapter    string        // such as "grpc"; "" if the call reached no worker
//		MayHaveRun bool          // false: the handler certainly did not start, so a retry is safe
//		Waited     time.Duration // in the queue for a worker
//		Err        error
//	}
//	func (e *CallError) Error() string
//	func (e *CallError) Unwrap() error
type CallError = core.CallError

// RemoteError is an exception that a worker's handler raised, or an error that a Go function returned to a worker.
//
// It matches an [Exception] that names its type or one of its bases. It does not wrap its cause: a KeyError that was
// raised while a ValueError was handled is no ValueError. Cause, Context and Errors are fields to walk.
//
//	type RemoteError struct {
//		Type    string         `json:"type"`                // without its module, such as "JSONDecodeError"
//		Module  string         `json:"module,omitempty"`    // such as "json.decoder"; "" for a builtin
//		Bases   []string       `json:"bases,omitempty"`     // the base classes, the nearest first, such as "ValueError"
//		Message string         `json:"message"`             // str(exception)
//		Value   any            `json:"data,omitempty"`      // the exception's data; Data decodes it
//		Frames  []TraceFrame   `json:"frames,omitempty"`    // the innermost last, as Python prints them
//		Notes   []string       `json:"notes,omitempty"`     // the notes that add_note added
//		Text    string         `json:"traceback,omitempty"` // the traceback as the worker's language prints it, or ""
//		Cause   *RemoteError   `json:"cause,omitempty"`     // what it was raised from
//		Context *RemoteError   `json:"context,omitempty"`   // what was being handled when it was raised, if it has no cause
//		Errors  []*RemoteError `json:"errors,omitempty"`    // the members of an exception group
//		// contains filtered or unexported fields
//	}
//	func (e *RemoteError) Data(v any) error
//	func (e *RemoteError) Error() string
//	func (e *RemoteError) Is(target error) bool
//	func (e *RemoteError) Traceback() string
type RemoteError = core.RemoteError

// TraceFrame is one line of a traceback.
//
//	type TraceFrame struct {
//		File     string `json:"file"`
//		Line     int    `json:"line"` // from 1
//		Function string `json:"function"`
//		Source   string `json:"source,omitempty"` // the source line, trimmed, if it could be read
//	}
type TraceFrame = core.TraceFrame

// Exception is a target for errors.Is. It names a class of exceptions, and matches a RemoteError of that class or of a
// class that is derived from it, as except does in Python. So errors.Is(err, Exception("ValueError")) is true for a
// JSONDecodeError. The name may be bare, such as "JSONDecodeError", or full, such as "json.decoder.JSONDecodeError". A
// bare name matches the class in every module. The names are those that the worker sends: a class that is an alias in
// Python, such as IOError, has its real name, OSError.
//
//	type Exception string //nolint:errname // as in Python
//
//	func (x Exception) Error() string
type Exception = core.Exception

// ItemError is the error of one item of a stream. The stream continues.
//
//	type ItemError struct {
//		Index int64 // the item's place in the stream, from 0; failed items count too
//		Err   error // usually a *RemoteError
//	}
//	func (e *ItemError) Error() string
//	func (e *ItemError) Unwrap() error
type ItemError = core.ItemError

// WorkerExit says how a worker was lost. It is an error that wraps ErrWorkerLost.
//
//	type WorkerExit struct {
//		Worker   int           // the worker's index
//		Adapter  string        // the protocol that it spoke
//		PID      int           // 0 if the pool did not start the process
//		Host     string        // the machine where a back end ran it; "" if it ran on this one
//		ExitCode int           // -1 if a signal ended it, or if Lost is set
//		Signal   string        // such as "killed"; "" if it exited by itself
//		OOM      bool          // the kernel reports that the process was killed because memory ran out
//		Limit    string        // the limit that ended it, such as "Limits.CPUTime (1h0m0s)"; "" if none did
//		Lost     error         // what ended its lease first; nil if its exit is known. A working back end then kills it
//		Cause    error         // the first error on the connection, or nil
//		Stderr   []string      // the last lines that it printed or logged; if it was busy, since its oldest call began
//		Stacks   string        // what its threads did before the pool ended it by force, shortened; or ""
//		Age      time.Duration // since it was started
//		Doing    []string      // the commands that it was running
//		// Recording is the file of its last frames, which is written a moment later; "" without Options.Recorder.
//		Recording string
//	}
//	func (e *WorkerExit) Error() string
//	func (e *WorkerExit) Unwrap() []error
type WorkerExit = core.WorkerExit

// StartError says why a worker could not be started, what it printed last, and what to do.
//
//	type StartError struct {
//		Command string    // the command line
//		Adapter string    // the adapter that was chosen or was being tried
//		Refused []Refusal // the adapters that a chain tried before; Error names them only if Err is ErrProtocol
//		Output  []string  // the last lines that the worker printed
//		Remedy  string    // what to do, or ""
//		Err     error     // what happened
//	}
//	func (e *StartError) Error() string
//	func (e *StartError) Unwrap() error
type StartError = core.StartError
