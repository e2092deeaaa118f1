package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// The suite is worth what it finds. Each mutant below is an adapter, a worker or a codec with one thing wrong, and names the clause that
// has to catch it. They run in bubbles on a false clock, where a clause's time limit costs nothing.

// mutant is something broken.
type mutant struct {
	name   string
	clause string
	make   func(m *mutation) core.Adapter
}

// mutation is one mutant at work.
type mutation struct {
	mu    sync.Mutex
	conns []core.Conn   // the sound ones underneath
	done  chan struct{} // closed when the mutant is no longer needed
}

// release ends whatever a mutant keeps from ending.
func (m *mutation) release() {
	close(m.done)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
}

// wrapped is an adapter whose links are changed.
type wrapped struct {
	core.Adapter
	m      *mutation
	change func(ctx context.Context, l *core.Link)
}

func (a *wrapped) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	a.m.mu.Lock()
	a.m.conns = append(a.m.conns, link.Conn)
	a.m.mu.Unlock()
	a.change(ctx, link)
	return link, nil
}

func linked(change func(m *mutation, ctx context.Context, l *core.Link)) func(*mutation) core.Adapter {
	return func(m *mutation) core.Adapter {
		return &wrapped{coretest.Conformance(4), m, func(ctx context.Context, l *core.Link) { change(m, ctx, l) }}
	}
}

// onConn changes the connection.
func onConn(change func(m *mutation, c core.Conn) core.Conn) func(*mutation) core.Adapter {
	return linked(func(m *mutation, _ context.Context, l *core.Link) { l.Conn = change(m, l.Conn) })
}

// onCodec changes the codec.
func onCodec(change func(c core.Codec) core.Codec) func(*mutation) core.Adapter {
	return linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Codecs = []core.Codec{change(l.Codecs[0])} })
}

// filter changes frames on their way. Either function may be nil. They return the frames that go on in the place of one, and may keep
// state; they are called under one lock.
type filter struct {
	core.Conn
	mu      *sync.Mutex
	read    func(f core.Frame) []core.Frame
	written func(f core.Frame) []core.Frame
}

func (c *filter) Read() ([]core.Frame, error) {
	for {
		frames, err := c.Conn.Read()
		if err != nil || c.read == nil {
			return frames, err
		}
		var all []core.Frame
		c.mu.Lock()
		for _, f := range frames {
			all = append(all, c.read(f)...)
		}
		c.mu.Unlock()
		if len(all) > 0 {
			return all, nil
		}
	}
}

func (c *filter) Write(frames []core.Frame) error {
	if c.written == nil {
		return c.Conn.Write(frames)
	}
	var all []core.Frame
	c.mu.Lock()
	for _, f := range frames {
		all = append(all, c.written(f)...)
	}
	c.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return c.Conn.Write(all)
}

type frameFunc = func(f core.Frame) []core.Frame

// frames makes a mutant of functions that change what is read and what is written. make is called for each connection.
func frames(makeFilters func(c core.Conn) (read, written frameFunc)) func(*mutation) core.Adapter {
	return onConn(func(_ *mutation, c core.Conn) core.Conn {
		read, written := makeFilters(c)
		return &filter{c, &sync.Mutex{}, read, written}
	})
}

// reading changes each frame that comes from the worker; writing each that goes there. A frame of kind 0 is dropped.
func reading(change func(f *core.Frame)) func(*mutation) core.Adapter {
	return frames(func(core.Conn) (frameFunc, frameFunc) { return one(change), nil })
}

func writing(change func(f *core.Frame)) func(*mutation) core.Adapter {
	return frames(func(core.Conn) (frameFunc, frameFunc) { return nil, one(change) })
}

func one(change func(f *core.Frame)) frameFunc {
	return func(f core.Frame) []core.Frame {
		if change(&f); f.Kind == 0 {
			return nil
		}
		return []core.Frame{f}
	}
}

func drop(f *core.Frame) { f.Kind = 0 }

// helloOf changes the fields of a hello.
func helloOf(f *core.Frame, change func(hello map[string]any)) {
	if f.Kind != core.KindHello {
		return
	}
	var hello map[string]any
	if err := json.Unmarshal(f.Body, &hello); err != nil {
		panic(err)
	}
	change(hello)
	f.Body, _ = json.Marshal(hello)
}

var mutants = []mutant{
	// Adapters.
	{"has a name in capitals", "start/name", func(m *mutation) core.Adapter { return named{coretest.Conformance(4), "CoreTest"} }},
	{"has two codecs of one name", "start/link", linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Codecs = append(l.Codecs, l.Codecs[0]) })},
	{"has a limit below the least", "start/link", linked(func(_ *mutation, _ context.Context, l *core.Link) { l.MaxFrame = 100 })},
	{"never lets a frame through", "start/hello", reading(drop)},
	{"ends with the context of Start", "start/outlives-ctx", linked(func(_ *mutation, ctx context.Context, l *core.Link) {
		c := l.Conn
		context.AfterFunc(ctx, func() { _ = c.Close() })
	})},
	{"does not look at the context of Start", "start/ctx-done", func(m *mutation) core.Adapter { return &slow{coretest.Conformance(4), m} }},
	{"has one worker for all", "start/parallel", func(m *mutation) core.Adapter { return &shared{Adapter: coretest.Conformance(4), m: m} }},
	{"leaves a goroutine behind", "start/leaves-nothing", onConn(func(m *mutation, c core.Conn) core.Conn {
		go func() { <-m.done }()
		return c
	})},
	{"ignores the token", "start/token", reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { delete(h, "token") }) })},
	{"takes every failure of a launch for a broken worker", "start/unavailable", func(m *mutation) core.Adapter { return &hushed{coretest.Conformance(4)} }},
	{"says where nobody listens", "start/endpoint", linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Endpoint = "unix:/no/such/socket" })},
	{"shuffles frames", "frames/order", frames(func(core.Conn) (frameFunc, frameFunc) {
		var kept []core.Frame
		return nil, func(f core.Frame) []core.Frame {
			if f.Kind == core.KindPing && f.ID == 3 { // goes after the next
				kept = append(kept, f)
				return nil
			}
			out := append([]core.Frame{f}, kept...)
			kept = nil
			return out
		}
	})},
	{"loses the end of a large batch", "frames/batch", onConn(func(_ *mutation, c core.Conn) core.Conn { return &cutBatch{c} })},
	{"turns an empty batch into an error", "frames/empty-batch", onConn(func(_ *mutation, c core.Conn) core.Conn { return &noEmpty{c} })},
	{"waits for company before it writes", "frames/prompt", frames(func(core.Conn) (frameFunc, frameFunc) {
		var kept []core.Frame
		return nil, func(f core.Frame) []core.Frame {
			kept = append(kept, f)
			if f.Kind == core.KindPing && len(kept) < 2 {
				return nil
			}
			out := kept
			kept = nil
			return out
		}
	})},
	{"returns frames and an error together", "frames/read-result", onConn(func(_ *mutation, c core.Conn) core.Conn { return &together{Conn: c} })},
	{"returns nothing and no error", "frames/read-result", onConn(func(_ *mutation, c core.Conn) core.Conn { return &nothing{Conn: c} })},
	{"loses metadata", "frames/fields", writing(func(f *core.Frame) { f.Meta = nil })},
	{"drops bytes above 0x7f", "frames/text", writing(func(f *core.Frame) { f.Session = ascii(f.Session) })},
	{"drops bytes above 0x7f of what the worker calls", "frames/text-back", reading(func(f *core.Frame) { f.Name = ascii(f.Name) })},
	{"rounds large numbers", "frames/numbers", writing(func(f *core.Frame) { f.ID = uint64(float32(f.ID)) })},
	{"takes a line feed for the end of a body", "frames/body", writing(func(f *core.Frame) {
		if i := bytes.Index(f.Body, []byte(`\n`)); i >= 0 && f.Kind == core.KindCall {
			f.Body = append(f.Body[:i:i], `"}`...)
		}
	})},
	{"makes an empty body of none", "frames/no-body", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && f.Body == nil {
			f.Body = []byte(`""`)
		}
	})},
	{"cuts large frames short", "frames/largest", writing(func(f *core.Frame) {
		if len(f.Body) > 4<<20 {
			f.Body = f.Body[:4<<20]
		}
	})},
	{"hands out one buffer again and again", "frames/owned-by-reader", onConn(func(_ *mutation, c core.Conn) core.Conn { return &oneBuffer{Conn: c} })},
	{"keeps the batch that it was given", "frames/retains-nothing", onConn(func(m *mutation, c core.Conn) core.Conn { return newLate(m, c) })},
	{"writes of several calls the first alone", "frames/both-ways", onConn(func(_ *mutation, c core.Conn) core.Conn { return &halfDuplex{c} })},
	{"loses at CloseWrite what it was about to send", "close/write-side", onConn(func(m *mutation, c core.Conn) core.Conn { return newLate(m, c) })},
	{"reports the peer's end as a failure", "close/eof", onConn(func(_ *mutation, c core.Conn) core.Conn { return &noEOF{c} })},
	{"does not unblock Read", "close/unblocks-read", onConn(func(_ *mutation, c core.Conn) core.Conn { return &deaf{c} })},
	{"waits in Close for what does not come", "close/unblocks-read", onConn(func(m *mutation, c core.Conn) core.Conn { return &waiting{c, m} })},
	{"fails when closed twice", "close/again", onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c} })},
	{"writes into the void after Close", "close/then-errors", onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c, silent: true} })},
	{"writes into the void when the peer has gone", "close/lost-write", onConn(func(_ *mutation, c core.Conn) core.Conn { return &closeOnce{Conn: c, silent: true} })},
	{"does not notice the loss of a worker", "close/loss", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},

	// Codecs.
	{"overwrites what was there", "codec/append", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, append: func(_ []byte, v any) ([]byte, error) { return c.Append(nil, v) }}
	})},
	{"leaves half a value behind", "codec/append-error", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, append: func(dst []byte, v any) ([]byte, error) {
			out, err := c.Append(dst, v)
			if err != nil {
				out = append(out, "{\"half\":"...)
			}
			return out, err
		}}
	})},
	{"turns 5 into 5.0", "codec/round-trip", decoding(func(_ []byte, v any) any {
		if n, ok := v.(int64); ok {
			return float64(n)
		}
		return v
	})},
	{"turns nil into text", "codec/round-trip", decoding(func(_ []byte, v any) any {
		if v == nil {
			return "None"
		}
		return v
	})},
	{"keeps what it was given to decode", "codec/keeps-nothing", decoding(func(b []byte, v any) any {
		if m, ok := v.(map[string]any); ok {
			if text, ok := m["text"].(string); ok && text != "" {
				if i := bytes.Index(b, []byte(text)); i >= 0 {
					m["text"] = unsafe.String(&b[i], len(text))
				}
			}
		}
		return v
	})},
	{"takes what it can and ignores the rest", "codec/whole", lenient(func(b []byte) bool { return bytes.HasSuffix(b, []byte("}{")) || bytes.Contains(b, []byte("}{")) })},
	{"decodes into anything", "codec/target", lenient(func(b []byte) bool { return string(b) == "1" })},
	{"narrows in silence", "codec/narrowing", lenient(func(b []byte) bool { return bytes.Contains(b, []byte("300")) })},
	{"nests without limit", "codec/nesting", lenient(func(b []byte) bool { return bytes.Count(b, []byte("[")) > 500 })},
	{"allocates what is claimed", "codec/allocation", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			if bytes.Contains(b, []byte("4000000000")) {
				ballast = make([]byte, 64<<20)
			}
			return c.Decode(b, v)
		}}
	})},
	{"takes the last of two equal keys", "codec/hostile", lenient(func(b []byte) bool { return string(b) == `{"a":1,"a":2}` })},
	{"panics on nonsense", "codec/hostile", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			if len(b) == 9 && b[0] == 0xc1 {
				panic("what is that?")
			}
			return c.Decode(b, v)
		}}
	})},
	{"lets its target's panic through", "codec/methods", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if err != nil && strings.Contains(err.Error(), "on purpose") {
				panic(err)
			}
			return err
		}}
	})},
	{"encodes what another goroutine gave it", "codec/stateless", onCodec(newForgetful)},

	// Workers: hello and calls.
	{"speaks before the host has", "hello/first", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindHello {
				return []core.Frame{f, {Kind: core.KindLog, Body: []byte(`{"level":"info","logger":"x","message":"eager"}`)}}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"speaks another version", "hello/version", reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["versions"] = []int{7} }) })},
	{"takes no calls", "hello/limits", reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["concurrency"] = 0 }) })},
	{"says nothing of itself", "hello/identity", reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["runtime"] = "" }) })},
	{"does not say which commands stream", "hello/commands", reading(func(f *core.Frame) {
		if f.Kind == core.KindHello {
			f.Body = bytes.ReplaceAll(f.Body, []byte(`,"stream":true`), nil)
		}
	})},
	{"has a command with a reserved name", "hello/commands", reading(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) {
			h["commands"] = append(h["commands"].([]any), map[string]any{"name": "snakepit.mine"})
		})
	})},
	{"gives up at a field that it does not know", "hello/unknown", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindHello && bytes.Contains(f.Body, []byte("weather")) {
				_ = c.Close()
			}
		})
	})},
	{"says end twice", "call/result", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindEnd {
				return []core.Frame{f, f}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"takes a list for several arguments", "call/arguments", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && bytes.HasPrefix(f.Body, []byte("[")) {
			f.Body = []byte(`"a"`)
		}
	})},
	{"never answers what has wrong arguments", "call/wrong-arguments", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("BadArguments")) {
			drop(f)
		}
	})},
	{"does not say that a call did not start", "call/unknown", reading(func(f *core.Frame) { f.Flags &^= core.NotStarted })},
	{"takes a body that can't be decoded for nil", "call/undecodable", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && !json.Valid(f.Body) && f.Body != nil {
			f.Body = nil
		}
	})},
	{"advertises more calls than it takes", "call/at-once", reading(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["concurrency"] = 9 })
	})},
	{"does not say why it refuses a call too many", "call/saturated", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte("Saturated"), []byte("Busy"), 1)
		}
	})},
	{"runs one call more than was agreed", "call/saturated", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["concurrency"] = h["concurrency"].(float64) + 1 })
	})},
	{"swaps the answers of two calls", "call/ids", frames(swapped)},
	{"ends the connection for what crossed an end", "call/ended", frames(func(c core.Conn) (frameFunc, frameFunc) {
		over := map[uint64]bool{}
		return one(func(f *core.Frame) { over[f.ID] = over[f.ID] || terminal(f) }), one(func(f *core.Frame) {
			if f.Kind == core.KindCancel && over[f.ID] {
				_ = c.Close()
			}
		})
	})},
	{"ignores ids that never were", "call/never-was", frames(func(core.Conn) (frameFunc, frameFunc) {
		open := map[uint64]bool{}
		return one(func(f *core.Frame) { open[f.ID] = true }), one(func(f *core.Frame) {
			open[f.ID] = open[f.ID] || f.Kind == core.KindCall
			if f.Kind == core.KindCancel && !open[f.ID] {
				drop(f)
			}
		})
	})},
	{"takes ids in any order", "call/id-order", frames(func(core.Conn) (frameFunc, frameFunc) {
		last := uint64(0)
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindCall && (f.ID < last || f.ID%2 == 0) {
				drop(f)
			}
			last = max(last, f.ID)
		})
	})},
	{"gives a call the metadata of the one before", "call/metadata", frames(func(core.Conn) (frameFunc, frameFunc) {
		var last map[string]string
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindCall && f.Meta == nil {
				f.Meta = last
			} else if f.Kind == core.KindCall {
				last = f.Meta
			}
		})
	})},
	{"sends results above the limit", "call/result-too-large", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["max_frame"] = 1 << 20 })
	})},
	{"garbles messages", "error/shape", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = []byte(ascii(string(f.Body)))
		}
	})},
	{"loses the cause", "error/cause", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"cause":{`), []byte(`"reason":{`), 1)
		}
	})},
	{"sends what it can't as nil", "error/unsendable", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("BadResult")) {
			f.Kind, f.Body = core.KindEnd, nil
		}
	})},

	// Workers: callbacks and sessions.
	{"forgets the parent of a callback", "callback/call", reading(func(f *core.Frame) { f.Parent = 0 })},
	{"forgets the session of a callback", "callback/context", reading(func(f *core.Frame) { f.Session = "" })},
	{"hands the caller's metadata on", "callback/context", frames(func(core.Conn) (frameFunc, frameFunc) {
		var meta map[string]string
		return one(func(f *core.Frame) {
				if f.Kind == core.KindCall {
					f.Meta = meta
				}
			}), one(func(f *core.Frame) {
				if f.Kind == core.KindCall {
					meta = f.Meta
				}
			})
	})},
	{"makes up a time limit for callbacks", "callback/context", reading(func(f *core.Frame) {
		if f.Kind == core.KindCall && f.TTL == 0 {
			f.TTL = time.Hour
		}
	})},
	{"uses an id again", "callback/ids", frames(func(core.Conn) (frameFunc, frameFunc) {
		latest := uint64(0)
		return one(func(f *core.Frame) {
				if f.Kind == core.KindCall {
					latest, f.ID = f.ID, 2
				}
			}), one(func(f *core.Frame) {
				if f.ID == 2 {
					f.ID = latest
				}
			})
	})},
	{"calls back as often as it likes", "callback/limit", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["calls"] = 64 })
	})},
	{"takes the host's error for a result", "callback/error", writing(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Kind, f.Flags = core.KindEnd, 0
		}
	})},
	{"loses the type of the host's error", "callback/error", writing(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte("Sorry"), []byte("Error"), 1)
		}
	})},
	{"takes an answer of the host's that can't be decoded for nil", "callback/undecodable", writing(func(f *core.Frame) {
		if f.Kind == core.KindEnd && bytes.IndexByte(f.Body, 0xff) >= 0 {
			f.Body = nil
		}
	})},
	{"takes one item of a callback for all", "callback/stream", frames(func(core.Conn) (frameFunc, frameFunc) {
		n := 0
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindItem && f.ID%2 == 0 {
				if n++; n > 1 {
					drop(f)
				}
			}
		})
	})},
	{"leaves callbacks of a cancelled call open", "callback/cancelled", frames(func(core.Conn) (frameFunc, frameFunc) {
		asked := map[uint64]bool{}
		return one(func(f *core.Frame) {
			if f.Kind == core.KindCall {
				asked[f.Parent] = true
			}
			if f.Kind == core.KindCancel && f.ID%2 == 0 || terminal(f) && asked[f.ID] {
				drop(f)
			}
		}), nil
	})},
	{"cancels a callback when it has answered its own call", "callback/cancelled", frames(func(core.Conn) (frameFunc, frameFunc) {
		var held []core.Frame
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindCancel && f.ID%2 == 0 {
				held = append(held, f)
				return nil
			}
			out := append([]core.Frame{f}, held...)
			held = nil
			return out
		}, nil
	})},
	{"lets a cancel overtake its call", "callback/cancel-order", frames(func(core.Conn) (frameFunc, frameFunc) {
		var held []core.Frame
		return func(f core.Frame) []core.Frame {
			switch {
			case f.Kind == core.KindCall:
				held = append(held, f)
				return nil
			case f.Kind == core.KindPong:
				return []core.Frame{f}
			}
			out := append([]core.Frame{f}, held...)
			held = nil
			return out
		}, nil
	})},
	{"has one state for all sessions", "session/state", writing(func(f *core.Frame) {
		if f.Session != "" {
			f.Session = "all"
		}
	})},
	{"does not tell the session's id", "session/id", writing(func(f *core.Frame) { f.Session = "" })},
	{"does not forget", "session/forget", writing(func(f *core.Frame) {
		if f.Name == "snakepit.forget" {
			f.Session = "another"
		}
	})},
	{"loses the time limit", "deadline/remaining", writing(func(f *core.Frame) { f.TTL = 0 })},
	{"makes up a time limit", "deadline/none", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && f.TTL == 0 {
			f.TTL = time.Hour
		}
	})},

	// Workers: values.
	{"loses what is not ASCII", "value/plain", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd {
			f.Body = []byte(ascii(string(f.Body)))
		}
	})},
	{"announces exact-numbers and has floats", "value/exact", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd {
			f.Body = bytes.ReplaceAll(f.Body, []byte("5.0"), []byte("5"))
		}
	})},
	{"has seconds, and no parts of them", "value/time", reading(func(f *core.Frame) {
		if i := bytes.Index(f.Body, []byte(".678901Z")); i >= 0 {
			f.Body = slices.Delete(bytes.Clone(f.Body), i, i+len(".678901"))
		}
	})},
	{"rounds times up", "value/time", reading(func(f *core.Frame) {
		f.Body = bytes.Replace(f.Body, []byte(".678901999Z"), []byte(".678902Z"), 1)
	})},
	{"flattens arrays", "value/array", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"shape":[2,3]`), []byte(`"shape":[6]`))
	})},
	{"refuses what nests as deep as may be", "value/nesting", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd && bytes.Count(f.Body, []byte("[")) > 400 {
			f.Kind, f.Body = core.KindError, []byte(`{"type":"TooDeep","message":"too deep"}`)
		}
	})},
	{"takes the last of two equal keys deep inside", "value/equal-keys", forgiving(func(a attack) [][]byte { return a.equalKeys[2:3] })},
	{"takes a key with an escape for another key", "value/equal-keys", forgiving(func(a attack) [][]byte { return a.equalKeys[3:4] })},
	{"takes an unknown tag in a list for a map", "value/tags", forgiving(func(a attack) [][]byte { return a.tags[1:2] })},
	{"takes base64 of another alphabet", "value/tags", forgiving(func(a attack) [][]byte { return a.tags[7:8] })},
	{"takes an array with a byte too many", "value/array-length", forgiving(func(a attack) [][]byte { return a.arrays[1:2] })},
	{"takes an array with negative lengths", "value/array-length", forgiving(func(a attack) [][]byte { return a.arrays[5:6] })},
	{"takes half a surrogate pair in a long text", "value/surrogates", forgiving(func(a attack) [][]byte { return a.halves[len(a.halves)-1:] })},
	{"takes a surrogate pair for two errors", "value/surrogates", writing(func(f *core.Frame) {
		if string(f.Body) == `"\ud83d\ude00"` {
			f.Body = []byte(`"\ufffd\ufffd"`)
		}
	})},
	{"ignores what follows a value", "value/whole", forgiving(func(a attack) [][]byte { return a.trailing[:1] })},
	{"cuts long values", "value/large", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd && len(f.Body) > 1<<20 {
			f.Body = []byte(`"..."`)
		}
	})},
	{"loses nil in inputs", "value/in-streams", writing(func(f *core.Frame) {
		if f.Kind == core.KindItem {
			f.Body = bytes.ReplaceAll(f.Body, []byte("null,"), nil)
		}
	})},

	// Workers: streams, credit and cancelling.
	{"loses the last item", "stream/items", frames(func(core.Conn) (frameFunc, frameFunc) {
		return heldItems(func(kept []core.Frame, end core.Frame) []core.Frame { return []core.Frame{end} }), nil
	})},
	{"lets the end overtake the last item", "credit/end-after-items", frames(func(core.Conn) (frameFunc, frameFunc) {
		return heldItems(func(kept []core.Frame, end core.Frame) []core.Frame { return append([]core.Frame{end}, kept...) }), nil
	})},
	{"makes an item of an empty stream's end", "stream/empty", frames(func(core.Conn) (frameFunc, frameFunc) {
		any := map[uint64]bool{}
		return func(f core.Frame) []core.Frame {
			any[f.ID] = any[f.ID] || f.Kind == core.KindItem
			if f.Kind == core.KindEnd && !any[f.ID] {
				return []core.Frame{{Kind: core.KindItem, ID: f.ID, Body: []byte("0")}, f}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"loses an item in a thousand", "stream/many", frames(func(core.Conn) (frameFunc, frameFunc) {
		n := 0
		return one(func(f *core.Frame) {
			if f.Kind == core.KindItem {
				if n++; n%1000 == 0 {
					drop(f)
				}
			}
		}), nil
	})},
	{"sends all items at the end", "stream/prompt", frames(func(core.Conn) (frameFunc, frameFunc) {
		kept := map[uint64][]core.Frame{}
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindItem {
				kept[f.ID] = append(kept[f.ID], f)
				return nil
			}
			out := append(kept[f.ID], f)
			delete(kept, f.ID)
			return out
		}, nil
	})},
	{"takes a failed item for a good one", "stream/failed-items", reading(func(f *core.Frame) { f.Flags &^= core.Failed })},
	{"ends a stream that fails as if it were whole", "stream/error", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("as asked")) {
			f.Kind, f.Body = core.KindEnd, nil
		}
	})},
	{"sends items after the end", "stream/nothing-after", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindEnd {
				return []core.Frame{f, {Kind: core.KindItem, ID: f.ID, Body: []byte("9")}}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"loses an input", "input/read", frames(func(core.Conn) (frameFunc, frameFunc) {
		n := 0
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindItem {
				if n++; n == 50 {
					f.Body = []byte("0")
				}
			}
		})
	})},
	{"waits for input where there is none", "input/none", writing(func(f *core.Frame) { f.Flags &^= core.NoInput })},
	{"fails when the input is not wanted", "input/unread", frames(func(core.Conn) (frameFunc, frameFunc) {
		return one(func(f *core.Frame) {
			if f.Kind == core.KindEnd && string(f.Body) == `"the first"` {
				f.Kind, f.Body = core.KindError, []byte(`{"type":"Unread","message":"there is more"}`)
			}
		}), nil
	})},
	{"ends the input at a failed item", "input/failed-items", writing(func(f *core.Frame) {
		if f.Kind == core.KindItem && f.Flags&core.Failed != 0 {
			f.Kind, f.Flags, f.Body = core.KindEnd, 0, nil
		}
	})},
	{"skips inputs that it can't decode", "input/undecodable", writing(func(f *core.Frame) {
		if f.Kind == core.KindItem && !json.Valid(f.Body) {
			drop(f)
		}
	})},
	{"takes items after the end", "input/after-end", frames(func(core.Conn) (frameFunc, frameFunc) {
		over := map[uint64]bool{}
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindItem && over[f.ID] {
				drop(f)
			}
			over[f.ID] = over[f.ID] || f.Kind == core.KindEnd
		})
	})},
	{"takes a second end for nothing", "input/second-end", frames(func(core.Conn) (frameFunc, frameFunc) {
		over := map[uint64]bool{}
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindEnd && over[f.ID] {
				drop(f)
			}
			over[f.ID] = over[f.ID] || f.Kind == core.KindEnd || f.Kind == core.KindCall && f.Flags&core.NoInput != 0
		})
	})},
	{"falls silent when there are more items than it granted", "credit/overrun", frames(func(core.Conn) (frameFunc, frameFunc) {
		items := 0
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindItem {
				items++
			}
			if items > 1024 {
				drop(f)
			}
		})
	})},
	{"ignores credit", "credit/items", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["window"] = window{1 << 30, 1 << 40} })
	})},
	{"ignores bytes", "credit/bytes", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["window"].(map[string]any)["bytes"] = 1 << 40 })
	})},
	{"never sends an item larger than the window", "credit/large-item", reading(func(f *core.Frame) {
		if f.Kind == core.KindItem && len(f.Body) > 1500 {
			drop(f)
		}
	})},
	{"gives failed items away", "credit/failed-items", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Flags&core.Failed != 0 && f.Kind == core.KindItem {
				go func() { _ = c.Write([]core.Frame{{Kind: core.KindCredit, ID: f.ID, Items: 1}}) }()
			}
			return []core.Frame{f}
		}, nil
	})},
	{"keeps the end until there is credit", "credit/end-is-free", frames(func(core.Conn) (frameFunc, frameFunc) {
		items := 0
		return one(func(f *core.Frame) {
			if f.Kind == core.KindItem {
				items++
			}
			if f.Kind == core.KindEnd && items == 3 {
				drop(f)
			}
		}), nil
	})},
	{"has one credit for all calls", "credit/per-call", frames(func(core.Conn) (frameFunc, frameFunc) {
		items := 0
		return one(func(f *core.Frame) {
			if f.Kind == core.KindItem {
				items++
			}
			if f.Kind == core.KindPong && items == 1 {
				drop(f)
			}
		}), nil
	})},
	{"never grants credit", "credit/given", reading(func(f *core.Frame) {
		if f.Kind == core.KindCredit {
			drop(f)
		}
	})},
	{"grants items and no bytes", "credit/given", reading(func(f *core.Frame) {
		if f.Kind == core.KindCredit {
			f.Bytes = 0
		}
	})},
	{"grants credit for what its handler does not take", "credit/consumed", writing(func(f *core.Frame) {
		if f.Name == "conformance.wait" && f.Flags&core.NoInput == 0 {
			f.Name = "conformance.sum"
		}
	})},
	{"grants more bytes than have come", "credit/consumed", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindItem && f.ID%2 == 1 {
				return []core.Frame{f, {Kind: core.KindCredit, ID: f.ID, Bytes: 1000}}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"grants credit after the end", "credit/after-end", frames(func(c core.Conn) (frameFunc, frameFunc) {
		left, held := map[uint64]int{}, map[uint64]core.Frame{} // inputs that have not come back, ends that wait for them
		return one(func(f *core.Frame) {
				if f.Kind != core.KindItem {
					return
				}
				left[f.ID]--
				if end, waits := held[f.ID]; waits && left[f.ID] == 0 {
					go func() { _ = c.Write([]core.Frame{end}) }()
				}
			}), one(func(f *core.Frame) {
				if f.Kind == core.KindItem {
					left[f.ID]++
				}
				if f.Kind == core.KindEnd && left[f.ID] > 0 {
					held[f.ID] = *f
					drop(f)
				}
			})
	})},
	{"ends the connection for credit that nobody needs", "credit/after-end", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindCredit && f.ID%2 == 0 {
				_ = c.Close()
			}
		})
	})},
	{"takes a credit of zero for one", "credit/zero", writing(func(f *core.Frame) {
		if f.Kind == core.KindCredit && f.Items == 0 {
			f.Items = 1
		}
	})},
	{"goes on after a cancel", "cancel/answered", writing(func(f *core.Frame) {
		if f.Kind == core.KindCancel {
			drop(f)
		}
	})},
	{"answers after its answer to a cancel", "cancel/answered", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("Cancelled")) {
				return []core.Frame{f, {Kind: core.KindEnd, ID: f.ID}}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"cancels the next call", "cancel/next", frames(func(core.Conn) (frameFunc, frameFunc) {
		due := false
		return nil, func(f core.Frame) []core.Frame {
			if f.Kind == core.KindCancel {
				due = true
				return nil
			}
			if f.Kind == core.KindCall && f.Name == "conformance.echo" && due {
				due = false
				return []core.Frame{{Kind: core.KindCall, ID: f.ID, Name: "conformance.wait", Flags: core.NoInput}, {Kind: core.KindCancel, ID: f.ID}}
			}
			return []core.Frame{f}
		}
	})},
	{"loses a cancel that comes right behind its call", "cancel/at-once", frames(func(core.Conn) (frameFunc, frameFunc) {
		last := uint64(0)
		return nil, func(f core.Frame) []core.Frame {
			behind := f.Kind == core.KindCancel && f.ID == last
			last = 0
			if f.Kind == core.KindCall {
				last = f.ID
			}
			if behind {
				return nil
			}
			return []core.Frame{f}
		}
	})},
	{"never answers a call that waited", "cancel/waiting", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("Saturated")) {
			drop(f)
		}
	})},
	{"can't cancel what waits for credit", "cancel/stream", frames(func(core.Conn) (frameFunc, frameFunc) {
		items := map[uint64]bool{}
		return one(func(f *core.Frame) { items[f.ID] = items[f.ID] || f.Kind == core.KindItem }), one(func(f *core.Frame) {
			if f.Kind == core.KindCancel && items[f.ID] {
				drop(f)
			}
		})
	})},
	{"can't cancel what waits for input", "cancel/input", frames(func(core.Conn) (frameFunc, frameFunc) {
		open := map[uint64]bool{}
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindCall && f.Flags&core.NoInput == 0 {
				open[f.ID] = true
			}
			if f.Kind == core.KindCancel && open[f.ID] {
				drop(f)
			}
		})
	})},
	{"takes a second cancel for a breach", "cancel/twice", frames(func(c core.Conn) (frameFunc, frameFunc) {
		cancelled := map[uint64]bool{}
		return nil, one(func(f *core.Frame) {
			if f.Kind != core.KindCancel {
				return
			}
			if cancelled[f.ID] {
				_ = c.Close()
			}
			cancelled[f.ID] = true
		})
	})},
	{"cancels every call", "cancel/other", frames(func(core.Conn) (frameFunc, frameFunc) {
		open := map[uint64]bool{}
		return one(func(f *core.Frame) {
				if terminal(f) {
					delete(open, f.ID)
				}
			}), func(f core.Frame) []core.Frame {
				if f.Kind == core.KindCall {
					open[f.ID] = true
				}
				out := []core.Frame{f}
				if f.Kind == core.KindCancel {
					for id := range open {
						if id != f.ID {
							out = append(out, core.Frame{Kind: core.KindCancel, ID: id})
						}
					}
				}
				return out
			}
	})},

	// Workers: beside the calls, and the end.
	{"never answers a ping", "ping/answered", reading(func(f *core.Frame) {
		if f.Kind == core.KindPong {
			drop(f)
		}
	})},
	{"takes a pong for a breach", "ping/unasked", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindPong {
				_ = c.Close()
			}
		})
	})},
	{"does not say what is running", "ping/running", reading(func(f *core.Frame) {
		if f.Kind == core.KindPong {
			f.Body = []byte(`{"running":[]}`)
		}
	})},
	{"answers no ping while it is busy", "ping/busy", frames(func(core.Conn) (frameFunc, frameFunc) {
		open := map[uint64]bool{}
		return one(func(f *core.Frame) {
				if terminal(f) {
					delete(open, f.ID)
				}
				if f.Kind == core.KindPong && len(open) > 0 && f.ID < 1<<40 {
					drop(f)
				}
			}), one(func(f *core.Frame) {
				if f.Kind == core.KindCall && f.Name == "conformance.wait" {
					open[f.ID] = true
				}
			})
	})},
	{"loses log records", "log/record", reading(func(f *core.Frame) {
		if f.Kind == core.KindLog {
			drop(f)
		}
	})},
	{"has milliseconds for seconds", "log/record", reading(func(f *core.Frame) {
		if f.Kind != core.KindLog {
			return
		}
		var record map[string]any
		if err := json.Unmarshal(f.Body, &record); err != nil {
			panic(err)
		}
		record["time"] = record["time"].(float64) * 1000
		f.Body, _ = json.Marshal(record)
	})},
	{"takes what is printed for an answer", "output/print", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Name == "conformance.print" && bytes.Contains(f.Body, []byte("kind")) {
				_ = c.Close()
			}
		})
	})},
	{"chokes on a long line", "output/much", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Name == "conformance.print" && bytes.Contains(f.Body, []byte("1024")) {
				_ = c.Close()
			}
		})
	})},
	{"ends at bye what runs", "bye/running", frames(func(c core.Conn) (frameFunc, frameFunc) {
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindBye {
				_ = c.Close()
			}
		})
	})},
	{"stays when its host has gone", "bye/open-calls", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"stays when its host has gone without a word", "bye/none", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"stays at the end", "bye/idle", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"ignores frames that it does not expect", "frame/unexpected", frames(func(core.Conn) (frameFunc, frameFunc) {
		greeted := false
		return nil, one(func(f *core.Frame) {
			if f.Kind == core.KindLog || f.Kind == core.KindHello && greeted {
				drop(f)
			}
			greeted = true
		})
	})},
	{"takes frames above the limit", "limits/received", writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && f.Size() > 8192 {
			f.Body = nil
		}
	})},
	{"takes an opener's error for nothing", "frame/unexpected", writing(func(f *core.Frame) {
		if f.Kind == core.KindError {
			drop(f)
		}
	})},
	{"loses items above the limit in silence", "limits/items", frames(func(core.Conn) (frameFunc, frameFunc) {
		return one(func(f *core.Frame) {
			if f.Kind == core.KindError && (bytes.Contains(f.Body, []byte("limit")) || bytes.Contains(f.Body, []byte("bytes"))) {
				f.Kind, f.Body = core.KindEnd, nil
			}
		}), nil
	})},
	{"takes a little less than was agreed", "limits/exact", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["max_frame"] = h["max_frame"].(float64) - 1 })
	})},
	{"shows its token to its children", "launch/hidden", frames(func(core.Conn) (frameFunc, frameFunc) {
		asked := map[uint64]bool{}
		return one(func(f *core.Frame) {
			if asked[f.ID] && f.Kind == core.KindEnd {
				f.Body = []byte(`["SNAKEPIT_DIR","SNAKEPIT_WORKER_TOKEN"]`)
			}
		}), one(func(f *core.Frame) { asked[f.ID] = asked[f.ID] || f.Name == "conformance.child" })
	})},
	{"goes when nothing is to do", "end/grace", onConn(func(_ *mutation, c core.Conn) core.Conn {
		time.AfterFunc(pause/2, func() { _ = c.Close() })
		return c
	})},

	// What only a pool shows.
	{"has another's name in its link", "stats/adapter", linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Adapter = "grpc" })},
	{"loses a slot for each stream that is left", "cancel/abandoned", writing(func(f *core.Frame) {
		if f.Kind == core.KindCancel {
			drop(f)
		}
	})},
	{"answers the lost", "loss/once", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"says that nothing runs", "stats/health", reading(func(f *core.Frame) {
		if f.Kind == core.KindPong {
			f.Body = []byte(`{"running":[]}`)
		}
	})},
	{"loses the level", "log/arrives", reading(func(f *core.Frame) {
		if f.Kind == core.KindLog {
			f.Body = bytes.Replace(f.Body, []byte(`"warn"`), []byte(`"info"`), 1)
		}
	})},
}

// forgiving is a worker that takes some bodies, which it should refuse, for nil.
func forgiving(some func(a attack) [][]byte) func(*mutation) core.Adapter {
	bodies := some(hostile("json", 1))
	return writing(func(f *core.Frame) {
		if f.Kind == core.KindCall && slices.ContainsFunc(bodies, func(b []byte) bool { return bytes.Equal(b, f.Body) }) {
			f.Body = nil
		}
	})
}

var ballast []byte // so that the compiler keeps what a mutant allocates

func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r > 0x7f {
			return -1
		}
		return r
	}, s)
}

// heldItems keeps the last item of each call until the next one comes, or the end.
func heldItems(atEnd func(kept []core.Frame, end core.Frame) []core.Frame) frameFunc {
	kept := map[uint64][]core.Frame{}
	return func(f core.Frame) []core.Frame {
		switch {
		case f.Kind == core.KindItem:
			out := kept[f.ID]
			kept[f.ID] = []core.Frame{f}
			return out
		case f.Kind == core.KindEnd && len(kept[f.ID]) > 0:
			out := atEnd(kept[f.ID], f)
			delete(kept, f.ID)
			return out
		}
		return []core.Frame{f}
	}
}

// swapped gives the answer of one of two calls that are open to the other one.
func swapped(core.Conn) (read, written frameFunc) {
	open, renamed := []uint64{}, map[uint64]uint64{}
	return one(func(f *core.Frame) {
			if f.Kind != core.KindEnd {
				return
			}
			if to, ok := renamed[f.ID]; ok {
				f.ID = to
				return
			}
			for _, other := range open {
				if other != f.ID && renamed[other] == 0 {
					renamed[other], renamed[f.ID], f.ID = f.ID, other, other
					return
				}
			}
			open = slices.DeleteFunc(open, func(id uint64) bool { return id == f.ID })
		}), one(func(f *core.Frame) {
			if f.Kind == core.KindCall {
				open = append(open, f.ID)
			}
		})
}

type named struct {
	core.Adapter
	name string
}

func (n named) Name() string { return n.name }

// slow starts when it likes.
type slow struct {
	core.Adapter
	m *mutation
}

func (s *slow) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if ctx.Err() != nil {
		select {
		case <-time.After(time.Hour):
		case <-s.m.done:
		}
	}
	return s.Adapter.Start(ctx, l)
}

// hushed launches its workers, and hides why it can't.
type hushed struct{ core.Adapter }

func (h *hushed) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if _, err := l.Launch(ctx, core.Spec{Protocol: "hushed"}); err != nil {
		return nil, fmt.Errorf("starting: %v", err) //nolint:errorlint // that is what is wrong with it
	}
	return h.Adapter.Start(ctx, l)
}

// shared has one connection.
type shared struct {
	core.Adapter
	m *mutation

	mu   sync.Mutex
	link *core.Link
}

func (s *shared) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		link, err := s.Adapter.Start(ctx, l)
		if err != nil {
			return nil, err
		}
		s.m.conns = append(s.m.conns, link.Conn)
		s.link = link
	}
	return s.link, nil
}

type cutBatch struct{ core.Conn }

func (c *cutBatch) Write(frames []core.Frame) error {
	return c.Conn.Write(frames[:min(len(frames), 1000)])
}

type noEmpty struct{ core.Conn }

func (c *noEmpty) Write(frames []core.Frame) error {
	if len(frames) == 0 {
		return errors.New("nothing to write")
	}
	return c.Conn.Write(frames)
}

type together struct {
	core.Conn
	last []core.Frame
}

func (c *together) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if err != nil {
		return c.last, err
	}
	c.last = frames
	return frames, nil
}

type nothing struct {
	core.Conn
	n int
}

func (c *nothing) Read() ([]core.Frame, error) {
	if c.n++; c.n == 2 {
		return nil, nil
	}
	return c.Conn.Read()
}

type oneBuffer struct {
	core.Conn
	buf []byte
}

func (c *oneBuffer) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	c.buf = c.buf[:0]
	for i := range frames {
		at := len(c.buf)
		c.buf = append(c.buf, frames[i].Body...)
		frames[i].Body = c.buf[at:]
	}
	return frames, err
}

// late sends what it was given a little later.
type late struct {
	core.Conn
	stop chan struct{}
	once sync.Once

	mu    sync.Mutex // guards batch
	batch []core.Frame
}

func newLate(m *mutation, c core.Conn) *late {
	l := &late{Conn: c, stop: make(chan struct{})}
	go func() {
		for {
			select {
			case <-time.After(time.Millisecond):
			case <-l.stop:
				return
			case <-m.done:
				return
			}
			l.mu.Lock()
			batch := l.batch
			l.batch = nil
			var err error
			if len(batch) > 0 {
				err = c.Write(batch)
			}
			l.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *late) Write(frames []core.Frame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stop:
		return io.ErrClosedPipe
	default:
		l.batch = append(l.batch, frames...)
		return nil
	}
}

func (l *late) CloseWrite() error {
	l.once.Do(func() { close(l.stop) })
	return l.Conn.CloseWrite()
}

func (l *late) Close() error {
	l.once.Do(func() { close(l.stop) })
	return l.Conn.Close()
}

// halfDuplex writes of a batch of calls the first alone.
type halfDuplex struct{ core.Conn }

func (c *halfDuplex) Write(frames []core.Frame) error {
	if len(frames) > 1 && frames[0].Kind == core.KindCall {
		return c.Conn.Write(frames[:1])
	}
	return c.Conn.Write(frames)
}

type noEOF struct{ core.Conn }

func (c *noEOF) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if errors.Is(err, io.EOF) {
		err = errors.New("the other side is not there any more")
	}
	return frames, err
}

// deaf does not close until its mutation is released.
type deaf struct{ core.Conn }

func (c *deaf) Close() error { return nil }

// waiting does not return from Close until its mutation is released.
type waiting struct {
	core.Conn
	m *mutation
}

func (c *waiting) Close() error {
	<-c.m.done
	return c.Conn.Close()
}

type closeOnce struct {
	core.Conn
	silent bool // instead of failing, it takes what is written after Close
	mu     sync.Mutex
	closed bool
}

func (c *closeOnce) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed && !c.silent {
		return errors.New("closed twice")
	}
	c.closed = true
	return c.Conn.Close()
}

func (c *closeOnce) Write(frames []core.Frame) error {
	err := c.Conn.Write(frames)
	if c.silent {
		return nil
	}
	return err
}

// lossless waits for more after the worker has gone.
type lossless struct {
	core.Conn
	m *mutation
}

func (c *lossless) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	if errors.Is(err, io.EOF) {
		<-c.m.done
	}
	return frames, err
}

type codec struct {
	core.Codec
	append func(dst []byte, v any) ([]byte, error)
	decode func(b []byte, v any) error
}

func (c *codec) Append(dst []byte, v any) ([]byte, error) {
	if c.append == nil {
		return c.Codec.Append(dst, v)
	}
	return c.append(dst, v)
}

func (c *codec) Decode(b []byte, v any) error {
	if c.decode == nil {
		return c.Codec.Decode(b, v)
	}
	return c.decode(b, v)
}

// decoding changes what is decoded into an any.
func decoding(change func(b []byte, v any) any) func(*mutation) core.Adapter {
	return onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if target, ok := v.(*any); ok && err == nil {
				*target = change(b, *target)
			}
			return err
		}}
	})
}

// lenient takes some bodies that it should refuse.
func lenient(takes func(b []byte) bool) func(*mutation) core.Adapter {
	return onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if err != nil && takes(b) {
				return nil
			}
			return err
		}, append: func(dst []byte, v any) ([]byte, error) { return c.Append(dst, v) }}
	})
}

// newForgetful encodes what it was given last, by whomever.
func newForgetful(c core.Codec) core.Codec {
	var mu sync.Mutex
	var last any
	return &codec{Codec: c, append: func(dst []byte, v any) ([]byte, error) {
		mu.Lock()
		last = v
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		return c.Append(dst, last)
	}}
}

// catches runs one clause on a mutant and reports whether it fails.
func (mu mutant) catches(t *testing.T, c clause) (caught bool, r Result) {
	synctest.Test(t, func(t *testing.T) {
		m := &mutation{done: make(chan struct{})}
		h := &Harness{Adapter: mu.make(m), DetectsLoss: true, TimeLimit: 20 * time.Second}
		r = c.run(t.Context(), h, failures{})
		m.release()
		time.Sleep(time.Hour) // on the bubble's clock: whatever sleeps wakes up and ends
	})
	return r.Outcome == Failed, r
}

func TestMutants(t *testing.T) {
	all := map[string]clause{}
	for _, c := range clauses() {
		all[c.Name] = c
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		if seen[m.name] {
			t.Errorf("two mutants are called %q", m.name)
		}
		seen[m.name] = true
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			c, ok := all[m.clause]
			if !ok {
				t.Fatalf("there is no clause %s", m.clause)
			}
			if caught, r := m.catches(t, c); !caught {
				t.Errorf("%s does not catch it, but says: %s: %s", m.clause, r.Outcome, strings.Join(r.Reasons, "; "))
			}
		})
	}
}

// TestPanic sees that the panic of an adapter is its clause's failure. It is no mutant, because in a pool it would end the process.
func TestPanic(t *testing.T) {
	m := mutant{make: onConn(func(_ *mutation, c core.Conn) core.Conn { return &fragile{c, make(chan struct{})} })}
	for _, c := range adapterClauses {
		if c.Name == "close/again" {
			caught, r := m.catches(t, c)
			if !caught || !strings.Contains(r.String(), "panic: close of closed channel") || !strings.HasSuffix(r.String(), c.Sentence) {
				t.Errorf("%s: %s", r.Outcome, r)
			}
		}
	}
}

// fragile panics at its second Close.
type fragile struct {
	core.Conn
	closed chan struct{}
}

func (c *fragile) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// TestSound sees that what the mutants are made of passes.
func TestSound(t *testing.T) {
	for _, c := range clauses() {
		if caught, r := (mutant{"", "", writing(func(*core.Frame) {})}).catches(t, c); caught {
			t.Errorf("%s", r)
		}
	}
}

var update = flag.Bool("update", false, "write mutants.md anew, from a run of every clause on every mutant")

// TestTable holds mutants.md to the clauses and the mutants that there are. What else a clause kills than the mutants that name it, the
// table says as of its writing.
func TestTable(t *testing.T) {
	const file = "mutants.md"
	if *update {
		if err := os.WriteFile(file, []byte(table(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clauses() {
		at := slices.Collect(strings.Lines(string(text)))
		i := slices.IndexFunc(at, func(line string) bool { return strings.HasPrefix(line, fmt.Sprintf("| %s | %s |", c.Part, c.Name)) })
		if i < 0 {
			t.Errorf("%s has no row for %s: run go test ./conformance -run TestTable -update", file, c.Name)
			continue
		}
		for _, m := range mutants {
			if m.clause == c.Name && !strings.Contains(at[i], m.name) {
				t.Errorf("the row of %s in %s lacks the mutant that %s: run go test ./conformance -run TestTable -update", c.Name, file, m.name)
			}
		}
	}
}

func table(t *testing.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What the suite catches

Written by `+"`go test ./conformance -run TestTable -update`"+` from a run of every clause on every mutant of
[mutants_test.go](mutants_test.go). In bold stand the mutants that name the clause as theirs, which a test holds; the others as they fell in that run.
A clause without any is not known to catch anything.

| part | clause | kills |
| --- | --- | --- |
`)
	for _, c := range clauses() {
		var kills []string
		others := 0
		for _, m := range mutants {
			caught, _ := m.catches(t, c)
			switch {
			case caught && m.clause == c.Name:
				kills = append(kills, "**"+m.name+"**")
			case caught:
				others++
				if others <= 5 {
					kills = append(kills, m.name)
				}
			}
		}
		slices.SortStableFunc(kills, func(a, b string) int { return strings.Compare(b[:1], a[:1]) * boolToInt(a[:1] == "*" || b[:1] == "*") })
		if others > 5 {
			kills = append(kills, fmt.Sprintf("and %d more", others-5))
		}
		if len(kills) == 0 {
			kills = []string{"none"}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.Part, c.Name, strings.Join(kills, "; "))
	}
	return b.String()
}

func boolToInt(b bool) int {
	if b {
		return -1
	}
	return 0
}
