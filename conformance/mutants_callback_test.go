package conformance

import (
	"bytes"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// callbackMutants are broken workers: callbacks and sessions.
var callbackMutants = []mutant{
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
	{"drops the trace headers of callbacks", "callback/trace", reading(func(f *core.Frame) { f.Meta = nil })},
	{"keeps the trace headers of the first call", "callback/trace", frames(func(core.Conn) (frameFunc, frameFunc) {
		var first map[string]string
		return one(func(f *core.Frame) {
			if first == nil {
				first = f.Meta
			}
			if f.Kind == core.KindCall {
				f.Meta = first
			}
		}), nil
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
	{"takes an answer of the host's that can't be decoded for nil", "callback/undecodable",
		writing(func(f *core.Frame) {
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
	{"cancels a callback when it has answered its own call", "callback/cancelled",
		frames(func(core.Conn) (frameFunc, frameFunc) {
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
}
