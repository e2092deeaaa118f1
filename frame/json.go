package frame

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/snakepit-go/snakepit/core"
)

// AppendJSON appends the frame without its body, as one JSON object without white space. Zero fields are left out.
func AppendJSON(b []byte, f *core.Frame) []byte {
	b = append(append(b, `{"kind":"`...), f.Kind.String()...)
	b = append(b, '"')
	b = appendMember(b, `,"id":`, f.ID)
	b = appendMember(b, `,"flags":`, uint64(f.Flags))
	b = appendMember(b, `,"parent":`, f.Parent)
	b = appendString(b, `,"name":`, f.Name)
	b = appendMember(b, `,"ttl":`, uint64(f.TTL.Milliseconds()))
	b = appendString(b, `,"session":`, f.Session)
	if len(f.Meta) > 0 {
		meta, _ := json.Marshal(f.Meta) // a map of strings always encodes
		b = append(append(b, `,"meta":`...), meta...)
	}
	b = appendMember(b, `,"items":`, uint64(f.Items))
	b = appendMember(b, `,"bytes":`, uint64(f.Bytes))
	return append(b, '}')
}

func appendMember(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, key...), n, 10)
}

func appendString(b []byte, key, s string) []byte {
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

// AppendLine appends the frame as one line: the object of AppendJSON, then a tab and the body if there is one, then a
// line feed. The body must not have a line feed. The bodies of package codec/json have none.
func AppendLine(b []byte, f *core.Frame) []byte {
	b = AppendJSON(b, f)
	if len(f.Body) > 0 {
		b = append(append(b, '\t'), f.Body...)
	}
	return append(b, '\n')
}

// ParseLine reads a line in the form of AppendLine, with its line feed. The frame's body is a part of the line. The
// error of a line without a line feed is io.ErrUnexpectedEOF.
func ParseLine(line []byte) (core.Frame, error) {
	line, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended {
		return core.Frame{}, io.ErrUnexpectedEOF
	}
	header, body, _ := bytes.Cut(line, []byte("\t"))
	f, err := ParseJSON(header)
	if len(body) > 0 {
		f.Body = body[:len(body):len(body)] // an append to it must not reach the next line
	}
	return f, err
}

// ParseJSON reads an object in the form of AppendJSON. Members may come in any order, with white space between them.
// Unknown members are ignored.
func ParseJSON(header []byte) (f core.Frame, err error) {
	header = bytes.TrimSpace(header)
	if !json.Valid(header) || !utf8.Valid(header) || header[0] != '{' {
		return f, errors.New("no JSON object")
	}
	rest := header[1 : len(header)-1]
	for {
		var key, value []byte
		if key, rest = nextToken(rest); len(key) == 0 {
			break
		}
		value, rest = nextToken(rest)
		ok := true
		switch string(key) {
		case `"kind"`:
			f.Kind = core.ParseKind(parseString(value, &ok))
		case `"flags"`:
			f.Flags = core.Flags(parseNumber(value, &ok))
		case `"id"`:
			f.ID = parseNumber(value, &ok)
		case `"parent"`:
			f.Parent = parseNumber(value, &ok)
		case `"name"`:
			f.Name = parseString(value, &ok)
		case `"ttl"`:
			f.TTL = time.Duration(min(parseNumber(value, &ok), maxTTL)) * time.Millisecond
		case `"session"`:
			f.Session = parseString(value, &ok)
		case `"meta"`:
			f.Meta = parseMeta(value, &ok)
		case `"items"`:
			f.Items = int64(parseNumber(value, &ok))
		case `"bytes"`:
			f.Bytes = int64(parseNumber(value, &ok))
		}
		if !ok {
			return f, fmt.Errorf("its %s is %.40s", key, value)
		}
	}
	if f.Kind == 0 {
		return f, errNoKind
	}
	return f, nil
}

// nextToken cuts the first key or value off b. b is the inside of a valid object.
func nextToken(b []byte) (first, rest []byte) {
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

func parseNumber(value []byte, ok *bool) uint64 {
	n, err := strconv.ParseUint(string(value), 10, 64)
	*ok = err == nil && n <= maxNumber
	return n
}

func parseString(value []byte, ok *bool) (s string) {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	*ok = json.Unmarshal(value, &s) == nil
	return s
}

// parseMeta reads an object of strings. An object without members is nil.
func parseMeta(value []byte, ok *bool) map[string]string {
	var meta map[string]string
	*ok = json.Unmarshal(value, &meta) == nil
	if len(meta) == 0 {
		return nil
	}
	return meta
}
