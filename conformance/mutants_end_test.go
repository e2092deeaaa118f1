package conformance

import (
	"bytes"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// endMutants are broken workers. Their faults are beside the calls, or at the end.
var endMutants = []mutant{
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
	{"lists the newest call first", "ping/oldest", pongs(func(pong map[string]any) {
		if running := pong["running"].([]any); len(running) == 2 {
			running[0], running[1] = running[1], running[0]
		}
	})},
	{"forgets its stacks", "ping/stacks", pongs(func(pong map[string]any) { delete(pong, "stacks") })},
	{"tells its stacks to everybody", "ping/stacks", pongs(func(pong map[string]any) { pong["stacks"] = "main" })},
	{"wants to be killed for its stacks", "stacks/signal", reading(func(f *core.Frame) {
		helloOf(f, func(h map[string]any) { h["stacks"] = map[string]any{"signal": 9} })
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
	{"keeps its answers at the end", "bye/answers", frames(func(core.Conn) (frameFunc, frameFunc) {
		var leaves atomic.Bool
		return one(func(f *core.Frame) {
				// The clause's last pong may be read before its bye is written.
				if f.Kind == core.KindPong && (leaves.Load() || f.ID == pingsBeforeBye) {
					drop(f)
				}
			}), one(func(f *core.Frame) {
				if f.Kind == core.KindBye {
					leaves.Store(true)
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
	{"stays when its host has gone", "bye/open-calls",
		onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"stays when its host has gone without a word", "bye/none",
		onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
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
			if f.Kind == core.KindError &&
				(bytes.Contains(f.Body, []byte("limit")) || bytes.Contains(f.Body, []byte("bytes"))) {
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
}

// pongs makes a worker whose pongs are changed.
func pongs(change func(pong map[string]any)) func(*mutation) core.Adapter {
	return reading(func(f *core.Frame) {
		if f.Kind != core.KindPong {
			return
		}
		var pong map[string]any
		if err := json.Unmarshal(f.Body, &pong); err != nil {
			panic(err)
		}
		change(pong)
		f.Body, _ = json.Marshal(pong)
	})
}
