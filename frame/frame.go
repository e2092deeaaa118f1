// Package frame writes and reads frames as JSON (json.go) and as MessagePack (msgpack.go), for adapters.
// docs/protocol.md describes both encodings. The gRPC adapter has one of its own. The functions have no state and may
// be called from any number of goroutines.
//
// The parse functions take any bytes and return a frame or an error. They allocate no more than the frame that is
// present, whatever lengths the bytes claim. They have no limit of their own: an adapter bounds what it reads before it
// parses, and then asks CheckSize.
package frame

import (
	"errors"
	"fmt"
	"math"

	"github.com/snakepit-go/snakepit/core"
)

const (
	maxNumber = 1<<53 - 1               // of ids and counts: every JSON reader keeps such a number exact
	maxTTL    = math.MaxInt64 / 1000000 // in milliseconds: what a time.Duration holds
)

var errNoKind = errors.New("of no known kind")

// Memory returns new memory for a frame of the given size. Its end lies at a multiple of 8. A frame ends with its body,
// and that perhaps with an array, whose elements can then be used where they are.
func Memory(size int) []byte {
	pad := -size & 7
	return make([]byte, pad+size)[pad:]
}

// CheckSize returns an error if f.Size() is above the limit.
func CheckSize(f *core.Frame, limit int) error {
	if n := f.Size(); n > limit {
		return fmt.Errorf("of %d bytes, the limit is %d", n, limit)
	}
	return nil
}
