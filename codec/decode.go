package codec

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// Decode reads the whole body of r into v, a non-nil pointer. Its error is an *Error that names the path inside the
// body. v may then have been set in part. A panic of v's own methods becomes such an error.
func Decode(r Reader, v any) (err error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return &Error{Err: fmt.Errorf("can't decode into a %T; pass a non-nil pointer", v)}
	}
	defer func() { // a last resort: panics of the target's methods are caught where these are called
		if p := recover(); p != nil {
			err = &Error{Err: fmt.Errorf("decoding into a %T panicked: %v", v, p)}
		}
	}()
	d := decoder{r: r, budget: 16 * r.Left(), rows: 16*r.Left() + 1<<16}
	err = d.into(planOf(rv.Type().Elem()), rv.Elem())
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return asError(err)
	}
	return nil
}

type decoder struct {
	r      Reader
	depth  int
	budget int // bytes that may still be allocated for lengths that headers claim
	rows   int // bytes that may still be allocated for rows of arrays without elements
}

func (d *decoder) enter() error {
	if d.depth++; d.depth > MaxDepth {
		return errDepth
	}
	return nil
}

func (d *decoder) leave() { d.depth-- }

// room returns for how many of the n elements that a header claims memory may be allocated before they are read. size
// is the size of an element in bytes. A list with a false claim ends in an error, so the limit matters for lists in
// lists: they share one budget.
func (d *decoder) room(n int, size uintptr) int {
	n = min(n, d.r.Left())
	if n <= 0 || size > 0 && n > d.budget/int(size) {
		return 0
	}
	d.budget -= n * int(size)
	return n
}

func (d *decoder) into(p *plan, v reflect.Value) error {
	tok, err := d.r.Read()
	if err != nil {
		return err
	}
	return d.set(p, v, tok)
}

// set stores the value that begins with tok in v.
func (d *decoder) set(p *plan, v reflect.Value, tok Token) error {
	if tok.Kind == Null {
		v.SetZero()
		return nil
	}
	if tok.Kind == Text {
		if !utf8.Valid(tok.Raw) {
			return errText
		}
		switch {
		case p.form == formTime:
			return setTime(v, tok.Raw)
		case p.form == formBig && len(tok.Raw) > MaxBits/3:
			return fmt.Errorf("an integer of %d digits; %d bits are the most", len(tok.Raw), MaxBits)
		case p.unmarshals:
			return unmarshalText(v, tok.Raw)
		}
	} else if p.unmarshals && p.form != formTime && p.form != formBig {
		return mismatch(p, tok)
	}
	if p.unJSON {
		return d.json(v, tok)
	}
	if tok.Kind == Array && p.form.isNumber() {
		if one, ok := single(tok.Array); ok {
			tok = one
		}
	}
	switch p.form {
	case formBool:
		if tok.Kind == Bool {
			v.SetBool(tok.Num != 0)
			return nil
		}
	case formInt:
		switch {
		case tok.Kind == Int && !v.OverflowInt(int64(tok.Num)):
			v.SetInt(int64(tok.Num))
			return nil
		case tok.Kind == Int || tok.Kind == Uint || tok.Kind == Big:
			return misfit(p, tok)
		}
	case formUint:
		switch {
		case (tok.Kind == Int && int64(tok.Num) >= 0 || tok.Kind == Uint) && !v.OverflowUint(tok.Num):
			v.SetUint(tok.Num)
			return nil
		case tok.Kind == Int || tok.Kind == Uint || tok.Kind == Big:
			return misfit(p, tok)
		}
	case formFloat:
		return d.float(p, v, tok)
	case formNumber:
		switch tok.Kind {
		case Int:
			v.SetString(strconv.FormatInt(int64(tok.Num), 10))
			return nil
		case Uint:
			v.SetString(strconv.FormatUint(tok.Num, 10))
			return nil
		case Big:
			v.SetString(tok.Big.String())
			return nil
		case Float:
			if f := math.Float64frombits(tok.Num); math.IsNaN(f) || math.IsInf(f, 0) {
				return misfit(p, tok)
			}
			v.SetString(floatText(tok))
			return nil
		}
	case formText:
		if tok.Kind == Text {
			v.SetString(string(tok.Raw))
			return nil
		}
	case formBytes:
		switch tok.Kind {
		case Bytes:
			v.SetBytes(tok.Raw)
			return nil
		case List:
			return d.list(p, v, tok)
		case Array:
			return d.unpack(p, v, tok.Array)
		}
	case formByteArray:
		switch {
		case tok.Kind == Bytes && len(tok.Raw) == v.Len():
			copy(v.Bytes(), tok.Raw)
			return nil
		case tok.Kind == Bytes:
			return fmt.Errorf("%d bytes don't fit into %s", len(tok.Raw), p.typ)
		case tok.Kind == List:
			return d.fixed(p, v, tok)
		case tok.Kind == Array:
			return d.unpack(p, v, tok.Array)
		}
	case formTime:
		if tok.Kind == Time {
			t, err := timeOf(tok)
			*v.Addr().Interface().(*time.Time) = t
			return err
		}
	case formDuration:
		if tok.Kind == Duration || tok.Kind == Int {
			v.SetInt(int64(tok.Num))
			return nil
		}
	case formBig:
		if n := v.Addr().Interface().(*big.Int); setBig(n, tok) {
			return nil
		}
	case formArray:
		return d.array(p, v, tok)
	case formList:
		switch {
		case tok.Kind == List && p.typ == anyListType:
			list, err := d.anyList(tok.N)
			*v.Addr().Interface().(*[]any) = list
			return err
		case tok.Kind == List:
			return d.list(p, v, tok)
		case tok.Kind == Array:
			return d.unpack(p, v, tok.Array)
		}
	case formFixed:
		switch tok.Kind {
		case List:
			return d.fixed(p, v, tok)
		case Array:
			return d.unpack(p, v, tok.Array)
		}
	case formMap:
		switch {
		case tok.Kind == Map && p.typ == anyMapType:
			m, err := d.anyMap(tok.N)
			*v.Addr().Interface().(*map[string]any) = m
			return err
		case tok.Kind == Map:
			return d.mapping(p, v, tok)
		}
	case formStruct:
		if tok.Kind == Map {
			return d.record(p, v, tok)
		}
	case formPointer:
		return d.pointer(p, v, tok)
	case formInterface:
		return d.iface(p, v, tok)
	}
	return mismatch(p, tok)
}

// mismatch is the error for a kind of value that a type never takes.
func mismatch(p *plan, tok Token) error {
	switch {
	case tok.Kind == Array:
		return arrayMismatch(tok.Array, p.typ)
	case tok.Kind == Duration:
		return fmt.Errorf("a duration can't go into %s; it goes into time.Duration", p.typ)
	case tok.Kind == Float && p.form == formDuration:
		return fmt.Errorf("the float %s can't go into %s; have a timedelta sent", floatText(tok), p.typ)
	case tok.Kind == Float && (p.form == formInt || p.form == formUint):
		return fmt.Errorf("the float %s can't go into %s; use float64, or have an integer sent", floatText(tok), p.typ)
	}
	return fmt.Errorf("%s can't go into %s", tok.Kind, p.typ)
}

func (d *decoder) pointer(p *plan, v reflect.Value, tok Token) error {
	if err := d.follow(p, v); err != nil {
		return err
	}
	defer d.leaveLoop(p)
	return d.set(p.elem, v.Elem(), tok)
}

// follow makes a pointer point to a value. leaveLoop follows when that has been set.
func (d *decoder) follow(p *plan, v reflect.Value) error {
	if p.loops {
		if err := d.enter(); err != nil {
			return err
		}
	}
	if v.IsNil() {
		v.Set(reflect.New(p.elem.typ))
	}
	return nil
}

func (d *decoder) leaveLoop(p *plan) {
	if p.loops {
		d.leave()
	}
}

// iface stores a value in an interface. If the interface holds a non-nil pointer, the value goes where that points.
// Otherwise the value's kind decides the type.
func (d *decoder) iface(p *plan, v reflect.Value, tok Token) error {
	if inner := v.Elem(); inner.Kind() == reflect.Pointer && !inner.IsNil() {
		if err := d.enter(); err != nil { // the interface may hold a pointer to itself
			return err
		}
		defer d.leave()
		return d.set(planOf(inner.Type()), inner, tok)
	}
	if v.NumMethod() > 0 {
		return mismatch(p, tok)
	}
	value, err := d.any(tok)
	if err == nil {
		v.Set(reflect.ValueOf(value))
	}
	return err
}

// any reads a value as the Go type of its kind.
func (d *decoder) any(tok Token) (any, error) {
	switch tok.Kind {
	case Null:
		return nil, nil
	case Bool:
		return tok.Num != 0, nil
	case Int:
		return int64(tok.Num), nil
	case Uint:
		return tok.Num, nil
	case Big:
		return tok.Big, nil
	case Float:
		return math.Float64frombits(tok.Num), nil
	case Text:
		if !utf8.Valid(tok.Raw) {
			return nil, errText
		}
		return string(tok.Raw), nil
	case Bytes:
		return tok.Raw, nil
	case Time:
		return timeOf(tok)
	case Duration:
		return time.Duration(tok.Num), nil
	case Array:
		return *tok.Array, checkArray(tok.Array)
	case List:
		return d.anyList(tok.N)
	default:
		return d.anyMap(tok.N)
	}
}

func (d *decoder) anyList(n int) ([]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	list := make([]any, 0, d.room(n, 16))
	for i := 0; ; i++ {
		more, err := d.r.Elem(i, n)
		if err != nil {
			return nil, inElem(err, i)
		}
		if !more {
			d.leave()
			return list, nil
		}
		tok, err := d.r.Read()
		if err != nil {
			return nil, inElem(err, i)
		}
		v, err := d.any(tok)
		if err != nil {
			return nil, inElem(err, i)
		}
		list = append(list, v)
	}
}

func (d *decoder) anyMap(n int) (map[string]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	m := make(map[string]any, d.room(n, mapCost+16))
	for i := 0; ; i++ {
		k, more, err := d.key(i, n)
		if err != nil {
			return nil, err
		}
		if !more {
			d.leave()
			return m, nil
		}
		name := string(k)
		tok, err := d.r.Read()
		if err != nil {
			return nil, inField(err, name)
		}
		v, err := d.any(tok)
		if err != nil {
			return nil, inField(err, name)
		}
		if m[name] = v; len(m) == i {
			return nil, twice(name)
		}
	}
}

// mapCost is the approximate size in bytes of an entry of a map with text keys, without its value.
const mapCost = 24

// key reads a key and checks it.
func (d *decoder) key(i, n int) ([]byte, bool, error) {
	k, more, err := d.r.Key(i, n)
	if more && err == nil {
		err = checkKey(k)
	}
	return k, more, err
}

func checkKey(k []byte) error {
	if !utf8.Valid(k) {
		return inField(errors.New("the key is not valid UTF-8"), cut(string(k)))
	}
	return nil
}

func twice(name string) error { return inField(errors.New("the key is there twice"), name) }

func (d *decoder) list(p *plan, v reflect.Value, tok Token) error {
	if err := d.enter(); err != nil {
		return err
	}
	n := d.room(tok.N, p.elem.typ.Size())
	v.Set(reflect.MakeSlice(p.typ, n, n)) // a new slice: the elements of the old one may be in use elsewhere
	for i := 0; ; i++ {
		more, err := d.r.Elem(i, tok.N)
		if err != nil {
			return inElem(err, i)
		}
		if !more {
			v.SetLen(i)
			d.leave()
			return nil
		}
		if i == n {
			v.Grow(1)
			n = v.Cap()
			v.SetLen(n)
		}
		if err := d.into(p.elem, v.Index(i)); err != nil {
			return inElem(err, i)
		}
	}
}

func (d *decoder) fixed(p *plan, v reflect.Value, tok Token) error {
	if err := d.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		more, err := d.r.Elem(i, tok.N)
		switch {
		case err != nil:
			return inElem(err, i)
		case more && i == v.Len():
			return fmt.Errorf("a list of more than %d doesn't fit into %s", i, p.typ)
		case !more && i < v.Len():
			return fmt.Errorf("a list of %d doesn't fill %s", i, p.typ)
		case !more:
			d.leave()
			return nil
		}
		if err := d.into(p.elem, v.Index(i)); err != nil {
			return inElem(err, i)
		}
	}
}

func (d *decoder) mapping(p *plan, v reflect.Value, tok Token) error {
	if err := d.enter(); err != nil {
		return err
	}
	m := reflect.MakeMapWithSize(p.typ, d.room(tok.N, mapCost+p.elem.typ.Size()))
	elem := reflect.New(p.elem.typ).Elem()
	for i := 0; ; i++ {
		k, more, err := d.key(i, tok.N)
		if err != nil {
			return err
		}
		if !more {
			v.Set(m)
			d.leave()
			return nil
		}
		name := string(k)
		key, err := keyOf(p.key, name)
		if err != nil {
			return inField(err, name)
		}
		elem.SetZero()
		if err := d.into(p.elem, elem); err != nil {
			return inField(err, name)
		}
		if m.SetMapIndex(key, elem); m.Len() == i {
			return twice(name)
		}
	}
}

func keyOf(p *plan, name string) (reflect.Value, error) {
	switch {
	case p.unmarshals:
		key := reflect.New(p.typ).Elem()
		return key, unmarshalText(key, []byte(name))
	case p.form == formText:
		return reflect.ValueOf(name).Convert(p.typ), nil
	}
	return reflect.Value{}, fmt.Errorf("a key can't go into %s; keys are text", p.typ)
}

func (d *decoder) record(p *plan, v reflect.Value, tok Token) error {
	if err := d.enter(); err != nil {
		return err
	}
	var seen uint64    // the first 64 fields
	var others nameSet // all other keys
	for i := 0; ; i++ {
		k, more, err := d.r.Key(i, tok.N)
		if err != nil {
			return err
		}
		if !more {
			d.leave()
			return nil
		}
		at, known := i, i < len(p.fields) && p.fields[i].name == string(k)
		if !known { // most bodies have the struct's order; this key breaks it
			at, known = p.byName[string(k)]
		}
		if known && at < 64 {
			if seen&(1<<at) != 0 {
				return twice(p.fields[at].name)
			}
			seen |= 1 << at
		} else if !others.add(string(k)) {
			return twice(string(k))
		}
		if !known { // the exact name takes precedence, whichever comes first
			at, known = p.folded(k)
			known = known && seen&(1<<at) == 0 && !others.has(p.fields[at].name)
		}
		if !known {
			if err := checkKey(k); err != nil {
				return err
			}
			name := string(k)
			if err := d.skip(); err != nil {
				return inField(err, name)
			}
			continue
		}
		f := &p.fields[at]
		target, err := f.target(v)
		if err == nil {
			err = d.into(f.plan, target)
		}
		if err != nil {
			return inField(err, f.name)
		}
	}
}

// target returns the field's place in a struct. It allocates the nil embedded pointers on the way.
func (f *field) target(v reflect.Value) (reflect.Value, error) {
	v = v.Field(f.index[0])
	for _, i := range f.index[1:] {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !v.CanSet() {
					return v, fmt.Errorf("the embedded pointer to %s is nil and unexported; set it before decoding",
						v.Type().Elem())
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, nil
}

// nameSet is a set of keys, to find duplicates.
type nameSet map[string]struct{}

// add reports whether the name is new.
func (s *nameSet) add(name string) bool {
	if *s == nil {
		*s = nameSet{}
	}
	n := len(*s)
	(*s)[name] = struct{}{}
	return len(*s) > n
}

func (s nameSet) has(name string) bool {
	_, there := s[name]
	return there
}

// skip reads a value and drops it. It applies the same rules: whether a body is valid does not depend on the target's
// type.
func (d *decoder) skip() error {
	tok, err := d.r.Read()
	if err != nil {
		return err
	}
	switch tok.Kind {
	case List:
		if err := d.enter(); err != nil {
			return err
		}
		for i := 0; ; i++ {
			more, err := d.r.Elem(i, tok.N)
			if err == nil && more {
				err = d.skip()
			}
			if err != nil {
				return inElem(err, i)
			}
			if !more {
				d.leave()
				return nil
			}
		}
	case Map:
		if err := d.enter(); err != nil {
			return err
		}
		var names nameSet
		for i := 0; ; i++ {
			k, more, err := d.key(i, tok.N)
			if err != nil {
				return err
			}
			if !more {
				d.leave()
				return nil
			}
			name := string(k)
			if !names.add(name) {
				return twice(name)
			}
			if err := d.skip(); err != nil {
				return inField(err, name)
			}
		}
	}
	_, err = d.any(tok)
	return err
}
