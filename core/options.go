package core

import (
	"fmt"
	"maps"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Command is the program that a worker runs. Package python makes one from a Python file; any other executable that speaks the protocol
// of docs/protocol.md will do.
type Command struct {
	Path    string   // the executable; looked up in PATH if it has no separator
	Args    []string // without the executable's own name
	Dir     string   // working directory; "" means the host's
	Env     []string // added to the host's environment, "KEY=value"
	Reports bool     // the program writes the report of docs/protocol.md; package python's does
	Remedy  string   // what to do if the program ends without that report, for StartError.Hint; or ""
}

// Options configure a Pool. A nil *Options, and each zero field, means the default that its comment states. A pool copies them: what is
// changed after Open has no effect.
type Options struct {
	// Name names the pool in logs and in the workers' environment. "" means "snakepit".
	Name string
	// Size is the number of workers, at most 1024. 0 means the processors that this program may use (GOMAXPROCS, so a container's limit
	// counts), four at most.
	Size int
	// Concurrency caps how many calls one worker runs at once. 0 means what the worker announces.
	Concurrency int
	// Queue is how many calls may wait for a worker before ErrSaturated. 0 means 1,000; negative means none may wait.
	Queue int

	// CallTimeout bounds Execute, and StreamTimeout ExecuteStream, where the context has no deadline: waiting and running together.
	// 0 means 30 s and 300 s; negative means no limit.
	CallTimeout   time.Duration
	StreamTimeout time.Duration
	// StartTimeout bounds one worker's start, up to its hello. 0 means 60 s.
	StartTimeout time.Duration
	// CancelGrace is how long a cancelled call may go on in its worker before that takes no new calls, and is stopped
	// once nothing else runs or lives there. 0 means 5 s.
	CancelGrace time.Duration
	// StopTimeout bounds Close, and stopping one worker: half of it to end by itself, the rest after SIGTERM. 0 means 5 s.
	StopTimeout time.Duration
	// SessionIdle is how long an unused session is kept. 0 means 30 min; negative means for ever.
	SessionIdle time.Duration

	// MaxFrame is the largest frame in bytes, one value's size, in both directions. 0 means 64 MiB; most is 1 GiB. A worker or an
	// adapter that takes less has its way.
	MaxFrame int
	// WindowItems and WindowBytes are what a stream may send ahead of its consumer. 0 means 1,024 items and 1 MiB.
	WindowItems int
	WindowBytes int

	// Functions are what workers may call, by name. See Func and StreamFunc. One that calls this pool needs a slot
	// beside that of the call which it serves; if every slot waits for such a function, it gets ErrSaturated.
	Functions map[string]Function

	// Dir is a directory that the pool may write to, for its private directory with sockets. "" means os.TempDir().
	Dir string
	// Logger gets the pool's log and what workers print and log. nil means standard error, at the level in
	// SNAKEPIT_LOG, else info. FromSlog makes one from a *slog.Logger. It is called by one goroutine of the pool's,
	// which holds no lock, so it may be slow, panic or call the pool. What a logger that is too slow does not get is
	// counted, and the count is logged.
	Logger hclog.Logger
}

// DefaultMaxFrame is the frame limit where nothing else is said: 64 MiB.
const DefaultMaxFrame = 64 << 20

// resolve returns a copy with the defaults filled in, or an error that names the field and the value that make no sense.
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
		{"Size", &r.Size, min(runtime.GOMAXPROCS(0), 4), 1, 1024},
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
				return r, fmt.Errorf("option %s is %d; it has to be positive, or 0 for what the worker announces", f.name, *f.value)
			}
			return r, fmt.Errorf("option %s is %d; the least is %d, and 0 means %d", f.name, *f.value, f.least, f.def)
		}
		if f.most > 0 && *f.value > f.most {
			return r, fmt.Errorf("option %s is %d; the most is %d, and 0 means %d", f.name, *f.value, f.most, f.def)
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
