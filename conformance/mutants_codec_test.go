package conformance

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/snakepit-go/snakepit/core"
)

// codecMutants are broken codecs.
var codecMutants = []mutant{
	{"overwrites what was there", "codec/append", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, append: func(_ []byte, v any) ([]byte, error) { return c.Append(nil, v) }}
	})},
	{"leaves half a value behind", "codec/append-error", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, append: func(dst []byte, v any) ([]byte, error) {
			out, err := c.Append(dst, v)
			if err != nil {
				out = append(out, "{\"half\":"...)
			}
			return out, err
		}}
	})},
	{"turns 5 into 5.0", "codec/round-trip", decoding(func(_ []byte, v any) any {
		if n, ok := v.(int64); ok {
			return float64(n)
		}
		return v
	})},
	{"turns nil into text", "codec/round-trip", decoding(func(_ []byte, v any) any {
		if v == nil {
			return "None"
		}
		return v
	})},
	{"keeps what it was given to decode", "codec/keeps-nothing", decoding(func(b []byte, v any) any {
		if m, ok := v.(map[string]any); ok {
			if text, ok := m["text"].(string); ok && text != "" {
				if i := bytes.Index(b, []byte(text)); i >= 0 {
					m["text"] = unsafe.String(&b[i], len(text))
				}
			}
		}
		return v
	})},
	{"takes what it can and ignores the rest", "codec/whole",
		lenient(func(b []byte) bool { return bytes.HasSuffix(b, []byte("}{")) || bytes.Contains(b, []byte("}{")) })},
	{"decodes into anything", "codec/target", lenient(func(b []byte) bool { return string(b) == "1" })},
	{"narrows in silence", "codec/narrowing", lenient(func(b []byte) bool { return bytes.Contains(b, []byte("300")) })},
	{"nests without limit", "codec/nesting", lenient(func(b []byte) bool { return bytes.Count(b, []byte("[")) > 500 })},
	{"has integers without limit", "codec/large-integers",
		lenient(func(b []byte) bool { return bytes.HasPrefix(b, []byte(`{"$int":"0x1000`)) && len(b) > 1<<18 })},
	{"allocates what is claimed", "codec/allocation", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			if bytes.Contains(b, []byte("4000000000")) {
				ballast = make([]byte, 64<<20)
			}
			return c.Decode(b, v)
		}}
	})},
	{"takes the last of two equal keys", "codec/hostile",
		lenient(func(b []byte) bool { return string(b) == `{"a":1,"a":2}` })},
	{"panics on nonsense", "codec/hostile", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			if len(b) == 9 && b[0] == 0xc1 {
				panic("what is that?")
			}
			return c.Decode(b, v)
		}}
	})},
	{"lets its target's panic through", "codec/methods", onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if err != nil && strings.Contains(err.Error(), "on purpose") {
				panic(err)
			}
			return err
		}}
	})},
	{"encodes what another goroutine gave it", "codec/stateless", onCodec(newForgetful)},
}

type codec struct {
	core.Codec
	append func(dst []byte, v any) ([]byte, error)
	decode func(b []byte, v any) error
}

func (c *codec) Append(dst []byte, v any) ([]byte, error) {
	if c.append == nil {
		return c.Codec.Append(dst, v)
	}
	return c.append(dst, v)
}

func (c *codec) Decode(b []byte, v any) error {
	if c.decode == nil {
		return c.Codec.Decode(b, v)
	}
	return c.decode(b, v)
}

// decoding changes values that are decoded into an any.
func decoding(change func(b []byte, v any) any) func(*mutation) core.Adapter {
	return onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if target, ok := v.(*any); ok && err == nil {
				*target = change(b, *target)
			}
			return err
		}}
	})
}

// lenient accepts some bodies that it should refuse.
func lenient(takes func(b []byte) bool) func(*mutation) core.Adapter {
	return onCodec(func(c core.Codec) core.Codec {
		return &codec{Codec: c, decode: func(b []byte, v any) error {
			err := c.Decode(b, v)
			if err != nil && takes(b) {
				return nil
			}
			return err
		}, append: func(dst []byte, v any) ([]byte, error) { return c.Append(dst, v) }}
	})
}

// newForgetful returns a codec that encodes the latest value that any goroutine gave it.
func newForgetful(c core.Codec) core.Codec {
	var mu sync.Mutex
	var last any
	return &codec{Codec: c, append: func(dst []byte, v any) ([]byte, error) {
		mu.Lock()
		last = v
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		return c.Append(dst, last)
	}}
}
