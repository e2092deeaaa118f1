package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unsafe"

	"github.com/snakepit-go/snakepit/core"
)

// checkArray is the rule for arrays.
func checkArray(a *core.Array) error {
	if err := a.Check(); err != nil {
		return err
	}
	return checkLen(len(a.Data) + len(a.DType) + 1024) // with room for the shape and the headers
}

// arrayFields is the map that a worker without NumPy sends for a core.Array.
type arrayFields struct {
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Data  []byte `json:"data"`
}

var arrayFieldsPlan = planOf(reflect.TypeFor[arrayFields]())

func (d *decoder) array(p *plan, v reflect.Value, tok Token) error {
	var a core.Array
	switch tok.Kind {
	case Array:
		a = *tok.Array
	case Map:
		var fields arrayFields
		if err := d.record(arrayFieldsPlan, reflect.ValueOf(&fields).Elem(), tok); err != nil {
			return err
		}
		a = core.Array(fields)
	default:
		return mismatch(p, tok)
	}
	*v.Addr().Interface().(*core.Array) = a
	return checkArray(&a)
}

// elementKinds has the Go kind of the elements of each dtype of numbers and booleans. Go has no float of 16 bits.
var elementKinds = map[string]reflect.Kind{
	"|b1": reflect.Bool,
	"|i1": reflect.Int8, "<i2": reflect.Int16, "<i4": reflect.Int32, "<i8": reflect.Int64,
	"|u1": reflect.Uint8, "<u2": reflect.Uint16, "<u4": reflect.Uint32, "<u8": reflect.Uint64,
	"<f2": reflect.Invalid, "<f4": reflect.Float32, "<f8": reflect.Float64,
}

// arrayMismatch is the error for an array that a type does not take.
func arrayMismatch(a *core.Array, typ reflect.Type) error {
	remedy := "snakepit.Array"
	if kind, known := elementKinds[a.DType]; known {
		if kind == reflect.Invalid {
			kind = reflect.Float32
		}
		remedy = strings.Repeat("[]", len(a.Shape)) + kind.String() + " or " + remedy
	}
	return fmt.Errorf("an array of dtype %s and shape %v can't go into %s; it goes into %s",
		cut(a.DType), a.Shape, typ, remedy)
}

// single returns the token of the element of an array without dimensions. It reports false for any other array.
func single(a *core.Array) (tok Token, ok bool) {
	kind, known := elementKinds[a.DType]
	if !known || len(a.Shape) > 0 || checkArray(a) != nil {
		return tok, false
	}
	return item(a, kind, 0), true
}

// item returns the token of an array's i-th element, of the kind in elementKinds.
func item(a *core.Array, kind reflect.Kind, i int) Token {
	little := binary.LittleEndian
	switch kind {
	case reflect.Bool:
		return Token{Kind: Bool, Num: uint64(min(a.Data[i], 1))}
	case reflect.Int8:
		return Token{Kind: Int, Num: uint64(int8(a.Data[i]))}
	case reflect.Int16:
		return Token{Kind: Int, Num: uint64(int16(little.Uint16(a.Data[2*i:])))}
	case reflect.Int32:
		return Token{Kind: Int, Num: uint64(int32(little.Uint32(a.Data[4*i:])))}
	case reflect.Int64:
		return Token{Kind: Int, Num: little.Uint64(a.Data[8*i:])}
	case reflect.Uint8:
		return Token{Kind: Int, Num: uint64(a.Data[i])}
	case reflect.Uint16:
		return Token{Kind: Int, Num: uint64(little.Uint16(a.Data[2*i:]))}
	case reflect.Uint32:
		return Token{Kind: Int, Num: uint64(little.Uint32(a.Data[4*i:]))}
	case reflect.Uint64:
		n := little.Uint64(a.Data[8*i:])
		if n > math.MaxInt64 {
			return Token{Kind: Uint, Num: n}
		}
		return Token{Kind: Int, Num: n}
	case reflect.Float32:
		f := math.Float32frombits(little.Uint32(a.Data[4*i:]))
		return Token{Kind: Float, Num: math.Float64bits(float64(f))}
	case reflect.Float64:
		return Token{Kind: Float, Num: little.Uint64(a.Data[8*i:])}
	default: // 16 bits
		f, _ := a.Item(i).(float64)
		return Token{Kind: Float, Num: math.Float64bits(f)}
	}
}

// unpack stores an array of numbers or booleans in a slice or Go array of as many dimensions.
func (d *decoder) unpack(p *plan, v reflect.Value, a *core.Array) error {
	if err := checkArray(a); err != nil {
		return err
	}
	kind, known := elementKinds[a.DType]
	if !known || len(a.Shape) == 0 {
		return arrayMismatch(a, p.typ)
	}
	u := unpacker{array: a, kind: kind, whole: p.typ}
	return d.fill(&u, p, v, a.Shape)
}

// spendRows takes the memory of n rows out of the budget. The shape of an array without elements may claim any number
// of rows.
func (d *decoder) spendRows(a *core.Array, n int, size uintptr) error {
	if n > d.rows/int(max(size, 1)) {
		return fmt.Errorf("an array of shape %v has too many rows without elements", a.Shape)
	}
	d.rows -= n * int(size)
	return nil
}

// spendAllRows does the same for all arrays in a value that becomes JSON.
func (d *decoder) spendAllRows(v any) error {
	switch v := v.(type) {
	case core.Array:
		if len(v.Data) > 0 {
			return nil
		}
		n := 1
		for _, dim := range v.Shape {
			if dim == 0 {
				break
			}
			if err := d.spendRows(&v, dim, uintptr(n)); err != nil {
				return err
			}
			n *= dim
		}
	case []any:
		for _, item := range v {
			if err := d.spendAllRows(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, item := range v {
			if err := d.spendAllRows(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// unpacker stores the elements of one array.
type unpacker struct {
	array *core.Array
	kind  reflect.Kind // of its elements
	whole reflect.Type // the type of the whole target
	next  int          // the first element that is not stored yet
}

// fill stores the next elements, as many as the shape has places, in v.
func (d *decoder) fill(u *unpacker, p *plan, v reflect.Value, shape []int) error {
	if len(shape) == 0 {
		switch p.form {
		case formList, formBytes, formFixed, formByteArray:
			return arrayMismatch(u.array, u.whole)
		}
		u.next++
		return d.set(p, v, item(u.array, u.kind, u.next-1))
	}
	n := shape[0]
	switch p.form {
	case formList, formBytes:
		if len(shape) == 1 && u.share(p, v, n) {
			return nil
		}
		if len(u.array.Data) == 0 {
			if err := d.spendRows(u.array, n, p.elem.typ.Size()); err != nil {
				return err
			}
		}
		v.Set(reflect.MakeSlice(p.typ, n, n))
	case formFixed, formByteArray:
		if n != v.Len() {
			return fmt.Errorf("an array of shape %v doesn't fit into %s", u.array.Shape, u.whole)
		}
	case formPointer:
		if err := d.follow(p, v); err != nil {
			return err
		}
		defer d.leaveLoop(p)
		return d.fill(u, p.elem, v.Elem(), shape)
	case formInterface:
		if v.NumMethod() > 0 {
			return arrayMismatch(u.array, u.whole)
		}
		list := reflect.New(anyListType).Elem()
		err := d.fill(u, planOf(anyListType), list, shape)
		v.Set(list)
		return err
	default:
		return arrayMismatch(u.array, u.whole)
	}
	for i := range n {
		if err := d.fill(u, p.elem, v.Index(i), shape[1:]); err != nil {
			return inElem(err, i)
		}
	}
	return nil
}

// share makes v a slice of the array's own memory, which nobody else has. It reports false if the elements have
// another form there.
func (u *unpacker) share(p *plan, v reflect.Value, n int) bool {
	elem := p.elem
	number := elem.form == formInt || elem.form == formUint || elem.form == formFloat
	if n == 0 || !number || elem.unmarshals || elem.unJSON || !littleEndian {
		return false
	}
	switch elem.typ.Kind() {
	case u.kind:
	case reflect.Int:
		if u.kind != reflect.Int64 || strconv.IntSize != 64 {
			return false
		}
	case reflect.Uint:
		if u.kind != reflect.Uint64 || strconv.IntSize != 64 {
			return false
		}
	default:
		return false
	}
	memory := unsafe.Pointer(&u.array.Data[u.next*int(elem.typ.Size())])
	if uintptr(memory)%uintptr(elem.typ.Align()) != 0 {
		return false
	}
	v.Set(reflect.SliceAt(elem.typ, memory, n).Convert(p.typ))
	u.next += n
	return true
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
