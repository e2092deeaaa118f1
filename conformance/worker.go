package conformance

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// commands are the commands that docs/protocol.md requires of a worker under test, in its section "Conformance".
var commands = []string{
	"conformance.echo", "conformance.count", "conformance.mixed", "conformance.fail", "conformance.wait",
	"conformance.sum", "conformance.double", "conformance.first", "conformance.context", "conformance.remember",
	"conformance.callback", "conformance.callbacks", "conformance.log", "conformance.print", "conformance.child",
	"conformance.orphan", "conformance.exit", "conformance.unsendable",
}

// helloClauses is about a worker's hello.
var helloClauses = []clause{
	rule("hello/first", "The worker sends hello first. "+
		"It sends nothing else until the host's hello has come.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		p.silent("the worker sends a frame before the host's hello", func(*core.Frame) bool { return true })
		p.answerHello()
		p.echo("and then it serves")
	}),
	rule("hello/version", "A worker's hello lists every protocol version that it speaks, "+
		"1 among them.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		if !slices.Contains(p.hello.Versions, 1) {
			t.Errorf("the versions are %s", show(p.hello.Versions))
		}
	}),
	rule("hello/limits", "A window has at least one item and one byte. "+
		"The concurrency is at least 1, and max_frame at least 4096.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		if h := p.hello; h.Window.Items < 1 || h.Window.Bytes < 1 || h.MaxFrame < 4096 || h.Concurrency < 1 {
			t.Errorf("the hello has window %s, max_frame %d and concurrency %d",
				show(h.Window), h.MaxFrame, h.Concurrency)
		}
	}),
	rule("hello/codecs", "A hello names the worker's codecs. At least one of them is the adapter's.", func(t *trial) {
		t.start().receiveHello()
	}),
	rule("hello/identity", "A hello has pid, runtime and library.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		if p.hello.PID < 1 || p.hello.Runtime == "" || p.hello.Library == "" {
			t.Errorf("the hello has pid %d, runtime %q and library %q", p.hello.PID, p.hello.Runtime, p.hello.Library)
		}
	}),
	rule("hello/commands", "A hello lists the worker's commands and which of them stream, "+
		"or has null if the worker can't list them. Names that begin with snakepit. are reserved.", func(t *trial) {
		p := t.connect()
		if p.hello.Commands == nil {
			return
		}
		if !p.offers("conformance.echo") {
			t.Errorf("the worker does not offer conformance.echo; a worker to be tested has the commands " +
				"that docs/protocol.md lists under Conformance")
		}
		streams := []string{"conformance.count", "conformance.mixed", "conformance.double"}
		seen := map[string]bool{}
		for _, c := range p.hello.Commands {
			if c.Name == "" || seen[c.Name] {
				t.Errorf("the command %q is listed twice, or has no name", c.Name)
			}
			seen[c.Name] = true
			if slices.Contains(commands, c.Name) && c.Stream != slices.Contains(streams, c.Name) {
				t.Errorf("%s is listed with stream %t", c.Name, c.Stream)
			}
		}
		for name := range seen {
			if strings.HasPrefix(name, "conformance.") && !slices.Contains(commands, name) {
				t.Errorf("%s is not a command of the suite", name)
			}
			if strings.HasPrefix(name, "snakepit.") && !slices.Contains(reserved, name) {
				t.Errorf("%s is a reserved name", name)
			}
		}
	}),
	rule("hello/line-feed", "A worker on standard output begins with a line feed: "+
		"the unfinished line of a start-up hook must not spoil its hello.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter, printed: "a hook says: "}
		w := t.launchWith(spy)
		if !spy.stdio {
			t.Skipf("the connection is not standard output")
		}
		p := t.reading(w)
		p.receiveHello()
		p.answerHello()
		p.echo("hello")
	}),
	rule("hello/unknown", "Unknown fields of a hello are ignored.", func(t *trial) {
		p := t.connect(func(ours map[string]any) {
			ours["features"], ours["weather"] = []string{"exact-numbers", "telepathy"}, args{"sun": true}
		})
		p.echo("hello")
	}),
}

// callClauses is about calls with one result, their calls to the host, and their errors.
var callClauses = []clause{
	rule("call/result", "A unary call is answered by one end, whose body is the result.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.echo", args{"value": "v"})
		if f := p.of(id); f.Kind != core.KindEnd || f.Flags != 0 || p.decode(f.Body) != "v" {
			t.Errorf("the answer is %s", f.String())
		}
		p.staysEnded(id)
	}),
	rule("call/arguments", "The argument is one value: a map becomes the handler's keyword arguments, "+
		"nil none, anything else its one positional argument.", func(t *trial) {
		p := t.connect()
		for _, c := range []struct{ argument, want any }{
			{args{"value": "by name"}, "by name"}, {"by place", "by place"}, {nil, nil},
			{[]any{"a", "list"}, []any{"a", "list"}}, {args{"value": args{"value": "a map"}}, args{"value": "a map"}},
		} {
			if got := p.call("conformance.echo", c.argument); !reflect.DeepEqual(got, c.want) {
				t.Errorf("an echo of the argument %s is %s", show(c.argument), show(got))
			}
		}
	}),
	rule("call/wrong-arguments", "A missing argument, or one that the handler does not take, is an error of "+
		"that call, of the type BadArguments.", func(t *trial) {
		p := t.connect()
		for _, wrong := range []any{args{"no_such_argument": "x"}, args{"message": "x", "no_such_argument": "x"}, nil} {
			if e, _ := p.fails(p.open("conformance.fail", wrong)); e.Type != core.TypeBadArguments {
				t.Errorf("the arguments %s are answered by %s", show(wrong), show(e.Error()))
			}
		}
		p.echo("it goes on")
	}),
	rule("call/unknown", "A call of an unknown command is answered by an "+
		"error of the type UnknownCommand with not-started.", func(t *trial) {
		p := t.connect()
		e, flags := p.fails(p.openNamed("conformance.no-such-command"))
		if e.Type != core.TypeUnknownCommand || e.Module != "" || flags&core.NotStarted == 0 ||
			!strings.Contains(e.Message, "no-such-command") {
			t.Errorf("the error is %q, and its flags are %d", e, flags)
		}
		p.echo("it goes on")
	}),
	rule("call/undecodable", "A body that can't be decoded is an error of its call alone, "+
		"of the type BadArguments.", func(t *trial) {
		p := t.connect()
		bad := hostile(p.codec.Name(), 5000)
		bodies := append(append(bad.wrong, bad.claims...), bad.deep)
		if slices.Contains(p.hello.Features, "exact-numbers") {
			bodies = append(bodies, bad.lossy...)
		}
		p.refuses(bodies)
	}),
	rule("call/at-once", "The worker takes as many calls at once as its hello says.", func(t *trial) {
		p := t.connect()
		p.several(2)
		var ids []uint64
		for range p.limit {
			ids = append(ids, p.open("conformance.double", nil, withInput))
		}
		for i, id := range slices.Backward(ids) { // each answers while all others still wait for input
			p.item(id, int64(i))
			if f := p.answer(id); f.Kind != core.KindItem || p.decode(f.Body) != int64(2*i) {
				t.Fatalf("of %d calls, call %d is answered by %s", len(ids), id, f.String())
			}
		}
		for _, id := range ids {
			p.end(id)
			p.finish(id)
		}
	}),
	rule("call/saturated", "A call above the agreed number is refused as Saturated with not-started, or waits. "+
		"It does not run beside the others.", func(t *trial) {
		for _, agreed := range []int{0, 1} { // as many as the worker takes, and fewer
			p := t.connect(func(ours map[string]any) {
				if agreed > 0 {
					ours["concurrency"] = agreed
				}
			})
			limit := cmp.Or(agreed, p.limit)
			var ids []uint64
			for range limit {
				ids = append(ids, p.open("conformance.wait", nil))
			}
			p.running(ids...)
			more := p.open("conformance.echo", args{"value": "one too many"})
			p.silent("one call too many runs", func(f *core.Frame) bool {
				return f.ID == more && f.Kind != core.KindError
			})
			for _, id := range ids {
				p.cancel(id)
				_, _ = p.fails(id)
			}
			f := p.answer(more)
			if f.Kind == core.KindEnd && p.decode(f.Body) == "one too many" {
				continue
			}
			if f.Kind != core.KindError || f.Flags&core.NotStarted == 0 || p.remote(f).Type != core.TypeSaturated {
				t.Errorf("a call above the limit of %d is answered by %s", limit, f.String())
			}
		}
	}),
	rule("call/ids", "Each call is answered under its own id, in whatever order the answers come.", func(t *trial) {
		p := t.connect()
		var ids []uint64
		const n = 40
		for i := range n {
			ids = append(ids, p.open("conformance.echo", args{"value": int64(i)}))
			if len(ids)%p.limit == 0 || i == n-1 {
				for k, id := range ids {
					if want := int64(i - len(ids) + 1 + k); p.finish(id) != want {
						t.Fatalf("call %d has another call's result, not %d", id, want)
					}
				}
				ids = nil
			}
		}
	}),
	rule("call/ended", "A frame for a call that has ended is dropped silently.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.echo", args{"value": "done"})
		p.finish(id)
		p.cancel(id)
		p.grant(id, 1, 1)
		p.end(id)
		p.item(id, "late")
		p.echo("it goes on")
		p.silent("an ended call is answered", func(f *core.Frame) bool { return f.ID == id })
	}),
	rule("call/never-was", "A frame for an id that was never used is "+
		"a protocol error and ends the connection.", func(t *trial) {
		for _, id := range []uint64{1001, 1002} {
			p := t.connect()
			p.echo("before")
			p.cancel(id)
			_ = p.waitEnd("a frame for a call that never was has come")
		}
	}),
	rule("call/id-order", "The ids of one side strictly increase. "+
		"A call with a lower id, or with an id of the other side, ends the connection.", func(t *trial) {
		for _, id := range []uint64{1, 8} {
			p := t.connect()
			p.nextID = 5
			p.echo("before")
			f := p.prepare("conformance.echo", args{"value": "wrong id"})
			f.ID = id
			p.send(f)
			_ = p.waitEnd("a call with a wrong id has come")
			p.silent("a call with a wrong id is answered", func(f *core.Frame) bool {
				return f.ID == id && f.Kind == core.KindEnd
			})
		}
	}),
	rule("call/metadata", "Metadata reaches the handler. A call without metadata has none.", func(t *trial) {
		p := t.connect()
		withMeta := func(f *core.Frame) { f.Meta = map[string]string{"trace": "abc"} }
		for _, c := range []struct {
			change func(*core.Frame)
			want   any
		}{{withMeta, args{"trace": "abc"}}, {func(*core.Frame) {}, args{}}} {
			got, _ := p.call("conformance.context", nil, c.change).(map[string]any)
			if !reflect.DeepEqual(got["metadata"], c.want) {
				t.Errorf("the metadata is %s, not %s", show(got["metadata"]), show(c.want))
			}
		}
	}),
	rule("call/describe", "A worker that lists snakepit.describe returns a list of {name, doc, stream, params: "+
		"[{name, type, default, required}], returns, schema}. It leaves out what it does not know.", func(t *trial) {
		p := t.connect()
		if !p.offers("snakepit.describe") {
			t.Skipf("snakepit.describe is optional, and the worker does not list it")
		}
		list, _ := p.call("snakepit.describe", nil).([]any)
		described := false
		for _, entry := range list {
			e, _ := entry.(map[string]any)
			name, hasName := e["name"].(string)
			if stream, says := e["stream"].(bool); !hasName || says && stream != p.streams(name) {
				t.Errorf("a command is described as %s", show(e))
			}
			if name == "conformance.fail" {
				described = true
				params, says := e["params"].([]any)
				if says && (len(params) != 2 || !reflect.DeepEqual(params[0].(map[string]any)["name"], "message")) {
					t.Errorf("the parameters of conformance.fail are %s", show(params))
				}
			}
		}
		if !described {
			t.Errorf("none of %d descriptions is of conformance.fail", len(list))
		}
	}),
	rule("call/schema", "The schema of a command in the answer to snakepit.describe has arguments, result, and items "+
		"if the command streams. Each is a JSON Schema. A $ref names an entry of $defs. If arguments has properties, "+
		"the command takes its arguments by these names.", func(t *trial) {
		p := t.connect()
		if !p.offers("snakepit.describe") {
			t.Skipf("snakepit.describe is optional, and the worker does not list it")
		}
		list, _ := p.call("snakepit.describe", nil).([]any)
		schemas := 0
		for _, entry := range list {
			e, _ := entry.(map[string]any)
			name, _ := e["name"].(string)
			schema, says := e["schema"].(map[string]any)
			if !says {
				if e["schema"] != nil {
					t.Errorf("the schema of %s is %s", name, show(e["schema"]))
				}
				continue
			}
			schemas++
			checkSchemas(t, name, schema, p.streams(name))
			if name == "conformance.fail" {
				arguments, _ := schema["arguments"].(map[string]any)
				properties, named := arguments["properties"].(map[string]any)
				if _, has := properties["message"]; named && !has {
					t.Errorf("the arguments of conformance.fail are %s", show(arguments))
				}
			}
		}
		if schemas == 0 {
			t.Skipf("a schema is optional, and no description has one")
		}
	}),
	rule("call/result-too-large", "A sender never sends a frame above the agreed max_frame. "+
		"Such a frame is an error of its call alone, of the type TooLarge.", func(t *trial) {
		p := t.connect(func(ours map[string]any) { ours["max_frame"] = 8192 })
		if p.largest() < 8192 {
			t.Skipf("this needs frames of 8192 bytes, and the agreed limit is %d bytes", p.largest())
		}
		// Each item is small enough. The handler's list of them is not.
		id := p.open("conformance.callbacks", args{"name": "host.halves", "value": nil})
		f := p.callback(id)
		p.supply(f.ID, strings.Repeat("x", 5000), strings.Repeat("x", 5000))
		p.end(f.ID)
		if e, _ := p.fails(id); e.Type != core.TypeTooLarge {
			t.Errorf("the error is %q", e)
		}
		p.echo("it goes on")
	}),

	rule("error/shape", "An error has type and message. "+
		"Its frames, the innermost last, have file, line and function.", func(t *trial) {
		p := t.connect()
		e, flags := p.fails(p.open("conformance.fail", args{"message": "bad öperand 😀"}))
		if e.Type == "" || e.Message != "bad öperand 😀" || flags&core.NotStarted != 0 {
			t.Errorf("the error is %s, and its flags are %d", show(e), flags)
		}
		for _, f := range e.Frames {
			if f.File == "" || f.Line < 1 || f.Function == "" {
				t.Errorf("a frame is %s", show(f))
			}
		}
	}),
	rule("error/type", "type has no module in front. Each of the bases has a name.", func(t *trial) {
		p := t.connect()
		e, _ := p.fails(p.open("conformance.fail", args{"message": "typed"}))
		for _, module := range []string{e.Module, "__main__", "builtins"} {
			if module != "" && strings.HasPrefix(e.Type, module+".") {
				t.Errorf("the type is %q, and its module is %q", e.Type, e.Module)
			}
		}
		if slices.Contains(e.Bases, "") {
			t.Errorf("the bases are %q", e.Bases)
		}
	}),
	rule("error/data", "data is the value that the error gives to programs.", func(t *trial) {
		p := t.connect()
		data := map[string]any{"text": "wörd", "truth": true, "list": []any{"a", nil}}
		e, _ := p.fails(p.open("conformance.fail", args{"message": "with data", "data": data}))
		if e.Value == nil {
			t.Skipf("data of errors is optional, and the worker sends none")
		}
		if !reflect.DeepEqual(e.Value, any(data)) {
			t.Errorf("the data is %s, not %s", show(e.Value), show(data))
		}
		if e, _ = p.fails(p.open("conformance.fail", args{"message": "without"})); e.Value != nil {
			t.Errorf("an error without data has the data %s", show(e.Value))
		}
	}),
	rule("error/data-left-out", "Data that does not fit into a frame is left out, "+
		"and the rest of the error arrives.", func(t *trial) {
		p := t.connect(func(ours map[string]any) { ours["max_frame"] = 8192 })
		if p.largest() < 8192 {
			t.Skipf("this needs frames of 8192 bytes, and the agreed limit is %d bytes", p.largest())
		}
		data := strings.Repeat("x", 7800) // it fits into the frame of the call, and the error has more than that frame
		t.restsOn("call/unknown")
		f := p.answer(p.open("conformance.fail", args{"message": "much data", "data": data}))
		if f.Kind != core.KindError || f.Size() > 8192 || p.remote(f).Message != "much data" {
			t.Errorf("the limit is 8192, and the answer is %s", f.String())
		}
		p.echo("it goes on")
	}),
	rule("error/cause", "cause is the error from which this one was raised, in the same shape.", func(t *trial) {
		p := t.connect()
		e, _ := p.fails(p.open("conformance.fail", args{"message": "the effect"}))
		if e.Cause == nil || e.Cause.Type == "" || e.Cause.Message != "the cause" {
			t.Errorf("the cause is %s", show(e.Cause))
		}
		if e.Context != nil {
			t.Errorf("beside its cause it has the context %s", show(e.Context))
		}
	}),
	rule("error/unsendable", "A value that can't be encoded is an error at the sender, of the type BadResult. "+
		"The error names the path.", func(t *trial) {
		p := t.connect()
		e, _ := p.fails(p.open("conformance.unsendable", nil))
		if e.Type != core.TypeBadResult || !strings.Contains(e.Message, "culprit") {
			t.Errorf("the error is %q", e)
		}
		p.echo("it goes on")
	}),

	rule("callback/call", "A handler's call to the host has an even id and the handler's call as parent, "+
		"and gets the host's answer.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.callback", args{"name": "host.twice", "value": int64(21)})
		f := p.callback(id)
		if f.ID%2 != 0 || f.ID == 0 || f.Parent != id || f.Name != "host.twice" || f.Flags&core.NoInput == 0 ||
			p.decode(f.Body) != int64(21) {
			t.Errorf("the call is %s", f.String())
		}
		p.send(core.Frame{Kind: core.KindEnd, ID: f.ID, Body: p.encode(int64(42))})
		if got := p.finish(id); got != int64(42) {
			t.Errorf("the result is %s", show(got))
		}
	}),
	rule("callback/context", "A handler's call to the host passes on the session and the time left, "+
		"but of the metadata only the trace headers.", func(t *trial) {
		p := t.connect()
		for _, limit := range []time.Duration{0, time.Hour} {
			id := p.open("conformance.callback", args{"name": "host.f", "value": nil}, func(f *core.Frame) {
				f.Session, f.TTL, f.Meta = "user 42", limit, map[string]string{"secret": "of the caller"}
			})
			f := p.callback(id)
			if _, passed := f.Meta["secret"]; passed {
				t.Errorf("the handler's call has the caller's metadata")
			}
			if f.Session != "user 42" || f.TTL > limit || f.TTL < limit-time.Minute {
				t.Errorf("of a call with the session \"user 42\" and a time limit of %s the handler's call is %s",
					limit, f.String())
			}
			p.end(f.ID)
			p.finish(id)
		}
	}),
	rule("callback/trace", "A handler's call to the host carries the trace headers of the handler's call, "+
		"or those of a child span.", func(t *trial) {
		p := t.connect()
		for n, command := range []string{"conformance.callback", "conformance.callbacks", "conformance.callback"} {
			trace := fmt.Sprintf("%032x", n+1)
			headers := map[string]string{
				"traceparent": "00-" + trace + "-00000000000000ab-01", "tracestate": fmt.Sprintf("vendor=%d", n),
				"baggage": fmt.Sprintf("caller=%d", n),
			}
			if command == "conformance.callbacks" && !p.offers(command) {
				continue
			}
			id := p.open(command, args{"name": "host.f", "value": nil}, func(f *core.Frame) { f.Meta = headers })
			f := p.callback(id)
			if !strings.HasPrefix(f.Meta["traceparent"], "00-"+trace+"-") ||
				!strings.Contains(f.Meta["tracestate"], headers["tracestate"]) ||
				!strings.Contains(f.Meta["baggage"], headers["baggage"]) {
				t.Errorf("of a call of %s with %v the handler's call has %v", command, headers, f.Meta)
			}
			p.end(f.ID)
			p.finish(id)
		}
	}),
	rule("callback/ids", "The worker's ids strictly increase.", func(t *trial) {
		p := t.connect()
		last := uint64(0)
		for range 5 {
			id := p.open("conformance.callback", args{"name": "host.f", "value": nil})
			f := p.callback(id)
			if f.ID <= last {
				t.Errorf("call %d follows %d", f.ID, last)
			}
			last = f.ID
			p.end(f.ID)
			p.finish(id)
		}
	}),
	rule("callback/limit", "A worker has no more calls open at once than the host's hello says.", func(t *trial) {
		p := t.connect(func(ours map[string]any) { ours["calls"] = 1 })
		p.several(2)
		ids := []uint64{
			p.open("conformance.callback", args{"name": "host.f"}),
			p.open("conformance.callback", args{"name": "host.f"}),
		}
		first := p.callback(0)
		p.silent("a second call comes", func(f *core.Frame) bool { return f.Kind == core.KindCall })
		p.end(first.ID)
		t.restsOn("call/result")
		for left := len(ids); left > 0; { // the other one may have been refused, or its call comes now
			f := p.take("the end of both callbacks", func(f *core.Frame) bool {
				return f.Kind == core.KindCall || slices.Contains(ids, f.ID) && terminal(f)
			})
			if f.Kind == core.KindCall {
				p.end(f.ID)
			} else {
				left--
			}
		}
	}),
	rule("callback/error", "The host's error becomes the handler's: "+
		"its type and message are those of the call's error, or of one of its causes.", func(t *trial) {
		p := t.connect()
		for _, flags := range []core.Flags{0, core.NotStarted} {
			id := p.open("conformance.callback", args{"name": "host.fails", "value": nil})
			f := p.callback(id)
			body := p.encode(&core.RemoteError{Type: "Sorry", Message: "no such luck"})
			p.send(core.Frame{Kind: core.KindError, Flags: flags, ID: f.ID, Body: body})
			e, flags := p.fails(id)
			cause := e
			for cause != nil && (cause.Type != "Sorry" || cause.Message != "no such luck") {
				cause = cause.Cause
			}
			if cause == nil || flags&core.NotStarted != 0 {
				t.Errorf("the host's error \"Sorry: no such luck\" becomes %s, and its flags are %d", show(e), flags)
			}
		}
	}),
	rule("callback/stream", "A handler reads a stream of the host to its end, "+
		"and grants credit as it consumes.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.callbacks", args{"name": "host.count", "value": nil})
		f := p.callback(id)
		var want []any
		for i := range 2*min(p.hello.Window.Items, 2000) + 3 {
			want = append(want, i)
		}
		p.supply(f.ID, want...)
		p.end(f.ID)
		if got := p.finish(id); !reflect.DeepEqual(got, want) {
			t.Errorf("the handler sees %.200s", show(got))
		}
		large := strings.Repeat("x", 64<<10) // bytes run out before items
		n := int(p.hello.Window.Bytes)/len(large)*2 + 3
		if !p.passes(n*len(large)) || n > 200 {
			return
		}
		id = p.open("conformance.callbacks", args{"name": "host.large", "value": nil})
		f = p.callback(id)
		p.supply(f.ID, slices.Repeat([]any{large}, n)...)
		p.end(f.ID)
		if got := p.finish(id); !reflect.DeepEqual(got, slices.Repeat([]any{large}, n)) {
			t.Errorf("the handler should see %d items of 64 KiB, but sees %.200s", n, show(got))
		}
	}),
	rule("callback/cancelled", "When a call is cancelled, "+
		"its handler's calls to the host are cancelled before the call is answered.", func(t *trial) {
		p := t.connect()
		for _, command := range []string{"conformance.callback", "conformance.callbacks"} {
			id := p.open(command, args{"name": "host.slow", "value": nil})
			f := p.callback(id)
			p.cancel(id)
			first := p.take("the cancel of the host's call", func(g *core.Frame) bool {
				return g.ID == id && terminal(g) || g.ID == f.ID && g.Kind == core.KindCancel
			})
			if first.ID == id {
				t.Fatalf("%s is answered while its call to the host is still open", command)
			}
			body := p.encode(&core.RemoteError{Type: core.TypeCancelled, Message: "as you wish"})
			p.send(core.Frame{Kind: core.KindError, ID: f.ID, Body: body})
			p.expectError(id)
		}
		p.echo("it goes on")
	}),
	rule("callback/undecodable", "An answer of the host that can't be "+
		"decoded is an error of the handler's call alone.", func(t *trial) {
		p := t.connect()
		bad := hostile(p.codec.Name(), 1).wrong
		if len(bad) == 0 {
			t.Skipf("the suite knows no such bodies of the codec %s", p.codec.Name())
		}
		for _, kind := range []core.Kind{core.KindItem, core.KindEnd, core.KindError} {
			command := "conformance.callback"
			if kind == core.KindItem {
				command = "conformance.callbacks"
			}
			id := p.open(command, args{"name": "host.f", "value": nil})
			f := p.callback(id)
			p.send(core.Frame{Kind: kind, ID: f.ID, Body: bad[0]})
			if kind == core.KindItem {
				p.end(f.ID)
			}
			p.expectError(id)
		}
		p.echo("it goes on")
	}),

	rule("callback/cancel-order", "A cancel never overtakes its own call frame.", func(t *trial) {
		p := t.connect()
		opened := map[uint64]bool{}
		for i := range 20 {
			id := p.open("conformance.callback", args{"name": "host.slow", "value": nil})
			if i%2 == 1 {
				p.running(id)
			}
			p.cancel(id)
			for ended := false; !ended; {
				f := p.take("the end of a cancelled call", func(f *core.Frame) bool {
					return f.ID == id && terminal(f) || f.Kind == core.KindCall || f.Kind == core.KindCancel
				})
				switch f.Kind {
				case core.KindCall:
					opened[f.ID] = true
				case core.KindCancel:
					if !opened[f.ID] {
						t.Fatalf("the cancel of call %d comes before the call", f.ID)
					}
					body := p.encode(&core.RemoteError{Type: core.TypeCancelled, Message: "as you wish"})
					p.send(core.Frame{Kind: core.KindError, ID: f.ID, Body: body})
				default:
					ended = true
				}
			}
		}
	}),

	rule("session/state", "Calls of one session share a state. "+
		"Calls of another session, or of none, do not see it.", func(t *trial) {
		p := t.connect()
		p.call("conformance.remember", args{"value": "a's"}, inSession("a"))
		p.call("conformance.remember", args{"value": "b's"}, inSession("b"))
		for _, c := range []struct {
			session string
			want    any
		}{{"a", "a's"}, {"b", "b's"}, {"c", nil}, {"", nil}} {
			if got := p.call("conformance.remember", nil, inSession(c.session)); got != c.want {
				t.Errorf("session %q remembers %s", c.session, show(got))
			}
		}
	}),
	rule("session/id", "The session's id reaches the handler.", func(t *trial) {
		p := t.connect()
		for _, want := range []any{"user 42", nil} {
			id, _ := want.(string)
			got, _ := p.call("conformance.context", nil, inSession(id)).(map[string]any)
			if got["session"] != want {
				t.Errorf("the session is %s, not %s", show(got["session"]), show(want))
			}
		}
	}),
	rule("session/forget", "snakepit.forget with a session drops that session's state, "+
		"and no other's.", func(t *trial) {
		p := t.connect()
		if !p.offers("snakepit.forget") {
			t.Skipf("the worker does not list snakepit.forget")
		}
		p.call("conformance.remember", args{"value": "a's"}, inSession("a"))
		p.call("conformance.remember", args{"value": "b's"}, inSession("b"))
		p.call("snakepit.forget", nil, inSession("a"))
		if got := p.call("conformance.remember", nil, inSession("a")); got != nil {
			t.Errorf("a forgotten session remembers %s", show(got))
		}
		if got := p.call("conformance.remember", nil, inSession("b")); got != "b's" {
			t.Errorf("another session remembers %s", show(got))
		}
	}),

	rule("deadline/remaining", "The handler sees how much time is left.", func(t *trial) {
		p := t.connect()
		got, _ := p.call("conformance.context", nil, func(f *core.Frame) { f.TTL = 90 * time.Second }).(map[string]any)
		if left, ok := number(got["remaining"]); !ok || left <= 0 || left > 90 {
			t.Errorf("%s of 90 seconds are left", show(got["remaining"]))
		}
	}),
	rule("deadline/none", "A call without a time limit has none.", func(t *trial) {
		p := t.connect()
		got, _ := p.call("conformance.context", nil).(map[string]any)
		if got["remaining"] != nil {
			t.Errorf("a call without a limit has %s seconds left", show(got["remaining"]))
		}
	}),
}
