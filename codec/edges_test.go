package codec_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/codec"
	"github.com/snakepit-go/snakepit/core"
)

// Integers go into floats where that is exact, up to the last one on both sides of zero.
func TestIntegersIntoFloats(t *testing.T) {
	for _, c := range []struct {
		n            int64
		into64, in32 bool
	}{
		{0, true, true}, {1 << 24, true, true}, {-1 << 24, true, true}, {1<<24 + 1, true, false}, {-1<<24 - 1, true, false},
		{1 << 53, true, true}, {-1 << 53, true, true}, {1<<53 + 1, false, false}, {-1<<53 - 1, false, false},
		{-1 << 63, true, true}, {-1<<63 + 1, false, false}, {1<<53 + 2, true, false}, {-1<<53 - 2, true, false},
	} {
		for _, codec := range both {
			body := appended(t, codec, c.n)
			var f64 float64
			if err := codec.Decode(body, &f64); (err == nil) != c.into64 || err == nil && int64(f64) != c.n {
				t.Errorf("%s: %d into a float64: %v, %v", codec.Name(), c.n, f64, err)
			}
			var f32 float32
			if err := codec.Decode(body, &f32); (err == nil) != c.in32 || err == nil && int64(f32) != c.n {
				t.Errorf("%s: %d into a float32: %v, %v", codec.Name(), c.n, f32, err)
			}
		}
	}
}

// Depth counts levels and not values: many values side by side are no deeper than one.
func TestSiblingsAreNotDeeper(t *testing.T) {
	type node struct {
		Next *node `json:"next,omitempty"`
	}
	inner := any(5)
	loop := &inner
	for name, v := range map[string]any{
		"lists": make([][]int, 3*codec.MaxDepth), "fixed": make([][1]int, 3*codec.MaxDepth),
		"maps":       slicesOf(map[string]int{"a": 1}, 3*codec.MaxDepth),
		"any lists":  slicesOf(any([]any{1}), 3*codec.MaxDepth),
		"any maps":   slicesOf(any(map[string]any{"a": 1}), 3*codec.MaxDepth),
		"records":    slicesOf(node{}, 3*codec.MaxDepth),
		"pointers":   slicesOf(&loop, 3*codec.MaxDepth),
		"references": slicesOf(any(&inner), 3*codec.MaxDepth),
	} {
		for _, c := range both {
			body := appended(t, c, v)
			target := reflect.New(reflect.TypeOf(v))
			if err := c.Decode(body, target.Interface()); err != nil || target.Elem().Len() != 3*codec.MaxDepth {
				t.Errorf("%s: %s: %v", c.Name(), name, err)
			}
			var free any
			if err := c.Decode(body, &free); err != nil {
				t.Errorf("%s: %s into any: %v", c.Name(), name, err)
			}
		}
	}
}

func slicesOf[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

// An array may have MaxDims dimensions and no more.
func TestMostDimensions(t *testing.T) {
	for dims, ok := range map[int]bool{codec.MaxDims: true, codec.MaxDims + 1: false} {
		shape := slicesOf(1, dims)
		for _, c := range both {
			_, err := c.Append(nil, core.Array{DType: "|u1", Shape: shape, Data: []byte{7}})
			if (err == nil) != ok {
				t.Errorf("%s: %d dimensions: %v", c.Name(), dims, err)
			}
		}
	}
}

// A path shows names as they are, if they are made of letters, digits and underscores and not long; it shows the
// beginning and end of what is longer than a line.
func TestPaths(t *testing.T) {
	bad := make(chan int)
	for key, want := range map[string]string{
		"azAZ09_": "value.azAZ09_", strings.Repeat("k", 40): "value." + strings.Repeat("k", 40),
		strings.Repeat("k", 41): `value["` + strings.Repeat("k", 40), "a`": "value[", "a{": "value[", "A@": "value[", "A[": "value[",
		"0/": "value[", "0:": "value[", "": "value[",
	} {
		for _, c := range both {
			_, err := c.Append(nil, map[string]any{"value": map[string]any{key: bad}})
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %q: %v", c.Name(), key, err)
			}
		}
	}
	deep := any(bad)
	for range 79 {
		deep = map[string]any{"k": deep}
	}
	for levels, cuts := range map[int]bool{80: false, 81: true} {
		v := deep
		for range levels - 79 {
			v = map[string]any{"k": v}
		}
		for _, c := range both { // each level is two characters, but the first is one
			_, err := c.Append(nil, v)
			path, _, _ := strings.Cut(err.Error(), ": ")
			if got := strings.Contains(path, "..."); got != cuts || len(path) > 163 {
				t.Errorf("%s: %d levels: %q", c.Name(), levels, path)
			}
		}
	}
}
