package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/snakepit-go/snakepit/schema"
)

// goTypes makes Go types of schemas. Named types become declarations.
type goTypes struct {
	names   scope
	defs    map[string]schema.Schema // what the schemas refer to
	named   map[string]string        // the Go names of these
	pending []string                 // definitions that are used and not declared yet
	decls   []string
	imports map[string]bool
}

// goType is a type in Go source.
type goType struct {
	text    string
	nilable bool // its zero value is nil, so it needs no pointer to be absent
}

var anyType = goType{text: "any", nilable: true}

// of returns the type of a schema. hint is the name of a type that it may need.
func (g *goTypes) of(s schema.Schema, hint string) goType {
	s, null := g.withoutNull(s)
	t := g.plain(s, hint)
	if null && !t.nilable {
		t.text, t.nilable = "*"+t.text, true
	}
	return t
}

// withoutNull returns the schema of the values that are not null, and whether null is one of the others.
func (g *goTypes) withoutNull(s schema.Schema) (rest schema.Schema, null bool) {
	for len(list(s["allOf"])) == 1 { // it stands for its only member
		s = mapping(list(s["allOf"])[0])
	}
	members := list(s["anyOf"])
	if members == nil {
		members = list(s["oneOf"])
	}
	if types := list(s["type"]); types != nil {
		for _, one := range types {
			member := maps.Clone(s)
			member["type"] = one
			members = append(members, map[string]any(member))
		}
	}
	if members == nil && s["enum"] != nil {
		values := slices.DeleteFunc(slices.Clone(list(s["enum"])), func(v any) bool { return v == nil })
		if len(values) < len(list(s["enum"])) {
			rest = maps.Clone(s)
			rest["enum"] = values
			delete(rest, "x-enum-varnames")
			return rest, true
		}
	}
	if members == nil {
		return s, false
	}
	var others []schema.Schema
	for _, m := range members {
		if member := mapping(m); member["type"] == "null" {
			null = true
		} else {
			others = append(others, member)
		}
	}
	if len(others) != 1 {
		return schema.Schema{}, null
	}
	rest, nested := g.withoutNull(others[0])
	return rest, null || nested
}

func (g *goTypes) plain(s schema.Schema, hint string) goType {
	if ref, ok := s["$ref"].(string); ok {
		return g.reference(strings.TrimPrefix(ref, "#/$defs/"))
	}
	if s["x-snakepit"] == "array" {
		return goType{text: "snakepit.Array"}
	}
	if values := list(s["enum"]); values != nil {
		return g.enum(s, values, hint)
	}
	switch s["type"] {
	case "integer":
		return goType{text: "int"}
	case "number":
		if s["format"] == "duration" {
			g.imports["time"] = true
			return goType{text: "time.Duration"}
		}
		return goType{text: "float64"}
	case "boolean":
		return goType{text: "bool"}
	case "string":
		switch {
		case s["contentEncoding"] == "base64":
			return goType{text: "[]byte", nilable: true}
		case s["format"] == "date-time":
			g.imports["time"] = true
			return goType{text: "time.Time"}
		}
		return goType{text: "string"}
	case "array":
		if s["prefixItems"] != nil || s["items"] == nil {
			return goType{text: "[]any", nilable: true}
		}
		return goType{text: "[]" + g.of(mapping(s["items"]), hint+"Item").text, nilable: true}
	case "object":
		if properties, ok := s["properties"].(map[string]any); ok && fits(properties) {
			name := g.names.take(hint)
			g.declare(name, s)
			return goType{text: name}
		}
		values := anyType
		if rest := mapping(s["additionalProperties"]); rest != nil && s["properties"] == nil {
			values = g.of(rest, hint+"Value")
		}
		return goType{text: "map[string]" + values.text, nilable: true}
	default:
		return anyType
	}
}

// reference returns the type of a definition, which is declared once.
func (g *goTypes) reference(name string) goType {
	known, ok := g.named[name]
	if !ok {
		known = g.names.take(goName(name))
		g.named[name] = known
		g.pending = append(g.pending, name)
	}
	return goType{text: known, nilable: g.nilable(name)}
}

// nilable reports whether the type of a definition has nil.
func (g *goTypes) nilable(name string) bool {
	s := g.defs[name]
	for range len(g.defs) + 1 {
		rest, null := g.withoutNull(s)
		ref, is := rest["$ref"].(string)
		switch {
		case null:
			return true
		case !is && rest["enum"] != nil:
			return enumBase(list(rest["enum"])) == "any"
		case !is && rest["x-snakepit"] != nil:
			return false
		case !is:
			properties, has := rest["properties"].(map[string]any)
			switch rest["type"] {
			case "integer", "number", "boolean":
				return false
			case "string":
				return rest["contentEncoding"] == "base64"
			case "object":
				return !has || !fits(properties)
			default:
				return true
			}
		}
		s = g.defs[strings.TrimPrefix(ref, "#/$defs/")]
	}
	return true // it refers to itself
}

// finish declares the definitions that are used.
func (g *goTypes) finish() {
	for len(g.pending) > 0 {
		name := g.pending[0]
		g.pending = g.pending[1:]
		g.define(name)
	}
}

// define declares the type of a definition. A type of Go's own becomes an alias, so that literals need no conversion.
func (g *goTypes) define(name string) {
	own, s := g.named[name], g.defs[name]
	rest, null := g.withoutNull(s)
	properties, has := rest["properties"].(map[string]any)
	switch {
	case !null && rest["enum"] != nil:
		g.declareEnum(own, s)
		return
	case !null && rest["type"] == "object" && has && fits(properties):
		g.declare(own, s)
		return
	}
	comment := comment(own+docOf(s), "")
	if names := titles(rest); names != "" {
		comment += "// Its items are " + names + ".\n"
	}
	switch t := g.of(s, own); {
	case t.text == own, g.circular(name):
		g.decls = append(g.decls, fmt.Sprintf("%stype %s = any\n", comment, own))
	case strings.HasPrefix(t.text, "[]") && t.text != "[]byte", strings.HasPrefix(t.text, "map["):
		g.decls = append(g.decls, fmt.Sprintf("%stype %s %s\n", comment, own, t.text))
	default:
		g.decls = append(g.decls, fmt.Sprintf("%stype %s = %s\n", comment, own, t.text))
	}
}

// circular reports whether a definition only refers to itself.
func (g *goTypes) circular(name string) bool {
	seen := map[string]bool{}
	for {
		if seen[name] {
			return true
		}
		seen[name] = true
		rest, _ := g.withoutNull(g.defs[name])
		ref, is := rest["$ref"].(string)
		if !is {
			return false
		}
		name = strings.TrimPrefix(ref, "#/$defs/")
	}
}

// declare declares a struct.
func (g *goTypes) declare(name string, s schema.Schema) {
	at := len(g.decls)
	g.decls = append(g.decls, "") // it comes before the types of its fields
	fields := g.fields(name, name, s, nil)
	g.decls[at] = fmt.Sprintf("%stype %s struct {\n%s}\n", comment(name+docOf(s), ""), name, fields)
}

// fields returns the fields of a struct. A field that may be absent is a pointer, if its type has no nil. hint begins
// the names of types that only this struct needs. The properties in order come first, then the other required ones.
func (g *goTypes) fields(name, hint string, s schema.Schema, order []string) string {
	var b strings.Builder
	properties, required := mapping(s["properties"]), list(s["required"])
	own := scope{}
	for _, key := range ordered(properties, order, required) {
		property := mapping(properties[key])
		field := own.take(goName(key))
		t := g.of(property, hint+field)
		options, needed := "", slices.Contains(required, any(key))
		switch {
		case needed && g.contains(property, name, map[string]bool{}):
			t.text = "*" + t.text // a struct can't contain itself
		case needed:
		case t.nilable && !strings.HasPrefix(t.text, "*"):
			options = ",omitzero" // an empty list is sent
		case t.nilable:
			options = ",omitempty"
		default:
			t.text, options = "*"+t.text, ",omitempty"
		}
		if key == "-" {
			options += ","
		}
		if description, ok := property["description"].(string); ok {
			b.WriteString(comment(description, "\t"))
		}
		fmt.Fprintf(&b, "\t%s %s `json:\"%s%s\"`%s\n", field, t.text, key, options, beside(property, needed))
	}
	return b.String()
}

// contains reports whether a struct is a part of the values of a schema, without a pointer, slice or map between.
func (g *goTypes) contains(s schema.Schema, owner string, seen map[string]bool) bool {
	rest, null := g.withoutNull(s)
	ref, is := rest["$ref"].(string)
	if null || !is {
		return false
	}
	name := strings.TrimPrefix(ref, "#/$defs/")
	if g.named[name] == owner {
		return true
	}
	if seen[name] {
		return false
	}
	seen[name] = true
	d := g.defs[name]
	if d["properties"] == nil {
		return g.contains(d, owner, seen)
	}
	for _, key := range list(d["required"]) {
		text, _ := key.(string)
		if g.contains(mapping(mapping(d["properties"])[text]), owner, seen) {
			return true
		}
	}
	return false
}

// enum returns the type of an enum. One of text gets a type with constants, and so does one of integers with names.
func (g *goTypes) enum(s schema.Schema, values []any, hint string) goType {
	base := enumBase(values)
	switch {
	case base == "any":
		return anyType
	case base == "string", base == "int" && s["x-enum-varnames"] != nil:
		name := g.names.take(hint)
		g.declareEnum(name, s)
		return goType{text: name}
	default:
		return goType{text: base}
	}
}

// enumBase returns the Go type of all values of an enum.
func enumBase(values []any) string {
	base := ""
	for _, v := range values {
		t := "any"
		switch v.(type) {
		case string:
			t = "string"
		case bool:
			t = "bool"
		case int64:
			t = "int"
		case float64:
			t = "float64"
		}
		if base != "" && base != t {
			return "any"
		}
		base = t
	}
	if base == "" {
		return "any"
	}
	return base
}

func (g *goTypes) declareEnum(name string, s schema.Schema) {
	values, names := list(s["enum"]), list(s["x-enum-varnames"])
	base := enumBase(values)
	if base == "any" || base == "bool" || base == "float64" {
		g.decls = append(g.decls, fmt.Sprintf("%stype %s = %s\n", comment(name+docOf(s), ""), name, base))
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%stype %s %s\n\n// The values of %s.\nconst (\n", comment(name+docOf(s), ""), name, base, name)
	for i, v := range values {
		text := fmt.Sprint(v)
		if i < len(names) && len(names) == len(values) {
			text = fmt.Sprint(names[i])
		}
		if camelCase(text) == "" {
			text = "other" // such as "" or "+"
		}
		fmt.Fprintf(&b, "\t%s %s = %s\n", g.names.take(name+camelCase(text)), name, literalOf(v))
	}
	b.WriteString(")\n")
	g.decls = append(g.decls, b.String())
}

// fits reports whether json tags can name all of these properties.
func fits(properties map[string]any) bool {
	for name := range properties {
		if name == "" {
			return false
		}
		for _, r := range name {
			if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) {
				return false
			}
		}
	}
	return true
}

// ordered returns all properties: those in order, those that are required, and the others by name.
func ordered(properties map[string]any, order []string, required []any) []string {
	for _, r := range required {
		if key, ok := r.(string); ok {
			order = append(order, key)
		}
	}
	order = append(order, slices.Sorted(maps.Keys(properties))...)
	var keys []string
	for _, key := range order {
		if _, ok := properties[key]; ok && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// beside returns the comment behind a field.
func beside(property schema.Schema, required bool) string {
	var notes []string
	if names := titles(property); names != "" {
		notes = append(notes, "its items are "+names)
	}
	if format, ok := property["format"].(string); ok && property["type"] == "string" && format != "date-time" {
		notes = append(notes, oneLine(format))
	}
	if v, ok := property["default"]; ok && v != nil && !required {
		text := literalOf(v)
		if len(text) > 60 {
			text = strings.ToValidUTF8(text[:60], "") + "..."
		}
		notes = append(notes, "default "+text)
	}
	if len(notes) == 0 {
		return ""
	}
	return " // " + strings.Join(notes, "; ")
}

// titles returns the names of the items of a named tuple.
func titles(s schema.Schema) string {
	var names []string
	for _, item := range list(s["prefixItems"]) {
		if title, ok := mapping(item)["title"].(string); ok {
			names = append(names, oneLine(title))
		}
	}
	return strings.Join(names, ", ")
}

// docOf returns the description of a definition, as it follows the type's name.
func docOf(s schema.Schema) string {
	if doc, ok := s["description"].(string); ok && strings.TrimSpace(doc) != "" {
		return ": " + doc
	}
	if title, ok := s["title"].(string); ok {
		return " is " + oneLine(title) + " in the worker."
	}
	return " has values of the worker."
}

// literalOf returns a value as Go source, or as JSON if it is a list or map.
func literalOf(v any) string {
	if text, ok := v.(string); ok {
		return strconv.Quote(text)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return oneLine(string(text))
}

func list(v any) []any {
	items, _ := v.([]any)
	return items
}

func mapping(v any) schema.Schema {
	switch v := v.(type) {
	case map[string]any:
		return v
	case schema.Schema:
		return v
	default:
		return nil
	}
}
