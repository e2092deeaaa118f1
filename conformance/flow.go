package conformance

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// streamClauses is about calls with many results, and with many inputs.
var streamClauses = []clause{
	rule("stream/items", "A stream's items come in order, then one end. "+
		"The body of the end is the generator's return value.", func(t *trial) {
		p := t.connect()
		got, result := p.integers(p.open("conformance.count", args{"n": int64(7)}))
		if !reflect.DeepEqual(got, []int64{0, 1, 2, 3, 4, 5, 6}) || !reflect.DeepEqual(result, args{"sent": int64(7)}) {
			t.Errorf("the items are %s, and the result is %s", show(got), show(result))
		}
	}),
	rule("stream/empty", "A stream may have no items.", func(t *trial) {
		p := t.connect()
		got, result := p.integers(p.open("conformance.count", args{"n": int64(0)}))
		if len(got) > 0 || !reflect.DeepEqual(result, args{"sent": int64(0)}) {
			t.Errorf("the items are %s, and the result is %s", show(got), show(result))
		}
	}),
	rule("stream/many", "However many items a stream has, none is lost, "+
		"comes twice or overtakes another.", func(t *trial) {
		p := t.connect()
		const n = 5000
		got, _ := p.integers(p.open("conformance.count", args{"n": int64(n)}))
		for i := range got {
			if got[i] != int64(i) {
				t.Fatalf("item %d is %d", i, got[i])
			}
		}
		if len(got) != n {
			t.Errorf("%d of %d items come", len(got), n)
		}
	}),
	rule("stream/prompt", "An item is sent as soon as it is there. It does not wait for the next.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.double", nil, withInput)
		for i := range int64(5) {
			p.item(id, i)
			if f := p.answer(id); f.Kind != core.KindItem || p.decode(f.Body) != 2*i {
				t.Fatalf("the double of %d is %s", i, f.String())
			}
		}
		p.end(id)
		p.finish(id)
	}),
	rule("stream/failed-items", "A failed item has an error as its body, and the stream goes on.", func(t *trial) {
		p := t.connect()
		items, end := p.collect(p.open("conformance.mixed", args{"n": int64(4)}))
		if len(items) != 4 || end.Kind != core.KindEnd {
			t.Fatalf("%d of 4 items come, and then %s", len(items), end.String())
		}
		for i, f := range items {
			if failed := f.Flags&core.Failed != 0; failed != (i%2 == 1) {
				t.Errorf("item %d has the flags %d", i, f.Flags)
			} else if failed && !strings.Contains(p.remote(f).Message, "odd") {
				t.Errorf("the error of item %d is %v", i, p.remote(f))
			} else if !failed && p.decode(f.Body) != int64(i) {
				t.Errorf("item %d is %s", i, f.String())
			}
		}
	}),
	rule("stream/error", "A stream that fails sends the items before the failure, "+
		"then an error in place of the end.", func(t *trial) {
		p := t.connect()
		items, end := p.collect(p.open("conformance.count", args{"n": int64(3), "fail": true}))
		if len(items) != 3 || end.Kind != core.KindError || p.remote(end).Type == "" {
			t.Errorf("%d items come, and then %s", len(items), end.String())
		}
		p.echo("it goes on")
	}),
	rule("stream/nothing-after", "Nothing of a call follows its end.", func(t *trial) {
		p := t.connect()
		for _, name := range []string{"conformance.count", "conformance.mixed"} {
			id := p.open(name, args{"n": int64(3)})
			p.collect(id)
			p.echo("another call")
			p.staysEnded(id)
		}
	}),

	rule("input/read", "A handler reads its input to the opener's end.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.sum", nil, withInput)
		want := p.feed(id, 100)
		p.end(id)
		if got := p.finish(id); got != want {
			t.Errorf("the sum is %s, not %d", show(got), want)
		}
	}),
	rule("input/none", "With no-input, or an end at once, the input is empty.", func(t *trial) {
		p := t.connect()
		if got := p.call("conformance.sum", nil); got != int64(0) {
			t.Errorf("the sum is %s with no-input", show(got))
		}
		id := p.open("conformance.sum", nil, withInput)
		p.end(id)
		if got := p.finish(id); got != int64(0) {
			t.Errorf("the sum is %s after an end", show(got))
		}
	}),
	rule("input/unread", "A handler need not read its input: "+
		"its answer ends both directions, and items that cross it are dropped.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.first", nil, withInput)
		for _, v := range []any{"the first", "the second", "the third"} {
			p.item(id, v)
		}
		if got := p.finish(id); got != "the first" {
			t.Errorf("the first input is %s", show(got))
		}
		p.item(id, "late")
		p.end(id)
		p.echo("it goes on")
	}),
	rule("input/failed-items", "An input item with failed does not end the input.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.sum", nil, withInput)
		p.item(id, int64(1))
		failed := p.encode(&core.RemoteError{Type: "Sorry", Message: "no number"})
		p.send(core.Frame{Kind: core.KindItem, Flags: core.Failed, ID: id, Body: failed})
		p.item(id, int64(2))
		p.end(id)
		if got := p.finish(id); got != int64(3) {
			t.Errorf("the sum of 1, a failed item and 2 is %s", show(got))
		}
	}),
	rule("input/undecodable", "An input item that can't be decoded is an error of its call alone.", func(t *trial) {
		p := t.connect()
		bad := hostile(p.codec.Name(), 1)
		if len(bad.wrong) == 0 {
			t.Skipf("the suite knows no such bodies of the codec %s", p.codec.Name())
		}
		for _, body := range [][]byte{bad.wrong[0], bad.arrays[0], bad.trailing[0]} {
			id := p.open("conformance.sum", nil, withInput)
			p.item(id, int64(1))
			p.send(core.Frame{Kind: core.KindItem, ID: id, Body: body})
			p.end(id)
			if f := p.answer(id); f.Kind != core.KindError {
				t.Errorf("the item %.60q is accepted, and the sum is %.60q", body, f.Body)
			}
		}
		p.echo("it goes on")
	}),
	rule("input/second-end", "Each direction ends once: "+
		"a second end is a protocol error and ends the connection.", func(t *trial) {
		for _, flags := range []core.Flags{0, core.NoInput} {
			p := t.connect()
			id := p.open("conformance.wait", nil, func(f *core.Frame) { f.Flags = flags })
			if flags&core.NoInput == 0 {
				p.end(id)
			}
			p.end(id)
			_ = p.waitEnd("a second end has come")
		}
	}),
	rule("input/after-end", "An item after the end of its direction "+
		"is a protocol error and ends the connection.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil, withInput)
		p.end(id)
		p.item(id, "too late")
		_ = p.waitEnd("an item after the opener's end has come")
	}),
}

// feed sends the integers from 0 to n-1, as credit allows, and returns their sum.
func (p *peer) feed(id uint64, n int) (sum int64) {
	var all []any
	for i := range int64(n) {
		all = append(all, i)
		sum += i
	}
	p.supply(id, all...)
	return sum
}

// supply sends all the items of a direction, as credit allows. A *core.RemoteError is sent as a failed item.
func (p *peer) supply(id uint64, items ...any) {
	p.t.restsOn("input/read")
	credit := p.hello.Window
	for _, v := range items {
		for credit.Items <= 0 || credit.Bytes <= 0 {
			p.t.restsOn("credit/given")
			isCredit := func(f *core.Frame) bool { return f.Kind == core.KindCredit && f.ID == id }
			c := p.take("credit for more items", isCredit, id, p.parents[id])
			credit.Items, credit.Bytes = credit.Items+c.Items, credit.Bytes+c.Bytes
		}
		f := core.Frame{Kind: core.KindItem, ID: id, Body: p.encode(v)}
		if _, failed := v.(*core.RemoteError); failed {
			f.Flags = core.Failed
		}
		p.send(f)
		credit.Items, credit.Bytes = credit.Items-1, credit.Bytes-int64(len(f.Body))
	}
}

// granted waits a moment for credit of a direction, and adds it up.
func (p *peer) granted(id uint64) (sum window) {
	for end := time.After(pause); ; {
		if f, _, _ := p.pick(func(f *core.Frame) bool { return f.Kind == core.KindCredit && f.ID == id }); f != nil {
			sum.Items, sum.Bytes = sum.Items+f.Items, sum.Bytes+f.Bytes
			continue
		}
		select {
		case <-p.arrived:
		case <-end:
			return sum
		}
	}
}

// creditClauses is about how much may be on its way.
var creditClauses = []clause{
	rule("credit/items", "A sender starts with the receiver's window and sends no item without credit. "+
		"Each credit allows that many more.", func(t *trial) {
		p := t.connect(granting(4, 1<<20))
		id := p.open("conformance.count", args{"n": int64(100)})
		sent := 0
		for _, more := range []int{4, 3, 1, 2} {
			if sent > 0 {
				p.grant(id, int64(more), 0)
			}
			for range more {
				if f := p.answer(id); f.Kind != core.KindItem || p.decode(f.Body) != int64(sent) {
					t.Fatalf("item %d is %s", sent, f.String())
				}
				sent++
			}
			p.silent("a frame comes without credit", func(f *core.Frame) bool {
				return f.ID == id && f.Kind != core.KindCredit
			})
		}
		p.cancel(id)
		p.answer(id)
	}),
	rule("credit/bytes", "Bytes are counted too. An item may be sent while items and bytes are both above zero, "+
		"and the bytes may go below zero once.", func(t *trial) {
		p := t.connect(granting(1000, 1000))
		id := p.open("conformance.count", args{"n": int64(50), "size": int64(600)})
		size := int64(len(p.answer(id).Body))
		left := 1000 - size
		for round := range 3 {
			for left > 0 {
				left -= int64(len(p.answer(id).Body))
			}
			p.silent("an item comes without credit for bytes", func(f *core.Frame) bool {
				return f.ID == id && f.Kind == core.KindItem
			})
			more := int64(700 + 900*round)
			p.grant(id, 0, more)
			left += more
		}
		p.cancel(id)
		p.collect(id)
	}),
	rule("credit/large-item", "An item that is larger than the whole window passes.", func(t *trial) {
		p := t.connect(granting(10, 100))
		items, end := p.collect(p.open("conformance.count", args{"n": int64(3), "size": int64(2000)}))
		if len(items) != 3 || end.Kind != core.KindEnd ||
			!reflect.DeepEqual(p.decode(items[2].Body), bytes.Repeat([]byte("x"), 2000)) {
			t.Errorf("%d items come, and then %s", len(items), end.String())
		}
	}),
	rule("credit/failed-items", "Failed items cost credit like others.", func(t *trial) {
		p := t.connect(granting(3, 1<<20))
		id := p.open("conformance.mixed", args{"n": int64(10)})
		for range 3 {
			p.answer(id)
		}
		p.silent("an item comes without credit", func(f *core.Frame) bool {
			return f.ID == id && f.Kind == core.KindItem
		})
		p.cancel(id)
		p.answer(id)
	}),
	rule("credit/end-is-free", "The terminal frame costs no credit.", func(t *trial) {
		p := t.connect(granting(3, 1<<20))
		id := p.open("conformance.count", args{"n": int64(3)})
		for range 3 {
			p.answer(id)
		}
		p.finish(id)
	}),
	rule("credit/per-call", "Credit is per call: "+
		"a stream that waits for it delays no ping and no other call.", func(t *trial) {
		p := t.connect(granting(1, 1<<20))
		id := p.open("conformance.count", args{"n": int64(5)})
		p.answer(id)
		t.within("a ping beside a stream that waits", func() { p.ping(1) })
		if p.limit > 1 {
			p.echo("another call")
		}
		p.grant(id, 10, 0)
		if _, end := p.collect(id); end.Kind != core.KindEnd {
			t.Errorf("the stream ends with %s", end.String())
		}
	}),
	rule("credit/given", "The worker grants credit for input as it consumes it, items and bytes.", func(t *trial) {
		p := t.connect()
		if p.hello.Window.Items > 1<<14 || p.hello.Window.Bytes > 16<<20 {
			t.Skipf("the worker's window of %d items and %d bytes is too large to fill",
				p.hello.Window.Items, p.hello.Window.Bytes)
		}
		id := p.open("conformance.sum", nil, withInput)
		want := p.feed(id, int(p.hello.Window.Items)*3)
		p.end(id)
		if got := p.finish(id); got != want {
			t.Errorf("the sum is %s, not %d", show(got), want)
		}
		size := min(64<<10, p.largest()/2)
		// A failed item costs credit like others and does not change the sum.
		large := &core.RemoteError{Type: "Sorry", Message: strings.Repeat("x", size)}
		id = p.open("conformance.sum", nil, withInput)
		p.supply(id, slices.Repeat([]any{large}, int(p.hello.Window.Bytes)*3/size+1)...)
		p.end(id)
		if got := p.finish(id); got != int64(0) {
			t.Errorf("the sum of failed items is %s", show(got))
		}
	}),
	rule("credit/consumed", "The worker grants no more credit than its handler has consumed, "+
		"items and bytes.", func(t *trial) {
		p := t.connect(granting(4, 1<<20))
		grant := p.hello.Window
		if grant.Items > 1<<14 {
			t.Skipf("the worker's window of %d items is too large to fill", grant.Items)
		}
		for _, command := range []string{"conformance.wait", "conformance.double"} {
			id := p.open(command, nil, withInput)
			consumed := int64(0) // wait takes nothing
			if command == "conformance.double" {
				consumed = 4 + 2 // four are answered, one waits for credit, one may have been taken in advance
			}
			size, sent := int64(len(p.encode(int64(1)))), int64(0)
			for ; sent < grant.Items && sent*size < grant.Bytes; sent++ {
				p.item(id, int64(1))
			}
			for range min(consumed, sent, 4) {
				p.answer(id)
			}
			granted := p.granted(id)
			if granted.Items > consumed || granted.Bytes > consumed*size {
				t.Errorf("%s has taken %d items of %d bytes at most, and credit is granted for %d items and %d bytes",
					command, consumed, size, granted.Items, granted.Bytes)
			}
			p.cancel(id)
			p.answer(id)
		}
	}),
	rule("credit/after-end", "No credit is granted for a direction that has ended. "+
		"Credit that comes for one is ignored.", func(t *trial) {
		p := t.connect(granting(1, 1<<20))
		grant := p.hello.Window
		if grant.Items > 1<<14 {
			t.Skipf("the worker's window of %d items is too large to fill", grant.Items)
		}
		id := p.open("conformance.double", nil, withInput)
		size := int64(len(p.encode(int64(1))))
		sent := 0
		for int64(sent) < grant.Items && int64(sent)*size < grant.Bytes {
			p.item(id, int64(1))
			sent++
		}
		p.answer(id) // now the handler waits for credit
		p.end(id)
		p.ping(1) // the worker has read the end
		_ = p.granted(id)
		for n := 1; n < sent; n++ {
			p.grant(id, 1, 100)
			p.answer(id)
		}
		p.grant(id, 1, 100)
		p.finish(id)
		if granted := p.granted(id); granted != (window{}) {
			t.Errorf("credit is granted for an input that has ended: %s", show(granted))
		}
		if p.offers("conformance.callback") {
			id = p.open("conformance.callback", args{"name": "host.f", "value": nil})
			f := p.callback(id)
			p.grant(f.ID, 1, 1) // the opener's direction has ended with the call frame
			p.end(f.ID)
			p.finish(id)
		}
	}),
	rule("credit/zero", "A credit of zero adds nothing.", func(t *trial) {
		p := t.connect(granting(1, 1<<20))
		id := p.open("conformance.count", args{"n": int64(3)})
		p.answer(id)
		p.grant(id, 0, 0)
		p.silent("a frame follows a credit of zero", func(f *core.Frame) bool { return f.ID == id && isCalls(f.Kind) })
		p.grant(id, 10, 0)
		if items, end := p.collect(id); len(items) != 2 || end.Kind != core.KindEnd {
			t.Errorf("%d items come, and then %s", len(items), end.String())
		}
	}),
	rule("credit/overrun", "A receiver may treat more items than it granted as a protocol error. "+
		"If it does not, the call goes on.", func(t *trial) {
		p := t.connect()
		if p.hello.Window.Items > 1<<14 {
			t.Skipf("the worker's window of %d items is too large to fill", p.hello.Window.Items)
		}
		f := p.prepare("conformance.wait", nil, withInput)
		batch := []core.Frame{f}
		for range p.hello.Window.Items + 1 {
			batch = append(batch, core.Frame{Kind: core.KindItem, ID: f.ID, Body: p.encode(int64(1))})
		}
		batch = append(batch, core.Frame{Kind: core.KindCancel, ID: f.ID})
		_ = p.conn.Write(batch) // an error means that the connection has ended already
		for {
			p.mu.Lock()
			over := p.err != nil
			p.mu.Unlock()
			if over {
				return
			}
			if p.has(func(g *core.Frame) bool { return g.ID == f.ID && terminal(g) }) {
				return
			}
			select {
			case <-p.arrived:
			case <-t.Context().Done():
				t.Fatalf("neither the call nor the connection ends")
			}
		}
	}),
	rule("credit/end-after-items", "An end never overtakes the items of its own call.", func(t *trial) {
		p := t.connect()
		for range 20 {
			id := p.open("conformance.count", args{"n": int64(20)})
			for i := range 20 {
				if f := p.answer(id); f.Kind != core.KindItem {
					t.Fatalf("%s comes instead of item %d", f.String(), i)
				}
			}
			p.finish(id)
		}
	}),
}

// cancelClauses is about how calls are stopped.
var cancelClauses = []clause{
	rule("cancel/answered", "A cancelled call ends at once, with an error of the type Cancelled.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.running(id)
		t.within("cancelling", func() {
			p.cancel(id)
			if e, flags := p.fails(id); e.Type != core.TypeCancelled || flags&core.NotStarted != 0 {
				t.Errorf("the error is %v, and its flags are %d", e, flags)
			}
		})
		p.staysEnded(id)
	}),
	rule("cancel/next", "A cancel never hits the next call.", func(t *trial) {
		p := t.connect()
		for i := range int64(60) {
			id := p.open("conformance.count", args{"n": i % 3})
			p.cancel(id)
			p.collect(id)
			if got := p.call("conformance.echo", args{"value": i}); got != i {
				t.Fatalf("the next call's result is %s, not %d", show(got), i)
			}
		}
	}),
	rule("cancel/at-once", "A cancel may come right after its call. Even then the call is answered.", func(t *trial) {
		p := t.connect()
		for range 20 {
			f := p.prepare("conformance.wait", nil)
			p.send(f, core.Frame{Kind: core.KindCancel, ID: f.ID, Name: "changed my mind"})
			p.expectError(f.ID)
		}
	}),
	rule("cancel/waiting", "A call that waits behind others is answered too when it is cancelled.", func(t *trial) {
		p := t.connect()
		var ids []uint64
		for range p.limit + 1 { // one more than run at once: the worker may refuse it as Saturated
			ids = append(ids, p.open("conformance.wait", nil))
		}
		last := ids[len(ids)-1]
		p.cancel(last)
		t.within("the end of a call that never ran", func() { p.expectError(last) })
		for _, id := range ids[:len(ids)-1] {
			p.cancel(id)
			p.expectError(id)
		}
		p.echo("it goes on")
	}),
	rule("cancel/stream", "A stream that waits for credit ends when it is cancelled.", func(t *trial) {
		p := t.connect(granting(2, 1<<20))
		id := p.open("conformance.count", args{"n": int64(1000)})
		p.answer(id)
		p.answer(id)
		p.cancel(id)
		t.within("cancelling", func() {
			for {
				if f := p.answer(id); f.Kind != core.KindItem {
					return
				}
			}
		})
		p.echo("it goes on")
	}),
	rule("cancel/input", "A handler that waits for input ends when it is cancelled.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.sum", nil, withInput)
		p.item(id, int64(1))
		p.running(id)
		p.cancel(id)
		t.within("cancelling", func() { p.expectError(id) })
		p.echo("it goes on")
	}),
	rule("cancel/twice", "A second cancel of a call does nothing.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.wait", nil)
		p.running(id)
		p.cancel(id)
		p.cancel(id)
		p.expectError(id)
		p.cancel(id)
		p.echo("it goes on")
	}),
	rule("cancel/other", "A cancel ends its own call and no other.", func(t *trial) {
		p := t.connect()
		p.several(2)
		one, other := p.open("conformance.wait", nil), p.open("conformance.wait", nil)
		p.running(one)
		p.running(other)
		p.cancel(one)
		p.expectError(one)
		p.silent("another call ends", func(f *core.Frame) bool { return f.ID == other })
		p.cancel(other)
		p.expectError(other)
	}),
}
