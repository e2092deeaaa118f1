package codec

import (
	"encoding"
	"encoding/json"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// form is how values of a Go type travel.
type form uint8

const (
	formNone form = iota // not at all
	formBool
	formInt
	formUint
	formFloat
	formText
	formBytes     // []byte
	formByteArray // [n]byte
	formTime
	formDuration
	formBig    // big.Int
	formArray  // core.Array
	formNumber // json.Number
	formJSON   // as the value of its JSON: json.RawMessage, and other types with MarshalJSON but no MarshalText
	formList   // slice
	formFixed  // Go array
	formMap
	formStruct
	formPointer
	formInterface
)

// isNumber reports whether values of the form are single numbers or booleans.
func (f form) isNumber() bool {
	switch f {
	case formBool, formInt, formUint, formFloat, formBig, formNumber:
		return true
	}
	return false
}

// plan is what the encoder and the decoder need to know of a type. It is made once and never changed. Plans of
// recursive types point to each other.
type plan struct {
	typ        reflect.Type
	form       form
	marshals   marshaling // its own method encodes it: MarshalJSON with formJSON, else MarshalText
	unmarshals bool       // a pointer to it is an encoding.TextUnmarshaler
	unJSON     bool       // a pointer to it is a json.Unmarshaler and no encoding.TextUnmarshaler
	loops      bool       // a pointer to a pointer or interface: these can form a cycle without a list or map
	elem       *plan      // of pointer, list and map
	key        *plan      // of map
	fields     []field    // of struct, in order
	byName     map[string]int
	byFolded   map[string]int // of fields without a name in a tag, by their name in lower case
	optional   bool           // some field may be absent from a value
	opaque     bool           // a struct with unexported fields only
}

type marshaling uint8

const (
	byNone marshaling = iota
	byValue
	byPointer // the method has a pointer receiver
)

type field struct {
	name      string
	index     []int // the way through embedded structs
	tagged    bool
	omitEmpty bool
	omitZero  bool
	zeroer    bool // has its own IsZero
	plan      *plan
}

var (
	timeType            = reflect.TypeFor[time.Time]()
	durationType        = reflect.TypeFor[time.Duration]()
	bigType             = reflect.TypeFor[big.Int]()
	arrayType           = reflect.TypeFor[core.Array]()
	anyMapType          = reflect.TypeFor[map[string]any]()
	anyListType         = reflect.TypeFor[[]any]()
	textMarshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	zeroerType          = reflect.TypeFor[zeroer]()
	numberType          = reflect.TypeFor[json.Number]()
	jsonMarshalerType   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshalerType = reflect.TypeFor[json.Unmarshaler]()
)

type zeroer interface{ IsZero() bool }

var plans sync.Map // reflect.Type to *plan, whole ones only

// planOf returns the plan for a type. It makes the plan on first use.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	made := planner{}
	p := made.plan(t)
	for t, p := range made {
		plans.LoadOrStore(t, p)
	}
	return p
}

// planner makes the plans for a type and all types that it contains. It holds the plans made so far, finished or not,
// for types that contain themselves.
type planner map[reflect.Type]*plan

func (m planner) plan(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p, ok := m[t]; ok {
		return p
	}
	p := &plan{typ: t}
	m[t] = p
	switch t {
	case numberType:
		p.form = formNumber
		return p
	case durationType:
		p.form = formDuration
		return p
	case timeType:
		p.form = formTime
		p.unmarshals = true // ISO text is accepted too
		return p
	case bigType:
		p.form = formBig
		p.unmarshals = true // digits are accepted too
		return p
	case arrayType:
		p.form = formArray
		return p
	}
	switch t.Kind() {
	case reflect.Bool:
		p.form = formBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.form = formInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		p.form = formUint
	case reflect.Float32, reflect.Float64:
		p.form = formFloat
	case reflect.String:
		p.form = formText
	case reflect.Slice, reflect.Array:
		p.elem = m.plan(t.Elem())
		bytes := t.Elem().Kind() == reflect.Uint8 && !isText(t.Elem())
		switch slice := t.Kind() == reflect.Slice; {
		case bytes && slice:
			p.form = formBytes
		case bytes:
			p.form = formByteArray
		case slice:
			p.form = formList
		default:
			p.form = formFixed
		}
	case reflect.Map:
		p.key, p.elem = m.plan(t.Key()), m.plan(t.Elem())
		p.form = formMap
	case reflect.Struct:
		p.form = formStruct
		m.fields(p)
	case reflect.Pointer:
		p.elem = m.plan(t.Elem())
		p.form = formPointer
		p.loops = t.Elem().Kind() == reflect.Pointer || t.Elem().Kind() == reflect.Interface
		return p // the element's plan decides whether it is text
	case reflect.Interface:
		p.form = formInterface
		return p // the plan of the dynamic type decides
	}
	switch {
	case t.Implements(textMarshalerType):
		p.marshals = byValue
	case reflect.PointerTo(t).Implements(textMarshalerType):
		p.marshals = byPointer
	}
	p.unmarshals = reflect.PointerTo(t).Implements(textUnmarshalerType)
	p.unJSON = !p.unmarshals && reflect.PointerTo(t).Implements(jsonUnmarshalerType)
	if p.marshals == byNone {
		switch {
		case t.Implements(jsonMarshalerType):
			p.form, p.marshals = formJSON, byValue
		case reflect.PointerTo(t).Implements(jsonMarshalerType):
			p.form, p.marshals = formJSON, byPointer
		}
	}
	return p
}

// isText reports whether a type has text methods of its own.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(textMarshalerType) || reflect.PointerTo(t).Implements(textUnmarshalerType)
}

// fields finds the fields of a struct as encoding/json does, level by level through the embedded structs. Of equal
// names the least nested wins, then the one with a tag. If several are left, none wins.
func (m planner) fields(p *plan) {
	type level struct {
		typ   reflect.Type
		index []int
	}
	var found []field
	visited := map[reflect.Type]bool{}
	p.opaque = p.typ.NumField() > 0
	for next := []level{{typ: p.typ}}; len(next) > 0; {
		current, times := next, map[reflect.Type]int{}
		next = nil
		for _, l := range current {
			if times[l.typ]++; visited[l.typ] || times[l.typ] > 2 { // twice on one level: its fields hide each other
				continue
			}
			for i := range l.typ.NumField() {
				f := l.typ.Field(i)
				embedded := f.Type
				if f.Anonymous && embedded.Kind() == reflect.Pointer {
					embedded = embedded.Elem()
				}
				inner := f.Anonymous && embedded.Kind() == reflect.Struct
				if !f.IsExported() && !inner {
					continue
				}
				p.opaque = false
				tag := f.Tag.Get("json")
				if tag == "-" {
					continue
				}
				name, options, _ := strings.Cut(tag, ",")
				index := append(slices.Clip(l.index), i)
				if inner && name == "" && embedded != arrayType && !isText(embedded) {
					next = append(next, level{embedded, index})
				} else if f.IsExported() {
					found = append(found, m.field(f, name, options, index))
				}
			}
		}
		for typ := range times {
			visited[typ] = true
		}
	}
	p.byName, p.byFolded = map[string]int{}, map[string]int{}
	for _, f := range found {
		if !wins(f, found) {
			continue
		}
		p.byName[f.name] = len(p.fields)
		folded := string(fold(nil, []byte(f.name)))
		if _, taken := p.byFolded[folded]; !f.tagged && !taken {
			p.byFolded[folded] = len(p.fields)
		}
		p.fields = append(p.fields, f)
		p.optional = p.optional || f.omitEmpty || f.omitZero || len(f.index) > 1
	}
}

// fold appends name to dst with its ASCII letters in lower case.
func fold(dst, name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// folded returns the index of the field that a key matches in another case. Fields with a name in a tag are not
// considered.
func (p *plan) folded(key []byte) (at int, known bool) {
	if len(p.byFolded) == 0 {
		return 0, false
	}
	var room [64]byte // a longer name costs an allocation
	at, known = p.byFolded[string(fold(room[:0], key))]
	return at, known
}

func (m planner) field(f reflect.StructField, name, options string, index []int) field {
	made := field{name: name, index: index, tagged: name != "", plan: m.plan(f.Type)}
	made.zeroer = f.Type.Implements(zeroerType) || reflect.PointerTo(f.Type).Implements(zeroerType)
	if name == "" || !utf8.ValidString(name) {
		made.name = f.Name
	}
	for option := range strings.SplitSeq(options, ",") {
		made.omitEmpty = made.omitEmpty || option == "omitempty"
		made.omitZero = made.omitZero || option == "omitzero"
	}
	return made
}

// wins reports whether f keeps its name: no other field of that name takes precedence or is equal in rank.
func wins(f field, all []field) bool {
	for _, other := range all {
		if other.name != f.name || slices.Equal(other.index, f.index) {
			continue
		}
		if a, b := len(other.index), len(f.index); a < b || a == b && (other.tagged || !f.tagged) {
			return false
		}
	}
	return true
}
