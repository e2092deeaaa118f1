//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
)

// tabulated evaluates the Python column of the tables of docs/values.md.
const tabulated = `
import dataclasses, enum
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import numpy
import pandas
from snakepit_bridge import Worker

worker = Worker()

@dataclasses.dataclass
class Point:
    a: int

class Colour(enum.Enum):
    RED = "red"

@worker.command
def make(source):
    return eval(source)

@worker.command
def stream(source):
    yield {"value": eval(source)}

@worker.command
def check(value, source):
    want = eval(source)
    if isinstance(want, numpy.ndarray):
        same = type(value) is numpy.ndarray and value.dtype == want.dtype and numpy.array_equal(value, want)
    else:
        same = value == want and described(value) == described(want)
    return "" if same else repr(value)

def described(value):
    if isinstance(value, (list, dict)):
        return [described(item) for item in (value if isinstance(value, list) else value.values())]
    return type(value)

worker.run()
`

type point struct {
	A int `json:"a"`
}

type level string

type status int

func (status) MarshalJSON() ([]byte, error) { return []byte(`"active"`), nil }

// target is a Go type that a value goes into, and what it is there.
type target struct {
	name  string
	value any
	check func(t *testing.T, f *Fixture, source string)
}

// as makes a target of the type of want. It checks a result, and an item that has the value in a struct.
func as[T any](want T) target {
	return target{named(want), want, func(t *testing.T, f *Fixture, source string) {
		t.Helper()
		got, err := snakepit.Execute[T](f.Context(), f.Pool, "make", source)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("as a result it is %#v, not %#v; %v", got, want, err)
		}
		type item struct {
			Value T `json:"value"`
		}
		for got, err := range snakepit.ExecuteStream[item](f.Context(), f.Pool, "stream", source) {
			if err != nil || !reflect.DeepEqual(got.Value, want) {
				t.Errorf("in an item it is %#v, not %#v; %v", got.Value, want, err)
			}
		}
	}}
}

// typed has what each row of the first table gives: in an any, and in each of its types.
var typed = map[string]struct {
	untyped any
	targets []target
}{
	"None": {nil, []target{as((*int)(nil)), as([]int(nil)), as(map[string]int(nil))}},
	"True": {true, []target{as(pointer(true))}},
	"5": {int64(5), []target{
		as(5), as(int8(5)), as(uint16(5)), as(json.Number("5")), as(big.NewInt(5)),
	}},
	"2**64 - 1": {uint64(math.MaxUint64), []target{
		as(uint64(math.MaxUint64)), as(json.Number("18446744073709551615")),
	}},
	"2**80":        {power(80), []target{as(power(80)), as(json.Number(power(80).String()))}},
	"2.5":          {2.5, []target{as(2.5), as(float32(2.5)), as(json.Number("2.5"))}},
	"5.0":          {5.0, []target{as(5.0), as(float32(5)), as(json.Number("5.0"))}},
	`float("inf")`: {math.Inf(1), []target{as(math.Inf(1)), as(float32(math.Inf(1)))}},
	`"text"`:       {"text", []target{as("text"), as(pointer("text"))}},
	`b"\x00\xff"`:  {[]byte{0, 255}, []target{as([]byte{0, 255}), as([2]byte{0, 255})}},
	"[1, 2]": {[]any{int64(1), int64(2)}, []target{
		as([]int{1, 2}), as([2]int8{1, 2}), as(json.RawMessage("[1,2]")),
	}},
	`(1, "a")`: {[]any{int64(1), "a"}, []target{as([]any{int64(1), "a"})}},
	"{7}":      {[]any{int64(7)}, []target{as([]int{7})}},
	`{"a": 1}`: {object, []target{
		as(map[string]int{"a": 1}), as(point{1}), as(json.RawMessage(`{"a":1}`)),
	}},
	"Point(a=1), a dataclass": {object, []target{as(map[string]int{"a": 1}), as(point{1})}},
	"Colour.RED, an Enum":     {"red", []target{as("red")}},
	`Decimal("1.10")`:         {"1.10", []target{as("1.10")}},
	"Fraction(1, 3)":          {"1/3", []target{as("1/3"), as(big.NewRat(1, 3))}},
	"UUID(int=5)":             {uuid, []target{as(uuid)}},
	`Path("/a/b")`:            {"/a/b", []target{as("/a/b")}},
	aware:                     {instant, []target{as(instant)}},
	naive:                     {"2026-01-02T03:04:05", []target{as("2026-01-02T03:04:05")}},
	"date(2026, 1, 2)":        {"2026-01-02", []target{as("2026-01-02")}},
	"time(3, 4, 5)":           {"03:04:05", []target{as("03:04:05")}},
	"timedelta(minutes=90)":   {90 * time.Minute, []target{as(90 * time.Minute)}},
	"numpy.array([1.5, 2.0])": {floats, []target{as(floats)}},
	"numpy.array([1.5, 2.0]), as a slice": {floats, []target{as([]float64{1.5, 2}), as([]float32{1.5, 2}),
		as([2]float64{1.5, 2})}},
	"numpy.array([1, 2]), as a slice": {snakepit.ArrayOf([]int64{1, 2}), []target{as([]int64{1, 2}), as([]int{1, 2}),
		as([]int8{1, 2})}},
	"numpy.array([True, False]), as a slice": {snakepit.ArrayOf([]bool{true, false}), []target{
		as([]bool{true, false}),
	}},
	"numpy.array([[1, 2], [3, 4]]), as a slice": {snakepit.ArrayOf([]int64{1, 2, 3, 4}, 2, 2), []target{
		as([][]int{{1, 2}, {3, 4}}), as([][2]int8{{1, 2}, {3, 4}})}},
	`numpy.array(["a", "bc"])`:             {[]any{"a", "bc"}, []target{as([]string{"a", "bc"})}},
	`numpy.array(["2026-01-02"], "M8[D]")`: {[]any{"2026-01-02"}, []target{as([]string{"2026-01-02"})}},
	`numpy.array([90], "m8[m]")`: {[]any{90 * time.Minute}, []target{
		as([]time.Duration{90 * time.Minute}),
	}},
	"numpy.float32(0.5)":                       {0.5, []target{as(0.5), as(float32(0.5))}},
	"numpy.int8(-5)":                           {int64(-5), []target{as(-5), as(int8(-5))}},
	"numpy.bool_(True)":                        {true, []target{as(true)}},
	`pandas.Timestamp("2026-01-02", tz="UTC")`: {midnight, []target{as(midnight)}},
	`pandas.Timestamp("2026-01-02")`:           {"2026-01-02T00:00:00", []target{as("2026-01-02T00:00:00")}},
	`pandas.Timedelta("90min")`:                {90 * time.Minute, []target{as(90 * time.Minute)}},
	"pandas.NaT":                               {nil, []target{as((*time.Time)(nil))}},
	"pandas.NA":                                {nil, []target{as((*float64)(nil))}},
}

const (
	aware = "datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)"
	naive = "datetime(2026, 1, 2, 3, 4, 5)"
	uuid  = "00000000-0000-0000-0000-000000000005"
)

var (
	object   = map[string]any{"a": int64(1)}
	instant  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	midnight = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	floats   = snakepit.ArrayOf([]float64{1.5, 2})
)

func pointer[T any](v T) *T { return &v }

func power(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

// fromGo has the Go expressions of the second table.
var fromGo = map[string]any{
	"5": 5, "int8(5)": int8(5), "uint(5)": uint(5), `json.Number("5")`: json.Number("5"),
	"5.0": 5.0, "float32(5)": float32(5), `json.Number("5.0")`: json.Number("5.0"),
	`json.Number("0.5e1")`: json.Number("0.5e1"), "new(big.Int).Lsh(big.NewInt(1), 80)": power(80),
	`"a"`: "a", `level("a")`: level("a"), `[]byte("a")`: []byte("a"), "[1]byte{97}": [1]byte{97},
	"[]int{1, 2}": []int{1, 2}, "[2]int{1, 2}": [2]int{1, 2}, `json.RawMessage("[1, 2]")`: json.RawMessage("[1, 2]"),
	"[]string{}": []string{}, "[]string(nil)": []string(nil), "map[string]int(nil)": map[string]int(nil),
	"(*int)(nil)": (*int)(nil), "nil": nil,
	`map[string]any{"a": 1}`: map[string]any{"a": 1}, "point{A: 1}": point{A: 1}, "&point{A: 1}": &point{A: 1},
	`json.RawMessage("{\"a\": 1}")`: json.RawMessage(`{"a": 1}`),
	"time.Unix(0, 0)":               time.Unix(0, 0), "time.Unix(0, 0).UTC()": time.Unix(0, 0).UTC(),
	"90 * time.Minute": 90 * time.Minute, "snakepit.ArrayOf([]int32{1, 2})": snakepit.ArrayOf([]int32{1, 2}),
	"snakepit.ArrayOf([]float64{1, 2, 3, 4}, 2, 2)": snakepit.ArrayOf([]float64{1, 2, 3, 4}, 2, 2),
	"big.NewRat(1, 3)": big.NewRat(1, 3), "status(1)": status(1),
}

// TestValueTables checks every row of the tables of docs/values.md, on every adapter and in both directions.
func TestValueTables(t *testing.T) {
	page := string(Must(os.ReadFile("docs/values.md")))
	both := tableOf(t, page, "| Python | Go, in an `any` | Go, typed | back in Python |")
	sent := tableOf(t, page, "| Go | Python gets |")
	onEach(t, []string{"jsonstdio", "msgpack", "grpc"}, func(t *testing.T, adapter string) {
		f := Must(Begin(t, adapter, script(t, File(t, "worker.py", tabulated)), snakepit.Options{}))
		arrives := func(v any, source string) {
			t.Helper()
			got, err := snakepit.Execute[string](f.Context(), f.Pool, "check", Args{"value": v, "source": source})
			if err != nil || got != "" {
				t.Errorf("%#v arrives as %s, not as %s; %v", v, got, source, err)
			}
		}
		for _, row := range both {
			want, known := typed[plain(row[0])]
			if !known {
				t.Errorf("no test has the row of %s", row[0])
				continue
			}
			source := codeOf(row[0])[0]
			got, err := snakepit.Execute[any](f.Context(), f.Pool, "make", source)
			if err != nil || !reflect.DeepEqual(got, want.untyped) || named(got) != plain(row[1]) {
				t.Errorf("%s is %#v, a %s; %v", row[0], got, named(got), err)
			}
			var names []string
			for _, target := range want.targets {
				names = append(names, target.name)
				target.check(t, f, source)
				arrives(target.value, codeOf(row[3])[0])
			}
			if all := strings.Join(names, ", "); all != plain(row[2]) {
				t.Errorf("%s: the test has the types %s, the page has %s", row[0], all, row[2])
			}
		}
		for _, row := range sent {
			for _, source := range codeOf(row[0]) {
				v, known := fromGo[source]
				if !known {
					t.Errorf("no test has the value %s", source)
					continue
				}
				arrives(v, codeOf(row[1])[0])
			}
		}
	})
}

// codeOf returns the pieces of code in a cell.
func codeOf(cell string) (code []string) {
	for _, found := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		code = append(code, found[1])
	}
	return code
}

// tableOf returns the cells of the table with that head.
func tableOf(t *testing.T, page, head string) (rows [][]string) {
	t.Helper()
	_, table, found := strings.Cut(page, head+"\n")
	if !found {
		t.Fatalf("docs/values.md has no table %s", head)
	}
	for _, line := range strings.Split(table, "\n")[1:] {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		var row []string
		for _, cell := range strings.Split(strings.Trim(line, "| "), " | ") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	return rows
}

// plain returns a cell without its backticks.
func plain(cell string) string { return strings.ReplaceAll(cell, "`", "") }

// named returns a type's name as the page has it.
func named(v any) string {
	if v == nil {
		return "nil"
	}
	return strings.NewReplacer("interface {}", "any", "e2e.point", "a struct", "core.Array", "snakepit.Array",
		"uint8", "byte").Replace(fmt.Sprintf("%T", v))
}

// Arguments that can't be sent are wrong arguments, too: a program may hand on the JSON of its clients.
func TestArgumentsThatCanNotBeSent(t *testing.T) {
	f := Must(Begin(t, "jsonstdio", script(t, File(t, "worker.py", tabulated)), snakepit.Options{}))
	for _, body := range []string{
		`{"source": 1e400}`, `{"source":`, `{} {}`, strings.Repeat("[", 600) + strings.Repeat("]", 600),
		`{"source": ` + strings.Repeat("9", 400_000) + `}`,
	} {
		_, err := snakepit.Execute[any](f.Context(), f.Pool, "make", json.RawMessage(body))
		if !errors.Is(err, snakepit.ErrBadArguments) || snakepit.MayHaveRun(err) {
			t.Errorf("%.20s: %.100v", body, err)
		}
	}
}
