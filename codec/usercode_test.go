package codec_test

import (
	"encoding"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

var both = []core.Codec{json.Codec{}, msgpack.Codec{}}

type (
	stamped struct{ *time.Time }             // its text methods are the time's
	nested  struct{ stamped }                // and so are these
	named   struct{ encoding.TextMarshaler } // those of whatever it holds
	looped  struct{ *looped }                // no methods, and no end
	maybe   struct {
		When stamped `json:"when,omitzero"`
	} // its IsZero is the time's
	address struct{ *netip.Addr }
	veiled  struct{ *hidden }
	hidden  struct{ n int }
)

func (h *hidden) MarshalText() ([]byte, error)    { return []byte(strings.Repeat("x", h.n)), nil }
func (h *hidden) UnmarshalText(text []byte) error { h.n = len(text); return nil }

// If the method is promoted from a nil embedded pointer or interface, the value is null, or absent.
func TestPromotedMethodsOverNil(t *testing.T) {
	for _, c := range both {
		for _, v := range []any{stamped{}, &stamped{}, nested{}, named{}, &named{}, looped{}, address{}, veiled{}} {
			body, err := c.Append(nil, map[string]any{"v": v})
			if err != nil {
				t.Errorf("%s: %T: %v", c.Name(), v, err)
				continue
			}
			var back map[string]any
			if err := c.Decode(body, &back); err != nil {
				t.Errorf("%s: %T: %v", c.Name(), v, err)
			}
			if _, isLoop := v.(looped); !isLoop && !reflect.DeepEqual(back, map[string]any{"v": nil}) {
				t.Errorf("%s: %T becomes %v", c.Name(), v, back)
			}
		}
		body, err := c.Append(nil, maybe{})
		var back map[string]any
		if err != nil || c.Decode(body, &back) != nil || len(back) != 0 {
			t.Errorf("%s: %v, %v", c.Name(), back, err)
		}
		if _, err := c.Append(nil, map[stamped]int{{}: 1}); err == nil {
			t.Errorf("%s: a key without a text is sent", c.Name())
		}
	}
}

// A struct that embeds a pointer with text methods survives a round trip, also into a value whose pointer is nil.
func TestPromotedMethodsRoundTrip(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ip := netip.MustParseAddr("10.0.0.1")
	for _, c := range both {
		for _, v := range []any{stamped{&now}, nested{stamped{&now}}, address{&ip}} {
			body, err := c.Append(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			back := reflect.New(reflect.TypeOf(v))
			if err := c.Decode(body, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), v) {
				t.Errorf("%s: %T: %v, %v", c.Name(), v, back.Elem(), err)
			}
		}
	}
}

type (
	bomb   struct{}
	nobody struct{ text []byte }
)

func (bomb) MarshalText() ([]byte, error)      { panic("boom") }
func (*bomb) UnmarshalText([]byte) error       { panic(errors.New("boom")) }
func (n *nobody) UnmarshalText(b []byte) error { n.text = (*nobody)(nil).text; return nil }

// Decode never panics, whatever the target's methods do. The error has the path and the cause.
func TestDecodeNeverPanics(t *testing.T) {
	for _, c := range both {
		body, err := c.Append(nil, map[string]any{"list": []any{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []any{
			&struct{ List []bomb }{}, &map[string][]bomb{}, &struct{ List []*bomb }{},
			&struct{ List [1]struct{ bomb } }{}, &struct{ List []nobody }{}, &struct{ List []veiled }{},
			&struct{ List []named }{}, &struct{ List []looped }{},
			&struct {
				List []struct{ encoding.TextUnmarshaler }
			}{}, &struct{ List []chan int }{}, &struct{ List []func() }{},
			&struct{ List []big.Int }{}, &struct{ List []struct{ *hidden } }{},
		} {
			if err := c.Decode(body, target); err == nil || !strings.Contains(err.Error(), "[0]") {
				t.Errorf("%s: %T: %v", c.Name(), target, err)
			}
		}
		var bombs struct{ List []bomb }
		if err := c.Decode(body, &bombs); err == nil || !strings.Contains(err.Error(), "UnmarshalText panicked: boom") {
			t.Errorf("%s: %v", c.Name(), err)
		}
		for _, target := range []any{nil, 5, bombs, (*int)(nil), (*bomb)(nil), new(chan int), new(func())} {
			if err := c.Decode(body, target); err == nil {
				t.Errorf("%s: decoding into %T is not an error", c.Name(), target)
			}
		}
	}
}

// A panic of a value's own method is not taken for the panic of a promoted method: the nil embedded pointer may be
// unrelated.
type (
	tagged   struct{ n int }
	ownPanic struct{ *time.Time }
	ownZero  struct {
		V ownPanic `json:"v,omitzero"`
	}
	nilDeref struct{ *tagged }
)

func (ownPanic) MarshalText() ([]byte, error)    { panic("boom") }
func (ownPanic) IsZero() bool                    { panic("boom") }
func (v nilDeref) MarshalText() ([]byte, error)  { return []byte(fmt.Sprint(v.n)), nil }
func (v *nilDeref) UnmarshalText(b []byte) error { v.n = len(b); return nil }

func TestOwnPanicBesideAnEmbeddedNil(t *testing.T) {
	for _, c := range both {
		for _, v := range []any{ownPanic{}, []any{ownPanic{}}, ownZero{}, nilDeref{}} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %T: no panic", c.Name(), v)
					}
				}()
				_, _ = c.Append(nil, v)
			}()
		}
		var v nilDeref
		if err := c.Decode(appended(t, c, "text"), &v); err == nil || v.tagged != nil {
			t.Errorf("%s: decoded into %v, %v", c.Name(), v, err)
		}
	}
}

// Append does not recover a panic of a value's own method.
func TestAppendLetsPanicsThrough(t *testing.T) {
	for _, c := range both {
		for _, v := range []any{bomb{}, map[bomb]int{{}: 1}, []any{&bomb{}}, struct{ bomb }{}} {
			func() {
				defer func() {
					if p := recover(); p != "boom" {
						t.Errorf("%s: %T: recovered %v", c.Name(), v, p)
					}
				}()
				_, err := c.Append(nil, v)
				t.Errorf("%s: %T: no panic, but %v", c.Name(), v, err)
			}()
		}
	}
}
