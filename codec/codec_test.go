package codec_test

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/codec"
	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
)

// each runs a test with every codec.
func each(t *testing.T, test func(t *testing.T, c core.Codec)) {
	for _, c := range codecs {
		t.Run(c.Name(), func(t *testing.T) { test(t, c) })
	}
}

// appended encodes a value that can be encoded.
func appended(t testing.TB, c core.Codec, v any) []byte {
	t.Helper()
	body, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

type level string

type inner struct {
	Deep string `json:"deep"`
	Name string // hidden by everything's own
}

type Other struct {
	Twice  int `json:"twice"`
	Tagged int `json:"tagged"`
}

type another struct {
	Twice  int
	Shared int
}

type everything struct {
	inner
	*Other
	Named another `json:"named"`

	Name     string `json:"Name"`
	Bool     bool
	Int8     int8
	Int      int `json:"int,string"`
	Uint16   uint16
	Float32  float32
	Float64  float64
	Level    level
	Bytes    []byte
	Fixed    [4]byte
	Time     time.Time
	Array    core.Array
	List     []inner
	Pair     [2]int
	Map      map[level]*int
	ByAddr   map[netip.Addr]string
	ByTime   map[time.Time]int
	Big      *big.Int
	BigValue big.Int
	Addr     netip.Addr
	Any      any
	Empty    string         `json:"empty,omitempty"`
	Zero     time.Time      `json:"zero,omitzero"`
	NilMap   map[string]int `json:"nilMap"`
	Self     *everything    `json:"self,omitempty"`
	Skipped  chan int       `json:"-"`
	hidden   int
}

func TestEverything(t *testing.T) {
	seven := 7
	in := everything{
		inner: inner{Deep: "d", Name: "lost"}, Other: &Other{Twice: 1, Tagged: 2}, Named: another{3, 4}, Name: "n",
		Bool: true, Int8: -128, Int: -5, Uint16: 65535, Float32: 0.1, Float64: math.Pi, Level: "high",
		Bytes: []byte{1, 2}, Fixed: [4]byte{1, 2, 3, 4}, Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Array: core.Array{DType: "|u1", Shape: []int{2}, Data: []byte{8, 9}},
		List:  []inner{{Deep: "x"}, {Deep: "y"}}, Pair: [2]int{5, 6}, Map: map[level]*int{"a": &seven, "b": nil},
		ByAddr: map[netip.Addr]string{netip.MustParseAddr("::1"): "home"},
		ByTime: map[time.Time]int{time.Unix(5, 0).UTC(): 5}, Big: big.NewInt(1 << 40), BigValue: *big.NewInt(77),
		Addr: netip.MustParseAddr("10.0.0.1"), Any: []any{int64(1), 2.0, "3"},
		Self:    &everything{Name: "self", Addr: netip.MustParseAddr("1.1.1.1")},
		Skipped: make(chan int), hidden: 3,
	}
	want := in
	want.inner.Name, want.Skipped, want.hidden = "", nil, 0
	want.Self = &everything{}
	*want.Self = *in.Self
	want.Self.Array = core.Array{}
	each(t, func(t *testing.T, c core.Codec) {
		in.Self.Array = core.Array{DType: "<f8", Shape: []int{0}, Data: []byte{}}
		want.Self.Array = in.Self.Array
		body := appended(t, c, in)
		var got everything
		if err := c.Decode(body, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
		var keys map[string]any
		if err := c.Decode(body, &keys); err != nil {
			t.Fatal(err)
		}
		for _, absent := range []string{"empty", "zero", "Skipped", "hidden", "inner", "Other"} {
			if _, ok := keys[absent]; ok {
				t.Errorf("%s was sent", absent)
			}
		}
		for key, v := range map[string]any{
			"deep": "d", "Name": "n", "twice": int64(1), "Big": int64(1 << 40), "BigValue": int64(77),
			"Fixed": []byte{1, 2, 3, 4}, "int": int64(-5), "nilMap": nil, "Level": "high", "Addr": "10.0.0.1",
		} {
			if !equal(keys[key], v) {
				t.Errorf("%s was sent as %#v, want %#v", key, keys[key], v)
			}
		}
	})
}

// Among fields of one name on one level the tagged one wins. Of two alike none wins. Both are as in encoding/json.
func TestEmbeddedNames(t *testing.T) {
	type X struct {
		A int `json:"name"`
		B int `json:"same"`
		C int
	}
	type Y struct {
		Name int `json:"other"`
		A    int `json:"same"`
		C    int
	}
	type Z struct {
		Same int `json:"C"`
	}
	type both struct {
		X
		*Y
		Z
	}
	for _, v := range []both{{}, {X: X{1, 2, 3}, Y: &Y{4, 5, 6}, Z: Z{7}}} {
		want, err := stdjson.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got := appended(t, json.Codec{}, v); !bytes.Equal(got, want) {
			t.Errorf("got %s, encoding/json has %s", got, want)
		}
	}
}

type cyclic struct {
	Next any `json:"next"`
}

type selfPointer *selfPointer

type opaque struct{ secret int }

type broken struct{}

func (broken) MarshalText() ([]byte, error) { return nil, errors.New("out of ink") }

type sameText int

func (sameText) MarshalText() ([]byte, error) { return []byte("same"), nil }

func TestRefusedToSend(t *testing.T) {
	cycle := &cyclic{}
	cycle.Next = cycle
	list := []any{nil}
	list[0] = list
	var loop selfPointer
	loop = &loop
	var iface any
	iface = &iface
	for _, test := range []struct {
		name, path, words string
		v                 any
	}{
		{"channel", "", "a value of type chan int can't be sent", make(chan int)},
		{"function", "args.items[3].when", "a value of type func() can't be sent",
			map[string]any{"args": map[string]any{"items": []any{1, 2, 3, map[string]any{"when": func() {}}}}}},
		{"complex in a struct", "Pair[0]", "complex128", struct{ Pair [2]complex128 }{}},
		{"unsafe text", `["a b"]`, "not valid UTF-8", map[string]string{"a b": "\xff"}},
		{"unsafe text", "[0]", "not valid UTF-8", []string{"\xed\xa0\x80"}},
		{"unsafe key", `["\xff"]`, "key is not valid UTF-8", map[string]any{"\xff": 1}},
		{"unsafe key of a type", `["\xff"]`, "key is not valid UTF-8", map[level]int{"\xff": 1}},
		{"number as key", "x", "keys of type int", map[string]any{"x": map[int]int{1: 2}}},
		{"keys alike", "", `the text "same"`, map[sameText]int{1: 1, 2: 2}},
		{"unexported fields", "[0]", "unexported", []any{opaque{1}}},
		{"error value", "err", "a value of type errors.errorString can't be sent: all its fields are unexported",
			map[string]any{"err": errors.New("x")}},
		{"text method fails", "[0]", "out of ink", []any{broken{}}},
		{"year 10000", "[0]", "year 10000", []any{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{"array that does not fit", "[0]", "do not fit",
			[]core.Array{{DType: "<f8", Shape: []int{2}, Data: []byte{1, 2, 3}}}},
		{"array with elements too short", "", "do not fit",
			core.Array{DType: "<i4", Shape: []int{2}, Data: make([]byte, 6)}},
		{"array of text too long", "", "do not fit", core.Array{DType: "<U3", Shape: []int{}, Data: make([]byte, 16)}},
		{"array of times too long", "", "do not fit",
			core.Array{DType: "<M8[ns]", Shape: []int{1}, Data: make([]byte, 16)}},
		{"array without type", "", "dtype", core.Array{}},
		{"cycle of pointers and structs", "next.next", "a cycle", cycle},
		{"cycle of lists", "[0][0]", "a cycle", list},
		{"cycle of pointers", "", "a cycle", &loop},
		{"cycle of interfaces", "", "a cycle", iface},
		{"501 levels", "[0][0]", "deeper than 500", nest(501)},
	} {
		each(t, func(t *testing.T, c core.Codec) {
			dst := []byte("kept")
			got, err := c.Append(dst, test.v)
			if err == nil {
				t.Fatalf("%s: sent as %q", test.name, got)
			}
			if string(got) != "kept" {
				t.Errorf("%s: dst became %q", test.name, got)
			}
			wantError(t, test.name, err, test.path, test.words)
		})
	}
}

func wantError(t *testing.T, name string, err error, path, words string) {
	t.Helper()
	var e *codec.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %T is no *codec.Error", name, err)
	}
	if got := e.Path(); got != path && !(strings.HasPrefix(got, path) && strings.Contains(words, "deeper than")) &&
		!(strings.HasPrefix(got, path) && words == "a cycle") {
		t.Errorf("%s: path %q, want %q", name, got, path)
	}
	if !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %q does not say %q", name, err, words)
	}
	if len(err.Error()) > 400 {
		t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
	}
}

// TestFit sends a value and receives it into a field of another type.
func TestFit(t *testing.T) {
	type target struct {
		Bool  bool
		I8    int8
		I64   int64
		U8    uint8
		U64   uint64
		F32   float32
		F64   float64
		Text  string
		Bytes []byte
		Two   [2]byte
		Ints  []int
		Pair  [2]int
		Map   map[string]int
		Time  time.Time
		Array core.Array
		Big   *big.Int
		Dur   time.Duration
		Addr  netip.Addr
		Ptr   **int
		Any   any
		Err   error
		Chan  chan int
		ByInt map[int]int
	}
	year := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		field string
		send  any
		want  any    // nil: an error
		words string // of the error
	}{
		{"I8", 127, int8(127), ""},
		{"I8", 300, nil, "I8: 300 doesn't fit into int8"},
		{"I8", -129, nil, "-129 doesn't fit"},
		{"I8", 5.0, nil, "the float 5.0 can't go into int8; use float64, or have an integer sent"},
		{"I8", -2.5e300, nil, "the float -2.5e+300 can't go into int8"},
		{"I8", math.Inf(1), nil, "the float +Inf can't go into int8"},
		{"I8", true, nil, "a bool can't go into int8"},
		{"I8", "5", nil, "text can't go into int8"},
		{"I64", uint64(1 << 63), nil, "9223372036854775808 doesn't fit into int64"},
		{"U8", 255, uint8(255), ""},
		{"U8", 256, nil, "256 doesn't fit into uint8"},
		{"U8", -1, nil, "-1 doesn't fit into uint8"},
		{"U64", uint64(math.MaxUint64), uint64(math.MaxUint64), ""},
		{"U64", -1, nil, "-1 doesn't fit into uint64"},
		{"F64", 5, 5.0, ""},
		{"F64", int64(-1 << 60), -float64(1 << 60), ""},
		{"F64", int64(1<<53 + 1), nil, "9007199254740993 doesn't fit into float64 exactly"},
		{"F64", int64(math.MinInt64), -float64(1 << 63), ""},
		{"F64", int64(math.MaxInt64), nil, "exactly"},
		{"F64", uint64(1 << 63), float64(1 << 63), ""},
		{"F64", uint64(math.MaxUint64), nil, "exactly"},
		{"F32", 0.1, float32(0.1), ""},
		{"F32", 1e300, nil, "1e+300 doesn't fit into float32"},
		{"F32", math.Inf(1), float32(math.Inf(1)), ""},
		{"F32", 1<<24 + 1, nil, "16777217 doesn't fit into float32 exactly"},
		{"F32", int64(1 << 40), float32(1 << 40), ""},
		{"Bool", 1, nil, "an integer can't go into bool"},
		{"Text", []byte("x"), nil, "binary can't go into string"},
		{"Text", 5, nil, "an integer can't go into string"},
		{"Bytes", "x", nil, "text can't go into []uint8"},
		{"Bytes", []int{1, 2}, []byte{1, 2}, ""},
		{"Bytes", []int{1, 256}, nil, "Bytes[1]: 256 doesn't fit into uint8"},
		{"Two", []byte{1, 2}, [2]byte{1, 2}, ""},
		{"Two", []byte{1, 2, 3}, nil, "3 bytes don't fit"},
		{"Ints", []any{1, "x"}, nil, "Ints[1]: text"},
		{"Ints", map[string]int{}, nil, "a map can't go into []int"},
		{"Pair", []int{1, 2}, [2]int{1, 2}, ""},
		{"Pair", []int{1}, nil, "a list of 1 doesn't fill [2]int"},
		{"Pair", []int{1, 2, 3}, nil, "more than 2"},
		{"Map", map[string]any{"k k": 1.5}, nil, `Map["k k"]: the float 1.5 can't go into int`},
		{"Map", []int{}, nil, "a list can't go into map"},
		{"Time", year.In(time.FixedZone("", 3600)), year, ""},
		{"Time", "2026-01-02T03:04:05Z", year, ""},
		{"Time", "yesterday", nil, `"yesterday" can't go into time.Time`},
		{"Time", 5, nil, "an integer can't go into time.Time"},
		{"Text", year, nil, "a timestamp can't go into string"},
		{"Array", map[string]any{"dtype": "|u1", "shape": []int{1}, "data": []byte{1}},
			core.Array{DType: "|u1", Shape: []int{1}, Data: []byte{1}}, ""},
		{"Array", map[string]any{"dtype": "|u1", "shape": []int{2}, "data": []byte{1}}, nil, "do not fit"},
		{"Array", []int{1}, nil, "a list can't go into core.Array"},
		{"Big", "123456789012345678901234567890", bigInt("123456789012345678901234567890"), ""},
		{"Big", 5, big.NewInt(5), ""},
		{"Big", uint64(math.MaxUint64), new(big.Int).SetUint64(math.MaxUint64), ""},
		{"Big", bigInt("-123456789012345678901234567890"), bigInt("-123456789012345678901234567890"), ""},
		{"I64", bigInt("9223372036854775808"), nil, "9223372036854775808 doesn't fit into int64"},
		{"I64", bigInt("18446744073709551616"), nil, "18446744073709551616 doesn't fit into int64"},
		{"U64", bigInt("18446744073709551616"), nil, "18446744073709551616 doesn't fit into uint64"},
		{"U64", bigInt("-9223372036854775809"), nil, "-9223372036854775809 doesn't fit into uint64"},
		{"I64", new(big.Int).Lsh(big.NewInt(1), 1000), nil, "an integer of 1001 bits doesn't fit into int64"},
		{"F64", bigInt("18446744073709551616"), float64(1 << 64), ""},
		{"F64", bigInt("-18446744073709551616"), -float64(1 << 64), ""},
		{"F64", bigInt("18446744073709551617"), nil, "18446744073709551617 doesn't fit into float64 exactly"},
		{"F64", new(big.Int).Lsh(big.NewInt(1), 2000), nil, "an integer of 2001 bits doesn't fit into float64"},
		{"F32", bigInt("18446744073709551616"), float32(1 << 64), ""},
		{"F32", new(big.Int).Lsh(big.NewInt(1), 130), nil, "an integer of 131 bits doesn't fit into float32"},
		{"Text", bigInt("18446744073709551616"), nil, "an integer can't go into string"},
		{"Any", bigInt("18446744073709551616"), bigInt("18446744073709551616"), ""},
		{"Any", bigInt("5"), int64(5), ""},
		{"Any", bigInt("18446744073709551615"), uint64(math.MaxUint64), ""},
		{"Dur", time.Minute, time.Minute, ""},
		{"Dur", 1500, 1500 * time.Nanosecond, ""},
		{"Dur", 1.5, nil, "the float 1.5 can't go into time.Duration; have a timedelta sent"},
		{"Dur", "1s", nil, "text can't go into time.Duration"},
		{"I64", time.Second, nil, "a duration can't go into int64; it goes into time.Duration"},
		{"F64", time.Second, nil, "a duration can't go into float64; it goes into time.Duration"},
		{"Any", -time.Second, -time.Second, ""},
		{"Time", "2026-01-02T04:04:05+01:00", year.In(time.FixedZone("", 3600)), ""},
		{"Time", "2026-01-02T03:04:05", year, ""},
		{"Time", "2026-01-02T03:04:05.25", year.Add(time.Second / 4), ""},
		{"Time", "2026-01-02", year.Truncate(24 * time.Hour), ""},
		{"Time", "03:04:05", nil, `"03:04:05" can't go into time.Time`},
		{"Big", strings.Repeat("9", 400_000), nil, "an integer of 400000 digits; 1048576 bits are the most"},
		{"Big", 5.0, nil, "a float can't go into big.Int"},
		{"Big", "x", nil, `"x" can't go into big.Int`},
		{"Addr", "1.2.3.4", netip.MustParseAddr("1.2.3.4"), ""},
		{"Any", uint8(3), int64(3), ""},
		{"Any", map[level]float32{"a": 0.5}, map[string]any{"a": 0.5}, ""},
		{"Any", year, year, ""},
		{"Any", opaqueText{}, "opaque", ""},
		{"Err", "x", nil, "text can't go into error"},
		{"Chan", 1, nil, "can't go into chan int"},
		{"ByInt", map[string]int{"1": 1}, nil, `ByInt.1: a key can't go into int`},
	} {
		each(t, func(t *testing.T, c core.Codec) {
			body := appended(t, c, map[string]any{test.field: test.send})
			var got target
			err := c.Decode(body, &got)
			switch {
			case test.want == nil && err == nil:
				t.Errorf("%v into %s was taken", test.send, test.field)
			case test.want == nil && !strings.Contains(err.Error(), test.words):
				t.Errorf("%v into %s: %q does not say %q", test.send, test.field, err, test.words)
			case test.want != nil && err != nil:
				t.Errorf("%v into %s: %v", test.send, test.field, err)
			case test.want != nil:
				if v := reflect.ValueOf(got).FieldByName(test.field).Interface(); !reflect.DeepEqual(v, test.want) {
					t.Errorf("%v into %s: got %#v, want %#v", test.send, test.field, v, test.want)
				}
			}
		})
	}
}

type opaqueText struct{}

func (*opaqueText) MarshalText() ([]byte, error) { return []byte("opaque"), nil }

func bigInt(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 10)
	return n
}

func TestNullSetsZero(t *testing.T) {
	type target struct {
		A int
		B string
		C []int
		D *int
		E map[string]int
		F any
		G netip.Addr
		H [2]int
		I time.Time
		J error
	}
	each(t, func(t *testing.T, c core.Codec) {
		one := 1
		got := target{
			1, "x", []int{1}, &one, map[string]int{"a": 1}, 5, netip.MustParseAddr("::1"), [2]int{1, 2}, time.Now(),
			errors.New("x"),
		}
		nulls := map[string]any{}
		for _, k := range strings.Split("ABCDEFGHIJ", "") {
			nulls[k] = nil
		}
		if err := c.Decode(appended(t, c, nulls), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, target{}) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestStructKeys(t *testing.T) {
	type target struct {
		A    int `json:"a"`
		Kept int `json:"kept"`
		Deep struct{ B int }
	}
	for _, test := range []struct {
		body  string
		words string // "" means taken
	}{
		{`{"A":5,"unknown":[{"x":[1,{"y":{}}]}],"$a":{"$bytes":"AA=="},"a":1,"Deep":{"B":2,"b":3}}`, ""},
		{`{"a":1,"a":1}`, "a: the key is there twice"},
		{`{"a":1,"Deep":{"B":1,"B":1}}`, "Deep.B: the key is there twice"},
		{`{"x":1,"a":1,"x":1}`, "x: the key is there twice"},
		{`{"x":[{"y":1,"y":2}]}`, "x[0].y: the key is there twice"},
		{`{"x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`, "deeper than 500"},
	} {
		got := target{Kept: 7}
		err := json.Codec{}.Decode([]byte(test.body), &got)
		if test.words == "" {
			if want := (target{A: 1, Kept: 7, Deep: struct{ B int }{2}}); err != nil || got != want {
				t.Errorf("%s: got %+v, %v", test.body, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: error %v does not say %q", test.body, err, test.words)
		}
	}
}

// A name in a tag matches exactly. A field without one matches its name in any case, and prefers the exact name.
func TestNamesInAnyCase(t *testing.T) {
	type Deep struct{ LearningRate float64 }
	type target struct {
		Epoch  int
		Loss   float64
		Tagged int `json:"tagged"`
		Lower  int `json:"url"`
		URL    int
		Käse   int
		Option int `json:",omitempty"`
		*Deep
	}
	each(t, func(t *testing.T, c core.Codec) {
		for _, test := range []struct {
			body map[string]any
			want target
		}{
			{map[string]any{"epoch": 3, "loss": 0.5}, target{Epoch: 3, Loss: 0.5}},
			{map[string]any{"EPOCH": 3, "Loss": 0.5, "option": 1}, target{Epoch: 3, Loss: 0.5, Option: 1}},
			{map[string]any{"Tagged": 3, "TAGGED": 4}, target{}},
			{map[string]any{"URL": 1, "url": 2}, target{URL: 1, Lower: 2}},
			{map[string]any{"Url": 3}, target{URL: 3}},
			{map[string]any{"kÄse": 1}, target{}},
			{map[string]any{"käse": 1}, target{Käse: 1}},
			{map[string]any{"learningrate": 0.25}, target{Deep: &Deep{0.25}}},
			{map[string]any{"epochs": 1, "epoc": 2, "": 3}, target{}},
		} {
			var got target
			if err := c.Decode(appended(t, c, test.body), &got); err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%v: got %+v, %v", test.body, got, err)
			}
		}
	})
	for _, body := range []string{`{"EPOCH":1,"Epoch":2,"epoch":3}`, `{"Epoch":2,"epoch":3}`, `{"epoch":3,"Epoch":2}`} {
		var got target
		if err := (json.Codec{}).Decode([]byte(body), &got); err != nil || got.Epoch != 2 {
			t.Errorf("%s: got %+v, %v", body, got, err)
		}
	}
	if err := (json.Codec{}).Decode([]byte(`{"epoch":1,"epoch":2}`), new(target)); err == nil ||
		!strings.Contains(err.Error(), "epoch: the key is there twice") {
		t.Error(err)
	}
}

// The keys of a struct's fields beyond the 64th are noted in another way.
func TestManyFields(t *testing.T) {
	fields := make([]reflect.StructField, 70)
	for i := range fields {
		fields[i] = reflect.StructField{Name: "F" + strings.Repeat("x", i), Type: reflect.TypeFor[int]()}
	}
	typ := reflect.StructOf(fields)
	each(t, func(t *testing.T, c core.Codec) {
		in, out := reflect.New(typ), reflect.New(typ)
		for i := range fields {
			in.Elem().Field(i).SetInt(int64(i))
		}
		if err := c.Decode(appended(t, c, in.Interface()), out.Interface()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in.Elem().Interface(), out.Elem().Interface()) {
			t.Errorf("got %v", out.Elem())
		}
	})
	last := `"` + fields[69].Name + `":1`
	err := json.Codec{}.Decode([]byte("{"+last+","+last+"}"), reflect.New(typ).Interface())
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("error %v does not say twice", err)
	}
	out := reflect.New(typ)
	err = json.Codec{}.Decode([]byte("{"+last+`,"f`+fields[69].Name[1:]+`":2}`), out.Interface())
	if got := out.Elem().Field(69).Int(); err != nil || got != 1 {
		t.Errorf("the exact name's value is %d, %v", got, err)
	}
}

// Decoding into a list or map leaves the old one unchanged: others may hold it.
func TestReplaces(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		got := struct {
			List []int
			Map  map[string]int
		}{[]int{1, 2, 3}, map[string]int{"old": 1}}
		list, dict := got.List, got.Map
		body := appended(t, c, map[string]any{"List": []int{9}, "Map": map[string]int{"new": 2}})
		if err := c.Decode(body, &got); err != nil {
			t.Fatal(err)
		}
		if list[0] != 1 || len(dict) != 1 || dict["old"] != 1 {
			t.Errorf("the old ones became %v and %v", list, dict)
		}
		if !reflect.DeepEqual(got.List, []int{9}) || !reflect.DeepEqual(got.Map, map[string]int{"new": 2}) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestIntoInterface(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		var n int
		var into any = &n
		if err := c.Decode(appended(t, c, 5), &into); err != nil || n != 5 {
			t.Errorf("a pointer inside an interface: got %d, %v", n, err)
		}
		var loop any
		loop = &loop
		if err := c.Decode(appended(t, c, 5), &loop); err == nil {
			t.Error("an interface that points to itself was decoded into")
		}
		var pointer selfPointer
		if err := c.Decode(appended(t, c, 5), &pointer); err == nil {
			t.Error("a pointer type without an end was decoded into")
		}
	})
}

func TestIntoNothing(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		for _, v := range []any{nil, 5, (*int)(nil), map[string]any{}} {
			if err := c.Decode(appended(t, c, 5), v); err == nil || !strings.Contains(err.Error(), "non-nil pointer") {
				t.Errorf("%T: %v", v, err)
			}
		}
	})
}

// A decoded value must not change when the body's memory is used again.
func TestKeepsNothing(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		for _, g := range golden {
			body := appended(t, c, sent(g.value, g.send))
			var got any
			if err := c.Decode(body, &got); err != nil {
				t.Fatal(err)
			}
			for i := range body {
				body[i] = 'X'
			}
			if !equal(got, g.value) {
				t.Errorf("%s became %#v", g.name, got)
			}
		}
	})
}

// A JSON body has no raw tab and no raw line break, whatever it holds.
func TestNoRawBreaks(t *testing.T) {
	for _, g := range golden {
		if body := appended(t, json.Codec{}, sent(g.value, g.send)); bytes.ContainsAny(body, "\t\n\r") {
			t.Errorf("%s: %q", g.name, body)
		}
	}
}

// hostile returns bodies of about the given size. They cost their sender little.
func hostile(codec string, size int) map[string][]byte {
	fill := func(s string) []byte { return bytes.Repeat([]byte(s), size/len(s)) }
	if codec == "json" {
		return map[string][]byte{
			"lists":             fill("["),
			"maps":              fill(`{"a":`),
			"escaped maps":      fill(`{"$map":{"$a":`),
			"tags in tags":      fill(`{"$map":`),
			"unknown tags":      fill(`{"$a":`),
			"lists of tags":     append([]byte("["), fill(`{"$map":{"$a":[`)...),
			"tags, then a list": append(bytes.Repeat([]byte(`{"$map":{"$a":`), 400), fill("1,")...),
			"quotes":            fill(`"\"`),
			"backslashes":       append([]byte(`{"$a":"`), fill(`\`)...),
			"digits":            fill("9"),
			"fraction":          append(append([]byte("0."), fill("9")...), '.'),
			"spaces":            fill(" "),
		}
	}
	return map[string][]byte{
		"lists":        fill("\x91"),
		"maps":         fill("\x81\xa1a"),
		"claims":       fill("\xdd\xff\xff\xff\xff"),
		"half claims":  fill("\xdd\x00\x40\x00\x00"),
		"map claims":   fill("\xdf\x00\x20\x00\x00\xa1a"),
		"arrays":       fill("\xc9\x00\x40\x00\x00\x01\x93"),
		"text claim":   append([]byte("\xdb\xff\xff\xff\xff"), fill("a")...),
		"binary claim": append([]byte("\xc6\xff\xff\xff\xff"), fill("a")...),
		"shape claim":  append([]byte("\xc9\x00\x70\x00\x00\x01\x93\xa1a\xdd\x00\x60\x00\x00"), fill("\xd0\x01")...),
	}
}

// huge is a type whose values are much larger than their encoding.
type huge struct {
	Block [4096]uint64
	Next  []huge
}

func TestHostileBodies(t *testing.T) {
	each(t, func(t *testing.T, c core.Codec) {
		check := func(name string, body []byte, v any) {
			var err error
			allocated := allocations(func() { err = c.Decode(body, v) })
			if err == nil {
				t.Errorf("%s into %T: taken", name, v)
			} else if len(err.Error()) > 1000 {
				t.Errorf("%s into %T: an error of %d bytes", name, v, len(err.Error()))
			}
			if limit := 24*len(body) + 1<<20; allocated > limit {
				t.Errorf("%s into %T: allocated %d bytes for a body of %d", name, v, allocated, len(body))
			}
		}
		for name, body := range hostile(c.Name(), 8<<20) {
			check(name, body, new(any))
		}
		for name, body := range hostile(c.Name(), 256<<10) {
			for _, v := range []any{
				new([]huge), new(map[string]huge), new(huge), new(struct{}), new([][][]huge), new(core.Array),
			} {
				check(name, body, v)
			}
		}
	})
}

// allocations returns how many bytes f allocates. Nothing else may run meanwhile.
func allocations(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// An integer has at most MaxBits bits, in both directions.
func TestLargestInteger(t *testing.T) {
	most := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), codec.MaxBits), big.NewInt(1))
	digits := "1" + strings.Repeat("0", codec.MaxBits/4) // one bit more
	beyond := map[string][]byte{
		"json":    []byte(`{"$int":"0x` + digits + `"}`),
		"msgpack": append([]byte{0xc9, 0, 2, 0, 1, 2, 1}, make([]byte, codec.MaxBits/8)...),
	}
	each(t, func(t *testing.T, c core.Codec) {
		for _, n := range []*big.Int{most, new(big.Int).Neg(most)} {
			var got any
			if err := c.Decode(appended(t, c, n), &got); err != nil || !reflect.DeepEqual(got, n) {
				t.Errorf("the largest integer becomes a %T, %v", got, err)
			}
		}
		more := new(big.Int).Add(most, big.NewInt(1))
		if _, err := c.Append(nil, more); err == nil || !strings.Contains(err.Error(), "1048577 bits") {
			t.Errorf("a larger integer is sent: %v", err)
		}
		var got any
		if err := c.Decode(beyond[c.Name()], &got); err == nil || !strings.Contains(err.Error(), "1048577 bits") {
			t.Errorf("a larger integer is taken: %.40v", err)
		}
	})
}
