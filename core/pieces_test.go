package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

const (
	piece     = 240 << 10
	unsplit   = 24 << 20 // the largest body that is sent whole
	largeText = unsplit + 3*piece/2
)

// taking makes workers that take pieces: a function gets the frames of the host in the batches that it reads.
func taking(serve func(worker *coretest.Conn, batch []core.Frame)) scripted {
	return func(worker *coretest.Conn) {
		hello := []byte(`{"versions": [1], "codecs": ["json"], "max_frame": 67108864, "concurrency": 2,
			"window": {"items": 9, "bytes": 99}, "features": ["pieces"]}`)
		err := worker.Write([]core.Frame{{Kind: core.KindHello, Body: hello}})
		for err == nil {
			var batch []core.Frame
			if batch, err = worker.Read(); err == nil {
				serve(worker, batch)
			}
		}
	}
}

func write(t *testing.T, worker *coretest.Conn, frames ...core.Frame) {
	t.Helper()
	if err := worker.Write(frames); err != nil {
		t.Error(err)
	}
}

// cancelled answers a cancel.
func cancelled(f core.Frame) core.Frame {
	return core.Frame{Kind: core.KindError, ID: f.ID, Body: []byte(`{"type":"Cancelled","message":"cancelled"}`)}
}

// A large argument travels in pieces. Other calls and pings go between them, and frames of the same call do not.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, queued := make(chan struct{}), make(chan struct{})
		var order []string
		var body []byte
		p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
			for _, f := range batch {
				name := f.Kind.String()
				if f.Name != "" {
					name += " " + f.Name
				}
				if len(order) == 0 || order[len(order)-1] != name {
					order = append(order, name)
				}
				switch {
				case f.Kind == core.KindPiece:
					if len(f.Body) > piece || (f.Bytes != 0) != (len(body) == 0) {
						t.Errorf("a piece of %d bytes says %d, after %d bytes", len(f.Body), f.Bytes, len(body))
					}
					if body = append(body, f.Body...); f.Bytes != 0 {
						close(begun)
						<-queued
					}
				case f.Kind == core.KindPing:
					write(t, worker, core.Frame{Kind: core.KindPong, ID: f.ID, Body: []byte(`{"running":[]}`)})
				case f.Kind == core.KindCall && f.Name == "large":
					body = append(body, f.Body...)
				case f.Kind == core.KindCall, f.Kind == core.KindEnd:
					write(t, worker, core.Frame{Kind: core.KindEnd, ID: f.ID})
				}
			}
		}), core.Options{Size: 1, Concurrency: 2})
		text := strings.Repeat("x", largeText)
		ended := make(chan error, 3)
		go func() {
			_, err := core.Execute[any](t.Context(), p, "large", text, core.Input(slices.Values([]int{1})))
			ended <- err
		}()
		<-begun
		synctest.Wait() // until the pipe is full, or the next batch may take one of the two frames alone
		go func() { _, err := p.Workers()[0].Health(t.Context()); ended <- err }()
		go func() { _, err := core.Execute[any](t.Context(), p, "small", nil); ended <- err }()
		synctest.Wait()
		close(queued)
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		var got string
		if err := json.Unmarshal(body, &got); err != nil || got != text {
			t.Errorf("%d bytes came: %v", len(body), err)
		}
		want := "hello, piece, ping, call small, piece, call large, item, end"
		if got := strings.Join(order, ", "); got != want {
			t.Errorf("the order is %s, not %s", got, want)
		}
	})
}

// A call of which only pieces were written has not run. It goes to another worker.
func TestLossWhileSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, size := true, 0
		p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
			for _, f := range batch {
				switch {
				case f.Kind == core.KindPiece && first:
					first = false
					_ = worker.Close() // always nil for a coretest.Conn
					return
				case f.Kind == core.KindPiece:
					size += len(f.Body)
				case f.Kind == core.KindCall:
					size += len(f.Body)
					write(t, worker, core.Frame{Kind: core.KindEnd, ID: f.ID})
				}
			}
		}), core.Options{Size: 1})
		if _, err := core.Execute[any](t.Context(), p, "large", strings.Repeat("x", largeText)); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Lost != 1 || size != largeText+2 {
			t.Errorf("%d workers were lost, and %d bytes came", s.Lost, size)
		}
	})
}

// An item of which only pieces were written is given up when its call is cancelled. Other calls go on.
func TestItemGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan struct{})
		var after []string
		p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
			for _, f := range batch {
				switch f.Kind {
				case core.KindCall:
					if f.Name == "any" {
						write(t, worker, core.Frame{Kind: core.KindEnd, ID: f.ID})
					} else {
						write(t, worker, core.Frame{Kind: core.KindCredit, ID: f.ID, Items: 9, Bytes: 64 << 20})
					}
				case core.KindPiece:
					if f.Bytes != 0 {
						cancel()
						<-given
					}
				case core.KindItem, core.KindCancel:
					after = append(after, f.Kind.String())
				}
				if f.Kind == core.KindCancel {
					write(t, worker, cancelled(f))
				}
			}
		}), core.Options{Size: 1})
		input := core.Input(slices.Values([]string{strings.Repeat("x", largeText), "more"}))
		if _, err := core.Execute[any](ctx, p, "inputs", nil, input); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(given)
		if _, err := core.Execute[any](t.Context(), p, "any", nil); err != nil {
			t.Error(err)
		}
		if !slices.Equal(after, []string{"cancel"}) {
			t.Errorf("%q", after)
		}
	})
}

// A peer that does not announce pieces gets large frames whole, and so does one that does if they are not large enough.
func TestUnsplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for size, want := range map[int]string{unsplit - 2: "call", unsplit - 1: "piece"} {
			var kinds []string
			p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
				for _, f := range batch {
					kinds = append(kinds, f.Kind.String())
					if f.Kind == core.KindCall {
						write(t, worker, core.Frame{Kind: core.KindEnd, ID: f.ID})
					}
				}
			}), core.Options{Size: 1})
			if _, err := core.Execute[any](t.Context(), p, "any", strings.Repeat("x", size)); err != nil {
				t.Error(err)
			}
			if len(kinds) < 2 || kinds[1] != want {
				t.Errorf("%d bytes: %.9q", size, kinds)
			}
		}
		p := opened(t, coretest.Conformance(1), core.Options{Size: 1})
		text := strings.Repeat("x", largeText)
		got, err := core.Execute[string](t.Context(), p, "conformance.echo", map[string]any{"value": text})
		if err != nil || got != text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// A call that is cancelled while its frame is on the way is sent to its end, and then cancelled.
func TestCancelWhileSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan struct{})
		var after []string
		p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
			for _, f := range batch {
				switch f.Kind {
				case core.KindPiece:
					cancel()
					<-given
				case core.KindCall, core.KindCancel:
					after = append(after, f.Kind.String()+" "+f.Name)
				}
				if f.Kind == core.KindCancel {
					write(t, worker, cancelled(f))
				}
			}
		}), core.Options{Size: 1})
		_, err := core.Execute[any](ctx, p, "large", strings.Repeat("x", largeText))
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(given)
		synctest.Wait()
		if want := []string{"call large", "cancel the caller has left"}; !slices.Equal(after, want) {
			t.Errorf("%q", after)
		}
		if n := p.Stats().Lost; n != 0 {
			t.Errorf("%d workers were lost", n)
		}
	})
}

// pieces returns a frame in pieces of the given size.
func pieces(f core.Frame, size int) (frames []core.Frame) {
	rest := f.Body
	for ; len(rest) > size; rest = rest[size:] {
		frames = append(frames, core.Frame{Kind: core.KindPiece, ID: f.ID, Body: rest[:size]})
	}
	frames[0].Bytes = int64(len(f.Body))
	f.Body = rest
	return append(frames, f)
}

// Results, items, errors and calls of a worker may come in pieces. A breach ends the connection.
func TestJoin(t *testing.T) {
	ask := core.Frame{Kind: core.KindCall, ID: 2, Name: "host", Flags: core.NoInput, Body: []byte(`"an argument"`)}
	result := func(id uint64) core.Frame {
		return core.Frame{Kind: core.KindEnd, ID: id, Body: []byte(`"a result"`)}
	}
	item := func(id uint64, text string) core.Frame {
		return core.Frame{Kind: core.KindItem, ID: id, Body: []byte(text)}
	}
	for name, c := range map[string]struct {
		frames func(id uint64) []core.Frame
		want   string // the result, or what is said of the breach
	}{
		"a result": {func(id uint64) []core.Frame { return pieces(result(id), 3) }, "a result"},
		"an item, and a result": {func(id uint64) []core.Frame {
			return append(pieces(item(id, `"an item"`), 4), pieces(result(id), 9)...)
		}, "a result"},
		"an item in pieces that other frames interrupt": {func(id uint64) []core.Frame {
			in := pieces(item(id, `"an item"`), 4)
			ping := core.Frame{Kind: core.KindPing, ID: id}
			return slices.Concat(in[:1], []core.Frame{ping, ask}, in[1:], []core.Frame{result(id)})
		}, "a result"},
		"items beyond the bytes granted": {func(id uint64) []core.Frame {
			return slices.Concat(pieces(item(id, `"more than twenty bytes"`), 4), []core.Frame{item(id, "1")})
		}, "an item without credit"},
		"an error": {func(id uint64) []core.Frame {
			return pieces(core.Frame{Kind: core.KindError, ID: id, Body: []byte(`{"type":"E","message":"sorry"}`)}, 4)
		}, "E: sorry"},
		"a call of the worker": {func(id uint64) []core.Frame {
			return append(pieces(ask, 5), result(id))
		}, "a result"},
		"calls of the worker that overtake": {func(id uint64) []core.Frame {
			first := pieces(ask, 5)
			second := ask
			second.ID = 4
			return slices.Concat(first[:1], []core.Frame{second}, first[1:], []core.Frame{result(id)})
		}, "a result"},
		"a body that was given up": {func(id uint64) []core.Frame {
			return append(pieces(item(id, `"an item"`), 4)[:1], result(id))
		}, "its first piece said 9"},
		"pieces of a call that has ended": {func(id uint64) []core.Frame {
			return append([]core.Frame{result(id)}, pieces(item(id, `"an item"`), 4)...)
		}, "a result"},
		"too few bytes": {func(id uint64) []core.Frame {
			in := pieces(result(id), 3)
			in[0].Bytes++
			return in
		}, "a body of 10 bytes, and its first piece said 11"},
		"too many bytes in the frame": {func(id uint64) []core.Frame {
			in := pieces(result(id), 9)
			in[1].Body = []byte(`""`)
			return in
		}, "a body of 11 bytes, and its first piece said 10"},
		"too many bytes in pieces": {func(id uint64) []core.Frame {
			in := pieces(result(id), 3)
			in[1].Body = []byte(`1234567`)
			return in
		}, "pieces of 10 bytes"},
		"no first piece": {func(id uint64) []core.Frame { return pieces(result(id), 3)[1:] }, "has not begun"},
		"two first pieces": {func(id uint64) []core.Frame {
			in := pieces(result(id), 3)
			return slices.Concat(in[:1], in)
		}, "begun already"},
		"a body above the limit": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindPiece, ID: id, Bytes: 64 << 20, Body: []byte("1")}}
		}, "the limit is"},
		"a negative size": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindPiece, ID: id, Bytes: -1, Body: []byte("1")}}
		}, "the limit is"},
		"a call of the host that never was": {func(id uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindPiece, ID: id + 2, Bytes: 9, Body: []byte("1")}}
		}, "never used"},
		"the call 0": {func(uint64) []core.Frame {
			return []core.Frame{{Kind: core.KindPiece, Bytes: 9, Body: []byte("1")}}
		}, "never used"},
		"an end where a call began": {func(uint64) []core.Frame {
			in := pieces(ask, 5)
			in[len(in)-1].Kind = core.KindEnd
			return in
		}, "another kind of frame"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var asked []string
				host := core.Func(func(_ context.Context, s string) (any, error) {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, s)
					return nil, nil
				})
				p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
					for _, f := range batch {
						if f.Kind == core.KindCall {
							_ = worker.Write(c.frames(f.ID)) // the host may have ended the connection
						}
					}
				}), core.Options{
					Size: 1, WindowItems: 4, WindowBytes: 20, Functions: map[string]core.Function{"host": host},
				})
				var got string
				var err error
				for _, itemErr := range core.ExecuteStream[any](t.Context(), p, "go", nil, core.Result(&got)) {
					err = itemErr
				}
				if got != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v, %v; want %q", got, err, c.want)
				}
				synctest.Wait()
				isBreach := errors.Is(err, core.ErrWorkerLost)
				if lost := p.Stats().Lost > 0; lost != isBreach || isBreach && !errors.Is(err, core.ErrProtocol) {
					t.Errorf("lost: %t, %v", lost, err)
				}
				if strings.Contains(name, "of the worker") && !isBreach {
					for _, s := range asked {
						if s != "an argument" {
							t.Errorf("the argument is %q", s)
						}
					}
					if len(asked) == 0 {
						t.Error("the function was not called")
					}
				}
			})
		})
	}
}

// A worker's calls in pieces count against its limit from their first piece on. Those beyond it are refused, even if a
// call has ended by then, and what they carry is not kept.
func TestJoinsAreLimited(t *testing.T) {
	const limit = 64
	var refused []uint64
	ran := 0
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan struct{})
		p := opened(t, taking(func(worker *coretest.Conn, batch []core.Frame) {
			for _, f := range batch {
				switch f.Kind {
				case core.KindHello:
					var begins, ends []core.Frame
					for id := range uint64(limit + 2) {
						in := pieces(core.Frame{
							Kind: core.KindCall, ID: 2 * (id + 1), Name: "host", Flags: core.NoInput,
							Body: fmt.Append(nil, `"argument `, id, `"`),
						}, 5)
						begins, ends = append(begins, in[0]), append(ends, in[1:]...)
					}
					write(t, worker, begins...)
					for _, f := range ends { // each call has ended when the next one arrives
						write(t, worker, f)
						synctest.Wait()
					}
					close(sent)
				case core.KindError:
					if !bytes.Contains(f.Body, []byte("Saturated")) {
						t.Errorf("%s", f.Body)
					}
					refused = append(refused, f.ID)
				}
			}
		}), core.Options{Size: 1, Functions: map[string]core.Function{
			"host": core.Func(func(_ context.Context, s string) (any, error) { ran++; return nil, nil }),
		}})
		<-sent
		synctest.Wait()
		if n := p.Stats().Lost; n != 0 {
			t.Errorf("%d workers were lost", n)
		}
	})
	if !slices.Equal(refused, []uint64{2*limit + 2, 2*limit + 4}) || ran != limit {
		t.Errorf("refused: %d; %d ran", refused, ran)
	}
}
