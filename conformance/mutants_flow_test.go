package conformance

import (
	"bytes"
	"encoding/json"

	"github.com/snakepit-go/snakepit/core"
)

// flowMutants are broken workers: streams, credit and cancelling.
var flowMutants = []mutant{
	{"loses the last item", "stream/items", frames(func(core.Conn) (frameFunc, frameFunc) {
		return heldItems(func(kept []core.Frame, end core.Frame) []core.Frame { return []core.Frame{end} }), nil
	})},
	{"lets the end overtake the last item", "credit/end-after-items", frames(func(core.Conn) (frameFunc, frameFunc) {
		return heldItems(func(kept []core.Frame, end core.Frame) []core.Frame {
			return append([]core.Frame{end}, kept...)
		}), nil
	})},
	{"makes an item of an empty stream's end", "stream/empty", frames(func(core.Conn) (frameFunc, frameFunc) {
		seen := map[uint64]bool{}
		return func(f core.Frame) []core.Frame {
			seen[f.ID] = seen[f.ID] || f.Kind == core.KindItem
			if f.Kind == core.KindEnd && !seen[f.ID] {
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
	{"takes a failed item for a good one", "stream/failed-items",
		reading(func(f *core.Frame) { f.Flags &^= core.Failed })},
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
	{"falls silent when there are more items than it granted", "credit/overrun",
		frames(func(core.Conn) (frameFunc, frameFunc) {
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
		left := map[uint64]int{}        // inputs that have not come back
		held := map[uint64]core.Frame{} // ends that wait for them
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
	{"ends the connection for credit that nobody needs", "credit/after-end",
		frames(func(c core.Conn) (frameFunc, frameFunc) {
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
				return []core.Frame{
					{Kind: core.KindCall, ID: f.ID, Name: "conformance.wait", Flags: core.NoInput},
					{Kind: core.KindCancel, ID: f.ID},
				}
			}
			return []core.Frame{f}
		}
	})},
	{"loses a cancel that comes right behind its call", "cancel/at-once",
		frames(func(core.Conn) (frameFunc, frameFunc) {
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
		read := one(func(f *core.Frame) { items[f.ID] = items[f.ID] || f.Kind == core.KindItem })
		return read, one(func(f *core.Frame) {
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
}
