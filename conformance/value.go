package conformance

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// valueClauses is about values on their way through a worker.
var valueClauses = []clause{
	rule("value/plain", "Nil, booleans, integers of 53 bits, fractions, "+
		"text, binary, lists and maps survive a round trip.", func(t *trial) {
		t.echoes(plainValues())
	}),
	rule("value/exact", "With exact-numbers integers of any size and the difference between 5 and 5.0 survive, "+
		"and so do NaN, infinities and -0.", func(t *trial) {
		t.echoes(exactValues(), (*peer).exact)
		p := t.connect()
		if p.exact(); p.codec.Name() == "json" {
			for body, want := range map[string]any{
				`{"value":{"$int":"0x5"}}`: int64(5), `{"value":{"$int":"-0xff"}}`: int64(-255),
				`{"value":{"$int":"0x00ffffffffffffffff"}}`: uint64(math.MaxUint64),
			} {
				got := p.call("conformance.echo", nil, func(f *core.Frame) { f.Body = []byte(body) })
				if got != want {
					t.Errorf("an echo of %s is %s", body, show(got))
				}
			}
		}
	}),
	rule("value/time", "Timestamps have nanoseconds; "+
		"a worker may keep microseconds and round towards the past.", func(t *trial) {
		t.echoes(timestamps())
		p := t.connect()
		for _, v := range []time.Time{
			time.Date(2026, 1, 2, 3, 4, 5, 678901999, time.UTC), time.Date(1901, 1, 1, 0, 0, 0, 999, time.UTC),
		} {
			got, ok := p.call("conformance.echo", args{"value": v}).(time.Time)
			if !ok || !got.Equal(v) && !got.Equal(v.Truncate(time.Microsecond)) {
				t.Errorf("%s comes back as %s", show(v), show(got))
			}
		}
	}),
	rule("value/duration", "Durations have nanoseconds; "+
		"a worker may keep microseconds and round down.", func(t *trial) {
		t.echoes(durations())
		p := t.connect()
		for _, v := range []time.Duration{time.Second + 1999, -1} {
			got, ok := p.call("conformance.echo", args{"value": v}).(time.Duration)
			if down := (v - (v%1000+1000)%1000); !ok || got != v && got != down {
				t.Errorf("%s comes back as %s", show(v), show(got))
			}
		}
	}),
	rule("value/array", "An array keeps its dtype, shape and data. "+
		"A worker without arrays has nested lists of the elements instead.", func(t *trial) {
		p := t.connect()
		for _, c := range []struct {
			array core.Array
			lists any
		}{
			{core.ArrayOf([]float64{0.5, 1.5, -2.5, 1e-300, 1e300, 6.25}, 2, 3),
				[]any{[]any{0.5, 1.5, -2.5}, []any{1e-300, 1e300, 6.25}}},
			{core.ArrayOf([]byte{0, 127, 128, 255}), []any{int64(0), int64(127), int64(128), int64(255)}},
			{core.Array{DType: "<i4", Shape: []int{0, 5}, Data: []byte{}}, []any{}},
		} {
			f := p.answer(p.open("conformance.echo", args{"value": c.array}))
			var got core.Array
			if f.Kind != core.KindEnd {
				t.Errorf("an array is answered by %s", p.remote(f))
			} else if lists := p.decode(f.Body); reflect.DeepEqual(lists, c.lists) {
				continue
			} else if err := p.codec.Decode(f.Body, &got); err != nil {
				t.Errorf("%s comes back as something that is not an array (%v): %.100q", show(c.array), err, f.Body)
			} else if !reflect.DeepEqual(got, c.array) {
				t.Errorf("%s comes back as %s", show(c.array), show(got))
			}
		}
	}),
	rule("value/nesting", "Lists and maps nest 500 levels deep, and the outermost one is the first level. "+
		"Deeper nesting is an error of its call alone.", func(t *trial) {
		p := t.connect()
		body := p.encode(nested(500)) // the argument itself is level one
		f := p.answer(p.open("conformance.echo", nil, func(f *core.Frame) { f.Body = body }))
		if f.Kind != core.KindEnd || !reflect.DeepEqual(p.decode(f.Body), nested(500)) {
			t.Errorf("500 levels are answered by %.100s", f.String())
		}
		tags := args{"value": nestedTags(499)}
		f = p.answer(p.open("conformance.echo", tags))
		if f.Kind != core.KindEnd || !reflect.DeepEqual(p.decode(f.Body), tags["value"]) {
			t.Errorf("500 levels of maps that look like tags are answered by %.100s", f.String())
		}
		deep := hostile(p.codec.Name(), 501).deep
		if deep == nil {
			t.Skipf("the suite can't write 501 levels of the codec %s", p.codec.Name())
		}
		p.expectError(p.open("conformance.echo", nil, func(f *core.Frame) { f.Body = deep }))
		p.echo("it goes on")
	}),
	rule("value/equal-keys", "Two equal keys of a map are an error of that call, "+
		"wherever the map stands and however its keys are written.", func(t *trial) {
		p := t.connect()
		p.exact()
		p.refuses(hostile(p.codec.Name(), 1).equalKeys)
	}),
	rule("value/tags", "A map whose only key begins with $ is an error of that call if the key is no tag, "+
		"or if the value does not fit the tag.", func(t *trial) {
		p := t.connect()
		p.refuses(hostile(p.codec.Name(), 1).tags)
	}),
	rule("value/array-length", "An array's data is exactly as long as dtype and shape say. "+
		"Any other length is an error of that call.", func(t *trial) {
		p := t.connect()
		p.refuses(hostile(p.codec.Name(), 1).arrays)
	}),
	rule("value/surrogates", "Text with half of a surrogate pair is an error of that call; "+
		"a whole pair is one character.", func(t *trial) {
		p := t.connect()
		if p.codec.Name() == "json" {
			for body, want := range map[string]string{
				`"\ud83d\ude00"`: "😀", `"\\ud800"`: `\ud800`, `"\\\ud83d\ude00"`: `\😀`,
			} {
				if got := p.call("conformance.echo", nil, func(f *core.Frame) { f.Body = []byte(body) }); got != want {
					t.Errorf("an echo of %s is %s", body, show(got))
				}
			}
		}
		p.refuses(hostile(p.codec.Name(), 1).halves)
	}),
	rule("value/whole", "A body is one value. Bytes after it are an error of that call.", func(t *trial) {
		p := t.connect()
		p.refuses(hostile(p.codec.Name(), 1).trailing)
	}),
	rule("value/msgpack-formats", "A worker reads every format of MessagePack that a value may have, "+
		"not only the shortest.", func(t *trial) {
		p := t.connect()
		if p.codec.Name() != "msgpack" {
			t.Skipf("the codec is %s", p.codec.Name())
		}
		exact := slices.Contains(p.hello.Features, "exact-numbers")
		for _, c := range packed {
			if n, whole := number(c.want); whole && math.Abs(n) > 1<<53 && !exact {
				continue
			}
			got := p.call("conformance.echo", nil, func(f *core.Frame) {
				f.Body = append([]byte("\x81\xa5value"), c.body...)
			})
			if !same(got, c.want) {
				t.Errorf("an echo of %x is %s, not %s", c.body, show(got), show(c.want))
			}
		}
	}),
	rule("value/large", "A value of a megabyte survives a round trip, binary and text.", func(t *trial) {
		p := t.connect()
		if p.largest() < 2<<20 {
			t.Skipf("this needs frames of 2 MiB, and the agreed limit is %d bytes", p.largest())
		}
		p.echo(bytes.Repeat([]byte{0, 200, 10, 255}, 256<<10))
		p.echo(strings.Repeat("ü\t\n\"", 200<<10))
	}),
	rule("value/in-streams", "Items, inputs and results follow the same rules as arguments.", func(t *trial) {
		p := t.connect()
		id := p.open("conformance.first", nil, withInput)
		v := args{"bytes": []byte{0, 255}, "list": []any{nil, true, "x"}}
		p.item(id, v)
		if got := p.finish(id); !reflect.DeepEqual(got, v) {
			t.Errorf("an input of %s comes back as %s", show(v), show(got))
		}
	}),
}

// refuses sends bodies that can't be decoded. Each has to be an error of its call alone.
func (p *peer) refuses(bodies [][]byte) {
	if len(bodies) < 2 {
		p.t.Skipf("the suite knows no such bodies of the codec %s", p.codec.Name())
	}
	for _, body := range bodies {
		if bytes.ContainsAny(body, "\n\t") || !p.passes(len(body)) {
			continue
		}
		f := p.answer(p.open("conformance.echo", nil, func(f *core.Frame) { f.Body = body }))
		if f.Kind != core.KindError {
			p.t.Errorf("the body %.60q is accepted, and the echo is %.60q", body, f.Body)
		} else if e := p.remote(f); e.Type != core.TypeBadArguments {
			p.t.Errorf("the body %.60q ends the call with %s", body, show(e.Error()))
		}
	}
	p.echo("it goes on")
}

// echoes sends each value to the worker and back.
func (t *trial) echoes(values []any, needs ...func(*peer)) {
	p := t.connect()
	for _, need := range needs {
		need(p)
	}
	for _, v := range values {
		f := p.answer(p.open("conformance.echo", args{"value": v}))
		if f.Kind != core.KindEnd {
			t.Errorf("%s is answered by %v", show(v), p.remote(f))
		} else if got := p.decode(f.Body); !same(got, v) {
			t.Errorf("%s comes back as %s", show(v), show(got))
		}
	}
}
