package codec_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/big"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
)

var update = flag.Bool("update", false, "rewrite the bodies in testdata that this codec sends")

// pair encodes its fields in order. A Go map does not.
type pair struct {
	A any `json:"a"`
	B any `json:"b"`
}

type tagPair struct {
	Bytes any `json:"$bytes"`
	B     any `json:"b"`
}

// golden has values by name. If send is set, it is encoded in place of value, and decodes into value.
var golden = []struct {
	name        string
	value, send any
}{
	{name: "null", value: nil},
	{name: "true", value: true},
	{name: "false", value: false},
	{name: "int zero", value: int64(0)},
	{name: "int minus one", value: int64(-1)},
	{name: "int -32", value: int64(-32)},
	{name: "int -33", value: int64(-33)},
	{name: "int 127", value: int64(127)},
	{name: "int 128", value: int64(128)},
	{name: "int -128", value: int64(-128)},
	{name: "int -129", value: int64(-129)},
	{name: "int 255", value: int64(255)},
	{name: "int 256", value: int64(256)},
	{name: "int 65535", value: int64(65535)},
	{name: "int 65536", value: int64(65536)},
	{name: "int -32769", value: int64(-32769)},
	{name: "int 2^32", value: int64(1 << 32)},
	{name: "int -2^31-1", value: int64(-1<<31 - 1)},
	{name: "int 2^53+1", value: int64(1<<53 + 1)},
	{name: "int largest signed", value: int64(math.MaxInt64)},
	{name: "int smallest", value: int64(math.MinInt64)},
	{name: "int 2^63", value: uint64(1 << 63)},
	{name: "int largest", value: uint64(math.MaxUint64)},
	{name: "int 2^64", value: bigInt("18446744073709551616")},
	{name: "int -2^63-1", value: bigInt("-9223372036854775809")},
	{name: "int 2^64+255", value: bigInt("18446744073709551871")},
	{name: "int -2^71", value: bigInt("-2361183241434822606848")},
	{name: "int of 300 bits", value: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 300), big.NewInt(1))},
	{name: "float zero", value: 0.0},
	{name: "float minus zero", value: math.Copysign(0, -1)},
	{name: "float five", value: 5.0},
	{name: "float tenth", value: 0.1},
	{name: "float 0.0001", value: 0.0001},
	{name: "float 0.00001", value: 0.00001},
	{name: "float below 1e16", value: 9999999999999998.0},
	{name: "float 1e16", value: 1e16},
	{name: "float 2^53", value: 9007199254740992.0},
	{name: "float tiny", value: math.SmallestNonzeroFloat64},
	{name: "float largest", value: math.MaxFloat64},
	{name: "float nan", value: math.NaN()},
	{name: "float inf", value: math.Inf(1)},
	{name: "float minus inf", value: math.Inf(-1)},
	{name: "text empty", value: ""},
	{name: "text one letter", value: "a"},
	{name: "text of 32 bytes", value: strings.Repeat("ab", 16)},
	{name: "text of 300 bytes", value: strings.Repeat("abc", 100)},
	{name: "text of many planes", value: "héllo ✓ 😀 \u2028"},
	{name: "text with escapes", value: "\"\\/\n\r\t\b\f\x00\x1f\x7f"},
	{name: "text like markup", value: "<a href='x'>&amp;</a>"},
	{name: "bytes empty", value: []byte{}},
	{name: "bytes of three", value: []byte{0, 1, 255}},
	{name: "bytes of 300", value: bytes.Repeat([]byte{7}, 300)},
	{name: "time at the epoch", value: time.Unix(0, 0).UTC()},
	{name: "time with microseconds", value: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)},
	{name: "time with nanoseconds", value: time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)},
	{name: "time before the epoch", value: time.Date(1969, 12, 31, 23, 59, 59, 500001000, time.UTC)},
	{name: "time after 32 bits", value: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)},
	{name: "time at first", value: time.Time{}.UTC()},
	{name: "time at last", value: time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)},
	{name: "duration zero", value: time.Duration(0)},
	{name: "duration of a nanosecond less", value: time.Duration(-1)},
	{name: "duration with microseconds", value: 36*time.Hour + 1500*time.Microsecond},
	{name: "duration longest", value: time.Duration(math.MaxInt64)},
	{name: "duration shortest", value: time.Duration(math.MinInt64)},
	{name: "map like a duration", value: map[string]any{"$duration": int64(1)}},
	{name: "map like an integer", value: map[string]any{"$int": "0x1"}},
	{name: "list empty", value: []any{}},
	{
		name:  "list of all sorts",
		value: []any{nil, true, false, int64(1), 1.5, "a", []byte{1}, []any{}, map[string]any{}},
	},
	{name: "list of 16", value: bytesAsList(16)},
	{name: "list nested 500 deep", value: nest(500)},
	{name: "map empty", value: map[string]any{}},
	{name: "map of one key", value: map[string]any{"a": int64(1)}},
	{name: "map of two keys", value: map[string]any{"a": int64(1), "b": []any{int64(2)}}, send: pair{1, []int{2}}},
	{name: "map with an empty key", value: map[string]any{"": nil}},
	{name: "map like bytes", value: map[string]any{"$bytes": "AA=="}},
	{name: "map like no tag", value: map[string]any{"$x": int64(1)}},
	{name: "map like an escape", value: map[string]any{"$map": map[string]any{"$map": map[string]any{"a": int64(1)}}}},
	{name: "map of a tag and a key", value: map[string]any{"$bytes": "x", "b": int64(1)}, send: tagPair{"x", 1}},
	{
		name: "map of a tag with tags inside",
		value: map[string]any{
			"$bytes": []any{map[string]any{"$float": "nan"}, []byte{1}},
			"b":      map[string]any{"$map": map[string]any{}},
		},
		send: tagPair{[]any{map[string]any{"$float": "nan"}, []byte{1}}, map[string]any{"$map": map[string]any{}}},
	},
	{name: "array of floats", value: core.Array{DType: "<f8", Shape: []int{2, 3}, Data: floats(1, 2, 3, 4, 5, 6)}},
	{name: "array of bytes", value: core.Array{DType: "|u1", Shape: []int{300}, Data: bytes.Repeat([]byte{9}, 300)}},
	{name: "array without elements", value: core.Array{DType: "<i4", Shape: []int{0, 7}, Data: []byte{}}},
	{name: "array without dimensions", value: core.Array{DType: "<f8", Shape: []int{}, Data: floats(1)}},
}

func bytesAsList(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = int64(i)
	}
	return list
}

func nest(depth int) any {
	list := []any{}
	for range depth - 1 {
		list = []any{list}
	}
	return list
}

func floats(fs ...float64) (b []byte) {
	for _, f := range fs {
		for shift := 0; shift < 64; shift += 8 {
			b = append(b, byte(math.Float64bits(f)>>shift))
		}
	}
	return b
}

// equal is reflect.DeepEqual, but -0.0 differs from 0.0, and NaN equals NaN.
func equal(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b))
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

func TestGolden(t *testing.T) {
	if *update {
		writeValues(t)
		for _, c := range codecs {
			writeBodies(t, c)
		}
	}
	values := map[string]any{}
	for _, g := range golden {
		values[g.name] = g.value
	}
	for _, c := range codecs {
		ran := map[string]bool{}
		for _, f := range parse(t, "testdata/"+c.Name()+".txtar").Files {
			t.Run(c.Name()+"/"+f.Name, func(t *testing.T) {
				body, name := bodyOf(t, c, f)
				ran[name] = true
				var got any
				err := c.Decode(body, &got)
				if strings.HasPrefix(f.Name, "refused ~ ") {
					if err == nil {
						t.Fatalf("taken, as %#v", got)
					}
					t.Log(err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				want, ok := values[name]
				if !ok {
					t.Fatal("there is no value of this name")
				}
				if !equal(got, want) {
					t.Fatalf("got %#v\nwant %#v", got, want)
				}
			})
		}
		for _, g := range golden {
			t.Run(c.Name()+"/send "+g.name, func(t *testing.T) {
				if !ran[g.name] {
					t.Fatal("no body in testdata; run with -update")
				}
				want := bodyNamed(t, c, g.name)
				got, err := c.Append([]byte("before"), sent(g.value, g.send))
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != "before"+string(want) {
					t.Fatalf("got %q\nwant %q", got, want)
				}
			})
		}
	}
	for _, f := range parse(t, "testdata/values.txtar").Files {
		var got any
		if err := (json.Codec{}).Decode(bytes.TrimSuffix(f.Data, []byte("\n")), &got); err != nil ||
			!equal(got, values[f.Name]) {
			t.Errorf("values.txtar, %s: got %#v, %v", f.Name, got, err)
		}
	}
}

func sent(value, send any) any {
	if send != nil {
		return send
	}
	return value
}

func parse(t testing.TB, path string) *txtar.Archive {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// bodyOf returns a section's body and the name of its value.
func bodyOf(t testing.TB, c core.Codec, f txtar.File) ([]byte, string) {
	body := bytes.TrimSuffix(f.Data, []byte("\n"))
	if c.Name() == "msgpack" || strings.HasSuffix(f.Name, ".hex") {
		var err error
		if body, err = hex.DecodeString(string(body)); err != nil {
			t.Fatal(err)
		}
	}
	name, _, _ := strings.Cut(f.Name, " ~ ")
	return body, name
}

func bodyNamed(t *testing.T, c core.Codec, name string) []byte {
	for _, f := range parse(t, "testdata/"+c.Name()+".txtar").Files {
		if f.Name == name {
			body, _ := bodyOf(t, c, f)
			return body
		}
	}
	return nil
}

func writeValues(t *testing.T) {
	old := parse(t, "testdata/values.txtar")
	archive := &txtar.Archive{Comment: old.Comment}
	for _, g := range golden {
		data := encoded(t, json.Codec{}, sent(g.value, g.send), "%s\n")
		archive.Files = append(archive.Files, txtar.File{Name: g.name, Data: data})
	}
	write(t, "testdata/values.txtar", archive)
}

// writeBodies replaces the bodies that this codec sends and keeps the other ones.
func writeBodies(t *testing.T, c core.Codec) {
	path := "testdata/" + c.Name() + ".txtar"
	format := "%s\n"
	if c.Name() == "msgpack" {
		format = "%x\n"
	}
	old := parse(t, path)
	archive := &txtar.Archive{Comment: old.Comment}
	for _, g := range golden {
		data := encoded(t, c, sent(g.value, g.send), format)
		archive.Files = append(archive.Files, txtar.File{Name: g.name, Data: data})
	}
	for _, f := range old.Files {
		if strings.Contains(f.Name, " ~ ") {
			archive.Files = append(archive.Files, f)
		}
	}
	write(t, path, archive)
}

func encoded(t *testing.T, c core.Codec, v any, format string) []byte {
	body, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, format, body)
}

func write(t *testing.T, path string, archive *txtar.Archive) {
	if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
