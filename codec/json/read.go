package json

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/codec"
	"github.com/snakepit-go/snakepit/core"
)

// reader is a codec.Reader of b.
type reader struct {
	b       []byte
	i       int    // b[:i] has been read
	scratch []byte // the last string that had escapes

	scanned int          // alone has looked into the maps that begin before this index
	single  map[int]bool // where those maps begin that have one key, which may begin with "$"
	open    []opening
}

// The N of map tokens. It says how the map ends.
const (
	plain   = -1
	wrapped = -2 // inside {"$map": ...}
)

func (r *reader) reset() {
	*r = reader{scratch: r.scratch[:0], open: r.open[:0]}
	if cap(r.scratch) > 1<<16 {
		r.scratch = nil
	}
}

func (r *reader) Left() int { return len(r.b) - r.i }

func (r *reader) End() error {
	if r.peek() != 0 || r.i < len(r.b) {
		return fmt.Errorf("%s after the value", r.found())
	}
	return nil
}

// peek skips white space and returns the byte after it, or 0 at the end.
func (r *reader) peek() byte {
	for ; r.i < len(r.b); r.i++ {
		switch c := r.b[r.i]; c {
		case ' ', '\n', '\r', '\t':
		default:
			return c
		}
	}
	return 0
}

// expect reads one byte of syntax.
func (r *reader) expect(c byte, where string) error {
	if r.peek() != c {
		return fmt.Errorf("%s instead of %q %s", r.found(), c, where)
	}
	r.i++
	return nil
}

// found describes what is at r.i.
func (r *reader) found() string {
	if r.i >= len(r.b) {
		return "the body ends"
	}
	return fmt.Sprintf("%q at byte %d", r.b[r.i], r.i)
}

func (r *reader) Read() (codec.Token, error) {
	switch c := r.peek(); c {
	case '"':
		s, err := r.str()
		return codec.Token{Kind: codec.Text, Raw: s}, err
	case '{':
		return r.object()
	case '[':
		r.i++
		return codec.Token{Kind: codec.List, N: plain}, nil
	case 'n':
		return codec.Token{Kind: codec.Null}, r.literal("null")
	case 't':
		return codec.Token{Kind: codec.Bool, Num: 1}, r.literal("true")
	case 'f':
		return codec.Token{Kind: codec.Bool}, r.literal("false")
	default:
		return r.number()
	}
}

func (r *reader) literal(word string) error {
	if !bytes.HasPrefix(r.b[r.i:], []byte(word)) {
		return fmt.Errorf("%s where a value should be", r.found())
	}
	r.i += len(word)
	return nil
}

func (r *reader) Elem(i, _ int) (bool, error) {
	switch c := r.peek(); {
	case c == ']':
		r.i++
		return false, nil
	case i == 0:
		return true, nil
	default:
		return true, r.expect(',', "in a list")
	}
}

func (r *reader) Key(i, n int) ([]byte, bool, error) {
	switch c := r.peek(); {
	case c == '}':
		r.i++
		if n == wrapped {
			return nil, false, r.expect('}', "after "+tagMap)
		}
		return nil, false, nil
	case i > 0:
		if err := r.expect(',', "in a map"); err != nil {
			return nil, false, err
		}
	}
	key, err := r.key()
	return key, true, err
}

// key reads a key and its colon.
func (r *reader) key() ([]byte, error) {
	if r.peek() != '"' {
		return nil, fmt.Errorf("%s where a key should be", r.found())
	}
	key, err := r.str()
	if err != nil {
		return nil, err
	}
	return key, r.expect(':', "after a key")
}

// number reads a number by JSON's grammar. A number without a point and an exponent is an integer.
func (r *reader) number() (codec.Token, error) {
	from, i := r.i, r.i
	negative := i < len(r.b) && r.b[i] == '-'
	if negative {
		i++
	}
	digits := i
	var n uint64
	for ; i < len(r.b) && isDigit(r.b[i]); i++ {
		n = n*10 + uint64(r.b[i]-'0') // exact up to 19 digits
	}
	if i == digits {
		r.i = i
		return codec.Token{}, fmt.Errorf("%s where a value should be", r.found())
	}
	if r.b[digits] == '0' && i-digits > 1 {
		return codec.Token{}, fmt.Errorf("a number with a leading zero at byte %d", from)
	}
	whole := true
	if i < len(r.b) && r.b[i] == '.' {
		i, whole = digitsFrom(r.b, i+1), false
		if !isDigit(r.b[i-1]) {
			return codec.Token{}, fmt.Errorf("a number without digits after its point at byte %d", from)
		}
	}
	if i < len(r.b) && r.b[i]|0x20 == 'e' {
		i, whole = i+1, false
		if i < len(r.b) && (r.b[i] == '+' || r.b[i] == '-') {
			i++
		}
		i = digitsFrom(r.b, i)
		if !isDigit(r.b[i-1]) {
			return codec.Token{}, fmt.Errorf("a number without digits in its exponent at byte %d", from)
		}
	}
	r.i = i
	switch {
	case whole && i-digits < 19 && negative:
		return codec.Token{Kind: codec.Int, Num: -n}, nil
	case whole && i-digits < 19:
		return codec.Token{Kind: codec.Int, Num: n}, nil
	case whole:
		return integer(r.b[from:i])
	}
	f, err := strconv.ParseFloat(string(r.b[from:i]), 64)
	if err != nil {
		return codec.Token{}, fmt.Errorf("%s is too large for a float", short(r.b[from:i]))
	}
	return codec.Token{Kind: codec.Float, Num: math.Float64bits(f)}, nil
}

// integer reads an integer that may not fit into 64 bits.
func integer(b []byte) (codec.Token, error) {
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return codec.Token{Kind: codec.Int, Num: uint64(n)}, nil
	}
	if n, err := strconv.ParseUint(string(b), 10, 64); err == nil {
		return codec.Token{Kind: codec.Uint, Num: n}, nil
	}
	return codec.Token{}, fmt.Errorf("%s is beyond 64 bits", short(b))
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func digitsFrom(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

// short truncates text from outside for an error message.
func short(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "..."
	}
	return string(b)
}

var errCut = errors.New("the body ends inside a string")

// str reads a string whose quote is next. The result is a view into b or scratch.
func (r *reader) str() ([]byte, error) {
	from := r.i + 1
	for i := from; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.i = i + 1
			return r.b[from:i], nil
		case c == '\\':
			return r.escaped(from, i)
		case c < ' ':
			return nil, fmt.Errorf("raw control character %q in a string at byte %d", c, i)
		}
	}
	return nil, errCut
}

// escaped reads the string that begins at from. i is the place of its first escape.
func (r *reader) escaped(from, i int) ([]byte, error) {
	out := append(r.scratch[:0], r.b[from:i]...)
	for i < len(r.b) {
		switch c := r.b[i]; {
		case c == '"':
			r.i, r.scratch = i+1, out
			return out, nil
		case c < ' ':
			return nil, fmt.Errorf("raw control character %q in a string at byte %d", c, i)
		case c != '\\':
			out = append(out, c)
			i++
			continue
		case i+1 == len(r.b):
			return nil, errCut
		}
		at := i
		i += 2
		switch c := r.b[at+1]; c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			u := unit(r.b, at)
			if u < 0 {
				return nil, fmt.Errorf("\\u without four hex digits at byte %d", at)
			}
			i = at + 6
			if utf16.IsSurrogate(u) {
				if u = utf16.DecodeRune(u, unit(r.b, i)); u == utf8.RuneError {
					return nil, fmt.Errorf("half a surrogate pair at byte %d", at)
				}
				i += 6
			}
			out = utf8.AppendRune(out, u)
		default:
			return nil, fmt.Errorf("unknown escape \\%q at byte %d", c, at)
		}
	}
	return nil, errCut
}

// unit returns the value of the \uXXXX at i, or -1 if there is none.
func unit(b []byte, i int) rune {
	if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
		return -1
	}
	var u rune
	for _, c := range b[i+2 : i+6] {
		switch {
		case isDigit(c):
			u = u<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			u = u<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return u
}

// object reads the beginning of a map, or the whole of a map that stands for another value.
func (r *reader) object() (codec.Token, error) {
	start := r.i
	r.i++
	m := codec.Token{Kind: codec.Map, N: plain}
	if r.peek() != '"' || r.i+1 < len(r.b) && r.b[r.i+1] != '$' && r.b[r.i+1] != '\\' {
		return m, nil
	}
	first := r.i
	key, err := r.str()
	if err != nil {
		return m, err
	}
	if len(key) == 0 || key[0] != '$' || !r.alone(start) {
		r.i = first
		return m, nil
	}
	tag := tagOf(key)
	if err := r.expect(':', "after a key"); err != nil {
		return m, err
	}
	var tok codec.Token
	switch tag {
	case tagBytes:
		tok.Kind = codec.Bytes
		tok.Raw, err = r.base64()
	case tagFloat:
		tok, err = r.float()
	case tagTime:
		tok, err = r.time()
	case tagInt:
		tok, err = r.big()
	case tagDuration:
		tok, err = r.duration()
	case tagArray:
		tok.Kind = codec.Array
		tok.Array, err = r.array()
	case tagMap:
		m.N = wrapped
		return m, r.expect('{', "after "+tagMap)
	default:
		return m, fmt.Errorf("a map with the one key %q, which is not a known tag", short(key))
	}
	if err != nil {
		return tok, fmt.Errorf("%s: %w", tag, err)
	}
	return tok, r.expect('}', "after "+tag)
}

func tagOf(key []byte) string {
	for _, tag := range [...]string{tagBytes, tagFloat, tagTime, tagDuration, tagInt, tagArray, tagMap} {
		if string(key) == tag {
			return tag
		}
	}
	return ""
}

// opening is a list or map whose end alone has not seen.
type opening struct {
	at     int
	dollar bool // it is a map whose first key may begin with "$"
	more   bool // it has a comma
}

// alone reports whether the map at start has one key only. The first key begins with "$". alone looks ahead to the
// map's end. It keeps what it learns about inner maps, so it looks at each byte once, however tags are nested. For a
// body with wrong syntax the result does not matter: the decoder will reach the same fault.
func (r *reader) alone(start int) bool {
	if start < r.scanned {
		return r.single[start]
	}
	r.open = r.open[:0]
	for i := start; i < len(r.b); i++ {
		switch r.b[i] {
		case '"':
			i = stringEnd(r.b, i)
		case '{', '[':
			if len(r.open) > 2*codec.MaxDepth+2 { // too deep even if every other map is an escape
				r.scanned = len(r.b)
				return false
			}
			r.open = append(r.open, opening{at: i, dollar: r.b[i] == '{' && mayBeTag(r.b, i)})
		case ',':
			r.open[len(r.open)-1].more = true
		case '}', ']':
			top := r.open[len(r.open)-1]
			r.open = r.open[:len(r.open)-1]
			if len(r.open) == 0 {
				r.scanned = i
				return !top.more
			}
			if top.dollar && !top.more {
				if r.single == nil {
					r.single = map[int]bool{}
				}
				r.single[top.at] = true
			}
		}
	}
	r.scanned = len(r.b)
	return false
}

// mayBeTag reports whether the first key of the map at i begins with "$" or an escape.
func mayBeTag(b []byte, i int) bool {
	rest := bytes.TrimLeft(b[i+1:min(len(b), i+64)], " \n\r\t")
	return len(rest) < 2 || rest[0] == '"' && (rest[1] == '$' || rest[1] == '\\')
}

// stringEnd returns the index of the closing quote of the string at i, or the end of b.
func stringEnd(b []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		slashes := 0
		for end := i + n; slashes < n && b[end-1-slashes] == '\\'; {
			slashes++
		}
		if i += n; slashes%2 == 0 {
			return i
		}
	}
}

// base64 reads a string of base64 into a new slice.
func (r *reader) base64() ([]byte, error) {
	if r.peek() != '"' {
		return nil, fmt.Errorf("%s where base64 text should be", r.found())
	}
	text := r.b[r.i+1:]
	if n := bytes.IndexByte(text, '"'); n >= 0 && bytes.IndexByte(text[:n], '\\') < 0 {
		text = text[:n]
		r.i += n + 2
	} else {
		var err error
		if text, err = r.str(); err != nil {
			return nil, err
		}
	}
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 { // the standard library skips them
		return nil, errors.New("base64 with a line break")
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(out, text)
	return out[:n], err
}

func (r *reader) text() (string, error) {
	if r.peek() != '"' {
		return "", fmt.Errorf("%s where text should be", r.found())
	}
	s, err := r.str()
	return string(s), err
}

func (r *reader) float() (codec.Token, error) {
	tok := codec.Token{Kind: codec.Float}
	s, err := r.text()
	if err != nil {
		return tok, err
	}
	switch s {
	case "nan":
		tok.Num = math.Float64bits(math.NaN())
	case "inf":
		tok.Num = math.Float64bits(math.Inf(1))
	case "-inf":
		tok.Num = math.Float64bits(math.Inf(-1))
	default:
		return tok, fmt.Errorf("%q instead of nan, inf or -inf", short([]byte(s)))
	}
	return tok, nil
}

func (r *reader) time() (codec.Token, error) {
	tok := codec.Token{Kind: codec.Time}
	s, err := r.text()
	if err != nil {
		return tok, err
	}
	var t time.Time
	err = t.UnmarshalText([]byte(s))
	if err != nil || !strings.HasSuffix(s, "Z") || len(s) > len("2006-01-02T15:04:05.123456789Z") {
		return tok, fmt.Errorf("%q instead of an RFC 3339 time in UTC", short([]byte(s)))
	}
	tok.Num, tok.N = uint64(t.Unix()), t.Nanosecond()
	return tok, nil
}

// big reads an integer of any size, such as "-0x1f".
func (r *reader) big() (codec.Token, error) {
	s, err := r.text()
	if err != nil {
		return codec.Token{}, err
	}
	digits, negative := strings.CutPrefix(s, "-")
	digits, hex := strings.CutPrefix(digits, "0x")
	n, ok := new(big.Int).SetString(digits, 16)
	if !ok || !hex || strings.Trim(digits, "0123456789abcdef") != "" {
		return codec.Token{}, fmt.Errorf("%q instead of an integer such as \"-0x1f\"", short([]byte(s)))
	}
	if negative {
		n.Neg(n)
	}
	return codec.Integer(n)
}

func (r *reader) duration() (codec.Token, error) {
	r.peek()
	tok, err := r.number()
	if err == nil && tok.Kind != codec.Int {
		err = errors.New("a duration must be an integer of nanoseconds that fits 64 bits")
	}
	tok.Kind = codec.Duration
	return tok, err
}

// array reads the map that describes an array.
func (r *reader) array() (*core.Array, error) {
	a := &core.Array{Shape: []int{}}
	if err := r.expect('{', "for the array"); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := 0; ; i++ {
		k, more, err := r.Key(i, plain)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		key := string(k)
		switch {
		case seen[key]:
			err = errors.New("it is there twice")
		case key == "dtype":
			a.DType, err = r.text()
		case key == "shape":
			a.Shape, err = r.shape()
		case key == "data":
			a.Data, err = r.base64()
		default:
			err = errors.New("an array has dtype, shape and data only")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", short([]byte(key)), err)
		}
		seen[key] = true
	}
	if len(seen) != 3 {
		return nil, errors.New("an array needs dtype, shape and data")
	}
	return a, nil
}

func (r *reader) shape() ([]int, error) {
	shape := []int{}
	if err := r.expect('[', "for the shape"); err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		more, err := r.Elem(i, plain)
		if !more || err != nil {
			return shape, err
		}
		if i == core.MaxDims {
			return nil, fmt.Errorf("more than %d dimensions", core.MaxDims)
		}
		r.peek()
		tok, err := r.number()
		if err != nil {
			return nil, err
		}
		dim := int(tok.Num)
		if tok.Kind != codec.Int || int64(dim) != int64(tok.Num) {
			return nil, errors.New("a dimension must be a small integer")
		}
		shape = append(shape, dim)
	}
}
