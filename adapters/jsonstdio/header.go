package jsonstdio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// appendHeader appends the header's line without body and line feed. Fields that are zero are left out.
func appendHeader(b []byte, f *core.Frame) []byte {
	b = append(append(b, `{"kind":"`...), f.Kind.String()...)
	b = append(b, '"')
	b = appendNumber(b, `,"id":`, f.ID)
	b = appendNumber(b, `,"flags":`, uint64(f.Flags))
	b = appendNumber(b, `,"parent":`, f.Parent)
	b = appendText(b, `,"name":`, f.Name)
	b = appendNumber(b, `,"ttl":`, uint64(f.TTL.Milliseconds()))
	b = appendText(b, `,"session":`, f.Session)
	if len(f.Meta) > 0 {
		meta, _ := json.Marshal(f.Meta) // a map of strings always encodes
		b = append(append(b, `,"meta":`...), meta...)
	}
	b = appendNumber(b, `,"items":`, uint64(f.Items))
	b = appendNumber(b, `,"bytes":`, uint64(f.Bytes))
	return append(b, '}')
}

func appendNumber(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, key...), n, 10)
}

func appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, key...)
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always encodes
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// parse reads one line. Fields may come in any order; those that it does not know are ignored.
func parse(line []byte, limit int) (f core.Frame, err error) {
	line, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended {
		return f, io.ErrUnexpectedEOF
	}
	header, body, _ := bytes.Cut(line, []byte("\t"))
	header = bytes.TrimSpace(header)
	if !json.Valid(header) || !utf8.Valid(header) || header[0] != '{' {
		return f, errors.New("no JSON object")
	}
	rest := header[1 : len(header)-1]
	for {
		var key, value []byte
		if key, rest = token(rest); len(key) == 0 {
			break
		}
		value, rest = token(rest)
		ok := true
		switch string(key) {
		case `"kind"`:
			f.Kind = core.ParseKind(text(value, &ok))
		case `"flags"`:
			f.Flags = core.Flags(number(value, &ok))
		case `"id"`:
			f.ID = number(value, &ok)
		case `"parent"`:
			f.Parent = number(value, &ok)
		case `"name"`:
			f.Name = text(value, &ok)
		case `"ttl"`:
			f.TTL = time.Duration(min(number(value, &ok), maxTTL)) * time.Millisecond
		case `"session"`:
			f.Session = text(value, &ok)
		case `"meta"`:
			var meta map[string]string // not &f.Meta, which would put every frame on the heap
			ok = json.Unmarshal(value, &meta) == nil
			f.Meta = meta
		case `"items"`:
			f.Items = int64(number(value, &ok))
		case `"bytes"`:
			f.Bytes = int64(number(value, &ok))
		}
		if !ok {
			return f, fmt.Errorf("its %s is %.40s", key, value)
		}
	}
	if f.Kind == 0 {
		return f, errors.New("of no known kind")
	}
	if len(body) > 0 {
		f.Body = body[:len(body):len(body)] // appending to it does not reach the next line
	}
	if f.Size() > limit {
		return f, fmt.Errorf("of %d bytes, the limit is %d", f.Size(), limit)
	}
	return f, nil
}

// token cuts the first key or value off b, which is the inside of an object known to be valid.
func token(b []byte) (first, rest []byte) {
	for len(b) > 0 && (b[0] <= ' ' || b[0] == ',' || b[0] == ':') {
		b = b[1:]
	}
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
			if !quoted && depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case depth == 0 && (c <= ' ' || c == ','):
			return b[:i], b[i:]
		}
	}
	return b, nil
}

const (
	maxNumber = 1<<53 - 1               // what every reader of JSON keeps exact
	maxTTL    = math.MaxInt64 / 1000000 // in milliseconds: what a Duration holds
)

func number(value []byte, ok *bool) uint64 {
	n, err := strconv.ParseUint(string(value), 10, 64)
	*ok = err == nil && n <= maxNumber
	return n
}

func text(value []byte, ok *bool) (s string) {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	*ok = json.Unmarshal(value, &s) == nil
	return s
}
