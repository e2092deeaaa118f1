package codec_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
)

// Two equal keys are an error, whatever the target is, also if it has no place for them.
func TestEqualKeys(t *testing.T) {
	type name string
	type fields struct {
		A     int `json:"a"`
		Inner struct{ B any }
		Rest  map[string]int
	}
	check := func(decode func(b []byte, v any) error, body, list string) {
		for _, typ := range []reflect.Type{
			reflect.TypeFor[any](), reflect.TypeFor[map[string]any](), reflect.TypeFor[map[string]int](),
			reflect.TypeFor[map[name]int8](), reflect.TypeFor[map[name]*int](), reflect.TypeFor[fields](),
			reflect.TypeFor[*fields](), reflect.TypeFor[struct{}](), reflect.TypeFor[struct{ fields }](),
			reflect.TypeFor[[]fields](), reflect.TypeFor[[]map[string]int](), reflect.TypeFor[[1]map[name]uint](),
		} {
			text := body
			if typ.Kind() == reflect.Slice || typ.Kind() == reflect.Array {
				text = list
			}
			if err := decode([]byte(text), reflect.New(typ).Interface()); err == nil ||
				!strings.Contains(err.Error(), "twice") {
				t.Errorf("%q into %v: %v", text, typ, err)
			}
		}
	}
	for _, key := range []string{"a", "nobody's", ""} {
		for _, body := range []string{`{"K":1,"K":2}`, `{"K":1,"z":3,"K":1}`, `{"K":null,"K":null}`} {
			body = strings.ReplaceAll(body, "K", key)
			check(json.Codec{}.Decode, body, "["+body+"]")
		}
		packed := string([]byte{0xa0 | byte(len(key))}) + key
		for _, body := range []string{"\x82K\x01K\x02", "\x83K\x01\xa1z\x03K\x01", "\x82K\xc0K\xc0"} {
			body = strings.ReplaceAll(body, "K", packed)
			check(msgpack.Codec{}.Decode, body, "\x91"+body)
		}
	}
}
