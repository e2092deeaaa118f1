package msgpack

import (
	"encoding/binary"
	"math/big"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/snakepit-go/snakepit/core"
)

// sink is the output of the library's encoder. Its methods never fail. The encoder has no errors but those of its
// output, so it never fails either.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

func (s *sink) WriteByte(c byte) error {
	s.b = append(s.b, c)
	return nil
}

// writer is a codec.Writer that appends to its sink.
type writer struct {
	sink
	enc *msgpack.Encoder
}

func newWriter() *writer {
	w := &writer{}
	w.enc = msgpack.NewEncoder(&w.sink)
	return w
}

func (w *writer) Null()               { _ = w.enc.EncodeNil() }
func (w *writer) Bool(b bool)         { _ = w.enc.EncodeBool(b) }
func (w *writer) Int(n int64)         { _ = w.enc.EncodeInt(n) }
func (w *writer) Uint(n uint64)       { _ = w.enc.EncodeUint(n) }
func (w *writer) Float(f float64)     { _ = w.enc.EncodeFloat64(f) }
func (w *writer) Text(s string)       { _ = w.enc.EncodeString(s) }
func (w *writer) Bytes(b []byte)      { _ = w.enc.EncodeBytes(b) }
func (w *writer) Time(t time.Time)    { _ = w.enc.EncodeTime(t) }
func (w *writer) List(n int)          { _ = w.enc.EncodeArrayLen(n) }
func (w *writer) Map(n int, _ string) { _ = w.enc.EncodeMapLen(n) }
func (w *writer) Key(name string)     { _ = w.enc.EncodeString(name) }
func (w *writer) EndList()            {}
func (w *writer) EndMap(int, string)  {}

// Big writes the shortest two's complement.
func (w *writer) Big(n *big.Int) {
	size := n.BitLen()/8 + 1
	positive := n
	if n.Sign() < 0 {
		size = new(big.Int).Not(n).BitLen()/8 + 1
		positive = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(size)*8))
	}
	w.extension(extInt, positive.FillBytes(make([]byte, size)))
}

func (w *writer) Duration(d time.Duration) {
	w.extension(extDuration, binary.BigEndian.AppendUint64(nil, uint64(d)))
}

func (w *writer) extension(id int8, payload []byte) {
	_ = w.enc.EncodeExtHeader(id, len(payload))
	w.b = append(w.b, payload...)
}

// Array first writes everything but the data: the extension's header has its length.
func (w *writer) Array(a core.Array) {
	from := len(w.b)
	w.List(3)
	w.Text(a.DType)
	w.List(len(a.Shape))
	for _, dim := range a.Shape {
		w.Int(int64(dim))
	}
	_ = w.enc.EncodeBytesLen(len(a.Data))
	head := append([]byte(nil), w.b[from:]...)
	w.b = w.b[:from]
	_ = w.enc.EncodeExtHeader(extArray, len(head)+len(a.Data))
	w.b = append(append(w.b, head...), a.Data...)
}
