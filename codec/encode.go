package codec

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// Encode writes v to w. Its error is an *Error that names the path inside v. After an error the output is incomplete
// and of no use.
func Encode(w Writer, v any) error {
	e := encoder{w: w}
	if err := e.any(v); err != nil {
		return asError(err)
	}
	return nil
}

type encoder struct {
	w     Writer
	depth int
}

// any writes a value of any type. The common types of untyped bodies are written without reflection.
func (e *encoder) any(v any) error {
	switch v := v.(type) {
	case nil:
		e.w.Null()
	case bool:
		e.w.Bool(v)
	case int:
		e.w.Int(int64(v))
	case int64:
		e.w.Int(v)
	case float64:
		e.w.Float(v)
	case string:
		return e.text(v)
	case []byte:
		return e.bytes(v)
	case time.Time:
		return e.time(v)
	case time.Duration:
		e.w.Duration(v)
	case core.Array:
		return e.array(&v)
	case []any:
		return e.list(v)
	case map[string]any:
		return e.dict(v)
	default:
		rv := reflect.ValueOf(v)
		return e.value(planOf(rv.Type()), rv)
	}
	return nil
}

// value writes a value by its type's plan.
func (e *encoder) value(p *plan, v reflect.Value) error {
	if p.marshals != byNone {
		text, there, err := marshal(p, v)
		switch {
		case err != nil:
			return err
		case !there:
			e.w.Null()
			return nil
		case p.form == formJSON:
			return e.json(text)
		}
		return e.text(text)
	}
	switch p.form {
	case formBool:
		e.w.Bool(v.Bool())
	case formInt:
		e.w.Int(v.Int())
	case formUint:
		e.w.Uint(v.Uint())
	case formFloat:
		e.w.Float(v.Float())
	case formText:
		return e.text(v.String())
	case formBytes:
		return e.bytes(v.Bytes())
	case formByteArray:
		return e.bytes(addressable(v).Bytes())
	case formTime:
		return e.time(*addressable(v).Addr().Interface().(*time.Time))
	case formDuration:
		e.w.Duration(time.Duration(v.Int()))
	case formBig:
		return e.integer(addressable(v).Addr().Interface().(*big.Int))
	case formNumber:
		return e.number(v.String())
	case formArray:
		return e.array(addressable(v).Addr().Interface().(*core.Array))
	case formList:
		switch {
		case v.IsNil():
			e.w.Null()
			return nil
		case p.typ == anyListType:
			return e.list(v.Interface().([]any))
		}
		return e.elems(p, v)
	case formFixed:
		return e.elems(p, v)
	case formMap:
		switch {
		case v.IsNil():
			e.w.Null()
			return nil
		case p.typ == anyMapType:
			return e.dict(v.Interface().(map[string]any))
		}
		return e.mapping(p, v)
	case formStruct:
		return e.record(p, v)
	case formPointer:
		if v.IsNil() {
			e.w.Null()
			return nil
		}
		if !p.loops {
			return e.value(p.elem, v.Elem())
		}
		if err := e.enter(); err != nil {
			return err
		}
		defer e.leave()
		return e.value(p.elem, v.Elem())
	case formInterface:
		if v.IsNil() {
			e.w.Null()
			return nil
		}
		v = v.Elem()
		return e.value(planOf(v.Type()), v)
	default:
		return fmt.Errorf("a value of type %s can't be sent", v.Type())
	}
	return nil
}

func (e *encoder) enter() error {
	if e.depth++; e.depth > MaxDepth {
		return errDepth
	}
	return nil
}

func (e *encoder) leave() { e.depth-- }

func (e *encoder) text(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	e.w.Text(s)
	return nil
}

// number writes the number in text: a float if it has a point or an exponent, else an integer.
func (e *encoder) number(text string) error {
	if text == "" { // as in encoding/json
		text = "0"
	}
	if !json.Valid([]byte(text)) || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return fmt.Errorf("the json.Number %q is not a number", cut(text))
	}
	if strings.ContainsAny(text, ".eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("the number %s is too large for a float", cut(text))
		}
		e.w.Float(f)
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		e.w.Int(n)
		return nil
	}
	if len(text) > MaxBits/3 {
		return fmt.Errorf("an integer of %d digits; %d bits are the most", len(text), MaxBits)
	}
	n, _ := new(big.Int).SetString(text, 10)
	return e.integer(n)
}

func (e *encoder) integer(n *big.Int) error {
	switch {
	case n.IsInt64():
		e.w.Int(n.Int64())
	case n.IsUint64():
		e.w.Uint(n.Uint64())
	default:
		if err := checkBig(n); err != nil {
			return err
		}
		e.w.Big(n)
	}
	return nil
}

// json writes the value that a JSON text holds.
func (e *encoder) json(text string) error {
	if text == "" { // an empty json.RawMessage
		e.w.Null()
		return nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("it is not JSON: there is more behind the value")
	}
	return e.any(v)
}

func (e *encoder) bytes(b []byte) error {
	if b == nil {
		e.w.Null()
		return nil
	}
	if err := checkLen(len(b)); err != nil {
		return err
	}
	e.w.Bytes(b)
	return nil
}

func (e *encoder) time(t time.Time) error {
	t = t.UTC()
	if err := checkTime(t); err != nil {
		return err
	}
	e.w.Time(t)
	return nil
}

func (e *encoder) array(a *core.Array) error {
	if err := checkArray(a); err != nil {
		return err
	}
	e.w.Array(*a)
	return nil
}

func (e *encoder) list(list []any) error {
	if list == nil {
		e.w.Null()
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	e.w.List(len(list))
	for i, v := range list {
		if err := e.any(v); err != nil {
			return inElem(err, i)
		}
	}
	e.w.EndList()
	e.leave()
	return nil
}

func (e *encoder) elems(p *plan, v reflect.Value) error {
	if err := e.enter(); err != nil {
		return err
	}
	n := v.Len()
	e.w.List(n)
	for i := range n {
		if err := e.value(p.elem, v.Index(i)); err != nil {
			return inElem(err, i)
		}
	}
	e.w.EndList()
	e.leave()
	return nil
}

func (e *encoder) dict(m map[string]any) error {
	if m == nil {
		e.w.Null()
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	n, only := len(m), ""
	if n == 1 {
		for only = range m {
		}
	}
	e.w.Map(n, only)
	for k, v := range m {
		if err := e.key(k); err != nil {
			return err
		}
		if err := e.any(v); err != nil {
			return inField(err, k)
		}
	}
	e.w.EndMap(n, only)
	e.leave()
	return nil
}

func (e *encoder) key(k string) error {
	if !utf8.ValidString(k) {
		return inField(errors.New("the key is not valid UTF-8"), k)
	}
	if err := checkLen(len(k)); err != nil {
		return err
	}
	e.w.Key(k)
	return nil
}

func (e *encoder) mapping(p *plan, v reflect.Value) error {
	if err := e.enter(); err != nil {
		return err
	}
	n, only := v.Len(), ""
	var seen map[string]bool // different keys may have the same text
	if p.key.form != formText || p.key.marshals != byNone {
		seen = make(map[string]bool, n)
	}
	for iter, i := v.MapRange(), 0; iter.Next(); i++ {
		k, err := keyText(p.key, iter.Key())
		if err != nil {
			return err
		}
		if seen != nil {
			if seen[k] {
				return fmt.Errorf("two keys of the map have the text %q", cut(k))
			}
			seen[k] = true
		}
		if i == 0 {
			if n == 1 {
				only = k
			}
			e.w.Map(n, only)
		}
		if err := e.key(k); err != nil {
			return err
		}
		if err := e.value(p.elem, iter.Value()); err != nil {
			return inField(err, k)
		}
	}
	if n == 0 {
		e.w.Map(0, "")
	}
	e.w.EndMap(n, only)
	e.leave()
	return nil
}

func keyText(p *plan, k reflect.Value) (string, error) {
	switch {
	case p.marshals != byNone && p.form != formJSON || p.form == formTime:
		text, there, err := marshal(p, k)
		if err == nil && !there {
			err = fmt.Errorf("a key of type %s that embeds nil has no text", p.typ)
		}
		return text, err
	case p.form == formText:
		return k.String(), nil
	}
	return "", fmt.Errorf("a map with keys of type %s can't be sent; keys must be text", p.typ)
}

func (e *encoder) record(p *plan, v reflect.Value) error {
	if p.opaque {
		return fmt.Errorf("a value of type %s can't be sent: all its fields are unexported", p.typ)
	}
	if err := e.enter(); err != nil {
		return err
	}
	n, only := len(p.fields), ""
	if p.optional {
		n = 0
		for i := range p.fields {
			if f := &p.fields[i]; f.present(v) {
				n++
				only = f.name
			}
		}
	} else if n == 1 {
		only = p.fields[0].name
	}
	if n != 1 {
		only = ""
	}
	e.w.Map(n, only)
	for i := range p.fields {
		f := &p.fields[i]
		if p.optional && !f.present(v) {
			continue
		}
		e.w.Key(f.name)
		if err := e.value(f.plan, f.of(v)); err != nil {
			return inField(err, f.name)
		}
	}
	e.w.EndMap(n, only)
	e.leave()
	return nil
}

// of returns the field's value in a struct. The value is invalid if an embedded pointer on the way is nil.
func (f *field) of(v reflect.Value) reflect.Value {
	v = v.Field(f.index[0])
	for _, i := range f.index[1:] {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v
}

func (f *field) present(v reflect.Value) bool {
	v = f.of(v)
	switch {
	case !v.IsValid():
		return false
	case f.omitEmpty && isEmpty(v):
		return false
	case f.omitZero && f.isZero(v):
		return false
	}
	return true
}

func (f *field) isZero(v reflect.Value) (zero bool) {
	reference := v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface
	if !f.zeroer || reference && v.IsNil() {
		return v.IsZero()
	}
	if !reference {
		v = addressable(v).Addr()
	}
	defer func() { zero = promotedFromNil(recover(), v, zeroerType) || zero }()
	return v.Interface().(zeroer).IsZero()
}

// isEmpty reports whether v is empty in the sense of encoding/json: false, 0, nil, or without elements. A struct never
// is.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// marshal calls MarshalText or MarshalJSON on a value whose plan says that it has the method. there is false if the
// method is promoted from a nil embedded pointer or interface. Any other panic is the method's own and goes on.
func marshal(p *plan, v reflect.Value) (text string, there bool, err error) {
	if p.marshals == byPointer {
		v = addressable(v).Addr()
	}
	method := textMarshalerType
	if p.form == formJSON {
		method = jsonMarshalerType
	}
	defer func() { promotedFromNil(recover(), v, method) }()
	var b []byte
	if p.form == formJSON {
		b, err = v.Interface().(json.Marshaler).MarshalJSON()
	} else {
		b, err = v.Interface().(encoding.TextMarshaler).MarshalText()
	}
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", p.typ, err)
	}
	return string(b), true, nil
}

// promotedFromNil reports whether p is the panic of a method that is promoted from a nil embedded pointer or interface.
// p is nil if there was no panic. Any other panic goes on.
func promotedFromNil(p any, v reflect.Value, method reflect.Type) bool {
	if p == nil {
		return false
	}
	if _, ok := p.(runtime.Error); !ok || !embedsNil(v, method, maxEmbedded) {
		panic(p)
	}
	return true
}

// maxEmbedded limits the levels of embedded structs that embedsNil and fillEmbedded search: types may embed pointers to
// themselves.
const maxEmbedded = 8

// embedsNil reports whether v is, or points to, a struct that embeds a nil pointer or interface with the methods.
func embedsNil(v reflect.Value, methods reflect.Type, levels int) bool {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || levels == 0 {
		return false
	}
	for i := range v.NumField() {
		if !v.Type().Field(i).Anonymous {
			continue
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.Pointer, reflect.Interface:
			if f.IsNil() && f.Type().Implements(methods) || !f.IsNil() && embedsNil(f, methods, levels-1) {
				return true
			}
		case reflect.Struct:
			if embedsNil(f, methods, levels-1) {
				return true
			}
		}
	}
	return false
}

// addressable returns v, or an addressable copy of it.
func addressable(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v
	}
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	return c
}
