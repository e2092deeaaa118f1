package codec_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

type (
	status  int                  // its JSON is a text
	Point   struct{ x, y int }   // its JSON is a list
	wrapped struct{ *Point }     // its JSON is that of its point, if there is one
	custom  struct{ Raw string } // takes any JSON
)

func (s status) MarshalJSON() ([]byte, error) { return []byte(`"active"`), nil }

func (p *Point) MarshalJSON() ([]byte, error) { return json.Marshal([]int{p.x, p.y}) }

func (p *Point) UnmarshalJSON(b []byte) error {
	var list [2]int
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	p.x, p.y = list[0], list[1]
	return nil
}

func (c *custom) UnmarshalJSON(b []byte) error { c.Raw = string(b); return nil }

// Types that hold JSON travel as its value.
func TestJSONGoesAsItsValue(t *testing.T) {
	for _, c := range both {
		for _, v := range []struct{ sent, want any }{
			{json.Number("12"), int64(12)}, {json.Number("-7"), int64(-7)}, {json.Number("5.0"), 5.0},
			{json.Number("1e2"), 100.0},
			{json.Number("18446744073709551615"), uint64(math.MaxUint64)}, {json.Number(""), int64(0)},
			{json.Number("-18446744073709551616"), bigInt("-18446744073709551616")},
			{json.RawMessage("[18446744073709551616]"), []any{bigInt("18446744073709551616")}},
			{json.Number("0"), int64(0)}, {json.Number("0.5"), 0.5}, {json.Number("-0.5"), -0.5},
			{json.Number("9"), int64(9)},
			{json.RawMessage(`{"a": [1, 2.5, "x", null], "$bytes": "AA=="}`), map[string]any{
				"a": []any{int64(1), 2.5, "x", nil}, "$bytes": "AA==",
			}},
			{json.RawMessage(nil), nil}, {json.RawMessage(` 5 `), int64(5)}, {status(1), "active"},
			{&Point{1, 2}, []any{int64(1), int64(2)}},
			{Point{1, 2}, []any{int64(1), int64(2)}}, {wrapped{}, nil},
			{wrapped{&Point{3, 4}}, []any{int64(3), int64(4)}},
			{map[string]json.Number{"n": "3"}, map[string]any{"n": int64(3)}},
			{[]any{json.Number("3")}, []any{int64(3)}},
		} {
			var got any
			if err := c.Decode(appended(t, c, v.sent), &got); err != nil || !reflect.DeepEqual(got, v.want) {
				t.Errorf("%s: %#v goes as %#v, not %#v; %v", c.Name(), v.sent, got, v.want, err)
			}
		}
		for _, bad := range []any{
			json.Number("x"), json.Number("0x10"), json.Number(`"1"`), json.Number("true"),
			json.Number(strings.Repeat("9", 400_000)), json.Number("1e999"),
			json.RawMessage(`{"a":`), json.RawMessage(`1 2`),
			json.RawMessage(strings.Repeat("[", 600) + strings.Repeat("]", 600)),
			map[status]int{1: 1},
		} {
			if _, err := c.Append(nil, map[string]any{"v": bad}); err == nil || !strings.Contains(err.Error(), "v") {
				t.Errorf("%s: %.40v is sent (%v)", c.Name(), bad, err)
			}
		}
	}
}

// The same types are targets, too.
func TestIntoJSON(t *testing.T) {
	for _, c := range both {
		into := func(v, target any) any {
			t.Helper()
			if err := c.Decode(appended(t, c, v), target); err != nil {
				t.Errorf("%s: %v into %T: %v", c.Name(), v, target, err)
			}
			return reflect.ValueOf(target).Elem().Interface()
		}
		for v, want := range map[any]json.Number{
			5: "5", int64(math.MinInt64): "-9223372036854775808", uint64(math.MaxUint64): "18446744073709551615",
			5.0: "5.0", 0.5: "0.5", nil: "",
		} {
			if got := into(v, new(json.Number)); got != want {
				t.Errorf("%s: %v becomes %v", c.Name(), v, got)
			}
		}
		for want, v := range map[string]any{
			`{"a":[1,2.0,"x",null,true]}`: map[string]any{"a": []any{1, 2.0, "x", nil, true}},
			`18446744073709551616`:        bigInt("18446744073709551616"),
			`[[1.0,0.5],[2.0,0.25]]`:      core.ArrayOf([]float32{1, 0.5, 2, 0.25}, 2, 2),
			`{"t":1000}`:                  map[string]any{"t": time.Microsecond},
		} {
			if raw := into(v, new(json.RawMessage)).(json.RawMessage); string(raw) != want {
				t.Errorf("%s: %v is %s", c.Name(), v, raw)
			}
		}
		if got := into(bigInt("-18446744073709551616"), new(json.Number)); got != json.Number("-18446744073709551616") {
			t.Errorf("%s: %v", c.Name(), got)
		}
		if got := into([]int{1, 2}, new(Point)); got != (Point{1, 2}) {
			t.Errorf("%s: %v", c.Name(), got)
		}
		if got := into([]int{1, 2}, new(wrapped)).(wrapped); got.Point == nil || *got.Point != (Point{1, 2}) {
			t.Errorf("%s: %v", c.Name(), got)
		}
		if got := into(map[string]int{"a": 1}, new(custom)); got != (custom{`{"a":1}`}) {
			t.Errorf("%s: %v", c.Name(), got)
		}
		for _, bad := range []struct{ v, target any }{
			{"5", new(json.Number)}, {math.NaN(), new(json.Number)}, {true, new(json.Number)},
			{math.Inf(1), new(json.RawMessage)},
			{"text", new(Point)}, {[]any{math.NaN()}, new(json.RawMessage)},
		} {
			if err := c.Decode(appended(t, c, bad.v), bad.target); err == nil {
				t.Errorf("%s: %v goes into %T", c.Name(), bad.v, bad.target)
			}
		}
	}
}
