package schema

import (
	"maps"
	"slices"
	"strings"
)

// aligned returns commands with the names that known has for the same definitions. A worker takes the names of
// definitions from all of its commands, so a new command can change those of another. A definition is the same if the
// schemas of a command refer to it in the same places.
func aligned(known, commands []Command) []Command {
	earlier := byName(known)
	commands = slices.Clone(commands)
	for i, c := range commands {
		o := earlier[c.Name].Schema
		if o == nil || c.Schema == nil {
			continue
		}
		a := alignment{before: o.Defs, after: c.Schema.Defs, names: map[string]string{}, taken: map[string]bool{}}
		a.schema(o.Arguments, c.Schema.Arguments)
		a.schema(o.Items, c.Schema.Items)
		a.schema(o.Result, c.Schema.Result)
		commands[i].Schema = a.renamed(c.Schema)
	}
	return commands
}

// alignment pairs the definitions of a command with earlier ones.
type alignment struct {
	before, after map[string]Schema
	names         map[string]string // from those in after to those in before
	taken         map[string]bool   // those in before that have a pair
}

// schema pairs the definitions that two schemas refer to.
func (a *alignment) schema(before, after Schema) {
	was, isRef := reference(before)
	is, alsoRef := reference(after)
	if isRef && alsoRef && a.names[is] == "" && !a.taken[was] {
		a.names[is], a.taken[was] = was, true
		a.schema(a.before[was], a.after[is])
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		switch key {
		case "enum", "const": // values that it allows
		case "properties": // its keys are names
			earlier, later := object(before[key]), object(after[key])
			for _, name := range slices.Sorted(maps.Keys(earlier)) {
				a.value(earlier[name], later[name])
			}
		default:
			a.value(before[key], after[key])
		}
	}
}

func (a *alignment) value(before, after any) {
	switch before := before.(type) {
	case map[string]any:
		a.schema(before, object(after))
	case []any:
		after, _ := after.([]any)
		for i := range min(len(before), len(after)) {
			a.value(before[i], after[i])
		}
	}
}

// renamed returns v with the earlier names. A definition without a pair keeps its name, unless a pair has it now.
func (a *alignment) renamed(v *Values) *Values {
	for _, name := range slices.Sorted(maps.Keys(a.after)) {
		if a.names[name] == "" {
			own := name
			for a.taken[own] {
				own += "2"
			}
			a.names[name], a.taken[own] = own, true
		}
	}
	defs := make(map[string]Schema, len(v.Defs))
	for name, s := range v.Defs {
		defs[a.names[name]] = a.rename(s)
	}
	if len(defs) == 0 {
		defs = nil
	}
	return &Values{Arguments: a.rename(v.Arguments), Items: a.rename(v.Items), Result: a.rename(v.Result), Defs: defs}
}

func (a *alignment) rename(s Schema) Schema {
	if s == nil {
		return nil
	}
	kept := make(Schema, len(s))
	for key, value := range s {
		switch key {
		case "enum", "const":
			kept[key] = value
		case "properties":
			properties := map[string]any{}
			for name, property := range object(value) {
				properties[name] = a.renameIn(property)
			}
			kept[key] = properties
		default:
			kept[key] = a.renameIn(value)
		}
	}
	if name, is := reference(s); is && a.names[name] != "" {
		kept["$ref"] = definitions + a.names[name]
	}
	return kept
}

func (a *alignment) renameIn(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return map[string]any(a.rename(value))
	case []any:
		out := make([]any, len(value))
		for i, one := range value {
			out[i] = a.renameIn(one)
		}
		return out
	default:
		return value
	}
}

// definitions begins a reference to a definition.
const definitions = "#/$defs/"

// reference returns the name of the definition that a schema refers to.
func reference(s Schema) (name string, is bool) {
	text, _ := s["$ref"].(string)
	return strings.CutPrefix(text, definitions)
}
