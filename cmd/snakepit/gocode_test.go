package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/schema"
)

func TestGoNames(t *testing.T) {
	for text, want := range map[string]string{
		"train_model": "TrainModel", "model.predict": "ModelPredict", "user-id": "UserID", "httpUrl": "HTTPURL",
		"RED": "Red", "DARK_BLUE": "DarkBlue", "getJSON": "GetJSON", "XMLHttp": "XMLHttp", "2x": "X2x", "_": "X",
		"日本": "X日本", "é": "É", "a": "A", "Box_int": "BoxInt", "uuid": "UUID", "id2": "Id2",
	} {
		if got := goName(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := (client{name: "Ünal"}).schemaName(); got != "ünalSchema" {
		t.Errorf("the name of the constant is %s", got)
	}
	s := scope{}
	if a, b, c := s.take("A"), s.take("A"), s.take("A"); a != "A" || b != "A2" || c != "A3" {
		t.Errorf("%s %s %s", a, b, c)
	}
}

// TestOtherSchemas makes code of schemas that the Python package does not make.
func TestOtherSchemas(t *testing.T) {
	const described = `[
{"name": "f", "stream": true, "schema": {
	"arguments": {"type": "object", "properties": {
		"nullable": {"type": ["integer", "null"]}, 
		"inline": {"type": "object", "properties": {"a": {"type": "string"}}},
		"one": {"oneOf": [{"type": "integer"}, {"type": "null"}]}, "all": {"allOf": [{"$ref": "#/$defs/Same"}]},
		"loop": {"$ref": "#/$defs/Loop"}, "constant": {"const": "a", "type": "string"},
		"alias": {"$ref": "#/$defs/Alias"}, "may": {"$ref": "#/$defs/Only"},
		"none": {"anyOf": [{"$ref": "#/$defs/Only"}, {"type": "null"}]},
		"some": {"$ref": "#/$defs/Some"}, "text": {"type": "string", "description": "What\n\nit says."}},
		"required": ["nullable", "inline", "one", "all", "loop", "alias", "some", "none"],
		"additionalProperties": false},
	"items": {"type": "array", "items": {"type": "object", "required": ["b"],
		"properties": {"b": {"type": "boolean"}}}},
	"result": {},
	"$defs": {"Same": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
		"Loop": {"$ref": "#/$defs/Loop"}, "Only": {"allOf": [{"$ref": "#/$defs/Same"}]},
		"Alias": {"$ref": "#/$defs/Same"},
		"Some": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}},
{"name": "g", "schema": {"arguments": {"$ref": "#/$defs/Same"}, "result": {"$ref": "#/$defs/Other"},
	"$defs": {"Same": {"type": "array", "items": {"$ref": "#/$defs/Same"}}, "Other": {"type": "number"}}}}
]`
	var commands []schema.Command
	if err := json.Unmarshal([]byte(described), &commands); err != nil {
		t.Fatal(err)
	}
	source, err := client{worker: "w", pkg: "p", name: "Client", commands: commands}.source()
	if err != nil {
		t.Fatal(err)
	}
	code := strings.Join(strings.Fields(string(source)), " ")
	for _, want := range []string{
		"Nullable *int `json:\"nullable\"`", "Inline FInline `json:\"inline\"`", "One *int `json:\"one\"`",
		"All Same `json:\"all\"`", "Loop Loop `json:\"loop\"`", "type Loop = any", "type Alias = Same",
		"Constant *string `json:\"constant,omitempty\"`", "Some Some `json:\"some\"`", "type Some = *int",
		"// What // // it says. Text *string", "iter.Seq2[[]FItemItem, error]", "type FItemItem struct { B bool",
		"arg Same2, opts ...snakepit.CallOption) (Other, error)", "type Same2 []Same2", "type Other = float64",
		"type FInline struct { A *string", "type Only = Same", "May *Only `json:\"may,omitempty\"`",
		"None *Only `json:\"none\"`",
	} {
		if !strings.Contains(code, want) {
			t.Errorf("there is no %q in\n%s", want, source)
		}
	}
}

// The lines of wrapped JSON are short where that is possible, and the JSON is the same.
func TestWrapped(t *testing.T) {
	values := []any{
		strings.Repeat("long, ", 60), `"quoted, \" text,`, `\`, 1.5, map[string]any{"a,b": []any{true, nil}},
	}
	for range 40 {
		values = append(values, "short", 7)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(wrapped(string(text)), "\n")
	if len(lines) < 5 || strings.Join(lines, "") != string(text) {
		t.Errorf("got %q", lines)
	}
	for _, line := range lines {
		if len(line) > 110 && !strings.Contains(line, "long, ") {
			t.Errorf("%d bytes: %s", len(line), line)
		}
	}
}
