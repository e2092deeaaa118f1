package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// show returns a value in the notation of json bodies: authors in any language can read it in a failure.
func show(v any) string {
	tagged := func(tag string, v any) string { return fmt.Sprintf(`{%s:%s}`, show("$"+tag), show(v)) }
	switch v := v.(type) {
	case float64:
		switch text := strconv.FormatFloat(v, 'g', -1, 64); {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return tagged("float", strings.ToLower(strings.TrimPrefix(text, "+")))
		case strings.ContainsAny(text, ".e"):
			return text
		default:
			return text + ".0"
		}
	case []byte:
		return tagged("bytes", base64.StdEncoding.EncodeToString(v))
	case time.Time:
		return tagged("time", v.UTC().Format(time.RFC3339Nano))
	case time.Duration:
		return tagged("duration", int64(v))
	case *big.Int:
		digits := new(big.Int).Abs(v).Text(16)
		return tagged("int", strings.Repeat("-", max(0, -v.Sign()))+"0x"+digits)
	case core.Array:
		data := base64.StdEncoding.EncodeToString(v.Data)
		return tagged("array", args{"dtype": v.DType, "shape": v.Shape, "data": data})
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, show(item))
		}
		return "[" + strings.Join(items, ",") + "]"
	case args:
		var entries []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			entries = append(entries, show(key)+":"+show(v[key]))
		}
		return "{" + strings.Join(entries, ",") + "}"
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
