package msgpack

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/snakepit-go/snakepit/core"
)

// inside reports whether part lies in the memory of whole.
func inside(part, whole []byte) bool {
	first, begin := uintptr(unsafe.Pointer(&part[0])), uintptr(unsafe.Pointer(&whole[0]))
	return first >= begin && first < begin+uintptr(len(whole))
}

// encoded returns the body of a value in memory whose end is a multiple of 8, less shift.
func encoded(t *testing.T, v any, shift int) []byte {
	t.Helper()
	b, err := Codec{}.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	aligned := make([]byte, (len(b)+15)/8*8)[:(len(b)+7)/8*8]
	at := len(aligned) - len(b) - shift
	if at < 0 {
		at += 8
		aligned = aligned[:cap(aligned)]
	}
	copy(aligned[at:], b)
	return aligned[at : at+len(b) : at+len(b)]
}

func TestDecodeOwned(t *testing.T) {
	large, small := bytes.Repeat([]byte{1}, minOwned), bytes.Repeat([]byte{1}, minOwned-1)
	for name, c := range map[string]struct {
		value  any
		shared bool
	}{
		"large":            {large, true},
		"small":            {small, false},
		"in a list":        {[][]byte{large}, true},
		"less than a half": {[][]byte{large, large, large}, false},
	} {
		b := encoded(t, c.value, 0)
		for _, owned := range []bool{true, false} {
			var got any
			if err := decode(b, &got, owned); err != nil {
				t.Fatal(err)
			}
			part, isBytes := got.([]byte)
			if !isBytes {
				part = got.([]any)[0].([]byte)
			}
			if inside(part, b) != (c.shared && owned) || cap(part) > len(part)+8 {
				t.Errorf("%s, owned %t: the value is inside of the body: %t", name, owned, inside(part, b))
			}
		}
	}
}

// The elements of an array have to lie where the processor takes them.
func TestDecodeOwnedArray(t *testing.T) {
	floats := make([]float64, minOwned/8)
	for i := range floats {
		floats[i] = float64(i)
	}
	for shift := range 8 {
		b := encoded(t, core.ArrayOf(floats, len(floats)), shift)
		var got []float64
		if err := (Codec{}).DecodeOwned(b, &got); err != nil {
			t.Fatal(err)
		}
		for i := range floats {
			if got[i] != floats[i] {
				t.Fatalf("shifted by %d: element %d is %v", shift, i, got[i])
			}
		}
		part := unsafe.Slice((*byte)(unsafe.Pointer(&got[0])), 8*len(got))
		if inside(part, b) != (shift == 0) {
			t.Errorf("shifted by %d: the elements are inside of the body: %t", shift, inside(part, b))
		}
	}
}
