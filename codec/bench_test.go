package codec_test

import (
	"testing"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

type compute struct {
	Operation string `json:"operation"`
	A         int    `json:"a"`
	B         int    `json:"b"`
}

var codecs = []core.Codec{json.Codec{}, msgpack.Codec{}}

// bench measures appending v and decoding it into a T.
func bench[T any](b *testing.B, v T) {
	for _, c := range codecs {
		body, err := c.Append(nil, v)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.Name()+"/append", func(b *testing.B) {
			dst := make([]byte, 0, 2*len(body))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Append(dst, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
		decodeInto[T](b, c, body, "decode")
	}
}

func BenchmarkStruct(b *testing.B) { bench(b, compute{"add", 5, 3}) }

func BenchmarkAny(b *testing.B) {
	bench[any](b, map[string]any{
		"operation": "add", "a": int64(5), "b": int64(3), "rates": []any{0.5, 1.25, nil, true},
	})
}

func BenchmarkNumbers(b *testing.B) {
	numbers := make([]float64, 10_000)
	for i := range numbers {
		numbers[i] = float64(i) / 7
	}
	bench(b, numbers)
}

func BenchmarkBytes(b *testing.B) { bench(b, make([]byte, 1<<20)) }

// BenchmarkArray decodes an array of 128 Ki float64: as an array, into the same element type and into others.
func BenchmarkArray(b *testing.B) {
	array := core.ArrayOf(make([]float64, 1<<17))
	for _, c := range codecs {
		body, err := c.Append(nil, array)
		if err != nil {
			b.Fatal(err)
		}
		decodeInto[core.Array](b, c, body, "Array")
		decodeInto[[]float64](b, c, body, "float64")
		decodeInto[[]float32](b, c, body, "float32")
		decodeInto[any](b, c, body, "any")
	}
}

func decodeInto[T any](b *testing.B, c core.Codec, body []byte, name string) {
	b.Run(c.Name()+"/"+name, func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			var out T
			if err := c.Decode(body, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}
