package schema_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
	"github.com/snakepit-go/snakepit/schema"
)

const trainJSON = `[{"name": "train", "stream": true, "doc": "Trains.", "returns": "str", "params": [
	{"name": "epochs", "type": "int", "required": true}, {"name": "rate", "type": "float", "default": 0.5}],
  "schema": {
	"arguments": {"type": "object", "additionalProperties": false, "required": ["epochs", "data"], "properties": {
		"epochs": {"type": "integer"}, "rate": {"type": "number", "default": 0.5, "description": "How fast."},
		"data": {"type": "array", "items": {"$ref": "#/$defs/Order"}}}},
	"items": {"type": "number"}, "result": {"type": "string"},
	"$defs": {"Order": {"title": "Order", "description": "An order.", "type": "object", "required": ["item"],
		"properties": {"item": {"type": "string"}, "color": {"$ref": "#/$defs/Color"}}},
		"Color": {"title": "Color", "type": "string", "enum": ["red", "blue"]}}}},
  {"name": "plain", "stream": false, "schema": {"arguments": {"type": "integer"}, "result": {}}},
  {"name": "old", "stream": false, "params": [{"name": "x", "required": true}]}]`

// commands decodes descriptions, after some text was replaced.
func commands(t *testing.T, text string, replaced ...string) []schema.Command {
	t.Helper()
	for i := 0; i < len(replaced); i += 2 {
		if !strings.Contains(text, replaced[i]) {
			t.Fatalf("there is no %q", replaced[i])
		}
	}
	var all []schema.Command
	if err := json.Unmarshal([]byte(strings.NewReplacer(replaced...).Replace(text)), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// A change that no caller can notice leaves the hash as it is, and Diff says nothing.
func TestHashLeavesOut(t *testing.T) {
	before := commands(t, trainJSON)
	for _, replaced := range [][]string{
		{"Trains.", "Trains well."},
		{"How fast.", "How slow."},
		{`"default": 0.5, "description"`, `"default": 0.1, "description"`},
		{`"returns": "str"`, `"returns": "Text"`},
		{`["epochs", "data"]`, `["data", "epochs"]`},
		{`"title": "Order"`, `"title": "Orders"`},
		{`"type": "int"`, `"type": "Int"`},
	} {
		after := commands(t, trainJSON, replaced...)
		if schema.Hash(before) != schema.Hash(after) || len(schema.Diff(before, after)) != 0 {
			t.Errorf("%q makes a difference: %q", replaced, schema.Diff(before, after))
		}
	}
	reversed := commands(t, trainJSON)
	reversed[0], reversed[1] = reversed[1], reversed[0]
	if schema.Hash(before) != schema.Hash(reversed) {
		t.Error("the order of the commands makes a difference")
	}
	var again []schema.Command
	if err := json.Unmarshal(schema.Canonical(before), &again); err != nil {
		t.Fatal(err)
	}
	if schema.Hash(before) != schema.Hash(again) || len(schema.Hash(before)) != 64 {
		t.Error("the canonical form has another hash")
	}
}

func TestDiff(t *testing.T) {
	before := commands(t, trainJSON)
	for _, c := range []struct {
		want     string
		replaced []string
	}{
		{"train: the argument epochs was an integer and is a number",
			[]string{`"epochs": {"type": "integer"}`, `"epochs": {"type": "number"}`}},
		{"train: there is a new required argument seed",
			[]string{`["epochs", "data"]`, `["epochs", "data", "seed"]`,
				`"epochs": {"type"`, `"seed": {}, "epochs": {"type"`}},
		{"train: there is a new argument seed", []string{`"epochs": {"type"`, `"seed": {}, "epochs": {"type"`}},
		{"train: the argument rate is gone", []string{
			`"rate": {"type": "number", "default": 0.5, "description": "How fast."},`, ``}},
		{"train: the argument epochs is optional now", []string{`["epochs", "data"]`, `["data"]`}},
		{"train: the argument rate is required now", []string{`["epochs", "data"]`, `["data", "epochs", "rate"]`}},
		{"train: there may be further arguments", []string{`false, "required": ["ep`, `true, "required": ["ep`}},
		{"train: the argument data was a list of Order and is a list of text",
			[]string{`{"$ref": "#/$defs/Order"}`, `{"type": "string"}`}},
		{"train: the items were a number and are a list of integers or null",
			[]string{`"items": {"type": "number"}`,
				`"items": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}`}},
		{"train: the result was text and is bytes",
			[]string{`"result": {"type": "string"}`, `"result": {"type": "string", "contentEncoding": "base64"}`}},
		{"train: the result was text and is a map of arrays of float32",
			[]string{`"result": {"type": "string"}`,
				`"result": {"type": "object", "additionalProperties": {"x-snakepit": "array", "dtype": "float32"}}`}},
		{`the type Color was one of "red", "blue" and is one of "red"`, []string{`["red", "blue"]`, `["red"]`}},
		{"the type Order: the field item was text and is a date",
			[]string{`"item": {"type": "string"}`, `"item": {"type": "string", "format": "date"}`}},
		{"the type Order: there is a new required field n",
			[]string{`["item"]`, `["item", "n"]`, `{"item":`, `{"n": {"type": "integer"}, "item":`}},
		{"plain is gone", []string{
			`{"name": "plain", "stream": false, "schema": {"arguments": {"type": "integer"}, "result": {}}},`, ``}},
		{"plain: the arguments were an integer and are nothing",
			[]string{`"arguments": {"type": "integer"}`, `"arguments": {"not": {}}`}},
		{"plain: the result was anything and is a list of 2",
			[]string{`"result": {}`, `"result": {"type": "array", "prefixItems": [{}, {}]}`}},
		{"old: there is a new required argument y", []string{`{"name": "x", "required": true}`,
			`{"name": "x", "required": true}, {"name": "y", "required": true}`}},
		{"old: the argument x is optional now", []string{`{"name": "x", "required": true}`, `{"name": "x"}`}},
		{"old streams now", []string{`"old", "stream": false`, `"old", "stream": true`}},
		{"plain: the result, a map with a, has changed in the parts",
			[]string{`"result": {}`, `"result": {"type": "object", "properties": {"a": {"type": "integer"}}}`}},
	} {
		before := before
		if strings.Contains(c.want, "in the parts") {
			before = commands(t, trainJSON,
				`"result": {}`, `"result": {"type": "object", "properties": {"a": {"type": "string"}}}`)
		}
		after := commands(t, trainJSON, c.replaced...)
		if got := schema.Diff(before, after); !reflect.DeepEqual(got, []string{c.want}) {
			t.Errorf("%q gives\n%q, not\n%q", c.replaced, got, c.want)
		}
		if schema.Hash(before) == schema.Hash(after) {
			t.Errorf("%q does not change the hash", c.replaced)
		}
		if back := schema.Diff(after, before); len(back) != 1 {
			t.Errorf("the other way round: %q", back)
		}
	}
	if got := schema.Diff(nil, before); len(got) != 3 || got[2] != "there is a new command train" {
		t.Errorf("of nothing: %q", got)
	}
}

// worker opens a pool with a worker whose answer to snakepit.describe is this JSON. "" means that it has no answer.
func worker(t *testing.T, described string) *core.Pool {
	t.Helper()
	functions := map[string]core.Function{}
	if described != "" {
		functions["snakepit.describe"] = core.Func(func(context.Context, any) (json.RawMessage, error) {
			return json.RawMessage(described), nil
		})
	}
	pool, err := core.Open(t.Context(), &coretest.Adapter{Functions: functions}, core.Command{}, &core.Options{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func TestDescribe(t *testing.T) {
	text := strings.Replace(trainJSON, "[", `[{"name": "snakepit.forget"},`, 1)
	got, err := schema.Describe(t.Context(), worker(t, text))
	if err != nil || !reflect.DeepEqual(schema.Canonical(got), schema.Canonical(commands(t, trainJSON))) {
		t.Errorf("got %s, %v", schema.Canonical(got), err)
	}
	if len(got) != 3 || got[0].Doc != "Trains." || got[0].Params[1].Default != 0.5 || got[1].Schema.Items != nil {
		t.Errorf("got %+v", got)
	}
	if _, err := schema.Describe(t.Context(), worker(t, "")); !errors.Is(err, core.ErrUnknownCommand) {
		t.Errorf("a worker without descriptions gives %v", err)
	}
}

func TestCheck(t *testing.T) {
	pool := worker(t, trainJSON)
	if err := schema.Check(t.Context(), pool, string(schema.Canonical(commands(t, trainJSON)))); err != nil {
		t.Errorf("the same commands: %v", err)
	}
	if err := schema.Check(t.Context(), pool, "[]"); err != nil {
		t.Errorf("a new command: %v", err)
	}
	other := commands(t, trainJSON, `"epochs": {"type": "integer"}`, `"epochs": {"type": "number"}`)
	err := schema.Check(t.Context(), pool, string(schema.Canonical(other)))
	var drift *schema.DriftError
	if !errors.As(err, &drift) || err.Error() != "the worker's commands have changed since the code for them was "+
		"generated: train: the argument epochs was a number and is an integer; run go generate" {
		t.Errorf("another type: %v", err)
	}
	err = schema.Check(t.Context(), worker(t, ""), "[]")
	if !errors.Is(err, core.ErrUnknownCommand) || !strings.Contains(err.Error(), "does not describe its commands") {
		t.Errorf("a worker without descriptions gives %v", err)
	}
	if err := schema.Check(t.Context(), pool, "{"); err == nil || !strings.Contains(err.Error(), "canonical form") {
		t.Errorf("a broken canonical form gives %v", err)
	}
	many := &schema.DriftError{Changes: strings.Split("abcdefghij", "")}
	if !strings.Contains(many.Error(), "g; h; and 2 more; run") {
		t.Errorf("many changes: %v", many)
	}
}

// A worker takes the names of definitions from all of its commands: a new command can change those of another.
func TestOtherNames(t *testing.T) {
	const get = `{"name": "get", "schema": {"arguments": {}, "result": {"$ref": "#/$defs/ORDER"}, "$defs": {
		"ORDER": {"type": "object", "properties": {"next": {"$ref": "#/$defs/ORDER"}, "at": {"$ref": "#/$defs/POINT"},
			"const": {"$ref": "#/$defs/POINT"}, "enum": {"items": {"$ref": "#/$defs/POINT"}},
			"$ref": {"enum": [{"$ref": "#/$defs/Pt"}]}}},
		"POINT": {"type": "object", "properties": {"x": {"type": "integer"}}}}}}`
	named := func(order, point string) string {
		return "[" + strings.NewReplacer("ORDER", order, "POINT", point).Replace(get) + "]"
	}
	known := string(schema.Canonical(commands(t, named("Order", "Pt"))))
	for _, other := range []string{named("Order", "Pt"), named("OrderResult", "Pt2"), named("Pt", "Order")} {
		if err := schema.Check(t.Context(), worker(t, other), known); err != nil {
			t.Errorf("%v\nof %s", err, other)
		}
	}
	for _, other := range []string{
		strings.Replace(named("OrderResult", "Pt2"), "integer", "number", 1),
		strings.Replace(named("A", "B"), `"at": {"$ref": "#/$defs/B"}`, `"at": {"$ref": "#/$defs/A"}`, 1),
		strings.Replace(named("A", "Order"), `"next": {"$ref": "#/$defs/A"}`, `"next": {"$ref": "#/$defs/Order"}`, 1),
	} {
		var drift *schema.DriftError
		if err := schema.Check(t.Context(), worker(t, other), known); !errors.As(err, &drift) {
			t.Errorf("%v\nof %s", err, other)
		} else {
			t.Log(err)
		}
	}
}

// TestNumbers checks integers beyond those of a float64, and that numbers of both forms are equal.
func TestNumbers(t *testing.T) {
	text := `[{"name": "f", "schema": {"arguments": {"enum": [9007199254740993, 1, 2.5]}, "result": {}}}]`
	pool := worker(t, text)
	got, err := schema.Describe(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Check(t.Context(), pool, string(schema.Canonical(got))); err != nil {
		t.Error(err)
	}
}
