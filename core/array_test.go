package core_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/core"
)

type celsius float32

func TestArrayOf(t *testing.T) {
	for _, c := range []struct {
		got  core.Array
		want core.Array
	}{
		{core.ArrayOf([]float64{1, -2}), core.Array{"<f8", []int{2}, []byte{
			0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0,
		}}},
		{core.ArrayOf([]celsius{1, 2}, 2, 1), core.Array{"<f4", []int{2, 1}, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}}},
		{core.ArrayOf([]int16{-2, 258}, 1, 2), core.Array{"<i2", []int{1, 2}, []byte{0xfe, 0xff, 2, 1}}},
		{core.ArrayOf([]int{1}), core.Array{"<i8", []int{1}, []byte{1, 0, 0, 0, 0, 0, 0, 0}}},
		{core.ArrayOf([]uint32{7}), core.Array{"<u4", []int{1}, []byte{7, 0, 0, 0}}},
		{core.ArrayOf([]byte("ab")), core.Array{"|u1", []int{2}, []byte("ab")}},
		{core.ArrayOf([]int8{-1}), core.Array{"|i1", []int{1}, []byte{255}}},
		{core.ArrayOf([]bool{true, false}), core.Array{"|b1", []int{2}, []byte{1, 0}}},
		{core.ArrayOf([]complex64{complex(1, 2)}), core.Array{"<c8", []int{1}, []byte{
			0, 0, 0x80, 0x3f, 0, 0, 0, 0x40,
		}}},
		{core.ArrayOf([]float64(nil)), core.Array{"<f8", []int{0}, nil}},
		{core.ArrayOf([]float64{}, 0, 3), core.Array{"<f8", []int{0, 3}, nil}},
	} {
		if c.got.DType != c.want.DType || !reflect.DeepEqual(c.got.Shape, c.want.Shape) ||
			string(c.got.Data) != string(c.want.Data) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	rows, err := core.ArrayOfRows([][]int32{{1, 2, 3}, {4, 5, 6}})
	if want := core.ArrayOf([]int32{1, 2, 3, 4, 5, 6}, 2, 3); err != nil || !reflect.DeepEqual(rows, want) {
		t.Errorf("got %v, %v, want %v", rows, err, want)
	}
	if none, err := core.ArrayOfRows([][]int32{}); err != nil || !reflect.DeepEqual(none.Shape, []int{0, 0}) {
		t.Errorf("no rows are %v, %v", none, err)
	}
	_, err = core.ArrayOfRows([][]int32{{1, 2}, {3}, {4, 5, 6}})
	if err == nil || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("rows of unequal length: %v", err)
	}
}

func TestArrayViews(t *testing.T) {
	values := []float64{0, 1, 2, 3, 4, 5}
	a := core.ArrayOf(values, 2, 3)
	view, err := a.Float64s()
	if err != nil || !reflect.DeepEqual(view, values) {
		t.Fatal(view, err)
	}
	view[4] = 40
	if values[4] != 40 || a.At(1, 1) != 40.0 || view[a.Offset(1, 1)] != 40 || a.Len() != 6 {
		t.Errorf("a view is a copy: %v %v", values, a)
	}
	if _, err := a.Float32s(); err == nil || !strings.Contains(err.Error(), `"<f8"`) {
		t.Errorf("float64s as float32s: %v", err)
	}
	if got, err := core.ViewOf[celsius](core.ArrayOf([]float32{1.5})); err != nil || got[0] != 1.5 {
		t.Error(got, err)
	}
	if got, err := core.ArrayOf([]int64{7}).Int64s(); err != nil || got[0] != 7 {
		t.Error(got, err)
	}
	if got, err := core.ArrayOf([]int32{7}).Int32s(); err != nil || got[0] != 7 {
		t.Error(got, err)
	}
	if got, err := core.ArrayOf([]bool{true}).Bools(); err != nil || !got[0] {
		t.Error(got, err)
	}
	if got, err := core.ArrayOf([]int64{}).Int64s(); err != nil || got == nil || len(got) != 0 {
		t.Error(got, err)
	}
	unaligned := core.Array{DType: "<f4", Shape: []int{1}, Data: []byte{9, 0, 0, 0x80, 0x3f}[1:]}
	if got, err := unaligned.Float32s(); err != nil || got[0] != 1 {
		t.Error(got, err)
	}
	for _, bad := range []core.Array{
		{DType: "<f8", Shape: []int{2}, Data: make([]byte, 8)}, {DType: "<f8", Shape: []int{1}, Data: make([]byte, 16)},
		{DType: "<f8", Shape: []int{-1}, Data: make([]byte, 8)}, {DType: "<f8", Shape: []int{1 << 62, 1 << 62}},
	} {
		if got, err := bad.Float64s(); err == nil {
			t.Errorf("%v is %v", bad, got)
		}
	}
	if got, err := (core.Array{DType: "|b1", Shape: []int{1}, Data: []byte{2}}).Bools(); err == nil {
		t.Errorf("the byte 2 is %v", got)
	}
}

func TestArrayItems(t *testing.T) {
	half := func(n ...byte) core.Array { return core.Array{DType: "<f2", Shape: []int{len(n) / 2}, Data: n} }
	for _, c := range []struct {
		a    core.Array
		want any
		json string
	}{
		{core.ArrayOf([]int8{-1}), int64(-1), "[-1]"},
		{core.ArrayOf([]int32{math.MinInt32}), int64(math.MinInt32), "[-2147483648]"},
		{core.ArrayOf([]uint64{math.MaxUint64}), uint64(math.MaxUint64), "[18446744073709551615]"},
		{core.ArrayOf([]bool{true}), true, "[true]"},
		{core.ArrayOf([]float32{0.1}), float64(float32(0.1)), "[0.1]"},
		{core.ArrayOf([]float64{5}), 5.0, "[5.0]"},
		{core.ArrayOf([]float64{1e300}), 1e300, "[1e+300]"},
		{core.ArrayOf([]float64{math.Inf(1)}), math.Inf(1), ""},
		{core.ArrayOf([]complex128{complex(1, 2)}), complex(1, 2), ""},
		{half(0, 0x3c), 1.0, "[1.0]"}, {half(0, 0xc0), -2.0, "[-2.0]"}, {half(0xff, 0x7b), 65504.0, "[65504.0]"},
		{half(1, 0), math.Ldexp(1, -24), "[5.960464477539063e-08]"}, {half(0, 0x7c), math.Inf(1), ""},
		{half(0, 0xfc), math.Inf(-1), ""}, {half(0, 4), math.Ldexp(1, -14), "[6.103515625e-05]"},
	} {
		if got := c.a.Item(0); got != c.want || c.a.At(0) != c.want {
			t.Errorf("%v has %v, not %v", c.a, got, c.want)
		}
		text, err := json.Marshal(c.a)
		if string(text) != c.json || (err == nil) != (c.json != "") {
			t.Errorf("%v is %s, not %s; %v", c.a, text, c.json, err)
		}
	}
	if nan := half(1, 0x7c).Item(0).(float64); !math.IsNaN(nan) {
		t.Errorf("NaN is %v", nan)
	}
	for a, want := range map[string]core.Array{
		"[[1,2,3],[4,5,6]]": core.ArrayOf([]int{1, 2, 3, 4, 5, 6}, 2, 3), "[[],[]]": core.ArrayOf([]int{}, 2, 0),
		"7": {DType: "|u1", Data: []byte{7}},
	} {
		if text, err := json.Marshal(want); err != nil || string(text) != a {
			t.Errorf("%v is %s, %v", want, text, err)
		}
	}
	for _, bad := range []core.Array{
		core.ArrayOf([]int{}, 1<<40, 0), core.ArrayOf([]int{}, 1<<10, 1<<10, 0), core.ArrayOf([]int{1}, 2),
		{DType: "<U1", Shape: []int{1}, Data: make([]byte, 4)},
	} {
		if text, err := json.Marshal(bad); err == nil {
			t.Errorf("%v is %s", bad, text)
		}
	}
	for _, index := range [][]int{{}, {1}, {-1}, {0, 0}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the index %v of one element does not panic", index)
				}
			}()
			core.ArrayOf([]int{1}).At(index...)
		}()
	}
}

// JSON of nested lists becomes an array, and an array's own JSON the same array.
func TestArrayFromJSON(t *testing.T) {
	for text, want := range map[string]core.Array{
		"[1, 2]": core.ArrayOf([]int64{1, 2}), "[[1, 2.5], [3, 4]]": core.ArrayOf([]float64{1, 2.5, 3, 4}, 2, 2),
		"[1e2]": core.ArrayOf([]float64{100}), "[true, false]": core.ArrayOf([]bool{true, false}),
		"[]": core.ArrayOf([]float64{}, 0), "[[], []]": core.ArrayOf([]float64{}, 2, 0), "null": {},
		"[18446744073709551616]": core.ArrayOf([]float64{1 << 64}),
		"[[[1]], [[2]]]":         core.ArrayOf([]int64{1, 2}, 2, 1, 1),
	} {
		var got core.Array
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.DType != want.DType ||
			!reflect.DeepEqual(got.Shape, want.Shape) || string(got.Data) != string(want.Data) {
			t.Errorf("%s is %v, not %v; %v", text, got, want, err)
		}
	}
	for _, a := range []core.Array{
		core.ArrayOf([]float64{1, 2, 3, 4}, 2, 2), core.ArrayOf([]bool{true}), core.ArrayOf([]int64{-1, 0}, 2, 1),
		{DType: "<f8", Shape: []int{}, Data: core.ArrayOf([]float64{5}).Data},
	} {
		text, _ := json.Marshal(a)
		var got core.Array
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%s becomes %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{
		"[[1], [2, 3]]", "[1, [2]]", "[[1], 2]", "[1, null]", `["a"]`, `{"a": 1}`, "[1, true]", "[1e999]",
	} {
		var got core.Array
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is %v", bad, got)
		}
	}
}

func TestArrayAsText(t *testing.T) {
	for want, a := range map[string]core.Array{
		"array <f8 [2] 1.5 2": core.ArrayOf([]float64{1.5, 2}), "array |b1 [1] true": core.ArrayOf([]bool{true}),
		"array <i8 [3 3] 1 2 3 4 5 6 7 8 ...": core.ArrayOf([]int64{1, 2, 3, 4, 5, 6, 7, 8, 9}, 3, 3),
		"array <U1 [1] of 4 bytes":            {DType: "<U1", Shape: []int{1}, Data: make([]byte, 4)},
		"array <f8 [3] of 8 bytes":            {DType: "<f8", Shape: []int{3}, Data: make([]byte, 8)},
	} {
		if got := a.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
