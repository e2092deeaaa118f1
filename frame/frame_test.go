package frame

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
)

// encodings are the two forms of a whole frame.
var encodings = map[string]struct {
	append func(b []byte, f *core.Frame) []byte
	parse  func(b []byte) (core.Frame, error)
}{
	"line":    {AppendLine, ParseLine},
	"msgpack": {func(b []byte, f *core.Frame) []byte { return append(AppendMsgpack(b, f), f.Body...) }, ParseMsgpack},
}

// frames generates the frames that every encoding carries.
var frames = rapid.Custom(func(t *rapid.T) core.Frame {
	number := rapid.Uint64Range(0, maxNumber)
	f := core.Frame{
		Kind:   core.Kind(rapid.IntRange(int(core.KindHello), int(core.KindState)).Draw(t, "kind")),
		Flags:  core.Flags(rapid.IntRange(0, 15).Draw(t, "flags")),
		ID:     number.Draw(t, "id"),
		Parent: number.Draw(t, "parent"),
		Name:   rapid.String().Draw(t, "name"),
		TTL:    time.Duration(rapid.Int64Range(0, maxTTL).Draw(t, "ttl")) * time.Millisecond,
		Items:  int64(number.Draw(t, "items")),
		Bytes:  int64(number.Draw(t, "bytes")),
	}
	f.Session = rapid.String().Draw(t, "session")
	if meta := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "meta"); len(meta) > 0 {
		f.Meta = meta
	}
	if body := rapid.SliceOf(rapid.Byte()).Draw(t, "body"); len(body) > 0 {
		f.Body = bytes.ReplaceAll(body, []byte("\n"), []byte("n"))
	}
	return f
})

func TestRoundTrip(t *testing.T) {
	for name, e := range encodings {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				f := frames.Draw(t, "frame")
				before := []byte("before")
				wire := e.append(before, &f)
				got, err := e.parse(wire[len(before):])
				if err != nil || !reflect.DeepEqual(got, f) {
					t.Fatalf("%q was read as %v, %v", wire, &got, err)
				}
				if !bytes.HasPrefix(wire, before) {
					t.Fatalf("what was there became %q", wire)
				}
				if len(f.Body) > 0 && cap(got.Body) != len(got.Body) {
					t.Fatal("appending to the body would overwrite what follows it")
				}
			})
		})
	}
}

// A truncated frame is an error, wherever the cut is.
func TestCutOff(t *testing.T) {
	f := core.Frame{
		Kind: core.KindCall, ID: 1 << 40, Parent: 300, Name: strings.Repeat("n", 40), TTL: time.Hour, Session: "s",
		Meta: map[string]string{"k": "v"}, Items: 70000, Bytes: 200, Body: []byte(`{"a":1}`),
	}
	for name, e := range encodings {
		wire := e.append(nil, &f)
		for n := range wire {
			if got, err := e.parse(wire[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are %v", name, n, len(wire), &got)
			}
		}
	}
	if _, err := ParseLine([]byte("{}")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without a line feed: %v", err)
	}
}

func TestMemory(t *testing.T) {
	for size := range 100 {
		b := Memory(size)
		if len(b) != size {
			t.Fatalf("%d bytes instead of %d", len(b), size)
		}
		if end := uintptr(unsafe.Pointer(unsafe.SliceData(b))) + uintptr(size); size > 0 && end%8 != 0 {
			t.Errorf("%d bytes end at %x", size, end)
		}
	}
}

func TestCheckSize(t *testing.T) {
	f := core.Frame{Kind: core.KindItem, Body: []byte("1")}
	if err := CheckSize(&f, f.Size()); err != nil {
		t.Error(err)
	}
	err := CheckSize(&f, f.Size()-1)
	if err == nil || !strings.Contains(err.Error(), "of 257 bytes, the limit is 256") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	call := core.Frame{Kind: core.KindCall, ID: 7, Name: "é", Meta: map[string]string{"k": "v"}, Body: []byte("1")}
	for _, e := range encodings {
		f.Add(e.append(nil, &call))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		for name, e := range encodings {
			got, err := e.parse(wire)
			if err != nil {
				continue
			}
			again, err := e.parse(e.append(nil, &got))
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%s: %v became %v, %v", name, &got, &again, err)
			}
		}
	})
}

// An unknown field is skipped, however deep its value nests.
func TestUnknownFields(t *testing.T) {
	deep := strings.Repeat("\x91", 1<<20) + "\xc0"
	for _, value := range []string{
		deep, strings.Repeat("\x81\xa0", 1000) + "\xc3", "\x7f", "\xe0", "\xc2", "\xa3abc", "\x82\x01\x02\x03\x04",
		"\xc4\x02ab", "\xc5\x00\x02ab", "\xc6\x00\x00\x00\x02ab", "\xc7\x02\x05ab", "\xc8\x00\x02\x05ab",
		"\xc9\x00\x00\x00\x02\x05ab", "\xca1234", "\xcb12345678", "\xcc1", "\xcd12", "\xce1234", "\xcf12345678",
		"\xd01", "\xd112", "\xd21234", "\xd312345678", "\xd4t1", "\xd5t12", "\xd6t1234", "\xd7t12345678",
		"\xd8t1234567812345678", "\xd9\x01a", "\xda\x00\x01a", "\xdb\x00\x00\x00\x01a", "\xdc\x00\x01\x01",
		"\xdd\x00\x00\x00\x01\x01", "\xde\x00\x01\x01\x02", "\xdf\x00\x00\x00\x01\x01\x02",
	} {
		f, err := ParseMsgpack([]byte("\x83\xa4kind\x04\xa6future" + value + "\xa2id\x07"))
		if want := (core.Frame{Kind: core.KindEnd, ID: 7}); err != nil || !reflect.DeepEqual(f, want) {
			t.Errorf("behind %.20q: %v, %v", value, &f, err)
		}
	}
}
