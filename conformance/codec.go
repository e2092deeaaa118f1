package conformance

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// codecClauses is what each codec of an adapter does with values, as the comment of core.Codec says, without a worker.
var codecClauses = []clause{
	rule("codec/append", "Append appends a value's encoding to dst and returns the extended slice.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			got, err := c.Append([]byte("before "), args{"a": "b"})
			alone, _ := c.Append(nil, args{"a": "b"})
			if err != nil || string(got) != "before "+string(alone) {
				t.Errorf("%s: %.60q, %v", c.Name(), got, err)
			}
		})
	}),
	rule("codec/append-error", "On an error dst is returned as it was, and the error names the path to what could not be encoded.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			got, err := c.Append([]byte("before"), args{"list": []any{"x", args{"culprit": make(chan int)}}})
			if err == nil || string(got) != "before" {
				t.Errorf("%s: a channel is encoded as %q, %v", c.Name(), got, err)
			} else if text := err.Error(); !strings.Contains(text, "list") || !strings.Contains(text, "1") || !strings.Contains(text, "culprit") {
				t.Errorf("%s: the error names no path: %v", c.Name(), err)
			}
		})
	}),
	rule("codec/round-trip", "What Append encodes Decode gives back, alike with every codec.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			for _, v := range slices.Concat(plainValues(), timestamps(), exactValues()) {
				body, err := c.Append(nil, v)
				if err != nil {
					t.Errorf("%s: encoding %#v: %v", c.Name(), v, err)
					continue
				}
				var got any
				if err := c.Decode(body, &got); err != nil || !same(got, v) {
					t.Errorf("%s: %#v comes back as %#v, %v", c.Name(), v, got, err)
				}
			}
		})
	}),
	rule("codec/keeps-nothing", "Decode keeps nothing of what it reads.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			v := args{"text": "some text", "bytes": []byte("some bytes"), "list": []any{"more text"}}
			body, err := c.Append(nil, v)
			if err != nil {
				t.Fatalf("%s: %v", c.Name(), err)
			}
			var got any
			if err := c.Decode(body, &got); err != nil {
				t.Fatalf("%s: %v", c.Name(), err)
			}
			for i := range body {
				body[i] = 0x2a
			}
			if !reflect.DeepEqual(got, v) {
				t.Errorf("%s: the value changes with the bytes that it was decoded from: %#v", c.Name(), got)
			}
		})
	}),
	rule("codec/whole", "Decode decodes one value, the whole of its argument: less or more is an error.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			body, err := c.Append(nil, args{"a": []any{"b", int64(300)}})
			if err != nil {
				t.Fatalf("%s: %v", c.Name(), err)
			}
			var v any
			for n := range body {
				if c.Decode(body[:n], &v) == nil {
					t.Errorf("%s: %d of %d bytes decode as %#v", c.Name(), n, len(body), v)
				}
			}
			if c.Decode(append(bytes.Clone(body), body...), &v) == nil {
				t.Errorf("%s: two values decode as %#v", c.Name(), v)
			}
		})
	}),
	rule("codec/target", "Decode's target must be a non-nil pointer; anything else is an error.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			body, _ := c.Append(nil, int64(1))
			for _, target := range []any{nil, 5, (*int)(nil), args{}} {
				if c.Decode(body, target) == nil {
					t.Errorf("%s: decoding into %#v is no error", c.Name(), target)
				}
			}
		})
	}),
	rule("codec/narrowing", "A number that does not fit its typed target is an error that names the path.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			body, err := c.Append(nil, args{"outer": args{"small": int64(300)}})
			if err != nil {
				t.Fatalf("%s: %v", c.Name(), err)
			}
			var v struct {
				Outer struct {
					Small int8 `json:"small"`
				} `json:"outer"`
			}
			if err := c.Decode(body, &v); err == nil || !strings.Contains(err.Error(), "outer") || !strings.Contains(err.Error(), "small") {
				t.Errorf("%s: 300 becomes %d, and the error is %v", c.Name(), v.Outer.Small, err)
			}
		})
	}),
	rule("codec/nesting", "Nesting is at most 500 levels: 500 pass, and what nests deeper is an error in both directions.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			var got any
			body, err := c.Append(nil, nested(500))
			if err != nil || c.Decode(body, &got) != nil || !reflect.DeepEqual(got, nested(500)) {
				t.Errorf("%s: 500 levels do not pass (%v)", c.Name(), err)
			}
			if _, err := c.Append(nil, nested(501)); err == nil {
				t.Errorf("%s: 501 levels are encoded", c.Name())
			}
			for _, depth := range []int{501, 1_000_000} {
				if body := hostile(c.Name(), depth).deep; body != nil && c.Decode(body, &got) == nil {
					t.Errorf("%s: %d levels are decoded", c.Name(), depth)
				}
			}
		})
	}),
	rule("codec/allocation", "What Decode allocates is bounded by a multiple of what is really there, whatever lengths are claimed.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			for _, body := range hostile(c.Name(), 1).claims {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				var v any
				err := c.Decode(body, &v)
				runtime.ReadMemStats(&after)
				if err == nil {
					t.Errorf("%s: %x decodes as %#v", c.Name(), body, v)
				}
				if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
					t.Errorf("%s: %d bytes are allocated for %x", c.Name(), n, body)
				}
			}
		})
	}),
	rule("codec/hostile", "Decode never panics: bad UTF-8, two equal keys and bytes without sense are errors.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			bad := hostile(c.Name(), 1)
			known := append(bad.wrong, bad.lossy...)
			bodies := slices.Clone(known)
			for i := range 256 {
				bodies = append(bodies, bytes.Repeat([]byte{byte(i)}, 9))
			}
			accepted := 0
			for _, body := range bodies {
				var v any
				if err := t.decodeSafely(c, body, &v); err == nil {
					accepted++
				}
			}
			if accepted > 0 {
				for _, body := range known {
					var v any
					if c.Decode(body, &v) == nil {
						t.Errorf("%s: %.60q decodes as %#v", c.Name(), body, v)
					}
				}
			}
		})
	}),
	rule("codec/stateless", "Any number of goroutines use one codec at once.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			var users sync.WaitGroup
			for i := range 8 {
				users.Go(func() {
					v := args{"me": strings.Repeat(fmt.Sprint(i), 1000)}
					for range 50 {
						body, err := c.Append(nil, v)
						var got any
						if err != nil || c.Decode(body, &got) != nil || !reflect.DeepEqual(got, v) {
							t.Errorf("%s: goroutine %d gets %.60v", c.Name(), i, got)
							return
						}
					}
				})
			}
			users.Wait()
		})
	}),
}

// eachCodec calls f with every codec of the adapter.
func (t *trial) eachCodec(f func(c core.Codec)) {
	for _, c := range t.launch().Codecs {
		f(c)
	}
}

func (t *trial) decodeSafely(c core.Codec, body []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s: %.60q panics: %v", c.Name(), body, p)
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.Decode(body, v)
}

// plainValues are values that every worker gives back as they were.
func plainValues() []any {
	return []any{
		nil, true, false, "", "text", "üñ 漢 😀 \x00\t\n\u2028", int64(0), int64(-1), int64(1 << 31), int64(1<<53 - 1), -int64(1<<53 - 1),
		0.5, -1e300, 5e-324, []byte{}, []byte{0, 1, 127, 128, 255}, []any{}, []any{int64(1), "x", nil, []any{true}},
		args{}, args{"a": int64(1), "": "empty", "ü": args{"deep": []any{}}},
		args{"$bytes": "no tag"}, args{"$map": args{"$time": int64(1)}}, args{"$float": "nan", "other": int64(2)},
	}
}

// timestamps are instants of whole microseconds, which every worker gives back as they were.
func timestamps() []any {
	return []any{time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0).UTC()}
}

// exactValues are values that only a worker with exact-numbers gives back as they were.
func exactValues() []any {
	return []any{
		5.0, math.Copysign(0, -1), 1e15, 1e300, math.Inf(1), math.Inf(-1), math.NaN(), 0.1,
		int64(5), int64(1<<53 + 1), int64(math.MaxInt64), int64(math.MinInt64), uint64(1 << 63), uint64(math.MaxUint64),
		[]any{int64(5), 5.0}, args{"whole": 2.0},
	}
}

// same is reflect.DeepEqual, but NaN is NaN, and 0 is not -0.
func same(a, b any) bool {
	x, isX := a.(float64)
	y, isY := b.(float64)
	if isX && isY {
		return math.Float64bits(x) == math.Float64bits(y) || math.IsNaN(x) && math.IsNaN(y)
	}
	return reflect.DeepEqual(a, b)
}

// nested returns a list of lists with so many levels.
func nested(levels int) any {
	v := []any{}
	for range levels - 1 {
		v = []any{v}
	}
	return v
}

// attack is bodies in one encoding that no codec may take.
type attack struct {
	deep   []byte   // a list that nests that deep
	claims [][]byte // lengths that nothing stands behind
	wrong  [][]byte // bad UTF-8, the wrong kind of key, tags without sense
	lossy  [][]byte // what a common decoder takes and loses something of: two equal keys, an integer beyond 64 bits
}

// hostile returns the attacks on a codec by its name; of one that the suite does not know it returns none.
func hostile(codec string, depth int) attack {
	switch codec {
	case "json":
		return attack{
			deep:   []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)),
			claims: [][]byte{[]byte(`{"$array":{"dtype":"<f8","shape":[4000000000,4000000000],"data":""}}`)},
			wrong: [][]byte{
				[]byte("\"\xff\xfe\""), []byte("{\"a\xc3\":1}"), []byte(`"\ud800"`), []byte(`{"$bytes":"not base64!"}`), []byte(`{"$what":1}`),
				[]byte(`{1:2}`), []byte(`nul`), []byte(`[1,]`), []byte(`'x'`), []byte(`NaN`), []byte(`{"$time":"yesterday"}`),
			},
			lossy: [][]byte{[]byte(`{"a":1,"a":2}`), []byte(`18446744073709551616`)},
		}
	case "msgpack":
		return attack{
			deep: append(bytes.Repeat([]byte{0x91}, depth-1), 0x90),
			claims: [][]byte{
				{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff},
				{0xc9, 0xff, 0xff, 0xff, 0xff, 0x01}, {0xdd, 0x7f, 0xff, 0xff, 0xff, 0x01}, {0xdf, 0x10, 0x00, 0x00, 0x00, 0xa1, 'a', 0x01},
			},
			wrong: [][]byte{
				{0xa2, 0xff, 0xfe}, {0x81, 0xa2, 'a', 0xc3, 0x01}, {0x81, 0x01, 0x02}, {0xc1}, {0xd4, 0x63, 0x00},
				{0x81, 0xc4, 0x01, 'a', 0x01}, {0xc7, 0x03, 0x01, 0x01, 0x02, 0x03},
			},
			lossy: [][]byte{{0x82, 0xa1, 'a', 0x01, 0xa1, 'a', 0x02}},
		}
	}
	return attack{}
}
