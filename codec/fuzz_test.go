package codec_test

import (
	stdjson "encoding/json"
	"testing"

	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

func FuzzDecodeJSON(f *testing.F)    { fuzz(f, json.Codec{}, msgpack.Codec{}) }
func FuzzDecodeMsgpack(f *testing.F) { fuzz(f, msgpack.Codec{}, json.Codec{}) }

// fuzz checks that any bytes are a value or an error, in memory proportional to their number. It also checks that a
// value survives another round trip through either codec.
func fuzz(f *testing.F, c, other core.Codec) {
	for _, file := range parse(f, "testdata/"+c.Name()+".txtar").Files {
		body, _ := bodyOf(f, c, file)
		f.Add(body)
	}
	for _, body := range hostile(c.Name(), 4<<10) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var v any
		var err error
		if allocated := allocations(func() { err = c.Decode(body, &v) }); allocated > 256*len(body)+1<<18 {
			t.Errorf("allocated %d bytes", allocated)
		}
		ignored := c.Decode(body, new(struct{}))
		_ = c.Decode(body, new(everything)) // it need only return
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if ignored == nil {
				t.Errorf("skipped, but it is refused: %v", err)
			}
			return
		}
		if _, isMap := v.(map[string]any); isMap && ignored != nil {
			t.Errorf("refused to skip: %v", ignored)
		}
		if c.Name() == "json" && !stdjson.Valid(body) {
			t.Error("took what is not JSON")
		}
		for _, through := range []core.Codec{c, other} {
			again, err := through.Append(nil, v)
			if err != nil {
				t.Fatalf("%s can't send %#v: %v", through.Name(), v, err)
			}
			var got any
			if err := through.Decode(again, &got); err != nil || !equal(got, v) {
				t.Fatalf("%s made %#v of %#v: %v", through.Name(), got, v, err)
			}
		}
	})
}
