package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// keywords are the keywords of JSON Schema that say what a caller is compiled for. Documentation, defaults and limits
// may change without a change for the caller.
var keywords = map[string]bool{
	"type": true, "format": true, "contentEncoding": true, "x-snakepit": true, "dtype": true,
	"properties": true, "required": true, "additionalProperties": true, "items": true, "prefixItems": true,
	"anyOf": true, "oneOf": true, "allOf": true, "not": true, "enum": true, "const": true, "$ref": true,
}

// Canonical returns the part of the descriptions that a caller depends on, as JSON: names, types, and what is required.
// Each command has a line. The order of the commands, of properties and of required properties makes no difference.
func Canonical(commands []Command) []byte {
	kept := make([]Command, 0, len(commands))
	for _, c := range commands {
		bare := Command{Name: c.Name, Stream: c.Stream}
		if c.Schema == nil {
			for _, p := range c.Params {
				bare.Params = append(bare.Params, Param{Name: p.Name, Required: p.Required})
			}
		} else {
			bare.Schema = &Values{
				Arguments: essence(c.Schema.Arguments), Items: essence(c.Schema.Items),
				Result: essence(c.Schema.Result),
			}
			for name, s := range c.Schema.Defs {
				if bare.Schema.Defs == nil {
					bare.Schema.Defs = map[string]Schema{}
				}
				bare.Schema.Defs[name] = essence(s)
			}
		}
		kept = append(kept, bare)
	}
	slices.SortStableFunc(kept, func(a, b Command) int { return strings.Compare(a.Name, b.Name) })
	lines := make([]string, len(kept))
	for i, c := range kept {
		lines[i] = line(c)
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]")
}

// line returns a description as one line of JSON.
func line(c Command) string {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if err := out.Encode(c); err != nil { // an enum with NaN
		return strconv.Quote(err.Error())
	}
	return strings.TrimSpace(b.String())
}

// Hash returns the SHA-256 of the canonical form of the descriptions, in hexadecimal.
func Hash(commands []Command) string {
	sum := sha256.Sum256(Canonical(commands))
	return hex.EncodeToString(sum[:])
}

// essence returns a schema without what a caller does not depend on.
func essence(s Schema) Schema {
	if s == nil {
		return nil
	}
	kept := Schema{}
	for key, value := range s {
		if !keywords[key] {
			continue
		}
		switch key {
		case "properties": // its keys are names
			properties, _ := value.(map[string]any)
			bare := map[string]any{}
			for name, property := range properties {
				bare[name] = essenceOf(property)
			}
			kept[key] = bare
		case "required":
			names := texts(value)
			slices.Sort(names)
			kept[key] = names
		case "enum", "const":
			kept[key] = value
		default:
			kept[key] = essenceOf(value)
		}
	}
	return kept
}

func essenceOf(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return map[string]any(essence(value))
	case []any:
		bare := make([]any, len(value))
		for i, one := range value {
			bare[i] = essenceOf(one)
		}
		return bare
	default:
		return value
	}
}

// texts returns the text in a list.
func texts(list any) []string {
	items, _ := list.([]any)
	found := []string{}
	for _, item := range items {
		if text, ok := item.(string); ok {
			found = append(found, text)
		}
	}
	return found
}
