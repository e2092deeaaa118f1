package grpc

import (
	"encoding/hex"
	"flag"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/internal/adaptertest"
)

var update = flag.Bool("update", false, "write the golden file anew")

// The golden bytes are a batch with one frame.
func TestGolden(t *testing.T) {
	adaptertest.Golden{
		Body: hex.DecodeString,
		Write: func(f core.Frame) string {
			message, err := proto.Marshal(new(encodedBatch).fill([]core.Frame{f}))
			if err != nil {
				t.Fatal(err)
			}
			return hex.EncodeToString(message)
		},
		Read: func(line string) ([]core.Frame, error) {
			message, err := hex.DecodeString(line)
			if err != nil {
				return nil, err
			}
			batch := &snakepitpb.Batch{}
			if err := proto.Unmarshal(message, batch); err != nil {
				return nil, err
			}
			return decode(batch)
		},
	}.Check(t, *update)
}
