// Package json is the codec of JSON bodies. They are plain JSON. A map whose only key begins with "$" stands for a
// value that JSON lacks. Package codec has the rules for values, docs/protocol.md the notation.
//
// The package has its own scanner and writer. The bodies of calls are small: encoding/json takes about three times as
// long to decode one, and a token library takes as long for the tokens alone. Such libraries also repair silently
// what is an error here, such as bad UTF-8.
package json

import (
	"sync"

	"github.com/snakepit-go/snakepit/codec"
)

// Codec implements core.Codec. Its zero value is ready.
type Codec struct{}

// Name returns "json".
func (Codec) Name() string { return "json" }

// Append appends v as compact JSON without a raw tab or line feed.
func (Codec) Append(dst []byte, v any) ([]byte, error) {
	w := writers.Get().(*writer)
	w.b, w.start = dst, len(dst)
	err := codec.Encode(w, v)
	b := w.b
	w.b = nil
	writers.Put(w)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// Decode decodes one JSON value, the whole of b, into v.
func (Codec) Decode(b []byte, v any) error {
	r := readers.Get().(*reader)
	r.b = b
	err := codec.Decode(r, v)
	r.reset()
	readers.Put(r)
	return err
}

var (
	writers = sync.Pool{New: func() any { return new(writer) }}
	readers = sync.Pool{New: func() any { return new(reader) }}
)

// The keys of the maps that stand for values that JSON lacks.
const (
	tagBytes    = "$bytes"
	tagFloat    = "$float"
	tagTime     = "$time"
	tagDuration = "$duration"
	tagInt      = "$int"
	tagArray    = "$array"
	tagMap      = "$map"
)
