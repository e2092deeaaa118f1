package codec_test

import (
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
)

// TestAlike checks that every value survives a round trip through any codec, and through one after the other.
func TestAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := values(4).Draw(t, "value")
		for _, first := range codecs {
			once := roundTrip[any](t, first, v)
			if !equal(once, v) {
				t.Fatalf("%s made %#v of it", first.Name(), once)
			}
			for _, second := range codecs {
				if twice := roundTrip[any](t, second, once); !equal(twice, v) {
					t.Fatalf("%s after %s made %#v of it", second.Name(), first.Name(), twice)
				}
			}
		}
	})
}

type record struct {
	Bool   bool              `json:"bool,omitempty"`
	Ints   []int16           `json:"ints"`
	Uint   uint64            `json:"uint,omitzero"`
	Text   *string           `json:"text"`
	Pair   [2]float32        `json:"pair"`
	Bytes  []byte            `json:"bytes"`
	Named  map[level][]uint8 `json:"$named"`
	Nested []struct {
		N *int8            `json:"$n,omitempty"`
		M map[string]int32 `json:"$m,omitzero"`
	} `json:"nested"`
}

// TestTypedAlike checks the same for values of Go types. It also checks that a value's type does not change its body.
func TestTypedAlike(t *testing.T) {
	records := rapid.Make[record]()
	rapid.Check(t, func(t *rapid.T) {
		v := records.Draw(t, "record")
		var loose []any
		for _, c := range codecs {
			if got := roundTrip[record](t, c, v); !reflect.DeepEqual(got, v) {
				t.Fatalf("%s made %#v of it", c.Name(), got)
			}
			untyped := roundTrip[any](t, c, v)
			if got := roundTrip[record](t, c, untyped); !reflect.DeepEqual(got, v) {
				t.Fatalf("%s made %#v of it by way of %#v", c.Name(), got, untyped)
			}
			loose = append(loose, untyped)
		}
		if !equal(loose[0], loose[1]) {
			t.Fatalf("the codecs differ: %#v, %#v", loose[0], loose[1])
		}
	})
}

func roundTrip[T any](t *rapid.T, c core.Codec, v any) (got T) {
	body, err := c.Append(nil, v)
	if err != nil {
		t.Fatalf("%s: %v", c.Name(), err)
	}
	if err := c.Decode(body, &got); err != nil {
		t.Fatalf("%s: %v in %q", c.Name(), err, body)
	}
	return got
}

// values generates every value that decoding into an empty interface gives, nested at most depth levels deep.
func values(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.Int64().AsAny(),
		rapid.Uint64Min(1 << 63).AsAny(),
		rapid.Float64().AsAny(),
		rapid.Map(rapid.Uint64(), math.Float64frombits).AsAny(), // every NaN and infinity too
		rapid.Float64Range(-1e6, 1e6).AsAny(),
		texts().AsAny(),
		rapid.SliceOfN(rapid.Byte(), 0, 300).AsAny(),
		times().AsAny(),
		rapid.Map(rapid.Int64(), func(n int64) time.Duration { return time.Duration(n) }).AsAny(),
		integers().AsAny(),
		arrays().AsAny(),
	}
	if depth > 0 {
		inner := values(depth - 1)
		kinds = append(kinds, rapid.SliceOfN(inner, 0, 20).AsAny(), rapid.MapOfN(texts(), inner, 0, 3).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringN(250, 300, -1),
		rapid.SampledFrom([]string{
			"$", "$bytes", "$float", "$time", "$array", "$map", "$int", "$duration",
			"", "\u2028\x7f\x00\ufffd\U0010ffff",
		}),
		rapid.Map(rapid.SliceOfN(rapid.Rune(), 0, 40),
			func(r []rune) string { return strings.ToValidUTF8(string(r), "?") }),
	)
}

// integers generates integers beyond 64 bits.
func integers() *rapid.Generator[*big.Int] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 9, 40), func(b []byte) *big.Int {
		n := new(big.Int).SetBytes(append([]byte{b[0] | 1}, b[1:]...))
		if n.Bit(8)&1 == 1 {
			n.Neg(n)
		}
		return n
	})
}

func times() *rapid.Generator[time.Time] {
	first, last := time.Time{}.Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	return rapid.Custom(func(t *rapid.T) time.Time {
		seconds := rapid.OneOf(
			rapid.Int64Range(first, last), rapid.Int64Range(-10, 10), rapid.Int64Range(1<<32-2, 1<<34+2),
		).Draw(t, "seconds")
		return time.Unix(seconds, rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
	})
}

func arrays() *rapid.Generator[core.Array] {
	return rapid.Custom(func(t *rapid.T) core.Array {
		sizes := map[string]int{"<f8": 8, "|u1": 1, "<i4": 4, "<U3": 12}
		a := core.Array{DType: rapid.SampledFrom([]string{"<f8", "|u1", "<i4", "<U3"}).Draw(t, "dtype"), Shape: []int{}}
		n := sizes[a.DType]
		for _, dim := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 4).Draw(t, "shape") {
			a.Shape, n = append(a.Shape, dim), n*dim
		}
		a.Data = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "data")
		return a
	})
}
