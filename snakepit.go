// Package snakepit runs a pool of worker processes, mostly Python, and calls them as if they were local. Execute
// returns one result. ExecuteStream yields many. Calls of a Session always reach the same worker. An adapter
// carries the calls: Open uses the first that works of gRPC, MessagePack, and JSON on standard input and output.
//
// The package is thin. It puts together core, the adapters, the chain and the Python package, and names what the
// common case needs. Core alone can be configured in the same ways.
package snakepit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/fallback"
	"github.com/snakepit-go/snakepit/observe/debugpage"
	"github.com/snakepit-go/snakepit/python"
)

// Program is what workers run. Python, PythonFS and Command make one. python.Program has all the options of a Python
// worker.
type Program interface {
	// Command returns the command that starts one worker. Open calls it once.
	Command() (core.Command, error)
}

// Python is a worker in a Python file. A relative path is relative to the working directory. The fields of the result
// choose the interpreter, the environment and the directories. Package python describes the default interpreter.
func Python(script string, args ...string) python.Program {
	return python.Program{Script: script, Args: args}
}

// PythonFS is a Python worker embedded in the Go binary. script is a path in fsys. All of fsys is unpacked to the
// user's cache directory.
func PythonFS(fsys fs.FS, script string) python.Program {
	return python.Program{Script: script, FS: fsys}
}

// Command is a worker in any language: an executable that speaks the protocol of docs/protocol.md. SNAKEPIT_PROTOCOL
// tells it which encoding to use. Open a program that speaks only one with that adapter alone, such as
// OpenWith(ctx, jsonstdio.Adapter{}, ...): a chain cannot find out that it does not understand the others.
func Command(path string, args ...string) Program {
	return command{Path: path, Args: args}
}

type command core.Command

func (c command) Command() (core.Command, error) { return core.Command(c), nil }

// Debug returns a page that shows in a browser what the pool's workers do, and why those that were lost have ended. It
// is to the pool what net/http/pprof is to the program, and belongs where only operators reach it:
//
//	mux.Handle("/debug/snakepit/", snakepit.Debug(pool))
//
// The page watches the pool from now on, until it is closed. It changes nothing. debugpage.New has options, such as to
// allow changes, and can offer the page on a Unix socket.
func Debug(p *Pool) http.Handler { return debugpage.New(p, nil) }

// Default is the chain that Open uses. gRPC comes first, because such a worker also serves clients in other languages
// and health checks. A pool that starts on one of the others works as well, and faster for small values.
const Default = "grpc,msgpack,jsonstdio"

// Open starts a pool of workers on the default chain, or on the chain that SNAKEPIT_ADAPTERS names. Each worker
// runs on the first adapter that works there. Stats and the log name it, and say why the earlier ones were refused.
// Open returns when one worker is ready; ctx bounds only that wait. A nil opts means the defaults. The caller owns
// the pool and must Close it.
//
// With SNAKEPIT_ADAPTERS=attach it is Attach at the usual socket: somebody starts the worker, perhaps in a debugger.
func Open(ctx context.Context, program Program, opts *Options) (*Pool, error) {
	if os.Getenv("SNAKEPIT_ADAPTERS") == attach {
		return Attach(ctx, "", opts)
	}
	adapter, err := Adapters("auto")
	if err != nil {
		return nil, err
	}
	return OpenWith(ctx, adapter, program, opts)
}

// OpenWith is Open on the given adapter, whatever SNAKEPIT_ADAPTERS says.
func OpenWith(ctx context.Context, adapter core.Adapter, program Program, opts *Options) (*Pool, error) {
	if program == nil {
		return nil, errors.New(`no program: pass one, such as snakepit.Python("worker.py")`)
	}
	cmd, err := program.Command()
	if err != nil {
		return nil, err
	}
	return core.Open(ctx, adapter, cmd, opts)
}

// attach is the value of SNAKEPIT_ADAPTERS that has Open wait for a worker.
const attach = "attach"

// Attach opens a pool of one worker that somebody starts by hand, such as in a debugger: by "snakepit run worker.py",
// or by running the Python file with SNAKEPIT_ATTACH=PATH. It waits for that worker, and for another one after its end.
// The log names the commands. socket is the path of a Unix socket; "" means the usual one, which "snakepit run" takes,
// too.
//
// Nothing may end because somebody thinks at a breakpoint. So the time limits of calls, starts, cancels and sessions
// are off, whatever opts says. Deadlines of contexts are not. There is no Size, Recycle or Limits. opts may be nil. The
// caller owns the pool and must Close it.
func Attach(ctx context.Context, socket string, opts *Options) (*Pool, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	const never = 365 * 24 * time.Hour
	o.Size, o.MinSize, o.StartBudget, o.Surge, o.Concurrency = 1, 1, -1, -1, 0
	o.Recycle, o.Limits, o.Wedged, o.Watch = Recycle{}, Limits{}, WedgedIgnore, false
	o.CallTimeout, o.StreamTimeout, o.SessionIdle = -1, -1, -1
	o.StartTimeout, o.CancelGrace = never, never
	log := o.Logger
	if log == nil {
		log = hclog.New(&hclog.LoggerOptions{Name: cmp.Or(o.Name, "snakepit"), Output: os.Stderr})
	}
	adapter := msgpack.Attach{Socket: socket, Waiting: func(path string) {
		log.Info("waiting for a worker", "start_one_by", "snakepit run worker.py --socket "+path,
			"or_by", "SNAKEPIT_ATTACH="+path+" python worker.py")
	}}
	return core.Open(ctx, adapter, core.Command{}, &o)
}

// Adapters makes a chain of a list of names such as "grpc,jsonstdio", the preferred one first. "auto" is the list
// that SNAKEPIT_ADAPTERS has, or else Default. An unknown name is an error that lists the known ones.
func Adapters(names string) (core.Adapter, error) {
	parse := func(names string) (core.Adapter, error) {
		return fallback.Parse(names, grpc.Adapter{}, msgpack.Adapter{}, jsonstdio.Adapter{})
	}
	if names != "auto" {
		return parse(names)
	}
	names = os.Getenv("SNAKEPIT_ADAPTERS")
	if names == "" || names == "auto" {
		adapter, err := parse(Default)
		if chain, ok := adapter.(*fallback.Chain); ok {
			chain.Default = true
		}
		return adapter, err
	}
	adapter, err := parse(names)
	if err != nil {
		return nil, fmt.Errorf("the environment's SNAKEPIT_ADAPTERS: %w", err)
	}
	return adapter, nil
}

// Execute calls a command and returns its result; see core.Execute.
func Execute[Out any](ctx context.Context, target Target, command string, args any, opts ...CallOption) (Out, error) {
	return core.Execute[Out](ctx, target, command, args, opts...)
}

// ExecuteStream calls a command and yields what it sends; see core.ExecuteStream. An *ItemError is the error of one
// item: the stream goes on. Any other error is the last. Breaking out of the loop cancels the call.
func ExecuteStream[Out any](
	ctx context.Context, target Target, command string, args any, opts ...CallOption,
) iter.Seq2[Out, error] {
	return core.ExecuteStream[Out](ctx, target, command, args, opts...)
}

// Result has a stream's result, a Python generator's return value, decoded into v; see core.Result.
func Result(v any) CallOption { return core.Result(v) }

// Timeout bounds one call in place of the pool's option; negative means no limit. See core.Timeout.
func Timeout(d time.Duration) CallOption { return core.Timeout(d) }

// Priority orders the calls that wait: those with a higher n are served first. See core.Priority.
func Priority(n int) CallOption { return core.Priority(n) }

// NoWait makes a call fail with ErrSaturated at once if it would have to wait for a worker; see core.NoWait.
func NoWait() CallOption { return core.NoWait() }

// Hint makes a session prefer its worker, and take another one while that is busy; see core.Hint.
func Hint() SessionOption { return core.Hint() }

// Input streams values to the handler; see core.Input.
func Input[T any](seq iter.Seq[T]) CallOption { return core.Input(seq) }

// WithMetadata returns a context whose calls carry md to the handler, as ctx.metadata.
func WithMetadata(ctx context.Context, md map[string]string) context.Context {
	return core.WithMetadata(ctx, md)
}

// WithTenant returns a context whose calls belong to a tenant. Waiting tenants take turns. See core.WithTenant.
func WithTenant(ctx context.Context, name string) context.Context { return core.WithTenant(ctx, name) }

// Func makes a function of Options.Functions, which workers call by ctx.call.
func Func[In, Out any](f func(context.Context, In) (Out, error)) Function { return core.Func(f) }

// StreamFunc makes a function of Options.Functions, which workers call by ctx.stream.
func StreamFunc[In, Out any](f func(context.Context, In) iter.Seq2[Out, error]) Function {
	return core.StreamFunc(f)
}

// FromSlog makes an Options.Logger of a *slog.Logger.
func FromSlog(l *slog.Logger) hclog.Logger { return core.FromSlog(l) }

// ArrayOf makes an array of values in C order. In Python it is a numpy.ndarray, or nested lists without NumPy. Without
// a shape it has one dimension. It shares the values' memory; see core.ArrayOf.
func ArrayOf[E core.Element](values []E, shape ...int) Array { return core.ArrayOf(values, shape...) }

// ArrayOfRows makes an array of two dimensions of equally long rows; see core.ArrayOfRows.
func ArrayOfRows[E core.Element](rows [][]E) (Array, error) { return core.ArrayOfRows(rows) }

// MayHaveRun reports whether the call that err came from may have run; see core.MayHaveRun.
func MayHaveRun(err error) bool { return core.MayHaveRun(err) }

// What the pool does about a worker that answers no pings; see core.WedgedPolicy.
const (
	WedgedLog     = core.WedgedLog
	WedgedReplace = core.WedgedReplace
	WedgedIgnore  = core.WedgedIgnore
)

// What a program decides on, under errors.Is.
var (
	ErrUnavailable    = core.ErrUnavailable
	ErrNoRoom         = core.ErrNoRoom
	ErrSaturated      = core.ErrSaturated
	ErrWorkerLost     = core.ErrWorkerLost
	ErrClosed         = core.ErrClosed
	ErrSessionLost    = core.ErrSessionLost
	ErrUnknownCommand = core.ErrUnknownCommand
	ErrCrashLoop      = core.ErrCrashLoop
	ErrFrameTooLarge  = core.ErrFrameTooLarge
	ErrBadArguments   = core.ErrBadArguments
	ErrNoData         = core.ErrNoData
	ErrProtocol       = core.ErrProtocol
)
