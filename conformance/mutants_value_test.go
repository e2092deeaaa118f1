package conformance

import (
	"bytes"
	"slices"

	"github.com/snakepit-go/snakepit/core"
)

// valueMutants are broken workers: values.
var valueMutants = []mutant{
	{"loses what is not ASCII", "value/plain", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd {
			f.Body = []byte(ascii(string(f.Body)))
		}
	})},
	{"announces exact-numbers and has floats", "value/exact", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd {
			f.Body = bytes.ReplaceAll(f.Body, []byte("5.0"), []byte("5"))
		}
	})},
	{"has seconds, and no parts of them", "value/time", reading(func(f *core.Frame) {
		if i := bytes.Index(f.Body, []byte(".678901Z")); i >= 0 {
			f.Body = slices.Delete(bytes.Clone(f.Body), i, i+len(".678901"))
		}
	})},
	{"rounds times up", "value/time", reading(func(f *core.Frame) {
		f.Body = bytes.Replace(f.Body, []byte(".678901999Z"), []byte(".678902Z"), 1)
	})},
	{"announces exact-numbers and has 64 bits", "value/exact", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`{"$int":"0x10000000000000000"}`), []byte("0"))
	})},
	{"takes a small integer with a tag for text", "value/exact", writing(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`{"$int":"0x5"}`), []byte(`"0x5"`))
	})},
	{"has milliseconds, and no parts of them", "value/duration", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`{"$duration":1000}`), []byte(`{"$duration":0}`))
	})},
	{"rounds durations towards zero", "value/duration", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`{"$duration":-1}`), []byte(`{"$duration":0}`))
	})},
	{"takes decimal digits for a large integer", "value/tags",
		forgiving(func(a attack) [][]byte { return a.tags[17:18] })},
	{"has lists for arrays, of whole numbers", "value/array", reading(func(f *core.Frame) {
		if bytes.Contains(f.Body, []byte("$array")) {
			f.Body = []byte("[[0,1,-2],[0,1,6]]")
		}
	})},
	{"flattens arrays", "value/array", reading(func(f *core.Frame) {
		f.Body = bytes.ReplaceAll(f.Body, []byte(`"shape":[2,3]`), []byte(`"shape":[6]`))
	})},
	{"refuses what nests as deep as may be", "value/nesting", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd && bytes.Count(f.Body, []byte("[")) > 400 {
			f.Kind, f.Body = core.KindError, []byte(`{"type":"TooDeep","message":"too deep"}`)
		}
	})},
	{"takes the last of two equal keys deep inside", "value/equal-keys",
		forgiving(func(a attack) [][]byte { return a.equalKeys[2:3] })},
	{"takes a key with an escape for another key", "value/equal-keys",
		forgiving(func(a attack) [][]byte { return a.equalKeys[3:4] })},
	{"takes an unknown tag in a list for a map", "value/tags",
		forgiving(func(a attack) [][]byte { return a.tags[1:2] })},
	{"takes base64 of another alphabet", "value/tags", forgiving(func(a attack) [][]byte { return a.tags[7:8] })},
	{"takes an array with a byte too many", "value/array-length",
		forgiving(func(a attack) [][]byte { return a.arrays[1:2] })},
	{"takes an array with negative lengths", "value/array-length",
		forgiving(func(a attack) [][]byte { return a.arrays[5:6] })},
	{"takes half a surrogate pair in a long text", "value/surrogates",
		forgiving(func(a attack) [][]byte { return a.halves[len(a.halves)-1:] })},
	{"takes a surrogate pair for two errors", "value/surrogates", writing(func(f *core.Frame) {
		if string(f.Body) == `"\ud83d\ude00"` {
			f.Body = []byte(`"\ufffd\ufffd"`)
		}
	})},
	{"ignores what follows a value", "value/whole", forgiving(func(a attack) [][]byte { return a.trailing[:1] })},
	{"cuts long values", "value/large", reading(func(f *core.Frame) {
		if f.Kind == core.KindEnd && len(f.Body) > 1<<20 {
			f.Body = []byte(`"..."`)
		}
	})},
	{"loses nil in inputs", "value/in-streams", writing(func(f *core.Frame) {
		if f.Kind == core.KindItem {
			f.Body = bytes.ReplaceAll(f.Body, []byte("null,"), nil)
		}
	})},
}
