package frame

import (
	"fmt"
	"testing"

	"github.com/snakepit-go/snakepit/core"
)

// BenchmarkFrames writes and reads the two frames of a call in each encoding, with small and with large bodies.
func BenchmarkFrames(b *testing.B) {
	for name, e := range encodings {
		for _, size := range []int{64, 64 << 10} {
			body := make([]byte, size)
			for i := range body {
				body[i] = 'x'
			}
			for _, f := range []core.Frame{
				{Kind: core.KindCall, ID: 1 << 20, Flags: core.NoInput, Name: "compute", TTL: 30e9, Body: body},
				{Kind: core.KindEnd, ID: 1 << 20, Body: body},
			} {
				wire := e.append(nil, &f)
				b.Run(fmt.Sprintf("%s/%s/%dB/append", name, f.Kind, size), func(b *testing.B) {
					b.ReportAllocs()
					buf := make([]byte, 0, 2*len(wire))
					for b.Loop() {
						buf = e.append(buf[:0], &f)
					}
				})
				b.Run(fmt.Sprintf("%s/%s/%dB/parse", name, f.Kind, size), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := e.parse(wire); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
