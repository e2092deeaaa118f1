package core

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Array is an n-dimensional array in NumPy's form: a numpy.ndarray in Python, nested lists where NumPy is not
// installed. ArrayOf makes one of a slice. When a result is decoded, an array of numbers or booleans also goes into
// slices of as many dimensions, such as []float64 or [][]int; each element is checked as a single number is.
//
// An Array has no lock. Copies share Data.
type Array struct {
	DType string // NumPy's dtype string in little endian, such as "<f8" or "|u1"
	Shape []int  // the length of each dimension; none for a single element
	Data  []byte // the elements in C order
}

// Element lists the Go types of an array's elements.
type Element interface {
	~bool | ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 |
		~float32 | ~float64 | ~complex64 | ~complex128
}

// ArrayOf makes an array of values in C order, which must be as many as shape has places. Without a shape the array
// has one dimension. It shares its memory with values on a little-endian machine, so values must not change until the
// array is sent. An array whose shape does not fit can be made but not sent: the error of the call says so.
func ArrayOf[E Element](values []E, shape ...int) Array {
	if len(shape) == 0 {
		shape = []int{len(values)}
	}
	size := int(unsafe.Sizeof(*new(E)))
	data := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*size)
	if bigEndian {
		data = swapped(data, swapSize(reflect.TypeFor[E]()))
	}
	return Array{DType: dtypeOf(reflect.TypeFor[E]()), Shape: slices.Clone(shape), Data: data[:len(data):len(data)]}
}

// ArrayOfRows makes an array of two dimensions. It copies the rows. Rows of unequal length are an error.
func ArrayOfRows[E Element](rows [][]E) (Array, error) {
	width := 0
	if len(rows) > 0 {
		width = len(rows[0])
	}
	for i, row := range rows {
		if len(row) != width {
			return Array{}, fmt.Errorf("row %d has %d elements, and row 0 has %d; an array's rows are equally long",
				i, len(row), width)
		}
	}
	return ArrayOf(slices.Concat(rows...), len(rows), width), nil
}

// Len returns the number of elements, which is the product of the shape.
func (a Array) Len() int {
	n := 1
	for _, dim := range a.Shape {
		n *= dim
	}
	return n
}

// Float64s returns the elements of an array of dtype "<f8", in C order; see ViewOf.
func (a Array) Float64s() ([]float64, error) { return ViewOf[float64](a) }

// Float32s returns the elements of an array of dtype "<f4", in C order; see ViewOf.
func (a Array) Float32s() ([]float32, error) { return ViewOf[float32](a) }

// Int64s returns the elements of an array of dtype "<i8", in C order; see ViewOf.
func (a Array) Int64s() ([]int64, error) { return ViewOf[int64](a) }

// Int32s returns the elements of an array of dtype "<i4", in C order; see ViewOf.
func (a Array) Int32s() ([]int32, error) { return ViewOf[int32](a) }

// Bools returns the elements of an array of dtype "|b1", in C order; see ViewOf.
func (a Array) Bools() ([]bool, error) { return ViewOf[bool](a) }

// ViewOf returns an array's elements in C order. The dtype must be exactly that of E. The slice is a view of Data:
// a change of one is a change of the other. It is a copy only where memory does not allow a view, on big-endian
// machines or with unaligned Data.
func ViewOf[E Element](a Array) ([]E, error) {
	t := reflect.TypeFor[E]()
	if want := dtypeOf(t); a.DType != want {
		return nil, fmt.Errorf("the array has dtype %q; %s needs %q", a.DType, t, want)
	}
	size := int(unsafe.Sizeof(*new(E)))
	if err := a.Check(); err != nil {
		return nil, err
	}
	if t.Kind() == reflect.Bool {
		for _, b := range a.Data {
			if b > 1 {
				return nil, fmt.Errorf("the array has the boolean %d", b)
			}
		}
	}
	n, data := len(a.Data)/size, a.Data
	if n == 0 {
		return []E{}, nil
	}
	p := unsafe.Pointer(unsafe.SliceData(data))
	if !bigEndian && uintptr(p)%unsafe.Alignof(*new(E)) == 0 {
		return unsafe.Slice((*E)(p), n), nil
	}
	if bigEndian {
		data = swapped(data, swapSize(t))
	}
	copied := make([]E, n)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&copied[0])), len(data)), data)
	return copied, nil
}

// Offset returns the place of an element in Float64s and the other views. There must be one index for each dimension.
// As with a slice, an index out of range panics.
func (a Array) Offset(index ...int) int {
	if len(index) != len(a.Shape) {
		panic(fmt.Sprintf("snakepit: %d indices for an array of %d dimensions", len(index), len(a.Shape)))
	}
	at := 0
	for i, n := range index {
		if n < 0 || n >= a.Shape[i] {
			panic(fmt.Sprintf("snakepit: index %d out of range [%d] in dimension %d", n, a.Shape[i], i))
		}
		at = at*a.Shape[i] + n
	}
	return at
}

// At returns one element: a bool, an int64, a uint64, a float64 or a complex128 by the dtype's kind, whatever its size.
// It panics as Offset does, and if the dtype is none of numbers and booleans. For many elements, a view is faster.
func (a Array) At(index ...int) any { return a.Item(a.Offset(index...)) }

// Item is At by the element's place in C order.
func (a Array) Item(i int) any {
	element, ok := numbers[a.DType]
	if !ok {
		panic(fmt.Sprintf("snakepit: an array of dtype %q has no numbers", a.DType))
	}
	size := element.size
	b := a.Data[i*size:][:size]
	switch element.kind {
	case 'b':
		return b[0] != 0
	case 'i':
		shift := 64 - 8*size
		return int64(little(b)) << shift >> shift
	case 'u':
		return little(b)
	case 'f':
		return float(b)
	default:
		return complex(float(b[:size/2]), float(b[size/2:]))
	}
}

// String returns the dtype, the shape and the first elements.
func (a Array) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "array %s %v", a.DType, a.Shape)
	if _, known := numbers[a.DType]; !known || a.Check() != nil {
		fmt.Fprintf(&b, " of %d bytes", len(a.Data))
		return b.String()
	}
	n := a.Len()
	for i := range min(n, 8) {
		fmt.Fprintf(&b, " %v", a.Item(i))
	}
	if n > 8 {
		b.WriteString(" ...")
	}
	return b.String()
}

// MarshalJSON writes the elements as nested lists. Only numbers and booleans have JSON; NaN, infinities and complex
// numbers are an error.
func (a Array) MarshalJSON() ([]byte, error) {
	element := numbers[a.DType]
	if element.kind == 0 || element.kind == 'c' {
		return nil, fmt.Errorf("an array of dtype %q has no JSON", a.DType)
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	out, _, err := a.appendJSON(nil, a.Shape, 0)
	return out, err
}

// maxEmptyJSON limits the JSON of an array without elements in bytes: its shape may claim any number of rows.
const maxEmptyJSON = 1 << 18

// appendJSON appends the elements that fill the shape, beginning with the given one. next is the first one after them.
func (a Array) appendJSON(out []byte, shape []int, from int) (_ []byte, next int, err error) {
	if len(shape) == 0 {
		out, err = a.appendItem(out, from)
		return out, from + 1, err
	}
	out = append(out, '[')
	for i := range shape[0] {
		if i > 0 {
			out = append(out, ',')
		}
		if len(a.Data) == 0 && len(out) > maxEmptyJSON {
			return nil, 0, fmt.Errorf("an array of shape %v has too many rows without elements", a.Shape)
		}
		if out, from, err = a.appendJSON(out, shape[1:], from); err != nil {
			return nil, 0, err
		}
	}
	return append(out, ']'), from, nil
}

// appendItem appends one element. A float has a point or an exponent, so it stays a float.
func (a Array) appendItem(out []byte, i int) ([]byte, error) {
	switch v := a.Item(i).(type) {
	case bool:
		return strconv.AppendBool(out, v), nil
	case int64:
		return strconv.AppendInt(out, v, 10), nil
	case uint64:
		return strconv.AppendUint(out, v, 10), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v has no JSON", v)
		}
		bits := 64
		if numbers[a.DType].size == 4 {
			bits = 32
		}
		from := len(out)
		out = strconv.AppendFloat(out, v, 'g', -1, bits)
		if !bytes.ContainsAny(out[from:], ".e") {
			out = append(out, ".0"...)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%v has no JSON", v)
	}
}

// UnmarshalJSON makes an array of nested lists of numbers or of booleans. Its elements are int64 if all are integers of
// that type, else float64. Lists of unequal length are an error, as is null inside of them. A null alone changes
// nothing.
func (a *Array) UnmarshalJSON(text []byte) error {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil || v == nil {
		return err
	}
	r := jsonArray{shape: []int{}}
	for inner := v; ; { // the first list of each level sets the shape
		list, ok := inner.([]any)
		if !ok {
			break
		}
		if r.shape = append(r.shape, len(list)); len(list) == 0 || len(r.shape) > MaxDims {
			break
		}
		inner = list[0]
	}
	if err := r.add(v, r.shape); err != nil {
		return err
	}
	switch {
	case len(r.bools) > 0:
		*a = ArrayOf(r.bools, r.shape...)
	case len(r.ints) == len(r.floats) && len(r.ints) > 0:
		*a = ArrayOf(r.ints, r.shape...)
	default:
		*a = ArrayOf(r.floats, r.shape...)
	}
	a.Shape = r.shape // ArrayOf makes one dimension of none
	return nil
}

// jsonArray collects the elements of nested lists.
type jsonArray struct {
	shape  []int
	bools  []bool
	floats []float64 // all numbers
	ints   []int64   // as long as floats if all are integers
}

// add adds the elements of v, which must have the shape.
func (r *jsonArray) add(v any, shape []int) error {
	list, isList := v.([]any)
	if isList != (len(shape) > 0) || isList && len(list) != shape[0] {
		return fmt.Errorf("the lists are not those of an array of shape %v: their lengths differ", r.shape)
	}
	for _, item := range list {
		if err := r.add(item, shape[1:]); err != nil {
			return err
		}
	}
	switch v := v.(type) {
	case []any:
		return nil
	case bool:
		r.bools = append(r.bools, v)
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return err
		}
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil && len(r.ints) == len(r.floats) {
			r.ints = append(r.ints, n)
		}
		r.floats = append(r.floats, f)
	default:
		return fmt.Errorf("an array has numbers or booleans, not %v", v)
	}
	if len(r.bools) > 0 && len(r.floats) > 0 {
		return errors.New("an array has numbers or booleans, not both")
	}
	return nil
}

// MaxDims is the limit on an array's dimensions. NumPy has the same limit.
const MaxDims = 64

// Check returns an error if the array can't be sent: the dtype must be text, and the data must have one element for
// each place of the shape. If the dtype does not say how large an element is, the data must have a whole number of
// bytes for each place.
func (a Array) Check() error {
	if a.DType == "" && a.Shape == nil && a.Data == nil {
		return errors.New("the array has no dtype: it is not set; make one by ArrayOf")
	}
	if a.DType == "" || !utf8.ValidString(a.DType) {
		return fmt.Errorf("array with dtype %q; it must be NumPy's, such as \"<f8\"", truncate(a.DType, 40))
	}
	if len(a.Shape) > MaxDims {
		return fmt.Errorf("array with %d dimensions; %d are the most", len(a.Shape), MaxDims)
	}
	empty, n := false, 1
	for _, dim := range a.Shape {
		switch {
		case dim < 0:
			return fmt.Errorf("array with negative dimension %d", dim)
		case dim == 0:
			empty = true
		case n > len(a.Data)/dim: // also prevents an overflow of the product; an empty array does not use it
			n = len(a.Data) + 1
		default:
			n *= dim
		}
	}
	fits := n <= len(a.Data) && len(a.Data)%n == 0
	if size := elementSize(a.DType); size > 0 && fits {
		fits = len(a.Data)/n == size
	}
	if empty && len(a.Data) != 0 || !empty && !fits {
		return fmt.Errorf("array of dtype %q and shape %v has %d bytes of data, which do not fit",
			truncate(a.DType, 40), a.Shape, len(a.Data))
	}
	return nil
}

// elementSize returns the size in bytes of one element of a dtype such as "<f8" or "<U3", or 0 if the dtype does not
// say.
func elementSize(dtype string) int {
	if len(dtype) < 3 || dtype[0] != '<' && dtype[0] != '|' {
		return 0
	}
	digits, _, _ := strings.Cut(dtype[2:], "[") // times have their unit in brackets
	n, err := strconv.ParseUint(digits, 10, 30)
	if err != nil {
		return 0
	}
	if dtype[1] == 'U' { // n counts characters of four bytes
		n *= 4
	}
	return int(n)
}

// numbers has the kind and the size in bytes of the elements of each dtype of numbers and booleans.
var numbers = map[string]struct {
	kind byte
	size int
}{
	"|b1": {'b', 1},
	"|i1": {'i', 1}, "<i2": {'i', 2}, "<i4": {'i', 4}, "<i8": {'i', 8},
	"|u1": {'u', 1}, "<u2": {'u', 2}, "<u4": {'u', 4}, "<u8": {'u', 8},
	"<f2": {'f', 2}, "<f4": {'f', 4}, "<f8": {'f', 8},
	"<c8": {'c', 8}, "<c16": {'c', 16},
}

// dtypeOf returns the dtype for a type of Element.
func dtypeOf(t reflect.Type) string {
	kind := byte('f')
	switch k := t.Kind(); {
	case k == reflect.Bool:
		kind = 'b'
	case k >= reflect.Int && k <= reflect.Int64:
		kind = 'i'
	case k >= reflect.Uint && k <= reflect.Uint64:
		kind = 'u'
	case k == reflect.Complex64 || k == reflect.Complex128:
		kind = 'c'
	}
	order := byte('<')
	if t.Size() == 1 {
		order = '|'
	}
	return string(append([]byte{order, kind}, strconv.Itoa(int(t.Size()))...))
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// swapSize returns the size of the numbers that an element consists of: a complex number has two.
func swapSize(t reflect.Type) int {
	if t.Kind() == reflect.Complex64 || t.Kind() == reflect.Complex128 {
		return int(t.Size()) / 2
	}
	return int(t.Size())
}

// swapped returns a copy of data with the bytes of each number reversed.
func swapped(data []byte, size int) []byte {
	data = slices.Clone(data)
	for i := 0; i+size <= len(data); i += size {
		slices.Reverse(data[i : i+size])
	}
	return data
}

// little reads an unsigned integer of up to eight bytes.
func little(b []byte) (n uint64) {
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	return n
}

// float reads a float of two, four or eight bytes.
func float(b []byte) float64 {
	n := little(b)
	switch len(b) {
	case 4:
		return float64(math.Float32frombits(uint32(n)))
	case 8:
		return math.Float64frombits(n)
	}
	return half(uint16(n))
}

// half converts a float of 16 bits, IEEE 754 binary16.
func half(n uint16) float64 {
	sign, exponent, fraction := 1-2*float64(n>>15), int(n>>10&0x1f), float64(n&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 0x1f:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
