package json

import (
	"encoding/base64"
	"math"
	"math/big"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// writer is a codec.Writer that appends to b.
type writer struct {
	b     []byte
	start int // where the value begins in b
}

// sep puts a comma in front of a value or key that follows another one. The last byte shows which: a string ends with
// a quote.
func (w *writer) sep() {
	if len(w.b) == w.start {
		return
	}
	switch w.b[len(w.b)-1] {
	case '{', '[', ':':
	default:
		w.b = append(w.b, ',')
	}
}

func (w *writer) raw(s string) {
	w.sep()
	w.b = append(w.b, s...)
}

func (w *writer) Null() { w.raw("null") }

func (w *writer) Bool(b bool) {
	w.sep()
	w.b = strconv.AppendBool(w.b, b)
}

func (w *writer) Int(n int64) {
	w.sep()
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *writer) Uint(n uint64) {
	w.sep()
	w.b = strconv.AppendUint(w.b, n, 10)
}

func (w *writer) Big(n *big.Int) {
	w.raw(`{"$int":"`)
	if n.Sign() < 0 {
		w.b = append(w.b, '-')
	}
	w.b = append(w.b, "0x"...)
	w.b = new(big.Int).Abs(n).Append(w.b, 16)
	w.b = append(w.b, `"}`...)
}

// Float writes the shortest text that reads back as f, with a point or an exponent, as Python's repr does.
func (w *writer) Float(f float64) {
	switch {
	case math.IsNaN(f):
		w.raw(`{"$float":"nan"}`)
		return
	case math.IsInf(f, 1):
		w.raw(`{"$float":"inf"}`)
		return
	case math.IsInf(f, -1):
		w.raw(`{"$float":"-inf"}`)
		return
	}
	w.sep()
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		w.b = strconv.AppendFloat(w.b, f, 'e', -1, 64)
		return
	}
	from := len(w.b)
	w.b = strconv.AppendFloat(w.b, f, 'f', -1, 64)
	for _, c := range w.b[from:] {
		if c == '.' {
			return
		}
	}
	w.b = append(w.b, ".0"...)
}

func (w *writer) Text(s string) {
	w.sep()
	w.quote(s)
}

func (w *writer) Bytes(b []byte) {
	w.raw(`{"$bytes":"`)
	w.b = base64.StdEncoding.AppendEncode(w.b, b)
	w.b = append(w.b, `"}`...)
}

func (w *writer) Time(t time.Time) {
	w.raw(`{"$time":"`)
	w.b = t.AppendFormat(w.b, time.RFC3339Nano)
	w.b = append(w.b, `"}`...)
}

func (w *writer) Duration(d time.Duration) {
	w.raw(`{"$duration":`)
	w.b = strconv.AppendInt(w.b, int64(d), 10)
	w.b = append(w.b, '}')
}

func (w *writer) Array(a core.Array) {
	w.raw(`{"$array":{"dtype":`)
	w.quote(a.DType)
	w.b = append(w.b, `,"shape":[`...)
	for i, dim := range a.Shape {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = strconv.AppendInt(w.b, int64(dim), 10)
	}
	w.b = append(w.b, `],"data":"`...)
	w.b = base64.StdEncoding.AppendEncode(w.b, a.Data)
	w.b = append(w.b, `"}}`...)
}

func (w *writer) List(int) { w.raw("[") }
func (w *writer) EndList() { w.b = append(w.b, ']') }

func (w *writer) Map(n int, only string) {
	if needsEscape(n, only) {
		w.raw(`{"$map":{`)
	} else {
		w.raw("{")
	}
}

func (w *writer) EndMap(n int, only string) {
	if needsEscape(n, only) {
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, '}')
}

// needsEscape reports whether a map would read as a tag.
func needsEscape(n int, only string) bool { return n == 1 && only != "" && only[0] == '$' }

func (w *writer) Key(name string) {
	w.Text(name)
	w.b = append(w.b, ':')
}

const hex = "0123456789abcdef"

// quote appends a string. It escapes no more than JSON demands.
func (w *writer) quote(s string) {
	b := append(w.b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	w.b = append(append(b, s[from:]...), '"')
}
