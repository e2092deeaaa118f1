package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// scripted makes workers that run a function on their end of the connection.
type scripted func(worker *coretest.Conn)

func (scripted) Name() string { return "scripted" }

func (f scripted) Start(context.Context, *core.Launcher) (*core.Link, error) {
	host, worker := coretest.Pipe()
	go func() {
		f(worker)
		_ = worker.Close() // always nil for a coretest.Conn
	}()
	return &core.Link{Conn: host, Codecs: []core.Codec{codec.Codec{}}}, nil
}

// scriptedLimit is the frame size limit of scripted workers.
const scriptedLimit = 1 << 20

// frames says hello and yields the incoming frames. It ends when the caller breaks off or the host closes its side.
func frames(worker *coretest.Conn) iter.Seq[core.Frame] {
	return func(yield func(core.Frame) bool) {
		hello := fmt.Sprintf(`{"versions": [1], "codecs": ["json"], "max_frame": %d, "concurrency": 9,
			"window": {"items": 9, "bytes": 99}}`, scriptedLimit)
		err := worker.Write([]core.Frame{{Kind: core.KindHello, Body: []byte(hello)}})
		for err == nil {
			var batch []core.Frame
			batch, err = worker.Read()
			for _, f := range batch {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// opened returns a pool and closes it when the test ends.
func opened(t *testing.T, a core.Adapter, o core.Options) *core.Pool {
	t.Helper()
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	p, err := core.Open(t.Context(), a, core.Command{}, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rogue makes workers that answer the call "go" with the frames that their function builds from the call's id. They
// answer the end of its input with an end, any other call with null, and "wait" not at all.
type rogue struct{ frames func(id uint64) []core.Frame }

func (rogue) Name() string { return "rogue" }

func (r rogue) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	return scripted(func(worker *coretest.Conn) {
		var err error
		for f := range frames(worker) {
			switch {
			case f.Kind == core.KindCall && f.Name == "go":
				err = worker.Write(r.frames(f.ID))
			case f.Kind == core.KindCall && f.Name != "wait", f.Kind == core.KindEnd:
				err = worker.Write([]core.Frame{{Kind: core.KindEnd, ID: f.ID}})
			}
			if err != nil { // the host has closed the connection
				return
			}
		}
	}).Start(ctx, l)
}

// A frame that the protocol forbids ends the worker's connection. Each of its calls gets one error, which names the
// breach. A frame that crossed another on the way is no breach.
func TestBreaches(t *testing.T) {
	item := func(id uint64, body string) core.Frame {
		return core.Frame{Kind: core.KindItem, ID: id, Body: []byte(body)}
	}
	one := func(kind core.Kind) func(id uint64) []core.Frame {
		return func(id uint64) []core.Frame { return []core.Frame{{Kind: kind, ID: id}} }
	}
	ask := core.Frame{Kind: core.KindCall, ID: 2, Name: "host"}
	sized := func(size int) func(id uint64) []core.Frame { // a result in a frame of that size
		return func(id uint64) []core.Frame {
			f := core.Frame{Kind: core.KindEnd, ID: id}
			f.Body = append(bytes.Repeat([]byte(" "), size-f.Size()-1), '5')
			return []core.Frame{f}
		}
	}
	for name, c := range map[string]struct {
		frames func(id uint64) []core.Frame
		breach string // "": no breach
	}{
		"more items than granted": {func(id uint64) []core.Frame {
			return slices.Repeat([]core.Frame{item(id, "1")}, 5)
		}, "an item without credit"},
		"more bytes than granted": {func(id uint64) []core.Frame {
			return slices.Repeat([]core.Frame{item(id, `"sixteen bytes.."`)}, 3)
		}, "an item without credit"},
		"as many bytes as granted, and one more": {func(id uint64) []core.Frame {
			return []core.Frame{item(id, `"01234567"`), item(id, `"01234567"`), item(id, "1")}
		}, "an item without credit"},
		"an end of a call that never was": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindEnd, ID: id + 2}}
		}, "an id that was never used"},
		"an item of the call 0": {func(uint64) []core.Frame {
			return []core.Frame{item(0, "1")}
		}, "an id that was never used"},
		"an item of its own, never made": {func(uint64) []core.Frame {
			return []core.Frame{item(4, "1")}
		}, "an id that was never used"},
		"a frame above the limit that it said itself": {sized(scriptedLimit + 1), "the limit is 1048576"},
		"a frame as large as the limit":               {sized(scriptedLimit), ""},
		"negative credit": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindCredit, ID: id, Items: -1}}
		}, "negative credit"},
		"a second hello":                     {one(core.KindHello), "unexpected kind of frame"},
		"a kind that there is not":           {one(core.KindState + 1), "unexpected kind of frame"},
		"a piece, which it did not announce": {one(core.KindPiece), "was not agreed on"},
		"a call with an id of the host's": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindCall, ID: id + 2, Name: "host"}}
		}, "not the peer's next"},
		"a call with an id beyond 53 bits": {func(uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindCall, ID: 1 << 53}}
		}, "not the peer's next"},
		"a call with an id used before": {func(uint64) []core.Frame {
			return []core.Frame{ask, ask}
		}, "not the peer's next"},
		"a second end of its input": {func(uint64) []core.Frame {
			return []core.Frame{ask, {Kind: core.KindEnd, ID: 2}, {Kind: core.KindEnd, ID: 2}}
		}, "a second end"},
		"an item behind its input's end": {func(uint64) []core.Frame {
			return []core.Frame{ask, {Kind: core.KindEnd, ID: 2}, item(2, "1")}
		}, "an item after the end"},
		"calls whose answers it does not read": {func(uint64) (frames []core.Frame) {
			for id := range uint64(1 << 17) {
				frames = append(frames, core.Frame{Kind: core.KindCall, ID: 2 * (id + 1), Name: "nobody"})
			}
			return frames
		}, "more calls than answers are read"},
		"pings whose answers it does not read": {func(uint64) []core.Frame {
			return slices.Repeat([]core.Frame{{Kind: core.KindPing}}, 1<<17)
		}, "more pings than answers are read"},
		"an error that says a call did not start, behind an item": {func(id uint64) []core.Frame {
			return []core.Frame{item(id, "1"),
				{Kind: core.KindError, Flags: core.NotStarted, ID: id,
					Body: []byte(`{"type":"Draining","message":"bye"}`)}}
		}, "the call did not start"},
		"what follows an end": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindEnd, ID: id}, {Kind: core.KindEnd, ID: id}, item(id, "1"),
				{Kind: core.KindCredit, ID: id, Items: 1}}
		}, ""},
		"endless credit": {func(id uint64) []core.Frame {
			most := core.Frame{Kind: core.KindCredit, ID: id, Items: 1<<63 - 1, Bytes: 1<<63 - 1}
			return []core.Frame{most, most}
		}, ""},
		"a credit of nothing": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindCredit, ID: id}, {Kind: core.KindEnd, ID: id}}
		}, ""},
		"a pong to no ping": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindPong, ID: 77}, {Kind: core.KindEnd, ID: id}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				p := opened(t, rogue{c.frames}, core.Options{
					Size: 1, WindowItems: 4, WindowBytes: 20,
					Functions: map[string]core.Function{"host": core.Func(func(context.Context, any) (any, error) {
						<-release
						return nil, nil
					})},
				})
				defer close(release)
				other := make(chan error, 1)
				go func() { _, err := core.Execute[any](t.Context(), p, "wait", nil, core.Timeout(-1)); other <- err }()
				synctest.Wait()
				var opts []core.CallOption
				if name == "endless credit" {
					opts = append(opts, core.Input(slices.Values(make([]int, 100))))
				}
				_, err := core.Execute[any](t.Context(), p, "go", nil, opts...)
				synctest.Wait()
				if c.breach == "" {
					if s := p.Stats(); s.Lost != 0 || err != nil {
						t.Errorf("%v, %+v", err, s)
					}
					return
				}
				if err == nil {
					t.Error("no error")
				}
				if err := <-other; !errors.Is(err, core.ErrWorkerLost) || !errors.Is(err, core.ErrProtocol) ||
					!strings.Contains(err.Error(), c.breach) {
					t.Errorf("the other call's error is %v, not %q", err, c.breach)
				}
				if _, err := core.Execute[any](t.Context(), p, "echo", nil); err != nil {
					t.Error("the replacement:", err)
				}
			})
		})
	}
}

// A call is sent if its frame is exactly as large as the limit, and fails if it is one byte larger.
func TestArgumentsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := opened(t, rogue{}, core.Options{Size: 1})
		most := scriptedLimit - (&core.Frame{Name: "echo", Body: []byte(`""`)}).Size()
		for size, want := range map[int]error{most: nil, most + 1: core.ErrFrameTooLarge} {
			_, err := core.Execute[any](t.Context(), p, "echo", strings.Repeat("x", size))
			if !errors.Is(err, want) || core.MayHaveRun(err) && err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
}

// Frames that a worker sends between the host's bye and its own end still arrive.
func TestLastWordsAfterBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newSpy(func(*spy, string) {})
		byes := 0
		p, err := core.Open(t.Context(), scripted(func(worker *coretest.Conn) {
			for f := range frames(worker) { // until the connection ends
				if f.Kind == core.KindBye {
					byes++
				}
			}
			synctest.Wait() // until the host only waits
			last := []byte(`{"level": "info", "message": "the last word"}`)
			if err := worker.Write([]core.Frame{{Kind: core.KindLog, Body: last}}); err != nil {
				t.Error(err)
			}
		}), core.Command{}, &core.Options{Size: 1, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if byes != 1 {
			t.Errorf("%d byes", byes)
		}
		if countPrefix(log.lines(), "the last word") != 1 {
			t.Errorf("the log: %q", log.lines())
		}
	})
}

// ask calls the host function from a scripted worker.
func ask(t *testing.T, worker *coretest.Conn, id uint64) {
	t.Helper()
	call := core.Frame{Kind: core.KindCall, ID: id, Name: "host", Flags: core.NoInput}
	if err := worker.Write([]core.Frame{call}); err != nil {
		t.Error(err)
	}
}

// The host accepts as many calls of a worker as it announced. It refuses more until one of them has ended.
func TestCallsOfAWorkerAreLimited(t *testing.T) {
	const limit = 64
	release := make(chan struct{})
	var refused, answered []uint64
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		opened(t, scripted(func(worker *coretest.Conn) {
			next := uint64(2)
			call := func(n int) {
				for ; n > 0; n-- {
					ask(t, worker, next)
					next += 2
				}
			}
			for f := range frames(worker) {
				switch f.Kind {
				case core.KindHello:
					call(limit + 2)
				case core.KindError:
					refused = append(refused, f.ID)
				case core.KindEnd:
					if answered = append(answered, f.ID); len(answered) == limit {
						call(1)
					}
				}
			}
		}), core.Options{Size: 1, Functions: map[string]core.Function{
			"host": core.Func(func(context.Context, any) (any, error) { <-release; return nil, nil }),
		}})
		synctest.Wait()
		close(release)
		synctest.Wait()
	})
	if !slices.Equal(refused, []uint64{2*limit + 2, 2*limit + 4}) || len(answered) != limit+1 {
		t.Errorf("refused: %d; %d answers", refused, len(answered))
	}
}

// The answer to a function's call fits into a frame, however long its error's text is.
func TestLongErrorsFit(t *testing.T) {
	const limit = scriptedLimit
	edge := limit - 256 - len(`{"type":"error","message":""}`)
	for _, size := range []int{edge - 1, edge, edge + 1, edge + 256, edge + 512, limit, 2 * limit} {
		synctest.Test(t, func(t *testing.T) {
			answered := make(chan core.Frame, 1)
			opened(t, scripted(func(worker *coretest.Conn) {
				for f := range frames(worker) {
					switch f.Kind {
					case core.KindHello:
						ask(t, worker, 2)
					case core.KindError:
						answered <- f
					}
				}
			}), core.Options{Size: 1, Functions: map[string]core.Function{
				"host": core.Func(func(context.Context, any) (any, error) {
					return nil, errors.New(strings.Repeat("x", size))
				}),
			}})
			f := <-answered
			var e core.RemoteError
			err := codec.Codec{}.Decode(f.Body, &e)
			if err != nil || f.Size() > limit || !strings.HasPrefix(e.Message, "xxx") {
				t.Errorf("a message of %d bytes goes in a frame of %d; %v", size, f.Size(), err)
			}
			if whole := len(e.Message) == size; whole != (size <= edge) {
				t.Errorf("a message of %d bytes arrives with %d", size, len(e.Message))
			}
		})
	}
}

func TestObituaryNamesEachCommandOnce(t *testing.T) {
	o := &core.WorkerExit{Worker: 1, PID: 7, ExitCode: 3, Doing: []string{"sum", "wait", "sum", "sum"}}
	if said := o.Error(); !strings.Contains(said, "while running sum (3 calls), wait") {
		t.Error(said)
	}
}

// A call that every worker refuses moves nine times at most. Then it fails as a call that did not run.
func TestMovesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		a := rogue{func(id uint64) []core.Frame {
			tries.Add(1)
			body := []byte(`{"type": "Saturated", "message": "not now"}`)
			return []core.Frame{{Kind: core.KindError, Flags: core.NotStarted, ID: id, Body: body}}
		}}
		p := opened(t, a, core.Options{Size: 2})
		_, err := core.Execute[any](t.Context(), p, "go", nil)
		if n := tries.Swap(0); n != 9 || core.MayHaveRun(err) || !strings.Contains(err.Error(), "not now") {
			t.Errorf("Execute: %d tries; %v", n, err)
		}
		for _, err := range core.ExecuteStream[any](t.Context(), p, "go", nil) {
			if n := tries.Load(); n != 9 || core.MayHaveRun(err) {
				t.Errorf("ExecuteStream: %d tries; %v", n, err)
			}
		}
	})
}

// Other workers run the same program. So arguments that do not fit are not tried on another worker.
func TestBadArgumentsAreAnErrorOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		body := []byte(`{"type": "BadArguments", "message": "n: expected an integer, got 'x'"}`)
		flags := core.NotStarted
		a := rogue{func(id uint64) []core.Frame {
			tries.Add(1)
			return []core.Frame{{Kind: core.KindError, Flags: flags, ID: id, Body: body}}
		}}
		p := opened(t, a, core.Options{Size: 2})
		_, err := core.Execute[any](t.Context(), p, "go", nil)
		if n := tries.Load(); n != 1 || !errors.Is(err, core.ErrBadArguments) || core.MayHaveRun(err) {
			t.Errorf("%d tries; %v", n, err)
		}
		if errors.Is(err, core.ErrFrameTooLarge) || errors.Is(err, core.ErrUnknownCommand) {
			t.Errorf("it is another error, too: %v", err)
		}
		flags = 0 // a worker that finds out while its handler runs
		if _, err := core.Execute[any](t.Context(), p, "go", nil); !errors.Is(err, core.ErrBadArguments) ||
			!core.MayHaveRun(err) {
			t.Error(err)
		}
		body = []byte(`{"type": "ValueError", "message": "BadArguments"}`)
		if _, err := core.Execute[any](t.Context(), p, "go", nil); errors.Is(err, core.ErrBadArguments) {
			t.Error(err)
		}
	})
}

// If a worker does not list its commands, the pool cannot know which of them stream. The result of such a call is its
// one item, unless the caller asks for the stream's result.
func TestResultOfAnUnlistedCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := rogue{func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindEnd, ID: id, Body: []byte("7")}}
		}}
		p := opened(t, a, core.Options{Size: 1})
		var result int
		for want, opts := range map[int][]core.CallOption{1: nil, 0: {core.Result(&result)}} {
			items := 0
			for v, err := range core.ExecuteStream[int](t.Context(), p, "go", nil, opts...) {
				if items++; err != nil || v != 7 {
					t.Errorf("the item is %d, %v", v, err)
				}
			}
			if items != want {
				t.Errorf("%d items, not %d", items, want)
			}
		}
		if result != 7 {
			t.Errorf("the result is %d", result)
		}
	})
}
