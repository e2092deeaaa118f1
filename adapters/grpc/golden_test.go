package grpc

import (
	"encoding/hex"
	"flag"
	"testing"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/internal/adaptertest"
)

var update = flag.Bool("update", false, "write the golden file anew")

// The golden bytes are a batch with one frame.
func TestGolden(t *testing.T) {
	adaptertest.Golden{
		Body: hex.DecodeString,
		Write: func(f core.Frame) string {
			data, err := messageCodec{}.Marshal(&message{frames: []core.Frame{f}})
			if err != nil {
				t.Fatal(err)
			}
			return hex.EncodeToString(data.Materialize())
		},
		Read: func(line string) ([]core.Frame, error) {
			data, err := hex.DecodeString(line)
			if err != nil {
				return nil, err
			}
			var m message
			err = m.parse(data)
			return m.frames, err
		},
	}.Check(t, *update)
}
