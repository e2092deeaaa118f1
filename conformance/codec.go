package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// codecClauses is about what each codec of an adapter does with values, as the comment of core.Codec says. No worker
// takes part.
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
	rule("codec/append-error", "On an error Append returns dst unchanged. "+
		"The error names the path to the value that cannot be encoded.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			got, err := c.Append([]byte("before"), args{"list": []any{"x", args{"culprit": make(chan int)}}})
			if err == nil || string(got) != "before" {
				t.Errorf("%s: a channel is encoded as %q, %v", c.Name(), got, err)
			} else if text := err.Error(); !strings.Contains(text, "list") || !strings.Contains(text, "1") ||
				!strings.Contains(text, "culprit") {
				t.Errorf("%s: the error names no path: %v", c.Name(), err)
			}
		})
	}),
	rule("codec/round-trip", "Decode gives back the value that Append encoded. "+
		"Every codec gives the same value.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			for _, v := range slices.Concat(plainValues(), timestamps(), durations(), exactValues()) {
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
	rule("codec/keeps-nothing", "Decode retains no part of its input.", func(t *trial) {
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
	rule("codec/whole", "Decode decodes one value, the whole of its argument. "+
		"Less or more is an error.", func(t *trial) {
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
					t.Errorf("%s: decoding into %#v gives no error", c.Name(), target)
				}
			}
		})
	}),
	rule("codec/narrowing", "A number that does not fit its typed "+
		"target is an error that names the path.", func(t *trial) {
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
			err = c.Decode(body, &v)
			if err == nil || !strings.Contains(err.Error(), "outer") || !strings.Contains(err.Error(), "small") {
				t.Errorf("%s: 300 becomes %d, and the error is %v", c.Name(), v.Outer.Small, err)
			}
		})
	}),
	rule("codec/nesting", "A value has at most 500 levels of nesting: "+
		"500 pass, and deeper nesting is an error in both directions.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			var got any
			body, err := c.Append(nil, nested(500))
			if err != nil || c.Decode(body, &got) != nil || !reflect.DeepEqual(got, nested(500)) {
				t.Errorf("%s: 500 levels do not pass (%v)", c.Name(), err)
			}
			if _, err := c.Append(nil, nested(501)); err == nil {
				t.Errorf("%s: 501 levels are encoded", c.Name())
			}
			body, err = c.Append(nil, nestedTags(500))
			if err != nil || c.Decode(body, &got) != nil || !reflect.DeepEqual(got, nestedTags(500)) {
				t.Errorf("%s: 500 levels of maps that look like tags do not pass (%v)", c.Name(), err)
			}
			if _, err := c.Append(nil, nestedTags(501)); err == nil {
				t.Errorf("%s: 501 levels of maps that look like tags are encoded", c.Name())
			}
			for _, depth := range []int{501, 1_000_000} {
				if body := hostile(c.Name(), depth).deep; body != nil && c.Decode(body, &got) == nil {
					t.Errorf("%s: %d levels are decoded", c.Name(), depth)
				}
			}
		})
	}),
	rule("codec/large-integers", "An integer has at most 1,048,576 bits: "+
		"such a one passes, and a larger one is an error in both directions.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			most := new(big.Int).Not(power(1 << 20))
			most.Add(most, big.NewInt(2))
			var got any
			if body, err := c.Append(nil, most); err != nil || c.Decode(body, &got) != nil || !same(got, most) {
				t.Errorf("%s: 1,048,576 bits do not pass (%v)", c.Name(), err)
			}
			if _, err := c.Append(nil, power(1<<20)); err == nil {
				t.Errorf("%s: 1,048,577 bits are encoded", c.Name())
			}
			if body := hostile(c.Name(), 1).large; body != nil && c.Decode(body, &got) == nil {
				t.Errorf("%s: 1,048,577 bits are decoded", c.Name())
			}
		})
	}),
	ruleAlone("codec/allocation", "Decode's allocations are bounded by a multiple of the bytes that are present, "+
		"whatever lengths they claim.", func(t *trial) {
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
	rule("codec/hostile", "Decode never panics: "+
		"bad UTF-8, two equal keys, a length that does not fit and meaningless bytes are errors.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			bad := hostile(c.Name(), 1)
			known := slices.Concat(bad.all(), bad.lossy, bad.equalKeys)
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
	rule("codec/methods", "Decode never panics, whatever its target's own methods do: "+
		"a panic of theirs is an error.", func(t *trial) {
		t.eachCodec(func(c core.Codec) {
			body, err := c.Append(nil, args{"list": []any{"text"}})
			if err != nil {
				t.Fatalf("%s: %v", c.Name(), err)
			}
			var v struct {
				List []panicking `json:"list"`
			}
			if t.decodeSafely(c, body, &v) == nil {
				t.Errorf("%s: decoding into a target whose UnmarshalText panics gives no error", c.Name())
			}
		})
	}),
	rule("codec/stateless", "Any number of goroutines may use one codec at once.", func(t *trial) {
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

// plainValues returns values that every worker gives back unchanged.
func plainValues() []any {
	return []any{
		nil, true, false, "", "text", "üñ 漢 😀 \x00\t\n\u2028",
		int64(0), int64(-1), int64(1 << 31), int64(1<<53 - 1), -int64(1<<53 - 1),
		0.5, -1e300, 5e-324, []byte{}, []byte{0, 1, 127, 128, 255}, []any{}, []any{int64(1), "x", nil, []any{true}},
		args{}, args{"a": int64(1), "": "empty", "ü": args{"deep": []any{}}},
		args{"$bytes": "no tag"}, args{"$map": args{"$time": int64(1)}}, args{"$float": "nan", "other": int64(2)},
	}
}

// timestamps returns instants of whole microseconds. Every worker gives them back unchanged.
func timestamps() []any {
	return []any{
		time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Unix(0, 0).UTC(),
	}
}

// durations returns durations of whole microseconds that a double holds exactly. Every worker gives them back
// unchanged.
func durations() []any {
	return []any{time.Duration(0), time.Microsecond, -90 * time.Minute, 100*24*time.Hour + time.Microsecond}
}

// exactValues returns values that only a worker with exact-numbers gives back unchanged.
func exactValues() []any {
	return []any{
		5.0, math.Copysign(0, -1), 1e15, 1e300, math.Inf(1), math.Inf(-1), math.NaN(), 0.1,
		int64(5), int64(1<<53 + 1), int64(math.MaxInt64), int64(math.MinInt64), uint64(1 << 63), uint64(math.MaxUint64),
		power(64), new(big.Int).Not(power(63)), args{"n": []any{new(big.Int).Neg(power(300)), power(1000)}},
		[]any{int64(5), 5.0}, args{"whole": 2.0},
	}
}

// power returns 2 to the power n.
func power(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

// same is reflect.DeepEqual, but NaN equals NaN, and 0 differs from -0.
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

// nestedTags returns nested maps with so many levels. They look like tags of a json body. The innermost holds binary.
func nestedTags(levels int) any {
	v := args{"$bytes": []byte("x")}
	for range levels - 1 {
		v = args{"$map": v}
	}
	return v
}

// attack is bodies in one encoding that every codec must refuse.
type attack struct {
	deep      []byte   // a list with as many levels as hostile was asked for
	claims    [][]byte // claimed lengths without the bytes
	wrong     [][]byte // bad UTF-8, the wrong kind of key, bytes that are no value
	large     []byte   // an integer of 1,048,577 bits
	lossy     [][]byte // integers beyond 64 bits: a common decoder takes them and loses digits
	equalKeys [][]byte // maps with two equal keys: a common decoder takes them too
	tags      [][]byte // maps whose only key begins with $ and is no tag, or has no fitting value
	arrays    [][]byte // arrays whose data is not as long as dtype and shape say
	halves    [][]byte // text with half of a surrogate pair
	trailing  [][]byte // a value with more bytes after it
}

// all returns the bodies that every worker has to refuse.
func (a attack) all() [][]byte {
	return slices.Concat(a.wrong, a.tags, a.arrays, a.halves, a.trailing)
}

// hostile returns the attack on the codec of that name. For a codec that the suite does not know it is empty. depth is
// for attack.deep.
func hostile(codec string, depth int) attack {
	switch codec {
	case "json":
		return attack{
			deep:   []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)),
			claims: [][]byte{[]byte(`{"$array":{"dtype":"<f8","shape":[4000000000,4000000000],"data":""}}`)},
			wrong: texts(
				"\"\xff\xfe\"", "{\"a\xc3\":1}", `{1:2}`, `nul`, `[1,]`, `'x'`, `NaN`, `{"a":1,}`, `{"a"}`, `01`, `"a`,
			),
			large: []byte(`{"$int":"0x1` + strings.Repeat("0", 1<<18) + `"}`),
			lossy: texts(`18446744073709551616`, `{"n":[-9223372036854775809]}`),
			equalKeys: texts(
				`{"a":1,"a":2}`, `{"value":{"a":1,"b":2,"a":3}}`, `[{"a":1},{"a":1,"a":1}]`, `{"a":1,"\u0061":2}`,
				`{"":1,"":2}`, `{"a":null,"a":{"a":1}}`, `{"b":{"$bytes":"AA=="},"k":1,"k":2}`,
				`{"$map":{"$a":1,"$a":2}}`, `{"long":"`+strings.Repeat("x", 1000)+`","k":1.5,"k":2}`,
			),
			tags: texts(
				`{"$what":1}`, `[[{"$what":null}]]`, `{"value":{"$":1}}`, `{"$bytes":1}`, `{"$bytes":"not base64!"}`,
				`{"$bytes":"AA"}`, `{"$bytes":"AA =="}`, `{"$bytes":"_-8="}`, `{"$float":"NaN"}`, `{"$float":1}`,
				`{"$time":"yesterday"}`, `{"$time":"2026-01-02T03:04:05"}`, `{"$time":"2026-13-02T03:04:05Z"}`,
				`{"$time":"2026-01-02T25:04:05Z"}`, `{"$map":1}`, `{"$array":[]}`, `{"$array":{"dtype":"<f8"}}`,
				`{"$int":"5"}`, `{"$int":"0x"}`, `{"$int":"0xfg"}`, `{"$int":5}`,
				`{"$duration":"1s"}`, `{"$duration":0.5}`,
			),
			arrays: texts(
				jsonArray("<f8", "[2]", 15), jsonArray("<f8", "[2]", 17), jsonArray("<f8", "[2,3]", 8),
				jsonArray("|u1", "[]", 0), jsonArray("|u1", "[0]", 1), jsonArray("|u1", "[-1,-8]", 8),
				jsonArray("|u1", "[4294967296,4294967296]", 0), jsonArray("|u1", "[1.5]", 1),
				`[`+jsonArray("<i4", "[1]", 3)+`]`,
			),
			halves: texts(
				`"\ud800"`, `"\udc00"`, `{"\ud800":1}`, `["a\uDFFFb"]`, `"\ud800\ud800"`, `"\udc00\ud800"`,
				`{"value":"x\ud83dx"}`, `"`+strings.Repeat("x", 1000)+`\ud83d"`,
			),
			trailing: texts(`1 2`, `1,`, `{} {}`, `[]]`, `"a""b"`, `null null`, `{"value":1}x`, "1\x00"),
		}
	case "msgpack":
		return attack{
			deep: append(bytes.Repeat([]byte{0x91}, depth-1), 0x90),
			claims: [][]byte{
				{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0xff, 0xff, 0xff, 0xff},
				{0xc6, 0xff, 0xff, 0xff, 0xff}, {0xc9, 0xff, 0xff, 0xff, 0xff, 0x01},
				{0xdd, 0x7f, 0xff, 0xff, 0xff, 0x01}, {0xdf, 0x10, 0x00, 0x00, 0x00, 0xa1, 'a', 0x01},
			},
			wrong: [][]byte{
				{0xa2, 0xff, 0xfe}, {0x81, 0xa2, 'a', 0xc3, 0x01}, {0x81, 0x01, 0x02}, {0xc1}, {0xd4, 0x63, 0x00},
				{0x81, 0xc4, 0x01, 'a', 0x01}, {0xc7, 0x03, 0x01, 0x01, 0x02, 0x03},
				{0xc7, 0x00, 0x02}, {0xc7, 0x00, 0x03}, {0xd6, 0x03, 0x00, 0x00, 0x00, 0x00},
			},
			large: append([]byte{0xc9, 0, 2, 0, 1, 2, 1}, make([]byte, 1<<17)...),
			equalKeys: [][]byte{
				{0x82, 0xa1, 'a', 0x01, 0xa1, 'a', 0x02},
				{0x81, 0xa5, 'v', 'a', 'l', 'u', 'e', 0x82, 0xa1, 'a', 0x01, 0xa1, 'a', 0x02},
				{0x91, 0x82, 0xa1, 'a', 0x01, 0xd9, 0x01, 'a', 0x02}, {0x82, 0xa0, 0xc0, 0xa0, 0xc0},
			},
			arrays: [][]byte{
				packedArray("<f8", []byte{0x91, 2}, 15), packedArray("<f8", []byte{0x91, 2}, 17),
				packedArray("|u1", []byte{0x90}, 0), packedArray("|u1", []byte{0x91, 0}, 1),
				packedArray("|u1", []byte{0x92, 0xff, 0xf8}, 8),
				packedArray("|u1", []byte{0x91, 0xca, 0x3f, 0xc0, 0, 0}, 1),
				packedArray("|u1", []byte{0x92, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0}, 0),
				append([]byte{0x91}, packedArray("<i4", []byte{0x91, 1}, 3)...),
			},
			halves: [][]byte{
				{0xa3, 0xed, 0xa0, 0x80}, {0x81, 0xa3, 0xed, 0xbf, 0xbf, 0x01},
				{0xa6, 0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80},
			},
			trailing: [][]byte{{1, 1}, {0xc0, 0xc0}, {0x80, 0x80}, {0xa1, 'a', 0}, {0x91, 1, 0x90}},
		}
	}
	return attack{}
}

func texts(all ...string) (bodies [][]byte) {
	for _, text := range all {
		bodies = append(bodies, []byte(text))
	}
	return bodies
}

// jsonArray returns an array in JSON. size is the number of bytes of its data.
func jsonArray(dtype, shape string, size int) string {
	data := base64.StdEncoding.EncodeToString(make([]byte, size))
	return fmt.Sprintf(`{"$array":{"dtype":%q,"shape":%s,"data":%q}}`, dtype, shape, data)
}

// packedArray returns the same in MessagePack: extension type 1 in the format ext 8. shape is packed already.
func packedArray(dtype string, shape []byte, size int) []byte {
	payload := append([]byte{0x93, 0xa0 | byte(len(dtype))}, dtype...)
	payload = append(append(payload, shape...), 0xc4, byte(size))
	payload = append(payload, make([]byte, size)...)
	return append([]byte{0xc7, byte(len(payload)), 1}, payload...)
}

// packed has values in the formats of MessagePack, not only the shortest.
var packed = []struct {
	body string
	want any
}{
	{"\x05", int64(5)}, {"\x7f", int64(127)}, {"\xe0", int64(-32)}, {"\xff", int64(-1)},
	{"\xcc\x05", int64(5)}, {"\xcc\xff", int64(255)}, {"\xcd\x00\x05", int64(5)}, {"\xcd\xff\xff", int64(65535)},
	{"\xce\x00\x00\x00\x05", int64(5)}, {"\xce\xff\xff\xff\xff", int64(1<<32 - 1)},
	{"\xcf\x00\x00\x00\x00\x00\x00\x00\x05", int64(5)}, {"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", int64(math.MaxInt64)},
	{"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", uint64(math.MaxUint64)},
	{"\xd0\x05", int64(5)}, {"\xd0\x80", int64(-128)}, {"\xd1\x00\x05", int64(5)}, {"\xd1\x80\x00", int64(-32768)},
	{"\xd2\x00\x00\x00\x05", int64(5)}, {"\xd2\x80\x00\x00\x00", int64(-1 << 31)},
	{"\xd3\x00\x00\x00\x00\x00\x00\x00\x05", int64(5)},
	{"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", int64(math.MinInt64)}, {"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", int64(-1)},
	{"\xca\x3f\xc0\x00\x00", 1.5}, {"\xca\x7f\x80\x00\x00", math.Inf(1)},
	{"\xcb\xbf\xf8\x00\x00\x00\x00\x00\x00", -1.5}, {"\xcb\x40\x14\x00\x00\x00\x00\x00\x00", 5.0},
	{"\xc0", nil}, {"\xc2", false}, {"\xc3", true},
	{"\xa1a", "a"}, {"\xd9\x01a", "a"}, {"\xda\x00\x01a", "a"}, {"\xdb\x00\x00\x00\x01a", "a"},
	{"\xc4\x01a", []byte("a")}, {"\xc5\x00\x01a", []byte("a")}, {"\xc6\x00\x00\x00\x01a", []byte("a")},
	{"\x91\x05", []any{int64(5)}}, {"\xdc\x00\x01\x05", []any{int64(5)}}, {"\xdd\x00\x00\x00\x01\x05", []any{int64(5)}},
	{"\x81\xa1a\x05", args{"a": int64(5)}}, {"\xde\x00\x01\xa1a\x05", args{"a": int64(5)}},
	{"\xdf\x00\x00\x00\x01\xd9\x01a\x05", args{"a": int64(5)}}, {"\xd6\xff\x00\x00\x00\x05", time.Unix(5, 0).UTC()},
	{"\xd7\xff\x00\x00\x0f\xa0\x00\x00\x00\x05", time.Unix(5, 1000).UTC()},
	{"\xd7\x03\x00\x00\x00\x00\x00\x00\x03\xe8", time.Microsecond},
	{"\xc7\x08\x03\xff\xff\xff\xff\xff\xff\xfc\x18", -time.Microsecond},
	{"\xd4\x02\x05", int64(5)}, {"\xd5\x02\xff\xfb", int64(-5)},
	{"\xc7\x0c\xff\x00\x00\x03\xe8\x00\x00\x00\x00\x00\x00\x00\x05", time.Unix(5, 1000).UTC()},
}

// panicking is a decoding target whose method panics.
type panicking struct{}

func (*panicking) UnmarshalText([]byte) error { panic("UnmarshalText of the suite's, on purpose") }
