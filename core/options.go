package core

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Command is the program that a worker runs. Package python makes one from a Python file. Any other executable that
// speaks the protocol of docs/protocol.md works too.
type Command struct {
	Path    string   // the executable; looked up in PATH if it has no separator
	Args    []string // without the executable's own name
	Dir     string   // working directory; "" means the host's
	Env     []string // added to the host's environment, "KEY=value"
	Reports bool     // the program writes the report of docs/protocol.md, as those of package python do
	Remedy  string   // the remedy in StartError if the program sends no usable report; or ""
	// ForkServer starts one process that imports the program, and forks the workers from it. All of them together
	// take the time of about one import, and share its memory until they use it. It needs Linux, and a program
	// that can be asked to fork. Those of package python can. Other programs cannot count on this interface: it
	// may change.
	ForkServer bool
	// Sources are the program's files, for Options.Watch. The last element of a path may be a pattern of
	// path.Match, such as "*.py". It then covers the directories below, too, except hidden ones, virtual
	// environments and caches.
	Sources []string
	// Source is the program for adapters that run it elsewhere; nil if it can run only here.
	Source *Source
}

// Source is a program as files. An adapter copies them to where the program is to run.
type Source struct {
	Files   fs.FS    // the program's own files; hidden ones, virtual environments and caches are no part of it
	Script  string   // its main file, a path in Files
	Args    []string // its arguments
	Support fs.FS    // what runs it: for Python the package snakepit_bridge
}

// Options configure a Pool. A nil *Options, and each zero field, means the default that the field's comment states. A
// pool copies its options: later changes have no effect.
type Options struct {
	// Name is the pool's name in logs and in the workers' environment. "" means "snakepit".
	Name string
	// Size is the number of workers, at most 1024. 0 means the number of processors that this program may
	// use (GOMAXPROCS, which respects a container's limit), but at most four.
	Size int
	// MinSize is the number of workers that the pool keeps without calls. It starts so many, and at least
	// one, and adds others up to Size as soon as callers wait. A worker that has had no call and no session
	// for IdleTime leaves. 0 means Size: the pool does not grow or shrink. Negative means none.
	MinSize int
	// IdleTime is how long a worker above MinSize may be idle. 0 means 1 min.
	IdleTime time.Duration
	// StartLimit is how many workers may be starting at once. 0 means the number of processors that this
	// program may use, but at least 2.
	StartLimit int
	// StartBudget is how many starts of one worker may fail in a row. After that the pool stops trying,
	// logs why, and only probes: one start every 30 s, for the whole pool. Once a probed worker answers a
	// call, or has run for 10 s, all are started again. A worker that ends earlier, and has answered no
	// call, counts as a failed start. 0 means 10; negative means no limit.
	StartBudget int
	// Warmup is a call that has to succeed before a worker is ready. StartTimeout includes it.
	Warmup Warmup
	// Recycle says when a worker is replaced by a fresh one.
	Recycle Recycle
	// Surge is how many workers more than Size may be starting to replace others, for Recycle and
	// Pool.Reload. So it is also how many are replaced at once. 0 means 1. Negative means none, such as for
	// a GPU that has no memory for two: one worker at a time leaves before its replacement starts. If it
	// has sessions without a snapshot, it first waits for their end.
	Surge int
	// Limits bound what one worker may use.
	Limits Limits
	// WorkerEnv returns more variables, "KEY=value", for the worker at an index, such as
	// CUDA_VISIBLE_DEVICES. It is called at each start, perhaps from several goroutines at once. A panic in
	// it is the start's error.
	WorkerEnv func(index int) []string
	// Wedged says what the pool does about a worker that has answered no ping for WedgedAfter. 0 is
	// WedgedLog, after 1 min. The pool pings each worker four times in WedgedAfter.
	Wedged      WedgedPolicy
	WedgedAfter time.Duration
	// Watch reloads the pool when a file of the program changes, for development. See Pool.Reload. If the
	// program cannot be loaded, the error is logged, and the old workers serve on. It needs
	// Command.Sources. Package python sets it if the program has no FS.
	Watch bool
	// Concurrency limits how many calls one worker runs at once. 0 means the number that the worker
	// announces.
	Concurrency int
	// Queue is how many calls may wait for a worker before ErrSaturated. 0 means 1,000; negative means none
	// may wait.
	Queue int

	// CallTimeout bounds Execute, and StreamTimeout bounds ExecuteStream, if the context has no deadline.
	// They include the wait for a worker. 0 means 30 s and 300 s; negative means no limit.
	CallTimeout   time.Duration
	StreamTimeout time.Duration
	// StartTimeout bounds one worker's start, up to its hello, and with Warmup up to the end of that call. 0
	// means 60 s.
	StartTimeout time.Duration
	// CancelGrace is how long a cancelled call may keep running in its worker. After that the worker
	// accepts no new calls until that call ends, and it is stopped once no other call runs there. A worker
	// with sessions accepts calls until such calls hold all its slots. 0 means 5 s.
	CancelGrace time.Duration
	// StopTimeout bounds Close, and the stop of one worker: half of it before SIGTERM, the rest before
	// SIGKILL. 0 means 5 s.
	StopTimeout time.Duration
	// SessionIdle is how long an unused session is kept. 0 means 30 min; negative means for ever.
	SessionIdle time.Duration
	// MaxSessions is how many sessions the pool may have at once. The first call of another one gets
	// ErrSaturated. 0 means 10,000; negative means any number.
	MaxSessions int
	// MaxSnapshot is the largest snapshot of a session in bytes. The pool keeps the snapshot so that the
	// session survives its worker. A session whose snapshot is larger is lost with its worker, and the log
	// says so once. 0 means 1 MiB; negative means that the pool keeps none.
	MaxSnapshot int

	// MaxFrame is the largest frame in bytes, in both directions. One value has to fit in one frame. 0
	// means 64 MiB; the maximum is 1 GiB. If the worker or the adapter has a lower limit, that limit
	// applies.
	MaxFrame int
	// WindowItems and WindowBytes are how many items and bytes a stream may send ahead of its consumer. 0
	// means 1,024 items and 1 MiB.
	WindowItems int
	WindowBytes int

	// Functions are the functions that workers may call, by name. See Func and StreamFunc. A function that
	// calls this pool needs a second slot besides the slot of the call that it serves. If every slot waits
	// for such a function, it gets ErrSaturated.
	Functions map[string]Function

	// OnEvent is called with each event of the pool, in order, by one goroutine of the pool and without a
	// lock. So it may be slow, panic or call the pool. If it is too slow, events are dropped; an
	// EventsMissed says how many.
	OnEvent func(Event)

	// Recorder records the last frames of each worker, for the case that it is lost.
	Recorder Recorder

	// Dir is a writable directory in which the pool makes its private directory for sockets. "" means
	// os.TempDir().
	Dir string
	// Logger receives the pool's log, and the output and log records of workers. nil means standard error,
	// at the level in SNAKEPIT_LOG, else info. FromSlog makes a Logger from a *slog.Logger. One goroutine
	// of the pool calls it, without a lock, so it may be slow, panic or call the pool. If it is too slow,
	// messages are dropped and counted, and the count is logged.
	Logger hclog.Logger
}

// maxSize is the largest pool.
const maxSize = 1024

// DefaultMaxFrame is the default frame limit: 64 MiB.
const DefaultMaxFrame = 64 << 20

// resolve returns a copy with the defaults filled in, or an error that names the bad field and its value.
func (o *Options) resolve() (Options, error) {
	var r Options
	if o != nil {
		r = *o
	}
	for _, f := range []struct {
		name  string
		value *int
		def   int
		least int
		most  int // 0: any
	}{
		{"Size", &r.Size, min(runtime.GOMAXPROCS(0), 4), 1, maxSize},
		{"StartLimit", &r.StartLimit, max(2, runtime.GOMAXPROCS(0)), 1, 0},
		{"Concurrency", &r.Concurrency, 0, 0, 0},
		{"MaxFrame", &r.MaxFrame, DefaultMaxFrame, 4096, 1 << 30},
		{"WindowItems", &r.WindowItems, int(defaultWindow.Items), 1, 0},
		{"WindowBytes", &r.WindowBytes, int(defaultWindow.Bytes), 1, 0},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < f.least {
			if f.def == 0 {
				return r, fmt.Errorf(
					"option %s is %d; it has to be positive, or 0 for what the worker announces", f.name, *f.value)
			}
			return r, fmt.Errorf("option %s is %d; the minimum is %d, and 0 means %d", f.name, *f.value, f.least, f.def)
		}
		if f.most > 0 && *f.value > f.most {
			return r, fmt.Errorf("option %s is %d; the maximum is %d, and 0 means %d", f.name, *f.value, f.most, f.def)
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
		none  bool // negative means no limit
	}{
		{"CallTimeout", &r.CallTimeout, 30 * time.Second, true},
		{"StreamTimeout", &r.StreamTimeout, 300 * time.Second, true},
		{"SessionIdle", &r.SessionIdle, 30 * time.Minute, true},
		{"StartTimeout", &r.StartTimeout, 60 * time.Second, false},
		{"CancelGrace", &r.CancelGrace, 5 * time.Second, false},
		{"StopTimeout", &r.StopTimeout, 5 * time.Second, false},
		{"IdleTime", &r.IdleTime, time.Minute, false},
		{"WedgedAfter", &r.WedgedAfter, time.Minute, false},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < 0 && !f.none {
			return r, fmt.Errorf("option %s is %s; it has to be positive, and 0 means %s", f.name, *f.value, f.def)
		}
	}
	if r.Queue == 0 {
		r.Queue = 1000
	}
	if r.StartBudget == 0 {
		r.StartBudget = 10
	}
	if r.MaxSessions == 0 {
		r.MaxSessions = 10_000
	}
	if r.MaxSnapshot == 0 {
		r.MaxSnapshot = 1 << 20
	}
	if r.Surge == 0 {
		r.Surge = 1
	}
	switch {
	case r.MinSize > r.Size:
		return r, fmt.Errorf("option MinSize is %d, and Size is %d; MinSize may not be larger", r.MinSize, r.Size)
	case r.MinSize == 0:
		r.MinSize = r.Size
	case r.MinSize < 0:
		r.MinSize = 0
	}
	if err := cmp.Or(r.Recycle.check(), r.Limits.check(), r.Recorder.check()); err != nil {
		return r, err
	}
	if r.Limits.Memory > 0 && r.Recycle.Memory >= r.Limits.Memory {
		return r, fmt.Errorf("option Recycle.Memory is %d bytes, and Limits.Memory is %d, which ends a worker before "+
			"it is replaced; set a smaller Recycle.Memory", r.Recycle.Memory, r.Limits.Memory)
	}
	if r.Wedged > WedgedIgnore {
		return r, fmt.Errorf("option Wedged is %d; use WedgedLog, WedgedReplace or WedgedIgnore", r.Wedged)
	}
	if r.Warmup.Command == "" && r.Warmup.Args != nil {
		return r, errors.New("option Warmup has Args and no Command")
	}
	if r.Name == "" {
		r.Name = "snakepit"
	}
	for name, f := range r.Functions {
		if f.Run == nil {
			return r, fmt.Errorf("option Functions has %q with no Run", name)
		}
	}
	r.Functions = maps.Clone(r.Functions)
	return r, nil
}
