package conformance

import (
	"bytes"
	"encoding/json"

	"github.com/snakepit-go/snakepit/core"
)

// callMutants are broken workers: hello and calls.
var callMutants = []mutant{
	{"speaks before the host has", "hello/first", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindHello {
				return []core.Frame{
					f, {Kind: core.KindLog, Body: []byte(`{"level":"info","logger":"x","message":"eager"}`)},
				}
			}
			return []core.Frame{f}
		}, nil
	})},
	{"speaks another version", "hello/version",
		reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["versions"] = []int{7} }) })},
	{"takes no calls", "hello/limits",
		reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["concurrency"] = 0 }) })},
	{"says nothing of itself", "hello/identity",
		reading(func(f *core.Frame) { helloOf(f, func(h map[string]any) { h["runtime"] = "" }) })},
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
	{"describes no command", "call/describe", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd && bytes.Contains(f.Body, []byte(`"schema"`)) {
			f.Body = []byte("[]")
		}
	})},
	{"has a schema that refers to nothing", "call/schema", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"$defs":{"Message"`), []byte(`"$defs":{"Text"`))
	})},
	{"has a schema for items where there are none", "call/schema", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"result":{"type":"null"}`), []byte(`"result":{},"items":{}`))
	})},
	{"has a type for a schema", "call/schema", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"result":{"type":"null"}`), []byte(`"result":"null"`))
	})},
	{"describes the arguments of another command", "call/schema", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"properties":{"message"`), []byte(`"properties":{"value"`))
	})},
	{"never answers what has wrong arguments", "call/wrong-arguments", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("BadArguments")) {
			drop(f)
		}
	})},
	{"has a type of its own for wrong arguments", "call/wrong-arguments", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte("BadArguments"), []byte("TypeError"), 1)
		}
	})},
	{"has a class for unknown commands", "call/unknown", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"UnknownCommand"`), []byte(`"UnknownCommand","module":"worker"`), 1)
		}
	})},
	{"does not say that a call did not start", "call/unknown",
		reading(func(f *core.Frame) { f.Flags &^= core.NotStarted })},
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
	{"puts the module in front of the type", "error/type", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"type":"Failure"`), []byte(`"type":"coretest.Failure"`), 1)
		}
	})},
	{"has a base without a name", "error/type", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"coretest.Base"`), []byte(`""`), 1)
		}
	})},
	{"prints the data of errors", "error/data", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"truth":true`), []byte(`"truth":"True"`), 1)
		}
	})},
	{"makes up data for errors", "error/data", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && !bytes.Contains(f.Body, []byte(`"data":`)) {
			f.Body = append([]byte(`{"data":{},`), f.Body[1:]...)
		}
	})},
	{"sends data of errors above the limit", "error/data-left-out", writing(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["max_frame"] = 1 << 20 })
	})},
	{"loses an error with too much data", "error/data-left-out", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("much data")) {
			f.Body = []byte(`{"type":"TooLarge","message":"its data"}`)
		}
	})},
	{"sends a context beside the cause", "error/cause", reading(func(f *core.Frame) {
		if f.Kind == core.KindError {
			f.Body = bytes.Replace(f.Body, []byte(`"cause":{`),
				[]byte(`"context":{"type":"T","message":"m"},"cause":{`), 1)
		}
	})},
	{"sends what it can't as nil", "error/unsendable", reading(func(f *core.Frame) {
		if f.Kind == core.KindError && bytes.Contains(f.Body, []byte("BadResult")) {
			f.Kind, f.Body = core.KindEnd, nil
		}
	})},
}
