// Package codec holds the rules for values, once for every encoding: what Go types travel as, what fits into which Go
// type, how deep values may nest and how much memory a body may cost. The section "Values" of docs/protocol.md states
// them.
//
// Packages codec/json and codec/msgpack supply the tokens, as a [Writer] and a [Reader]. An adapter lists their
// codecs in core.Link.Codecs.
//
// # Go types
//
// Structs travel as maps. Names, "omitempty", "omitzero", "-" and embedded structs follow the rules of encoding/json.
// The option "string" has no effect: integers arrive whole without it. When a body is decoded, a name in a tag
// matches its key exactly. A field without one matches its own name. If the body lacks that key, the field matches
// one that differs only in the case of ASCII letters, such as epoch for Epoch. Unknown keys of a body are ignored.
// Fields without a key keep their values.
//
// A type that implements encoding.TextMarshaler and TextUnmarshaler travels as text, also as a map's key. Other keys
// must be of a string kind. The value is null if the methods are promoted from a nil embedded pointer. A json.Number
// travels as its number. A json.RawMessage, or a type with MarshalJSON and no MarshalText, travels as the value of
// its JSON. Slices and arrays of bytes travel as binary. A decoded map or slice replaces the old one; they are never
// merged. A nil pointer, interface, map or slice is null. Null sets any type to its zero value.
//
// Numbers are checked. An integer must fit its target; a big.Int takes any. A float never goes into an integer type. An
// integer goes into a float type only if the result is exact. A float64 goes into a float32 only if it is not too
// large. A time.Time also takes ISO text. Text without a zone, such as Python's naive datetimes and dates, is taken as
// UTC. A time.Duration travels as a duration. As a target it also takes an integer, as nanoseconds.
//
// A core.Array of numbers or booleans goes into slices and arrays of as many dimensions. The rules for single numbers
// hold for each element. One of no dimensions goes wherever its element does.
//
// In an empty interface a body becomes nil, bool, int64, uint64 (only above the largest int64), *big.Int (only beyond
// 64 bits), float64, string, []byte, time.Time in UTC, time.Duration, core.Array, []any or map[string]any.
package codec

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// MaxDepth is the limit on nested lists and maps in one value.
const MaxDepth = 500

// MaxBits is the limit on an integer's size. It bounds the time of a conversion to decimal digits.
const MaxBits = 1 << 20

// Writer takes the tokens of one value, in order. Its arguments are valid. It retains none of them.
type Writer interface {
	Null()
	Bool(b bool)
	Int(n int64)
	Uint(n uint64)
	Big(n *big.Int) // n is beyond 64 bits
	Float(f float64)
	Text(s string)
	Bytes(b []byte)
	Time(t time.Time)
	Duration(d time.Duration)
	Array(a core.Array)

	// List is followed by n values and EndList.
	List(n int)
	EndList()

	// Map is followed by n pairs of Key and a value, and EndMap. If n is 1, only is the key, in both calls: it may need
	// an escape. Otherwise only is "".
	Map(n int, only string)
	Key(name string)
	EndMap(n int, only string)
}

// Kind says what a Token is.
type Kind uint8

// The kinds of token, with the fields of Token that they use.
const (
	Null     Kind = iota + 1
	Bool          // Num: 0 or 1
	Int           // Num: an int64
	Uint          // Num: above the largest int64
	Big           // Big: beyond 64 bits, new
	Float         // Num: IEEE 754 bits
	Text          // Raw: a view, valid until the reader's next call; UTF-8 not yet checked
	Bytes         // Raw: a new slice
	Time          // Num: Unix seconds, as int64; N: nanoseconds
	Duration      // Num: nanoseconds, as int64
	Array         // Array: new, at most MaxDims dimensions, otherwise not yet checked
	List          // N: to be passed to Elem
	Map           // N: to be passed to Key
)

var kindNames = [...]string{
	"nothing", "null", "a bool", "an integer", "an integer", "an integer", "a float", "text", "binary", "a timestamp",
	"a duration", "an array", "a list", "a map",
}

func (k Kind) String() string { return kindNames[k] }

// Token is one value, or the beginning of a list or map.
type Token struct {
	Kind  Kind
	N     int
	Num   uint64
	Raw   []byte
	Array *core.Array
	Big   *big.Int
}

// Integer returns the token of an integer of any size.
func Integer(n *big.Int) (Token, error) {
	switch {
	case n.IsInt64():
		return Token{Kind: Int, Num: uint64(n.Int64())}, nil
	case n.IsUint64():
		return Token{Kind: Uint, Num: n.Uint64()}, nil
	}
	return Token{Kind: Big, Big: n}, checkBig(n)
}

// Reader yields the tokens of one body. Its errors are about syntax. It allocates no more than a multiple of the
// bytes that are present, whatever lengths they claim.
type Reader interface {
	// Read reads a whole value, or a list's or map's beginning.
	Read() (Token, error)

	// Elem reports whether a list has an element i. n is the N of the list's token. If there is no element i, the list
	// has been left.
	Elem(i, n int) (bool, error)

	// Key reads the i-th key of a map. n is the N of the map's token. The key is a view, as in a Text token. If there
	// is no i-th key, more is false and the map has been left.
	Key(i, n int) (key []byte, more bool, err error)

	// Left returns the number of unread bytes.
	Left() int

	// End reports an error if anything but white space is left.
	End() error
}

// Error says what did not fit, and where in the value.
type Error struct {
	Err  error
	path []string // such as "[3]" or "when", the innermost first
}

// Path returns the path from the value to the part that did not fit, such as `args.items[3].when`. "" is the value
// itself.
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

// Unwrap returns Err.
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

// asError returns err as an *Error, which has a path.
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

// cut truncates text from outside for an error message.
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

// checkLen is the rule for the length of text and binary: the largest that MessagePack can express.
func checkLen(n int) error {
	if uint64(n) > 1<<32-1 {
		return fmt.Errorf("%d bytes are more than one value may have; send them in parts", n)
	}
	return nil
}

// checkBig is the rule for integers.
func checkBig(n *big.Int) error {
	if n.BitLen() > MaxBits {
		return fmt.Errorf("an integer of %d bits; %d are the most", n.BitLen(), MaxBits)
	}
	return nil
}

// checkTime is the rule for timestamps: the years that RFC 3339 and Python support.
func checkTime(t time.Time) error {
	if y := t.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("timestamp in year %d; years are 1 to 9999", y)
	}
	return nil
}
