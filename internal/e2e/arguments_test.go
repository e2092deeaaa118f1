//go:build unix

package e2e

import (
	"errors"
	"math"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
)

// arguments lists what Go sends, and the repr() of what Python gets, or the error.
var arguments = []struct {
	command string
	sent    any
	got     string
	refused string
}{
	{"int", 3, "3", ""},
	{"int", 3.0, "3", ""},
	{"int", uint64(math.MaxUint64), "18446744073709551615", ""},
	{"int", 1.5, "", "x: expected an integer, got 1.5"},
	{"int", true, "", "x: expected an integer, got True"},
	{"int", "3", "", "x: expected an integer, got '3'"},
	{"int", nil, "", "x: expected an integer, got None"},
	{"float", 3, "3.0", ""},
	{"float", math.Inf(1), "inf", ""},
	{"float", "3", "", "x: expected a number, got '3'"},
	{"bool", true, "True", ""},
	{"bool", 1, "", "x: expected true or false, got 1"},
	{"str", "é", "'é'", ""},
	{"str", []byte("x"), "", "x: expected text, got 1 bytes"},
	{"bytes", []byte("x"), "b'x'", ""},
	{"bytes", "x", "", "x: expected bytes, got 'x'"},
	{"bytearray", []byte("x"), "bytearray(b'x')", ""},
	{"list", []float64{1, 2.5}, "[1.0, 2.5]", ""},
	{"list", []int{1, 2}, "[1.0, 2.0]", ""},
	{"list", snakepit.ArrayOf([]float64{1, 2.5}), "[1.0, 2.5]", ""},
	{"list", []any{1, "x"}, "", "x[1]: expected a number, got 'x'"},
	{"list", []float64(nil), "[]", ""},
	{"dict", map[string]float64(nil), "{}", ""},
	{"set", []int{2, 1, 2}, "{1, 2}", ""},
	{"frozenset", []string{"a"}, "frozenset({'a'})", ""},
	{"tuple", []any{1, "a"}, "(1, 'a')", ""},
	{"tuple", []any{1}, "", "x: expected a list of 2, got one of 1"},
	{"tuples", []int{1, 2}, "(1.0, 2.0)", ""},
	{"dict", map[string]float64{"7": 1}, "{7: 1.0}", ""},
	{"dict", map[string]int{"a": 1}, "", "x: the key 'a': expected an integer, got 'a'"},
	{"optional", nil, "None", ""},
	{"optional", 3, "3", ""},
	{"union", "2026-01-02", "datetime.date(2026, 1, 2)", ""},
	{"union", 3, "3", ""},
	{"union", "x", "", "x: expected an integer, a date as text in ISO form or None, got 'x'"},
	{"literal", "a", "'a'", ""},
	{"literal", "b", "", "x: expected one of 'a', 1, got 'b'"},
	{"enum", "blue", "<Color.BLUE: 'blue'>", ""},
	{"enum", "green", "", "x: expected one of 'red', 'blue', got 'green'"},
	{"datetime", time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600)),
		"datetime.datetime(2026, 1, 2, 2, 4, 5, 6, tzinfo=datetime.timezone.utc)", ""},
	{"datetime", "2026-01-02T03:04:05.123456789Z",
		"datetime.datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=datetime.timezone.utc)", ""},
	{"datetime", "2026-01-02T03:04", "datetime.datetime(2026, 1, 2, 3, 4)", ""},
	{"datetime", "today", "", "x: expected a datetime, or one as text in ISO form, got 'today'"},
	{"date", "2026-01-02", "datetime.date(2026, 1, 2)", ""},
	{"date", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), "datetime.date(2026, 1, 2)", ""},
	{"date", time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), "",
		"x: expected a date without a time, got the time 2026-01-02 03:00:00+00:00"},
	{"time", "03:04:05", "datetime.time(3, 4, 5)", ""},
	{"timedelta", 1.5, "datetime.timedelta(seconds=1, microseconds=500000)", ""},
	{"uuid", "12345678-1234-5678-1234-567812345678", "UUID('12345678-1234-5678-1234-567812345678')", ""},
	{"path", "a/b", "PosixPath('a/b')", ""},
	{"decimal", "9.99", "Decimal('9.99')", ""},
	{"decimal", 0.1, "Decimal('0.1')", ""},
	{"fraction", big.NewRat(999, 100), "Fraction(999, 100)", ""},
	{"point", []int{1, 2}, "Point(x=1, y=2)", ""},
	{"point", Args{"x": 1}, "Point(x=1, y=0)", ""},
	{"movie", struct { // a map has no order
		Title string  `json:"title"`
		Year  float64 `json:"year"`
	}{"a", 1}, "{'title': 'a', 'year': 1}", ""},
	{"movie", Args{"title": "a"}, "", "x: missing field 'year'"},
	{"item", Args{"name": "tea", "price": 2}, "Item(name='tea', price=2.0, tags=[])", ""},
	{"item", Args{"name": "tea", "prise": 2}, "", "x: unexpected field 'prise'; did you mean 'price'?"},
	{"item", Args{"name": "tea", "price": -1}, "", "x: the price must not be negative"},
	{"order", struct {
		Items []Args `json:"items"`
		Color string `json:"color"`
	}{[]Args{{"name": "tea", "price": 2}}, "blue"},
		"Order(items=[Item(name='tea', price=2.0, tags=[])], color=<Color.BLUE: 'blue'>)", ""},
	{"order", Args{"items": []Args{{"name": "tea", "price": 2}, {"name": "tea", "price": "x"}}}, "",
		"x.items[1].price: expected a number, got 'x'"},
	{"array", []int{1, 2}, "[1, 2]int64", ""},
	{"array", [][]float64{{1}, {2}}, "[[1.0], [2.0]]float64", ""},
	{"array", snakepit.ArrayOf([]float64{1}), "[1.0]float64", ""},
	{"array", []string{"a"}, "", "x: expected a list of numbers, or lists of them that are equally long"},
	{"floats", snakepit.ArrayOf([]float64{1.5}), "[1.5]float32", ""},
	{"floats", []int{1}, "[1.0]float32", ""},
	{"int8", 200, "", "x: expected an integer from -128 to 127, got 200"},
}

// TestArguments checks what annotations make of arguments, on every adapter.
func TestArguments(t *testing.T) {
	for _, adapter := range []string{"jsonstdio", "msgpack", "grpc"} {
		t.Run(adapter, func(t *testing.T) {
			program := snakepit.Python(filepath.Join("internal", "e2e", "testdata", "arguments.py"))
			program.Interpreter = Interpreter(t)
			f, err := Begin(t, adapter, program, snakepit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range arguments {
				got, err := snakepit.Execute[string](t.Context(), f.Pool, c.command, Args{"x": c.sent})
				if c.refused != "" {
					f.refuses(err, c.refused)
				} else if err != nil || got != c.got {
					t.Errorf("%s gets %s of %v; %v", c.command, got, c.sent, err)
				}
			}
			for _, c := range []struct {
				command string
				args    any
				refused string
			}{
				{"train", Args{"epoch": 3}, "train() got an unexpected argument 'epoch'; did you mean 'epochs'?"},
				{"train", nil, "train() missing argument 'epochs'"},
				{"train", "x", "epochs: expected an integer, got 'x'"},
				{"bare", Args{"epoch": 3}, "bare() got an unexpected argument 'epoch'; did you mean 'epochs'?"},
				{"bare", nil, "bare() missing argument 'epochs'"},
			} {
				_, err := snakepit.Execute[any](t.Context(), f.Pool, c.command, c.args)
				f.refuses(err, c.refused)
			}
			for _, err := range snakepit.ExecuteStream[any](t.Context(), f.Pool, "counted", Args{"n": "x"}) {
				f.refuses(err, "n: expected an integer, got 'x'")
			}
		})
	}
}

// refuses checks that err says that a call did not run because of its arguments.
func (f *Fixture) refuses(err error, message string) {
	f.Helper()
	var remote *snakepit.RemoteError
	if !errors.As(err, &remote) || remote.Message != message || !errors.Is(err, snakepit.ErrBadArguments) ||
		snakepit.MayHaveRun(err) || !strings.HasSuffix(err.Error(), " (it did not run)") {
		f.Errorf("%v, which is not the refusal %q", err, message)
	}
}
