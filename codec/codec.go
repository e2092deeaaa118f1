// Package codec holds the rules for values, once for every encoding: what Go types travel as, what fits into which Go type, how deep
// values may nest and how much memory a body may cost. The rules are those of the section "Values" of docs/protocol.md.
//
// Packages codec/json and codec/msgpack supply the tokens, as a [Writer] and a [Reader], and are what an adapter offers in
// core.Link.Codecs.
//
// # Go types
//
// Structs travel as maps, by the rules of encoding/json for names, "omitempty", "omitzero", "-" and embedded structs;
// the option "string" has no effect because integers arrive whole anyhow. When a body is decoded, a name that stands in
// a tag is matched exactly; a field without one takes its own name or, where the body lacks that, one that differs in
// the case of ASCII letters, as epoch for Epoch. Unknown fields of a body are ignored and missing ones left as they
// are. A type that implements encoding.TextMarshaler and TextUnmarshaler travels as text, also as a map's key; other
// keys must be of a string kind. It is null if the methods are promoted from an embedded pointer that is nil. A
// json.Number travels as the number that it is, and a json.RawMessage, or a type with MarshalJSON and no MarshalText,
// as the value that its JSON holds. Slices and arrays of bytes travel as binary. Maps and slices are replaced by what
// arrives, never merged with it. A nil pointer, interface, map or slice is null, and null sets any type to its zero
// value.
//
// Numbers are checked: an integer must fit, a float never goes into an integer type, an integer goes into a float type only if that is
// exact, and a float64 into a float32 only if it is not too large. Into an empty interface a body is decoded as nil, bool, int64,
// uint64 (only above the largest int64), float64, string, []byte, time.Time in UTC, core.Array, []any or map[string]any.
package codec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// MaxDepth is how many lists and maps may be nested in one value.
const MaxDepth = 500

// MaxDims is how many dimensions an array may have, which is NumPy's own limit.
const MaxDims = 64

// Writer takes the tokens of one value, in order. What it is given is valid; it keeps none of it.
type Writer interface {
	Null()
	Bool(b bool)
	Int(n int64)
	Uint(n uint64)
	Float(f float64)
	Text(s string)
	Bytes(b []byte)
	Time(t time.Time)
	Array(a core.Array)

	// List is followed by n values and EndList.
	List(n int)
	EndList()

	// Map is followed by n times Key and a value, and EndMap. Both get the key if it is the only one, because it may need an escape.
	Map(n int, only string)
	Key(name string)
	EndMap(n int, only string)
}

// Kind says what a Token is.
type Kind uint8

// The kinds of token, with the fields of Token that they use.
const (
	Null  Kind = iota + 1
	Bool       // Num: 0 or 1
	Int        // Num: an int64
	Uint       // Num: above the largest int64
	Float      // Num: IEEE 754 bits
	Text       // Raw: a view, valid until the reader's next call; UTF-8 not yet checked
	Bytes      // Raw: a new slice
	Time       // Num: Unix seconds, as int64; N: nanoseconds
	Array      // Array: new, at most MaxDims dimensions, otherwise not yet checked
	List       // N: to be handed to Elem
	Map        // N: to be handed to Key
)

var kindNames = [...]string{"nothing", "null", "a bool", "an integer", "an integer", "a float", "text", "binary", "a timestamp", "an array",
	"a list", "a map"}

func (k Kind) String() string { return kindNames[k] }

// Token is one value, or the beginning of a list or map.
type Token struct {
	Kind  Kind
	N     int
	Num   uint64
	Raw   []byte
	Array *core.Array
}

// Reader yields the tokens of one body. Its errors are about syntax; it allocates no more than a multiple of the bytes that are there.
type Reader interface {
	// Read reads a whole value, or a list's or map's beginning.
	Read() (Token, error)

	// Elem reports whether the list whose token had this n has an element i; if not, the list has been left.
	Elem(i, n int) (bool, error)

	// Key reads the i-th key of the map whose token had this n; the bytes are a view like Text. If there is none, the map has been left.
	Key(i, n int) (key []byte, more bool, err error)

	// Left returns how many bytes have not been read yet.
	Left() int

	// End reports an error if anything but white space is left.
	End() error
}

// Error says where inside a value something did not fit, and what.
type Error struct {
	Err  error
	path []string // such as "[3]" or "when", the innermost first
}

// Path returns the way from the value to what did not fit, such as `args.items[3].when`; "" is the value itself.
func (e *Error) Path() string {
	var b strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		if segment := e.path[i]; segment[0] != '[' && b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(e.path[i])
	}
	return b.String()
}

func (e *Error) Error() string {
	const show = 160 // a cycle makes paths of 500 elements
	path := e.Path()
	if len(path) > show {
		path = path[:show/2] + "..." + path[len(path)-show/2:]
	}
	if path == "" {
		return e.Err.Error()
	}
	return path + ": " + e.Err.Error()
}

// Unwrap returns what did not fit.
func (e *Error) Unwrap() error { return e.Err }

var errDepth = fmt.Errorf("nested deeper than %d levels, or a cycle", MaxDepth)

var errText = errors.New("text is not valid UTF-8")

// inField puts a field's or key's name in front of an error's path.
func inField(err error, name string) error {
	if !isName(name) {
		name = "[" + strconv.Quote(cut(name)) + "]"
	}
	return in(err, name)
}

// inElem puts a list's index in front of an error's path.
func inElem(err error, i int) error { return in(err, "["+strconv.Itoa(i)+"]") }

func in(err error, segment string) error {
	e := asError(err)
	e.path = append(e.path, segment)
	return e
}

// asError gives an error the type that has a path.
func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Err: err}
}

// isName reports whether a path may show the name without quotes.
func isName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return name != "" && len(name) <= cutAt
}

const cutAt = 40

// cut shortens text that came from outside for an error message.
func cut(s string) string {
	if len(s) <= cutAt {
		return s
	}
	return s[:cutAt] + "..."
}

// checkText is the rule for text and keys.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errText
	}
	return checkLen(len(s))
}

// checkLen is the rule for text and binary, the largest that MessagePack can say.
func checkLen(n int) error {
	if uint64(n) > 1<<32-1 {
		return fmt.Errorf("%d bytes are more than one value may have; send them in parts", n)
	}
	return nil
}

// checkTime is the rule for timestamps: the years that RFC 3339 and Python have.
func checkTime(t time.Time) error {
	if y := t.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("timestamp in year %d; years are 1 to 9999", y)
	}
	return nil
}

// elementSize returns how many bytes an element of a dtype such as "<f8" or "<U3" has, or 0 if the dtype does not say.
func elementSize(dtype string) int {
	if len(dtype) < 3 || dtype[0] != '<' && dtype[0] != '|' {
		return 0
	}
	digits, _, _ := strings.Cut(dtype[2:], "[") // times have their unit in brackets
	n, err := strconv.ParseUint(digits, 10, 30)
	if err != nil {
		return 0
	}
	if dtype[1] == 'U' { // of characters, which have four bytes each
		n *= 4
	}
	return int(n)
}

// checkArray is the rule for arrays: the data must have one element for each place of the shape. Of a dtype whose
// elements' size is unknown it must be a whole number of bytes for each place.
func checkArray(a *core.Array) error {
	if a.DType == "" || !utf8.ValidString(a.DType) {
		return fmt.Errorf("array with dtype %q; it must be NumPy's, such as \"<f8\"", cut(a.DType))
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
		case n > len(a.Data)/dim: // also keeps the product from overflowing; an empty array's is not used
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
		return fmt.Errorf("array of dtype %q and shape %v has %d bytes of data, which do not fit", cut(a.DType), a.Shape, len(a.Data))
	}
	return checkLen(len(a.Data) + len(a.DType) + 1024) // with the room that shape and headers take
}
