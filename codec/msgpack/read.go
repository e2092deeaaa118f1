package msgpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"unsafe"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/snakepit-go/snakepit/codec"
	"github.com/snakepit-go/snakepit/core"
)

// source is the input of the library's decoder. The decoder reads heads and numbers from it, never the bytes whose
// length a head claims.
type source struct {
	b []byte
	i int // b[:i] has been read
}

func (s *source) Read(p []byte) (int, error) {
	n := copy(p, s.b[s.i:])
	s.i += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (s *source) ReadByte() (byte, error) {
	if s.i == len(s.b) {
		return 0, io.EOF
	}
	s.i++
	return s.b[s.i-1], nil
}

func (s *source) UnreadByte() error {
	s.i--
	return nil
}

// reader is a codec.Reader that reads its source.
type reader struct {
	source
	dec   *msgpack.Decoder
	owned bool // parts of b may become parts of the value
	size  int  // the length of the whole body
}

func newReader() *reader {
	r := &reader{}
	r.dec = msgpack.NewDecoder(&r.source)
	return r
}

func (r *reader) Left() int { return len(r.b) - r.i }

func (r *reader) End() error {
	if n := r.Left(); n > 0 {
		return fmt.Errorf("%d bytes after the value", n)
	}
	return nil
}

func (r *reader) Elem(i, n int) (bool, error) { return i < n, nil }

func (r *reader) Key(i, n int) ([]byte, bool, error) {
	if i == n {
		return nil, false, nil
	}
	if r.i < len(r.b) && !msgpcode.IsString(r.b[r.i]) {
		return nil, false, fmt.Errorf("a key that is not text at byte %d", r.i)
	}
	key, err := r.view(r.dec.DecodeBytesLen())
	return key, true, err
}

// Read chooses by the first byte. The library reads the head or the number.
func (r *reader) Read() (tok codec.Token, err error) {
	if r.i == len(r.b) {
		return tok, errCut
	}
	switch c := r.b[r.i]; {
	case msgpcode.IsFixedNum(c):
		r.i++
		return codec.Token{Kind: codec.Int, Num: uint64(int8(c))}, nil
	case msgpcode.IsString(c):
		tok.Kind = codec.Text
		tok.Raw, err = r.view(r.dec.DecodeBytesLen())
	case isMap(c):
		tok.Kind = codec.Map
		tok.N, err = r.count(r.dec.DecodeMapLen())
	case isList(c):
		tok.Kind = codec.List
		tok.N, err = r.count(r.dec.DecodeArrayLen())
	case msgpcode.IsBin(c):
		tok.Kind = codec.Bytes
		tok.Raw, err = r.bytes()
	case msgpcode.IsExt(c):
		return r.extension()
	case c == msgpcode.Nil:
		r.i++
		tok.Kind = codec.Null
	case c == msgpcode.True, c == msgpcode.False:
		r.i++
		tok.Kind, tok.Num = codec.Bool, uint64(c&1)
	case c == msgpcode.Float, c == msgpcode.Double:
		var f float64
		f, err = r.dec.DecodeFloat64()
		tok.Kind, tok.Num = codec.Float, math.Float64bits(f)
	case c == msgpcode.Uint64:
		tok.Kind = codec.Int
		if tok.Num, err = r.dec.DecodeUint64(); tok.Num > math.MaxInt64 {
			tok.Kind = codec.Uint
		}
	case isInt(c):
		var n int64
		n, err = r.dec.DecodeInt64()
		tok.Kind, tok.Num = codec.Int, uint64(n)
	default:
		return tok, fmt.Errorf("0x%02x at byte %d begins no MessagePack value", c, r.i)
	}
	return tok, cut(err)
}

var errCut = errors.New("the body ends inside a value")

// cut turns the library's end of file into errCut.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}

// count checks a number of elements. Each element takes at least one byte.
func (r *reader) count(n int, err error) (int, error) {
	if err == nil && (n < 0 || n > r.Left()) {
		err = errCut
	}
	return n, cut(err)
}

// view returns the next n bytes, without a copy.
func (r *reader) view(n int, err error) ([]byte, error) {
	if n, err = r.count(n, err); err != nil {
		return nil, err
	}
	r.i += n
	return r.b[r.i-n : r.i], nil
}

// minOwned is the length from which on binary is left where it is. A smaller value would keep too much memory alive.
const minOwned = 64 << 10

func (r *reader) bytes() ([]byte, error) {
	b, err := r.view(r.dec.DecodeBytesLen())
	if r.owned && len(b) >= minOwned && 2*len(b) >= r.size {
		return b[:len(b):len(b)], err
	}
	return append(make([]byte, 0, len(b)), b...), err
}

func (r *reader) extension() (tok codec.Token, err error) {
	id, n, err := r.dec.DecodeExtHeader()
	payload, err := r.view(n, err)
	if err != nil {
		return tok, err
	}
	switch id {
	case extTime:
		return timestamp(payload)
	case extInt:
		return integer(payload)
	case extDuration:
		if len(payload) != 8 {
			return tok, fmt.Errorf("a duration of %d bytes", len(payload))
		}
		return codec.Token{Kind: codec.Duration, Num: binary.BigEndian.Uint64(payload)}, nil
	case extArray:
		r.i -= n
		tok.Kind = codec.Array
		tok.Array, err = r.array(r.i + n)
		if err != nil {
			err = fmt.Errorf("array: %w", err)
		}
		return tok, err
	}
	return tok, fmt.Errorf("unknown extension %d", id)
}

// integer reads two's complement.
func integer(b []byte) (codec.Token, error) {
	if len(b) == 0 {
		return codec.Token{}, errors.New("an integer of no bytes")
	}
	n := new(big.Int).SetBytes(b)
	if b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
	}
	return codec.Integer(n)
}

// timestamp reads the three forms of the MessagePack specification.
func timestamp(b []byte) (codec.Token, error) {
	tok := codec.Token{Kind: codec.Time}
	switch len(b) {
	case 4:
		tok.Num = uint64(binary.BigEndian.Uint32(b))
	case 8:
		n := binary.BigEndian.Uint64(b)
		tok.Num, tok.N = n&(1<<34-1), int(n>>34)
	case 12:
		tok.Num, tok.N = binary.BigEndian.Uint64(b[4:]), int(binary.BigEndian.Uint32(b))
	default:
		return tok, fmt.Errorf("a timestamp of %d bytes", len(b))
	}
	if tok.N < 0 || tok.N >= 1e9 {
		return tok, errors.New("a timestamp with a whole second of nanoseconds")
	}
	return tok, nil
}

// array reads the list that describes an array. The list must end at end, where its extension ends.
func (r *reader) array(end int) (*core.Array, error) {
	whole := r.b
	r.b = whole[:end]
	defer func() { r.b = whole }()
	list, err := r.only(isList, "a list")
	if err == nil && list.N != 3 {
		err = fmt.Errorf("a list of %d instead of dtype, shape and data", list.N)
	}
	if err != nil {
		return nil, err
	}
	dtype, err := r.only(msgpcode.IsString, "the dtype's text")
	if err != nil {
		return nil, err
	}
	shape, err := r.only(isList, "the shape's list")
	if err == nil && shape.N > core.MaxDims {
		err = fmt.Errorf("%d dimensions; %d are the most", shape.N, core.MaxDims)
	}
	if err != nil {
		return nil, err
	}
	a := &core.Array{DType: string(dtype.Raw), Shape: make([]int, shape.N)}
	for i := range a.Shape {
		dim, err := r.only(isInt, "a dimension")
		if err != nil {
			return nil, err
		}
		if a.Shape[i] = int(dim.Num); int64(a.Shape[i]) != int64(dim.Num) || dim.Kind != codec.Int {
			return nil, errors.New("a dimension beyond what an int holds")
		}
	}
	data, err := r.only(msgpcode.IsBin, "binary data")
	if err != nil {
		return nil, err
	}
	a.Data = data.Raw
	if len(a.Data) > 0 && uintptr(unsafe.Pointer(&a.Data[0]))%8 != 0 { // the elements could not be used where they are
		a.Data = bytes.Clone(a.Data)
	}
	return a, r.End()
}

// only reads a value. is must report true for its first byte. So no extension nests in another.
func (r *reader) only(is func(byte) bool, what string) (codec.Token, error) {
	if r.i < len(r.b) && !is(r.b[r.i]) {
		return codec.Token{}, fmt.Errorf("0x%02x at byte %d where %s should be", r.b[r.i], r.i, what)
	}
	return r.Read()
}

func isList(c byte) bool {
	return msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32
}
func isMap(c byte) bool { return msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32 }
func isInt(c byte) bool { return msgpcode.IsFixedNum(c) || c >= msgpcode.Uint8 && c <= msgpcode.Int64 }
