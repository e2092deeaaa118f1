package conformance

import "strings"

// checkSchemas checks the schema of a command.
func checkSchemas(t *trial, command string, schema map[string]any, streams bool) {
	definitions, _ := schema["$defs"].(map[string]any)
	for _, part := range []string{"arguments", "result", "items"} {
		found, has := schema[part]
		if want := part != "items" || streams; has != want {
			t.Errorf("the schema of %s has the part %s: %v; it should be %v", command, part, has, want)
		}
		if _, isMap := found.(map[string]any); has && !isMap {
			t.Errorf("the %s of %s have the schema %s", part, command, show(found))
		}
	}
	for name, definition := range definitions {
		if _, isMap := definition.(map[string]any); !isMap {
			t.Errorf("the definition %s of %s is %s", name, command, show(definition))
		}
	}
	var check func(v any)
	check = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				check(one)
			}
		case map[string]any:
			for _, one := range v {
				check(one)
			}
			if ref, is := v["$ref"].(string); is {
				if name, ours := strings.CutPrefix(ref, "#/$defs/"); !ours || definitions[name] == nil {
					t.Errorf("the schema of %s refers to %s, which is not in its $defs", command, ref)
				}
			}
		}
	}
	check(schema)
}
