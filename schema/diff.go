package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Diff says in words how new differs from old, such as "train: the argument epochs was an integer and is a number". It
// is empty if both have the same hash.
func Diff(before, after []Command) []string {
	var d diff
	earlier, later := byName(before), byName(after)
	for _, name := range names(earlier, later) {
		o, was := earlier[name]
		n, is := later[name]
		switch {
		case !is:
			d.say("%s is gone", name)
		case !was:
			d.say("there is a new command %s", name)
		default:
			d.command(o, n)
		}
	}
	d.definitions(before, after)
	if len(d.said) == 0 && Hash(before) != Hash(after) {
		d.say("the schemas of the commands differ in a detail")
	}
	return d.said
}

type diff struct{ said []string }

func (d *diff) say(format string, args ...any) { d.said = append(d.said, fmt.Sprintf(format, args...)) }

func byName(commands []Command) map[string]Command {
	m := map[string]Command{}
	for _, c := range commands {
		m[c.Name] = c
	}
	return m
}

// names returns the keys of both maps, sorted.
func names[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func (d *diff) command(before, after Command) {
	switch {
	case before.Stream && !after.Stream:
		d.say("%s does not stream any more", before.Name)
	case after.Stream && !before.Stream:
		d.say("%s streams now", before.Name)
	}
	switch {
	case before.Schema == nil && after.Schema == nil:
		d.params(before, after)
		return
	case before.Schema == nil:
		d.say("%s has a schema now", before.Name)
		return
	case after.Schema == nil:
		d.say("%s has no schema any more", before.Name)
		return
	}
	o, n := before.Schema, after.Schema
	if o.Arguments["properties"] != nil && n.Arguments["properties"] != nil {
		d.fields(before.Name, "argument", o.Arguments, n.Arguments)
	} else {
		d.changed(before.Name+": the arguments", "were", "are", o.Arguments, n.Arguments)
	}
	if o.Items != nil && n.Items != nil {
		d.changed(before.Name+": the items", "were", "are", o.Items, n.Items)
	}
	d.changed(before.Name+": the result", "was", "is", o.Result, n.Result)
}

// params compares two commands without schemas.
func (d *diff) params(before, after Command) {
	object := func(c Command) Schema {
		properties, required := map[string]any{}, []any{}
		for _, p := range c.Params {
			properties[p.Name] = map[string]any{}
			if p.Required {
				required = append(required, p.Name)
			}
		}
		return Schema{"properties": properties, "required": required}
	}
	d.fields(before.Name, "argument", object(before), object(after))
}

// fields compares the properties of two objects.
func (d *diff) fields(where, noun string, before, after Schema) {
	o, _ := before["properties"].(map[string]any)
	n, _ := after["properties"].(map[string]any)
	needed, needs := texts(before["required"]), texts(after["required"])
	for _, name := range names(o, n) {
		_, was := o[name]
		_, is := n[name]
		required := slices.Contains(needs, name)
		switch {
		case !is:
			d.say("%s: the %s %s is gone", where, noun, name)
			continue
		case !was && required:
			d.say("%s: there is a new required %s %s", where, noun, name)
			continue
		case !was:
			d.say("%s: there is a new %s %s", where, noun, name)
			continue
		}
		d.changed(fmt.Sprintf("%s: the %s %s", where, noun, name), "was", "is", object(o[name]), object(n[name]))
		switch was := slices.Contains(needed, name); {
		case required && !was:
			d.say("%s: the %s %s is required now", where, noun, name)
		case was && !required:
			d.say("%s: the %s %s is optional now", where, noun, name)
		}
	}
	d.rest(where, noun, before["additionalProperties"], after["additionalProperties"])
}

// rest compares what two objects say about further properties.
func (d *diff) rest(where, noun string, before, after any) {
	takes := func(v any) bool { return v != false }
	switch {
	case takes(before) && !takes(after):
		d.say("%s: there are no further %ss any more", where, noun)
	case takes(after) && !takes(before):
		d.say("%s: there may be further %ss", where, noun)
	default:
		d.changed(fmt.Sprintf("%s: the further %ss", where, noun), "were", "are", object(before), object(after))
	}
}

// changed says that a schema has changed, if it has.
func (d *diff) changed(what, was, is string, before, after Schema) {
	if reflect.DeepEqual(normal(before), normal(after)) {
		return
	}
	o, _ := phrase(before)
	n, _ := phrase(after)
	if o == n {
		d.say("%s, %s, %s changed in the parts", what, o, map[bool]string{true: "have", false: "has"}[is == "are"])
		return
	}
	d.say("%s %s %s and %s %s", what, was, o, is, n)
}

// normal returns the essence of a schema in the types that encoding/json decodes to.
func normal(s Schema) (v any) {
	text, err := json.Marshal(essence(s))
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		return err.Error()
	}
	return v
}

// definitions compares the definitions of the same names. Each is in the schema of every command that needs it.
func (d *diff) definitions(before, after []Command) {
	all := func(commands []Command) map[string]Schema {
		m := map[string]Schema{}
		for _, c := range commands {
			if c.Schema != nil {
				maps.Copy(m, c.Schema.Defs)
			}
		}
		return m
	}
	earlier, later := all(before), all(after)
	for _, name := range slices.Sorted(maps.Keys(earlier)) {
		o := earlier[name]
		n, is := later[name]
		switch {
		case !is: // whatever referred to it has changed
		case o["properties"] != nil && n["properties"] != nil:
			d.fields("the type "+name, "field", o, n)
		default:
			d.changed("the type "+name, "was", "is", o, n)
		}
	}
}

// phrase describes a schema in words: one value of it, and many.
func phrase(s Schema) (one, many string) {
	if ref, ok := s["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		return name, name
	}
	if members, ok := s["anyOf"].([]any); ok && len(members) > 0 {
		ones, manys := make([]string, len(members)), make([]string, len(members))
		for i, m := range members {
			ones[i], manys[i] = phrase(object(m))
		}
		return strings.Join(ones, " or "), strings.Join(manys, " or ")
	}
	if values, ok := s["enum"].([]any); ok {
		shown := make([]string, min(len(values), 10))
		for i := range shown {
			text, err := json.Marshal(values[i])
			if err != nil {
				text = fmt.Append(nil, values[i])
			}
			shown[i] = string(text)
		}
		if len(shown) < len(values) {
			shown = append(shown, "...")
		}
		text := "one of " + strings.Join(shown, ", ")
		return text, text
	}
	if s["x-snakepit"] == "array" {
		if dtype, ok := s["dtype"].(string); ok {
			return "an array of " + dtype, "arrays of " + dtype
		}
		return "an array", "arrays"
	}
	if s["not"] != nil {
		return "nothing", "nothing"
	}
	switch s["type"] {
	case "integer":
		return "an integer", "integers"
	case "number":
		if s["format"] == "duration" {
			return "a duration", "durations"
		}
		return "a number", "numbers"
	case "boolean":
		return "a boolean", "booleans"
	case "null":
		return "null", "null"
	case "string":
		return textPhrase(s)
	case "array":
		if items, ok := s["prefixItems"].([]any); ok {
			n := len(items)
			return fmt.Sprintf("a list of %d", n), fmt.Sprintf("lists of %d", n)
		}
		_, items := phrase(object(s["items"]))
		return "a list of " + items, "lists of " + items
	case "object":
		if properties, ok := s["properties"].(map[string]any); ok {
			fields := strings.Join(slices.Sorted(maps.Keys(properties)), ", ")
			return "a map with " + fields, "maps with " + fields
		}
		_, values := phrase(object(s["additionalProperties"]))
		return "a map of " + values, "maps of " + values
	default:
		return "anything", "anything"
	}
}

func textPhrase(s Schema) (one, many string) {
	if s["contentEncoding"] == "base64" {
		return "bytes", "bytes"
	}
	switch format := s["format"]; format {
	case nil:
		return "text", "text"
	case "date-time":
		return "a time", "times"
	case "date":
		return "a date", "dates"
	default:
		return fmt.Sprintf("text in the form of a %s", format), fmt.Sprintf("text in the form of a %s", format)
	}
}

// object returns the schema in a place where true, or nothing, stands for any value.
func object(v any) Schema {
	m, _ := v.(map[string]any)
	return m
}
