package codec_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/codec"
	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
)

// An integer goes into a float if the result is exact. The test has the limits on both sides of zero.
func TestIntegersIntoFloats(t *testing.T) {
	for _, c := range []struct {
		n            int64
		into64, in32 bool
	}{
		{0, true, true}, {1 << 24, true, true}, {-1 << 24, true, true}, {1<<24 + 1, true, false},
		{-1<<24 - 1, true, false},
		{1 << 53, true, true}, {-1 << 53, true, true}, {1<<53 + 1, false, false}, {-1<<53 - 1, false, false},
		{-1 << 63, true, true}, {-1<<63 + 1, false, false}, {1<<53 + 2, true, false}, {-1<<53 - 2, true, false},
	} {
		for _, codec := range both {
			body := appended(t, codec, c.n)
			var f64 float64
			if err := codec.Decode(body, &f64); (err == nil) != c.into64 || err == nil && int64(f64) != c.n {
				t.Errorf("%s: %d into a float64: %v, %v", codec.Name(), c.n, f64, err)
			}
			var f32 float32
			if err := codec.Decode(body, &f32); (err == nil) != c.in32 || err == nil && int64(f32) != c.n {
				t.Errorf("%s: %d into a float32: %v, %v", codec.Name(), c.n, f32, err)
			}
		}
	}
}

// Depth counts levels, not values: many values side by side are no deeper than one.
func TestSiblingsAreNotDeeper(t *testing.T) {
	type node struct {
		Next *node `json:"next,omitempty"`
	}
	inner := any(5)
	loop := &inner
	for name, v := range map[string]any{
		"lists": make([][]int, 3*codec.MaxDepth), "fixed": make([][1]int, 3*codec.MaxDepth),
		"maps":       slicesOf(map[string]int{"a": 1}, 3*codec.MaxDepth),
		"any lists":  slicesOf(any([]any{1}), 3*codec.MaxDepth),
		"any maps":   slicesOf(any(map[string]any{"a": 1}), 3*codec.MaxDepth),
		"records":    slicesOf(node{}, 3*codec.MaxDepth),
		"pointers":   slicesOf(&loop, 3*codec.MaxDepth),
		"references": slicesOf(any(&inner), 3*codec.MaxDepth),
	} {
		for _, c := range both {
			body := appended(t, c, v)
			target := reflect.New(reflect.TypeOf(v))
			if err := c.Decode(body, target.Interface()); err != nil || target.Elem().Len() != 3*codec.MaxDepth {
				t.Errorf("%s: %s: %v", c.Name(), name, err)
			}
			var free any
			if err := c.Decode(body, &free); err != nil {
				t.Errorf("%s: %s into any: %v", c.Name(), name, err)
			}
		}
	}
}

func slicesOf[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

// An array may have MaxDims dimensions and no more.
func TestMostDimensions(t *testing.T) {
	for dims, ok := range map[int]bool{core.MaxDims: true, core.MaxDims + 1: false} {
		shape := slicesOf(1, dims)
		for _, c := range both {
			_, err := c.Append(nil, core.Array{DType: "|u1", Shape: shape, Data: []byte{7}})
			if (err == nil) != ok {
				t.Errorf("%s: %d dimensions: %v", c.Name(), dims, err)
			}
		}
	}
}

// A path shows a short name of letters, digits and underscores without quotes. It shows only the beginning and the end
// if it is longer than a line.
func TestPaths(t *testing.T) {
	bad := make(chan int)
	for key, want := range map[string]string{
		"azAZ09_": "value.azAZ09_", strings.Repeat("k", 40): "value." + strings.Repeat("k", 40),
		strings.Repeat("k", 41): `value["` + strings.Repeat("k", 40), "a`": "value[", "a{": "value[", "A@": "value[",
		"A[": "value[",
		"0/": "value[", "0:": "value[", "": "value[",
	} {
		for _, c := range both {
			_, err := c.Append(nil, map[string]any{"value": map[string]any{key: bad}})
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %q: %v", c.Name(), key, err)
			}
		}
	}
	deep := any(bad)
	for range 79 {
		deep = map[string]any{"k": deep}
	}
	for levels, cuts := range map[int]bool{80: false, 81: true} {
		v := deep
		for range levels - 79 {
			v = map[string]any{"k": v}
		}
		for _, c := range both { // each level is two characters, but the first is one
			_, err := c.Append(nil, v)
			path, _, _ := strings.Cut(err.Error(), ": ")
			if got := strings.Contains(path, "..."); got != cuts || len(path) > 163 {
				t.Errorf("%s: %d levels: %q", c.Name(), levels, path)
			}
		}
	}
}

// A truncated body is refused, wherever the cut is. A check refuses it, not the recovery of a panic. The rest of a JSON
// number may be a number too.
func TestCutBodies(t *testing.T) {
	for _, c := range codecs {
		for _, f := range parse(t, "testdata/"+c.Name()+".txtar").Files {
			body, name := bodyOf(t, c, f)
			if c.Name() == "json" {
				body = bytes.TrimSpace(body)
			}
			for end := range body {
				var v any
				err := c.Decode(body[:end:end], &v)
				if err != nil && strings.Contains(err.Error(), "panicked") {
					t.Errorf("%s: %s up to byte %d: %v", c.Name(), name, end, err)
				}
				if err == nil && name != "refused" && (c.Name() == "msgpack" || !isNumber(v)) {
					t.Errorf("%s: %s up to byte %d is taken, as %#v", c.Name(), name, end, v)
				}
			}
		}
	}
}

func isNumber(v any) bool {
	switch v.(type) {
	case int64, uint64, float64:
		return true
	}
	return false
}

// The error says what is wrong with a JSON body, at the edges too.
func TestRefusedJSON(t *testing.T) {
	long := strings.Repeat("9", 40)
	for body, words := range map[string]string{
		``:                               "the body ends where a value should be",
		` `:                              "the body ends where a value should be",
		`-`:                              "the body ends where a value should be",
		`1.`:                             "without digits after its point",
		`1e`:                             "without digits in its exponent",
		`1e+`:                            "without digits in its exponent",
		`1e-x`:                           "without digits in its exponent",
		`00`:                             "a leading zero at byte 0",
		`"`:                              "the body ends inside a string",
		`"a`:                             "the body ends inside a string",
		`"a\`:                            "the body ends inside a string",
		`"a\n`:                           "the body ends inside a string",
		`"\u004`:                         `\u without four hex digits at byte 1`,
		`"\u0041`:                        "the body ends inside a string",
		`"\u004g"`:                       `\u without four hex digits at byte 1`,
		`"\ud800x"`:                      "half a surrogate pair at byte 1",
		`"\ud800\u0041"`:                 "half a surrogate pair at byte 1",
		`"\udc00"`:                       "half a surrogate pair at byte 1",
		"\"a\x1f\"":                      "raw control character",
		"\"\\n\x1f\"":                    "raw control character",
		`"\x"`:                           "unknown escape",
		`[1`:                             "the body ends instead of ',' in a list",
		`{"a":1`:                         "the body ends instead of ',' in a map",
		`{"a"`:                           "the body ends instead of ':' after a key",
		`{`:                              "the body ends where a key should be",
		`1 2`:                            "after the value",
		long:                             long + " is beyond 64 bits",
		long + "9":                       long + "... is beyond 64 bits",
		`1e999`:                          "1e999 is too large for a float",
		`{"$bytes":"\nQUJD"}`:            "base64 with a line break",
		`{"$bytes":"QUJD\r"}`:            "base64 with a line break",
		`{"$bytes":"QU\nJD"}`:            "base64 with a line break",
		`{"$bytes":"QUJ"}`:               "base64",
		`{"$` + long + `":1}`:            `the one key "$` + long[:39] + `..."`,
		`{"$map":{"$a":1}x}`:             "'x' at byte 16 instead of '}' after $map",
		`{"$bytes":"QUJD"` + ` ` + `[1]`: "",
	} {
		var v any
		err := (json.Codec{}).Decode([]byte(body), &v)
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "panicked") {
			t.Errorf("%s: %#v, %v", body, v, err)
		}
	}
}

// Unusual but valid JSON is accepted.
func TestUnusualJSON(t *testing.T) {
	spaces := strings.Repeat(" ", 100)
	for body, want := range map[string]any{
		`1e+2`:                        100.0,
		`1E-2`:                        0.01,
		`-0`:                          int64(0),
		`"\ud83d\ude00\/"`:            "😀/",
		`{"$bytes":"QU\u004aD"}`:      []byte("ABC"),
		`{"\u0024bytes":"QUJD"}`:      []byte("ABC"),
		`{` + spaces + `"$bytes":""}`: []byte{},
		`{"$bytes":"","a":1}`:         map[string]any{"$bytes": "", "a": int64(1)},
		`{"$map":{"$bytes":"","":{"$bytes":"QQ=="}}}`: map[string]any{"$bytes": "", "": []byte("A")},
		`{"a\\":{"$bytes":"QQ=="},"$b\"":[{"x":1},{"$bytes":"QQ=="}]}`: map[string]any{
			`a\`: []byte("A"), `$b"`: []any{map[string]any{"x": int64(1)}, []byte("A")},
		},
		`{"$a":{"$bytes":"QQ=="},"$b":{` + spaces + `"$bytes":"QQ=="}}`: map[string]any{
			"$a": []byte("A"), "$b": []byte("A"),
		},
	} {
		var v any
		if err := (json.Codec{}).Decode([]byte(body), &v); err != nil || !reflect.DeepEqual(v, want) {
			t.Errorf("%s: %#v, %v", body, v, err)
		}
	}
}

// A struct without fields is an empty map. One with unexported fields only is refused: nothing of it would arrive.
func TestStructsWithoutFields(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		var got any
		if err := c.Decode(appended(t, c, struct{}{}), &got); err != nil || !reflect.DeepEqual(got, map[string]any{}) {
			t.Errorf("it arrives as %#v; %v", got, err)
		}
		var none struct{}
		if err := c.Decode(appended(t, c, map[string]any{"a": 1}), &none); err != nil {
			t.Error(err)
		}
		if _, err := c.Append(nil, struct{ hidden int }{1}); err == nil {
			t.Error("a struct with hidden fields is sent")
		}
	})
}

// Names match in any case for every letter from a to z. No other character matches another.
func TestCaseOfEveryLetter(t *testing.T) {
	type target struct {
		ABCDEFGHIJKLMNOPQRSTUVWXYZ int
	}
	each(t, func(t *testing.T, c core.Codec) {
		for key, want := range map[string]int{
			"abcdefghijklmnopqrstuvwxyz": 5, "AbcdefghijklmnopqrstuvwxyZ": 5,
			"abcdefghijklmnopqrstuvwxy{": 0, "`bcdefghijklmnopqrstuvwxyz": 0,
			"abcdefghijklmnopqrstuvwxy[": 0, "@bcdefghijklmnopqrstuvwxyz": 0,
		} {
			var got target
			err := c.Decode(appended(t, c, map[string]int{key: 5}), &got)
			if n := got.ABCDEFGHIJKLMNOPQRSTUVWXYZ; err != nil || n != want {
				t.Errorf("%s: %d, %v", key, n, err)
			}
		}
	})
}
