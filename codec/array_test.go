package codec_test

import (
	stdjson "encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/snakepit-go/snakepit/core"
)

// An array of numbers goes into slices and Go arrays of as many dimensions, each element as a number by itself.
func TestArrayIntoSlices(t *testing.T) {
	type celsius float64
	half := core.Array{DType: "<f2", Shape: []int{2}, Data: []byte{0, 0x3c, 0, 0x38}}
	zero := func(a core.Array) core.Array { a.Shape = []int{}; return a }
	one := core.ArrayOf([]float64{1.5})
	for _, test := range []struct {
		sent core.Array
		want any    // also gives the target's type
		err  string // what the error says; "" if the array fits
	}{
		{core.ArrayOf([]float64{1, 2.5}), []float64{1, 2.5}, ""},
		{core.ArrayOf([]float64{1, 2.5}), []float32{1, 2.5}, ""},
		{core.ArrayOf([]float64{1, 2.5}), []celsius{1, 2.5}, ""},
		{core.ArrayOf([]float64{1, 2.5}), []any{1.0, 2.5}, ""},
		{core.ArrayOf([]float64{1, 2.5}), [2]float64{1, 2.5}, ""},
		{core.ArrayOf([]float64{1, 2.5}), []stdjson.Number{"1.0", "2.5"}, ""},
		{core.ArrayOf([]float32{1, 2.5}), []float64{1, 2.5}, ""},
		{core.ArrayOf([]float32{1, 2.5}), []float32{1, 2.5}, ""},
		{half, []float64{1, 0.5}, ""},
		{half, []float32{1, 0.5}, ""},
		{core.ArrayOf([]int64{1, -2}), []int64{1, -2}, ""},
		{core.ArrayOf([]int64{1, -2}), []int{1, -2}, ""},
		{core.ArrayOf([]int64{1, -2}), []int8{1, -2}, ""},
		{core.ArrayOf([]int64{1, -2}), []float64{1, -2}, ""},
		{core.ArrayOf([]int32{1, -2}), []int64{1, -2}, ""},
		{core.ArrayOf([]int16{1, -2}), []int16{1, -2}, ""},
		{core.ArrayOf([]uint64{math.MaxUint64}), []uint64{math.MaxUint64}, ""},
		{core.ArrayOf([]uint64{7, math.MaxUint64}), []any{int64(7), uint64(math.MaxUint64)}, ""},
		{core.ArrayOf([]uint64{7}), []uint{7}, ""},
		{core.ArrayOf([]byte{1, 255}), []byte{1, 255}, ""},
		{core.ArrayOf([]byte{1, 255}), [2]byte{1, 255}, ""},
		{core.ArrayOf([]byte{1, 255}), []int{1, 255}, ""},
		{core.ArrayOf([]int8{1, 2}), []byte{1, 2}, ""},
		{core.ArrayOf([]bool{true, false}), []bool{true, false}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4, 5, 6}, 2, 3), [][]int{{1, 2, 3}, {4, 5, 6}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4, 5, 6}, 2, 3), [][]float32{{1, 2, 3}, {4, 5, 6}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4, 5, 6}, 2, 3), [][3]int{{1, 2, 3}, {4, 5, 6}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4, 5, 6}, 2, 3), [2][]int{{1, 2, 3}, {4, 5, 6}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4}, 2, 2), []*[]int{{1, 2}, {3, 4}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4}, 2, 2), []any{[]any{int64(1), int64(2)}, []any{int64(3), int64(4)}}, ""},
		{core.ArrayOf([]int{1, 2, 3, 4}, 2, 1, 2), [][][]int{{{1, 2}}, {{3, 4}}}, ""},
		{core.ArrayOf([]int{}), []int{}, ""},
		{core.ArrayOf([]int{}, 2, 0), [][]int{{}, {}}, ""},
		{core.ArrayOf([]int{}, 0, 2), [][]int{}, ""},
		{zero(one), 1.5, ""},
		{zero(core.ArrayOf([]int{3})), 3, ""},
		{zero(core.ArrayOf([]bool{true})), true, ""},

		{core.ArrayOf([]float64{1, 2.5}), []int{}, "[0]: the float 1.0 can't go into int"},
		{core.ArrayOf([]int{1, 300}), []int8{}, "[1]: 300 doesn't fit into int8"},
		{core.ArrayOf([]int{1, 2, 3, 300}, 2, 2), [][]int8{}, "[1][1]: 300 doesn't fit into int8"},
		{core.ArrayOf([]int{1 << 60, 1<<53 + 1}), []float64{},
			"[1]: 9007199254740993 doesn't fit into float64 exactly"},
		{core.ArrayOf([]int{1, 0}), []bool{}, "[0]: an integer can't go into bool"},
		{core.ArrayOf([]int{1, 2}), [3]int{}, "an array of shape [2] doesn't fit into [3]int"},
		{core.ArrayOf([]int{1, 2}), []string{}, "[0]: an integer can't go into string"},
		{core.ArrayOf([]float64{1, 2}, 2, 1), []float64{},
			"dtype <f8 and shape [2 1] can't go into []float64; it goes into [][]float64 or snakepit.Array"},
		{core.ArrayOf([]float64{1, 2}), 0.5, "can't go into float64; it goes into []float64 or snakepit.Array"},
		{core.ArrayOf([]float64{1, 2}), [][]float64{},
			"can't go into [][]float64; it goes into []float64 or snakepit.Array"},
		{half, "", "can't go into string; it goes into []float32 or snakepit.Array"},
		{core.ArrayOf([]complex64{1}), []complex64{}, "can't go into []complex64; it goes into snakepit.Array"},
		{zero(one), []float64{}, "can't go into []float64; it goes into float64 or snakepit.Array"},
	} {
		each(t, func(t *testing.T, c core.Codec) {
			type in struct {
				Rows any `json:"rows"`
			}
			target := reflect.New(reflect.StructOf([]reflect.StructField{{
				Name: "Rows", Type: reflect.TypeOf(test.want), Tag: `json:"rows"`,
			}}))
			err := c.Decode(appended(t, c, in{test.sent}), target.Interface())
			got := target.Elem().Field(0).Interface()
			switch {
			case test.err == "" && (err != nil || !reflect.DeepEqual(got, test.want)):
				t.Errorf("%v became %#v, not %#v; %v", test.sent, got, test.want, err)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("%v into %T: %v does not say %q", test.sent, got, err, test.err)
			}
		})
	}
}

// Rows share one memory. Each ends where the next begins, so an append can't change another row.
func TestRowsAreApart(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		var rows [][]float64
		if err := c.Decode(appended(t, c, core.ArrayOf([]float64{1, 2, 3, 4}, 2, 2)), &rows); err != nil {
			t.Fatal(err)
		}
		rows[0] = append(rows[0], 9)
		if !reflect.DeepEqual(rows, [][]float64{{1, 2, 9}, {3, 4}}) {
			t.Errorf("got %v", rows)
		}
	})
}

// An array whose element type is that of the slice is not copied once more.
func TestArrayIsNotCopied(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		body := appended(t, c, core.ArrayOf(make([]float64, 1<<17)))
		var array core.Array
		var list []float64
		decode := func(v any) float64 {
			least := math.Inf(1)
			for range 5 { // a garbage collection may empty the pool of readers
				least = min(least, testing.AllocsPerRun(1, func() {
					if err := c.Decode(body, v); err != nil {
						t.Error(err)
					}
				}))
			}
			return least
		}
		once := decode(&array)
		if twice := decode(&list); twice > once+3 {
			t.Errorf("%v allocations for an array, %v for a slice", once, twice)
		}
		if uintptr(unsafe.Pointer(&list[0]))%unsafe.Alignof(list[0]) != 0 {
			t.Error("the slice is not aligned")
		}
	})
}

// An array without elements may claim any number of rows. Neither slices nor JSON take more memory than a multiple of
// the body, and a few rows for each body.
func TestRowsWithoutElements(t *testing.T) {
	empty := func(shape ...int) core.Array { return core.ArrayOf([]float64{}, shape...) }
	many := make([]core.Array, 300)
	for i := range many {
		many[i] = empty(4096, 0)
	}
	for _, c := range []struct {
		sent   any
		target any
	}{
		{empty(4, 1<<62, 0), new([][][]float64)}, {empty(1<<62, 4, 0), new([][][]float64)},
		{empty(4, 1<<62, 0), new(stdjson.RawMessage)}, {empty(1<<62, 0), new(stdjson.RawMessage)},
		{[]any{empty(1<<20, 0)}, new(stdjson.RawMessage)},
		{map[string]any{"a": empty(4096, 4096, 0)}, new(stdjson.RawMessage)},
		{many, new([][][]float64)}, {many, new(stdjson.RawMessage)},
	} {
		each(t, func(t *testing.T, codec core.Codec) {
			body := appended(t, codec, c.sent)
			var err error
			allocated := allocations(func() { err = codec.Decode(body, c.target) })
			if err == nil || !strings.Contains(err.Error(), "too many rows without elements") {
				t.Errorf("%T: %v", c.target, err)
			}
			if allocated > 256*len(body)+1<<20 {
				t.Errorf("%T: %d bytes are allocated for %d", c.target, allocated, len(body))
			}
		})
	}
	each(t, func(t *testing.T, codec core.Codec) {
		var rows [][]float64
		var raw stdjson.RawMessage
		body := appended(t, codec, empty(1000, 0))
		if err := codec.Decode(body, &rows); err != nil || len(rows) != 1000 {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		if err := codec.Decode(body, &raw); err != nil || len(raw) != 3001 {
			t.Errorf("%d bytes of JSON, %v", len(raw), err)
		}
	})
}

type endless *endless

// A type that is a pointer to itself holds nothing.
func TestArrayIntoEndlessPointers(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		var v []endless
		if err := c.Decode(appended(t, c, core.ArrayOf([]int{1}, 1, 1)), &v); err == nil {
			t.Errorf("got %v", v)
		}
	})
}
