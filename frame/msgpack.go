package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/snakepit-go/snakepit/core"
)

// This file uses only the codes of the msgpack library. The library's encoder and decoder copy bodies, believe the
// lengths that headers claim, and recurse without a limit.

// AppendMsgpack appends the frame as a MessagePack map, up to the bytes of its body: the caller appends or sends f.Body
// after it. Zero fields are left out.
func AppendMsgpack(b []byte, f *core.Frame) []byte {
	fields := len(b)
	b = append(b, msgpcode.FixedMapLow) // counts the fields: there are fewer than 16
	number := func(key string, n uint64) {
		if n != 0 {
			b[fields]++
			b = appendNumber(appendText(b, key), n)
		}
	}
	text := func(key, s string) {
		if s != "" {
			b[fields]++
			b = appendText(appendText(b, key), s)
		}
	}
	number("kind", uint64(f.Kind))
	number("id", f.ID)
	number("flags", uint64(f.Flags))
	number("parent", f.Parent)
	text("name", f.Name)
	number("ttl", uint64(f.TTL.Milliseconds()))
	text("session", f.Session)
	if len(f.Meta) > 0 {
		b[fields]++
		b = append(appendText(b, "meta"), msgpcode.Map32)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Meta)))
		for k, v := range f.Meta {
			b = appendText(appendText(b, k), v)
		}
	}
	number("items", uint64(f.Items))
	number("bytes", uint64(f.Bytes))
	if len(f.Body) > 0 {
		b[fields]++
		b = appendLength(appendText(b, "body"), msgpcode.Bin8, len(f.Body))
	}
	return b
}

func appendNumber(b []byte, n uint64) []byte {
	switch {
	case n <= uint64(msgpcode.PosFixedNumHigh):
		return append(b, byte(n))
	case n <= math.MaxUint8:
		return append(b, msgpcode.Uint8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, msgpcode.Uint16), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, msgpcode.Uint32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, msgpcode.Uint64), n)
}

func appendText(b []byte, s string) []byte {
	if len(s) < 32 {
		return append(append(b, msgpcode.FixedStrLow|byte(len(s))), s...)
	}
	return append(appendLength(b, msgpcode.Str8, len(s)), s...)
}

// appendLength appends the header of n bytes. code is the code of the format with one byte of length. The codes for
// longer lengths follow it.
func appendLength(b []byte, code byte, n int) []byte {
	switch {
	case n <= math.MaxUint8:
		return append(b, code, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, code+1), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, code+2), uint32(n))
}

// ParseMsgpack reads the map of one frame. The map is the whole of b, and the frame's body is a part of b. Fields may
// come in any order. Unknown fields are skipped, whatever they hold.
func ParseMsgpack(b []byte) (f core.Frame, err error) {
	r := reader{b: b}
	for n := r.mapLen(); n > 0 && r.err == nil; n-- {
		switch key := r.bytes(msgpcode.Str8); string(key) {
		case "kind":
			if kind := r.number(); kind <= uint64(core.KindState) {
				f.Kind = core.Kind(kind)
			}
		case "flags":
			f.Flags = core.Flags(r.number())
		case "id":
			f.ID = r.number()
		case "parent":
			f.Parent = r.number()
		case "name":
			f.Name = r.text()
		case "ttl":
			f.TTL = time.Duration(min(r.number(), maxTTL)) * time.Millisecond
		case "session":
			f.Session = r.text()
		case "meta":
			f.Meta = r.texts()
		case "items":
			f.Items = int64(r.number())
		case "bytes":
			f.Bytes = int64(r.number())
		case "body":
			if body := r.bytes(msgpcode.Bin8); len(body) > 0 {
				f.Body = body
			}
		default:
			r.skip()
		}
	}
	switch {
	case r.err != nil:
		return f, r.err
	case len(r.b) > 0:
		return f, fmt.Errorf("%d bytes behind its end", len(r.b))
	case f.Kind == 0:
		return f, errNoKind
	}
	return f, nil
}

// reader reads the formats of a frame's fields. After an error it returns only zeros.
type reader struct {
	b   []byte // the unread bytes
	err error
}

// take returns the next n bytes, without a copy. It checks the claimed length n against the bytes that are present.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail(io.ErrUnexpectedEOF)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.b, r.err = nil, err
	}
}

func (r *reader) code() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return msgpcode.Nil
}

// big returns the next number, of n bytes in big-endian order.
func (r *reader) big(n uint64) (v uint64) {
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) number() uint64 {
	var n uint64
	switch c := r.code(); {
	case c <= msgpcode.PosFixedNumHigh:
		n = uint64(c)
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		n = r.big(1 << (c - msgpcode.Uint8))
	case c >= msgpcode.Int8 && c <= msgpcode.Int64: // an encoder may use it for numbers that are not negative
		size := uint64(1) << (c - msgpcode.Int8)
		if n = r.big(size); n>>(8*size-1) != 0 {
			r.fail(errors.New("a number below 0"))
		}
	default:
		r.fail(fmt.Errorf("no number but code %#x", c))
	}
	if n > maxNumber {
		r.fail(fmt.Errorf("a number above %d", uint64(maxNumber)))
	}
	return n
}

// bytes reads text if first is msgpcode.Str8, or binary if first is msgpcode.Bin8.
func (r *reader) bytes(first byte) []byte {
	switch c := r.code(); {
	case first == msgpcode.Str8 && msgpcode.IsFixedString(c):
		return r.take(uint64(c & msgpcode.FixedStrMask))
	case c >= first && c <= first+2:
		return r.take(r.big(1 << (c - first)))
	default:
		r.fail(fmt.Errorf("neither text nor binary where it should be, but code %#x", c))
		return nil
	}
}

func (r *reader) text() string {
	b := r.bytes(msgpcode.Str8)
	if !utf8.Valid(b) {
		r.fail(errors.New("text that is not UTF-8"))
	}
	return string(b)
}

func (r *reader) texts() map[string]string {
	var m map[string]string
	for n := r.mapLen(); n > 0 && r.err == nil; n-- {
		if m == nil {
			m = map[string]string{}
		}
		k := r.text()
		m[k] = r.text()
	}
	return m
}

func (r *reader) mapLen() uint64 {
	switch c := r.code(); {
	case msgpcode.IsFixedMap(c):
		return uint64(c & msgpcode.FixedMapMask)
	case c == msgpcode.Map16, c == msgpcode.Map32:
		return r.big(2 << (c - msgpcode.Map16))
	default:
		r.fail(fmt.Errorf("no map but code %#x", c))
		return 0
	}
}

// skip skips one value. It does not recurse: the value may nest at any depth.
func (r *reader) skip() {
	for left := uint64(1); left > 0 && r.err == nil; left-- {
		switch c := r.code(); {
		case c <= msgpcode.PosFixedNumHigh, c >= msgpcode.NegFixedNumLow,
			c == msgpcode.Nil, c == msgpcode.False, c == msgpcode.True:
		case msgpcode.IsFixedMap(c):
			left += 2 * uint64(c&msgpcode.FixedMapMask)
		case msgpcode.IsFixedArray(c):
			left += uint64(c & msgpcode.FixedArrayMask)
		case msgpcode.IsFixedString(c):
			r.take(uint64(c & msgpcode.FixedStrMask))
		case c >= msgpcode.Bin8 && c <= msgpcode.Bin32:
			r.take(r.big(1 << (c - msgpcode.Bin8)))
		case c >= msgpcode.Ext8 && c <= msgpcode.Ext32:
			r.take(1 + r.big(1<<(c-msgpcode.Ext8)))
		case c == msgpcode.Float, c == msgpcode.Double:
			r.take(4 << (c - msgpcode.Float))
		case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
			r.take(1 << (c - msgpcode.Uint8))
		case c >= msgpcode.Int8 && c <= msgpcode.Int64:
			r.take(1 << (c - msgpcode.Int8))
		case c >= msgpcode.FixExt1 && c <= msgpcode.FixExt16:
			r.take(1 + 1<<(c-msgpcode.FixExt1))
		case c >= msgpcode.Str8 && c <= msgpcode.Str32:
			r.take(r.big(1 << (c - msgpcode.Str8)))
		case c == msgpcode.Array16, c == msgpcode.Array32:
			left += r.big(2 << (c - msgpcode.Array16))
		case c == msgpcode.Map16, c == msgpcode.Map32:
			left += 2 * r.big(2<<(c-msgpcode.Map16))
		default:
			r.fail(fmt.Errorf("code %#x, which MessagePack does not have", c))
		}
	}
}
