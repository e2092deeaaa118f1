package conformance

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// lifeClauses is about what a worker does beside its calls, and how it ends.
var lifeClauses = []clause{
	rule("ping/answered", "A ping is answered by a pong of the same id.", func(t *trial) {
		p := t.connect()
		for _, id := range []uint64{1, 2, 1, 77, 1<<53 - 1} {
			p.ping(id)
		}
	}),
	rule("ping/unasked", "A pong that nobody has asked for is ignored.", func(t *trial) {
		p := t.connect()
		p.send(core.Frame{Kind: core.KindPong, ID: 5, Body: p.encode(args{"running": []any{}})})
		p.echo("it goes on")
	}),
	rule("ping/running", "A pong says what is running: id, name and for how many milliseconds.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.pongWith("that the call runs", func(running []map[string]any) bool {
			if len(running) == 0 {
				return false
			}
			r := running[0]
			ms, ok := r["ms"].(int64)
			if len(running) > 1 || r["id"] != int64(id) || r["name"] != "conformance.wait" ||
				!ok || ms < 0 || ms > 60_000 {
				t.Errorf("the pong says %s", show(running))
			}
			return true
		}, id)
		p.cancel(id)
		p.expectError(id)
		p.pongWith("that nothing runs", func(running []map[string]any) bool { return len(running) == 0 })
	}),
	rule("ping/oldest", "A pong lists the oldest call first. Any others that it leaves out it counts.", func(t *trial) {
		p := t.connect()
		p.several(2)
		one, other := p.open("conformance.wait", nil), uint64(0)
		p.running(one)
		other = p.open("conformance.wait", nil)
		p.pongWith("that two calls run", func(running []map[string]any) bool {
			if len(running) > 0 && running[0]["id"] != int64(one) {
				t.Errorf("the oldest call is %d, and the pong says %s", one, show(running))
			}
			return len(running) == 2
		}, one, other)
		p.cancel(one)
		p.expectError(one)
		p.cancel(other)
		p.expectError(other)
	}),
	rule("ping/stacks", "A worker with the feature stacks tells the stacks of its threads, "+
		"if a ping has the name stacks, and only then. It does so while a call runs, too.", func(t *trial) {
		p := t.connectStacks(func(ours map[string]any) { ours["max_frame"] = 4096 })
		stacks := func(name string) any {
			p.send(core.Frame{Kind: core.KindPing, ID: 7, Name: name})
			pong, _ := p.decode(p.pong(7).Body).(map[string]any)
			return pong["stacks"]
		}
		id := p.open("conformance.wait", nil)
		p.running(id)
		if text, ok := stacks("stacks").(string); !ok || text == "" {
			t.Errorf("the pong has no text of stacks")
		}
		if v := stacks(""); v != nil {
			t.Errorf("a ping without a name gets the stacks %s", show(v))
		}
		p.cancel(id)
		p.expectError(id)
	}),
	rule("stacks/signal", "A signal that a worker announces for its stacks is a real-time signal. "+
		"When it gets the signal, it appends them to its file in SNAKEPIT_DIR, and goes on.", func(t *trial) {
		p := t.connectStacks()
		s := p.hello.Stacks
		if s == nil {
			t.Skipf("the worker announces no signal")
		}
		if s.Signal < 32 || s.Signal > 64 {
			t.Fatalf("signal %d is no real-time signal", s.Signal)
		}
		for range 2 {
			t.signalled(p.worker, p.hello.PID, s.Signal)
			p.echo("it goes on")
		}
	}),
	rule("ping/busy", "A busy handler does not delay the answer to a ping.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.running(id)
		t.within("ten pings beside a handler", func() {
			for n := range uint64(10) {
				p.ping(1 + n)
			}
		})
		p.cancel(id)
		p.expectError(id)
	}),
	rule("log/record", "A log record has level, logger and message. "+
		"If there are any, it has its fields, its call and its time in Unix seconds.", func(t *trial) {
		p := t.connect()
		for _, level := range []string{"info", "warn", "error"} {
			id := p.open("conformance.log", args{"level": level, "message": "näme\t\n😀"})
			r, _ := p.decode(p.take("a log record", func(f *core.Frame) bool {
				if f.Kind != core.KindLog {
					return false
				}
				r, ok := p.decode(f.Body).(map[string]any)
				return ok && r["message"] == "näme\t\n😀"
			}).Body).(map[string]any)
			fields, _ := r["fields"].(map[string]any)
			if at, timed := r["time"]; timed {
				if s, ok := number(at); !ok || math.Abs(s-float64(time.Now().Unix())) > 3600 {
					t.Errorf("the record's time is %s, but the time is about %d Unix seconds",
						show(at), time.Now().Unix())
				}
			}
			logger, _ := r["logger"].(string)
			if r["level"] != level || logger == "" || fields["answer"] != int64(42) || r["call"] != int64(id) {
				t.Errorf("the record of call %d is %s", id, show(r))
			}
			p.finish(id)
		}
	}),
	rule("output/print", "Printing in a handler disturbs nothing.", func(t *trial) {
		p := t.connect()
		for _, text := range []string{
			"hello\n", "{\"kind\":\"end\",\"id\":1}\n", "no line feed", "\x00\x1b[31m\n", "\n\n\n",
		} {
			p.call("conformance.print", args{"text": text, "times": int64(3)})
			p.echo("undisturbed")
		}
	}),
	rule("output/much", "Printing a megabyte without a line feed disturbs nothing.", func(t *trial) {
		p := t.connect()
		p.call("conformance.print", args{"text": strings.Repeat("=", 1024), "times": int64(1024)})
		p.echo("undisturbed")
	}),
	rule("bye/idle", "After the host's bye and the end of its side an idle worker exits with code 0.", func(t *trial) {
		p := t.connect()
		p.echo("before")
		p.bye()
		if code, signal := p.exits(); code != 0 {
			t.Errorf("the worker exits with code %d %s", code, signal)
		}
	}),
	rule("bye/answers", "A worker that reads end of file after bye first writes the answers that it has queued. "+
		"The host still reads.", func(t *trial) {
		t.connect().byeBehindPings()
	}),
	rule("bye/running", "After bye, running calls go on to their end.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.double", nil, withInput)
		p.item(id, int64(1))
		p.answer(id)
		p.send(core.Frame{Kind: core.KindBye, Name: "draining"})
		p.item(id, int64(2))
		if f := p.answer(id); f.Kind != core.KindItem || p.decode(f.Body) != int64(4) {
			t.Errorf("the double of 2 is %s after bye", f.String())
		}
		p.end(id)
		p.finish(id)
	}),
	rule("bye/open-calls", "After bye the worker reads end of file, "+
		"ends its running calls and exits with code 0.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.running(id)
		p.bye()
		if code, signal := p.exits(); code != 0 {
			t.Errorf("the worker exits with code %d %s", code, signal)
		}
	}),
	rule("bye/none", "When the host's side closes without a bye, "+
		"the worker cancels its running calls and exits after a short grace.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.running(id)
		if err := p.conn.CloseWrite(); err != nil {
			t.Fatalf("CloseWrite: %v", err)
		}
		_ = p.waitEnd("the host's side has closed")
		p.exits()
	}),
	rule("frame/unexpected", "A frame that its sender may not send ends the connection, such as a second hello, "+
		"a host's log record or an opener's error. "+
		"A worker then says why on standard error and exits with a code other than 0.", func(t *trial) {
		for _, f := range []core.Frame{
			{Kind: core.KindHello, Body: []byte("{}")}, {Kind: core.KindLog}, {Kind: core.KindError},
		} {
			p := t.connect()
			p.echo("before")
			switch f.Kind {
			case core.KindLog:
				f.Body = p.encode(args{"level": "info", "logger": "host", "message": "a host does not log"})
			case core.KindError:
				f.ID = p.open("conformance.wait", nil)
				f.Body = p.encode(&core.RemoteError{Type: "Sorry", Message: "an opener cancels"})
			}
			p.send(f)
			p.breach("the worker got a frame that a host may not send: " + f.Kind.String())
		}
	}),
	rule("limits/received", "A receiver that gets a frame above "+
		"the agreed max_frame ends the connection.", func(t *trial) {
		p := t.connect(func(ours map[string]any) { ours["max_frame"] = 8192 })
		p.echo("before")
		p.open("conformance.echo", args{"value": strings.Repeat("x", 9000)})
		p.breach("a frame of 9 kB has come, and the agreed limit is 8 kB")
	}),
	rule("limits/items", "An item above the agreed max_frame is an error of its call alone.", func(t *trial) {
		p := t.connect(func(ours map[string]any) { ours["max_frame"] = 8192 })
		items, end := p.collect(p.open("conformance.count", args{"n": int64(2), "size": int64(20_000)}))
		for _, f := range items {
			if f.Flags&core.Failed == 0 {
				t.Errorf("an item of %d bytes comes, and the limit is 8192", f.Size())
			}
		}
		if len(items) == 0 && end.Kind != core.KindError {
			t.Errorf("the items are lost without an error: %s", end.String())
		}
		p.echo("it goes on")
	}),
	rule("limits/exact", "A frame of exactly the agreed max_frame passes, in both directions.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		limit := min(8192, p.maxFrame())
		p.answerHello(func(ours map[string]any) { ours["max_frame"] = limit })
		id := p.open("conformance.first", nil, withInput)
		f := core.Frame{Kind: core.KindItem, ID: id, Body: p.encode(strings.Repeat("x", limit))}
		text := strings.Repeat("x", limit-(f.Size()-limit))
		if f.Body = p.encode(text); f.Size() != limit {
			t.Skipf("the suite can't make a frame of exactly %d bytes with the codec %s", limit, p.codec.Name())
		}
		p.send(f)
		if got := p.finish(id); got != text {
			t.Errorf("the first input, in a frame of %d bytes, is %.60s", limit, show(got))
		}
	}),
	rule("launch/hidden", "A worker removes descriptors and tokens from "+
		"the environment that its own children see.", func(t *trial) {
		p := t.connect()
		names, ok := p.call("conformance.child", nil).([]any)
		if !ok {
			t.Fatalf("conformance.child returns no list")
		}
		for _, name := range names {
			if s, ok := name.(string); !ok || strings.HasSuffix(s, "_FD") || strings.HasSuffix(s, "_TOKEN") {
				t.Errorf("a child of the worker sees %s", show(name))
			}
		}
	}),
	rule("launch/orphan", "A worker's forked child does not hold the connection: "+
		"when the worker ends, the connection ends at once.", func(t *trial) {
		p := t.connect()
		p.need("conformance.exit")
		if p.worker.Process == nil && !t.h.DetectsLoss {
			t.Skipf("the adapter does not notice the loss of a worker that core did not launch")
		}
		p.call("conformance.orphan", nil)
		p.open("conformance.exit", args{"code": 3})
		t.within("noticing the loss", func() { _ = p.waitEnd("the worker has ended") })
	}),
	rule("end/grace", "A worker that is idle for a moment does not end.", func(t *trial) {
		p := t.connect()
		p.echo("before")
		<-time.After(pause)
		p.echo("after")
	}),
}

// connectStacks is connect with a worker that has the feature stacks.
func (t *trial) connectStacks(change ...func(ours map[string]any)) *peer {
	p := t.connect(change...)
	if !slices.Contains(p.hello.Features, "stacks") {
		t.Skipf("the worker does not announce stacks")
	}
	return p
}
