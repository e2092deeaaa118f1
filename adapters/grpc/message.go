package grpc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
)

// message is a Batch of snakepit.proto: what Attach carries in either direction.
type message struct {
	frames []core.Frame
	read   uint64
	bad    error // why what was received is no such message
}

// The fields of Batch and Frame, by their numbers in snakepit.proto.
const (
	batchFrames = 1
	batchRead   = 2

	frameKind    = 1
	frameFlags   = 2
	frameID      = 3
	frameParent  = 4
	frameName    = 5
	frameTTL     = 6
	frameSession = 7
	frameMeta    = 8
	frameItems   = 9
	frameBytes   = 10
	frameBody    = 11
)

// messageCodec is the codec of Attach. The generated code would copy each body twice more: into a message of its own,
// and out of gRPC's buffers.
type messageCodec struct{}

func (messageCodec) Name() string { return "proto" }

func (messageCodec) Marshal(v any) (mem.BufferSlice, error) {
	m := v.(*message)
	size := 0
	for i := range m.frames {
		size += m.frames[i].Size() // a little too much
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	b := (*buf)[:0]
	for i := range m.frames {
		f := &m.frames[i]
		b = protowire.AppendVarint(protowire.AppendTag(b, batchFrames, protowire.BytesType), uint64(sizeOf(f)))
		b = appendFrame(b, f)
	}
	*buf = b
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

func (messageCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b := frame.Memory(data.Len())
	data.CopyTo(b)
	m := v.(*message)
	m.bad = m.parse(b)
	if len(b) > maxShared && len(m.frames) > 1 {
		for i := range m.frames {
			m.frames[i].Body = bytes.Clone(m.frames[i].Body)
		}
	}
	return nil // an error would become one of gRPC's
}

// maxShared is the size up to which frames share the memory of a message. One body would keep all of it alive.
const maxShared = 64 << 10

// sizeOf returns how many bytes appendFrame appends.
func sizeOf(f *core.Frame) (n int) {
	number := func(num protowire.Number, v uint64) {
		if v != 0 {
			n += protowire.SizeTag(num) + protowire.SizeVarint(v)
		}
	}
	text := func(num protowire.Number, length int) {
		if length > 0 {
			n += protowire.SizeTag(num) + protowire.SizeBytes(length)
		}
	}
	number(frameKind, uint64(f.Kind))
	number(frameFlags, uint64(f.Flags))
	number(frameID, f.ID)
	number(frameParent, f.Parent)
	text(frameName, len(f.Name))
	number(frameTTL, uint64(f.TTL/time.Millisecond))
	text(frameSession, len(f.Session))
	for k, v := range f.Meta {
		n += protowire.SizeTag(frameMeta) + protowire.SizeBytes(sizeOfEntry(k, v))
	}
	number(frameItems, uint64(f.Items))
	number(frameBytes, uint64(f.Bytes))
	text(frameBody, len(f.Body))
	return n
}

func sizeOfEntry(k, v string) int {
	return protowire.SizeTag(1) + protowire.SizeBytes(len(k)) + protowire.SizeTag(2) + protowire.SizeBytes(len(v))
}

func appendFrame(b []byte, f *core.Frame) []byte {
	number := func(num protowire.Number, v uint64) {
		if v != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
		}
	}
	text := func(num protowire.Number, s string) {
		b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
	}
	number(frameKind, uint64(f.Kind))
	number(frameFlags, uint64(f.Flags))
	number(frameID, f.ID)
	number(frameParent, f.Parent)
	if f.Name != "" {
		text(frameName, f.Name)
	}
	number(frameTTL, uint64(f.TTL/time.Millisecond))
	if f.Session != "" {
		text(frameSession, f.Session)
	}
	for k, v := range f.Meta {
		b = protowire.AppendTag(b, frameMeta, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeOfEntry(k, v)))
		text(1, k)
		text(2, v)
	}
	number(frameItems, uint64(f.Items))
	number(frameBytes, uint64(f.Bytes))
	if len(f.Body) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, frameBody, protowire.BytesType), f.Body)
	}
	return b
}

// parse reads a message. The frames' bodies are parts of b.
func (m *message) parse(b []byte) error {
	m.frames, m.read = nil, 0
	return fields(b, func(num protowire.Number, v uint64, part []byte) error {
		switch {
		case num == batchFrames && part != nil:
			if len(m.frames) > 0 && len(b) > 2*batchBytes {
				return fmt.Errorf("several frames in a message of %d bytes", len(b))
			}
			m.frames = append(m.frames, core.Frame{})
			return parseFrame(&m.frames[len(m.frames)-1], part)
		case num == batchRead && part == nil:
			m.read = v
		}
		return nil
	})
}

func parseFrame(f *core.Frame, b []byte) error {
	var kind, flags, ttl uint64
	err := fields(b, func(num protowire.Number, v uint64, part []byte) (err error) {
		if part != nil {
			switch num {
			case frameName:
				f.Name, err = textOf(part)
			case frameSession:
				f.Session, err = textOf(part)
			case frameMeta:
				err = parseEntry(f, part)
			case frameBody:
				f.Body = part
			}
			return err
		}
		switch num {
		case frameKind:
			kind = uint64(uint32(v)) // as protobuf reads a uint32
		case frameFlags:
			flags = uint64(uint32(v))
		case frameID:
			f.ID = v
		case frameParent:
			f.Parent = v
		case frameTTL:
			ttl = v
		case frameItems:
			f.Items = int64(v)
		case frameBytes:
			f.Bytes = int64(v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if kind == 0 || kind > uint64(core.KindState) || flags > math.MaxUint8 ||
		ttl > uint64(math.MaxInt64/time.Millisecond) {
		return fmt.Errorf("kind %d, flags %d, ttl %d", kind, flags, ttl)
	}
	f.Kind, f.Flags, f.TTL = core.Kind(kind), core.Flags(flags), time.Duration(ttl)*time.Millisecond
	return nil
}

func parseEntry(f *core.Frame, b []byte) error {
	var entry [2]string
	err := fields(b, func(num protowire.Number, _ uint64, part []byte) (err error) {
		if part != nil && (num == 1 || num == 2) {
			entry[num-1], err = textOf(part)
		}
		return err
	})
	if f.Meta == nil {
		f.Meta = map[string]string{}
	}
	f.Meta[entry[0]] = entry[1]
	return err
}

var errText = errors.New("text that is not UTF-8")

func textOf(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errText
	}
	return string(b), nil
}

// fields calls field for each field of a message: with a number and part nil, or with the bytes of text, binary or a
// message. part is a part of b. Fields of other forms are skipped.
func fields(b []byte, field func(num protowire.Number, v uint64, part []byte) error) error {
	for len(b) > 0 {
		num, form, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if num > protowire.MaxValidNumber {
			return fmt.Errorf("a field of the number %d", num)
		}
		b = b[n:]
		var v uint64
		var part []byte
		switch form {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			part, n = protowire.ConsumeBytes(b)
			part = part[:len(part):len(part)]
		default:
			num, n = 0, protowire.ConsumeFieldValue(num, form, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if b = b[n:]; num > 0 {
			if err := field(num, v, part); err != nil {
				return err
			}
		}
	}
	return nil
}
