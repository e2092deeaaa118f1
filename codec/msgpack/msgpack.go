// Package msgpack is the codec of MessagePack bodies. They have the plain types, and timestamps as extension -1.
// Arrays, large integers and durations have extensions of their own. Package codec has the rules for values,
// docs/protocol.md the notation.
//
// github.com/vmihailenco/msgpack supplies the tokens. Its decoding into Go values is not used: it believes the
// lengths that headers claim, recurses without a limit and turns large integers into negative ones.
package msgpack

import (
	"sync"

	"github.com/snakepit-go/snakepit/codec"
)

// Codec implements core.Codec. Its zero value is ready.
type Codec struct{}

// Name returns "msgpack".
func (Codec) Name() string { return "msgpack" }

// Append appends v as MessagePack, each value in its shortest form.
func (Codec) Append(dst []byte, v any) ([]byte, error) {
	w := writers.Get().(*writer)
	w.b = dst
	err := codec.Encode(w, v)
	b := w.b
	w.b = nil
	writers.Put(w)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// Decode decodes one MessagePack value, the whole of b, into v.
func (Codec) Decode(b []byte, v any) error { return decode(b, v, false) }

// DecodeOwned is Decode for a b that nothing else uses, now or later: large binary values and arrays in v become parts
// of b, without a copy.
func (Codec) DecodeOwned(b []byte, v any) error { return decode(b, v, true) }

func decode(b []byte, v any, owned bool) error {
	r := readers.Get().(*reader)
	r.b, r.owned, r.size = b, owned, len(b)
	err := codec.Decode(r, v)
	r.source, r.owned = source{}, false
	readers.Put(r)
	return err
}

var (
	writers = sync.Pool{New: func() any { return newWriter() }}
	readers = sync.Pool{New: func() any { return newReader() }}
)

// The extensions. extTime is MessagePack's own.
const (
	extTime     = -1
	extArray    = 1
	extInt      = 2 // an integer in two's complement, the high byte first
	extDuration = 3 // nanoseconds as an int64, the high byte first
)
