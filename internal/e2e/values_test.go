//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// TestValuesAlike checks that every value survives the round trip through Python unchanged, on every adapter. (The
// times have microseconds, as Python's datetime does.)
func TestValuesAlike(t *testing.T) {
	var pools []*Fixture
	for _, adapter := range []string{"jsonstdio", "msgpack", "grpc"} {
		pools = append(pools, open(t, adapter, snakepit.Options{}))
	}
	rapid.Check(t, func(t *rapid.T) {
		v := values(4).Draw(t, "value")
		for _, f := range pools {
			got, err := snakepit.Execute[any](f.Context(), f.Pool, "echo", Args{"value": v})
			if err != nil {
				t.Fatalf("%s: %v", f.Workers()[0].Info().Adapter, err)
			}
			if !equal(got, v) {
				t.Fatalf("%s made %#v of it", f.Workers()[0].Info().Adapter, got)
			}
		}
	})
}

// values generates every type that decoding into an empty interface yields, nested at most depth levels.
func values(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.Int64().AsAny(),
		rapid.Uint64Min(1 << 63).AsAny(),
		rapid.Float64().AsAny(),
		rapid.Map(rapid.Int64Range(-100, 100), func(n int64) float64 { return float64(n) }).AsAny(), // 5.0 is not 5
		rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.MaxFloat64,
			5e-324}).AsAny(),
		texts().AsAny(),
		rapid.SliceOfN(rapid.Byte(), 0, 300).AsAny(),
		times().AsAny(),
		rapid.Map(rapid.Int64Range(math.MinInt64/1000, math.MaxInt64/1000),
			func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }).AsAny(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 9, 40), func(b []byte) *big.Int { // beyond 64 bits
			n := new(big.Int).SetBytes(append([]byte{b[0] | 1}, b[1:]...))
			return n.Mul(n, big.NewInt(int64(b[0]&2)-1))
		}).AsAny(),
		arrays().AsAny(),
	}
	if depth > 0 {
		inner := values(depth - 1)
		kinds = append(kinds, rapid.SliceOfN(inner, 0, 20).AsAny(), rapid.MapOfN(texts(), inner, 0, 3).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") }),
		rapid.StringOfN(rapid.RuneFrom([]rune("a\u2028\x7f\x00\ufffd\U0010ffffü\t\n\"\\")), 0, 300, -1),
		rapid.SampledFrom([]string{"$", "$bytes", "$float", "$time", "$array", "$map", "$int", "$duration", ""}),
	)
}

func times() *rapid.Generator[time.Time] {
	first, last := time.Time{}.Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	return rapid.Custom(func(t *rapid.T) time.Time {
		seconds := rapid.OneOf(rapid.Int64Range(first, last), rapid.Int64Range(-10, 10),
			rapid.Int64Range(1<<32-2, 1<<34+2)).Draw(t, "seconds")
		return time.Unix(seconds, 1000*rapid.Int64Range(0, 999_999).Draw(t, "microseconds")).UTC()
	})
}

func arrays() *rapid.Generator[core.Array] {
	sizes := map[string]int{"<f8": 8, "|u1": 1, "<i4": 4, "<f4": 4, "|b1": 1, "<c16": 16, "<u8": 8}
	return rapid.Custom(func(t *rapid.T) core.Array {
		types := []string{"<f8", "|u1", "<i4", "<f4", "|b1", "<c16", "<u8"}
		a := core.Array{DType: rapid.SampledFrom(types).Draw(t, "dtype"), Shape: []int{}}
		n := sizes[a.DType]
		for _, dim := range rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, "shape") {
			a.Shape, n = append(a.Shape, dim), n*dim
		}
		a.Data = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "data")
		return a
	})
}

// equal is reflect.DeepEqual with three exceptions: NaN equals NaN, -0 differs from 0, and a nil slice or map equals an
// empty one.
func equal(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b))
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case core.Array:
		b, ok := b.(core.Array)
		return ok && a.DType == b.DType && fmt.Sprint(a.Shape) == fmt.Sprint(b.Shape) && bytes.Equal(a.Data, b.Data)
	case []any:
		b, ok := b.([]any)
		for i := 0; ok && len(a) == len(b) && i < len(a); i++ {
			ok = equal(a[i], b[i])
		}
		return ok && len(a) == len(b)
	case map[string]any:
		b, ok := b.(map[string]any)
		for k := range a {
			_, there := b[k]
			ok = ok && there && equal(a[k], b[k])
		}
		return ok && len(a) == len(b)
	default:
		return reflect.DeepEqual(a, b)
	}
}

// hostile lists bodies that no worker should send, for each codec.
var hostile = []struct {
	name          string
	json, msgpack []byte
}{
	{"deep lists", bytes.Repeat([]byte("["), 1<<18), append(bytes.Repeat([]byte{0x91}, 1<<18), 0xc0)},
	{
		"deep and well formed", []byte(strings.Repeat("[", 501) + strings.Repeat("]", 501)),
		append(bytes.Repeat([]byte{0x91}, 501), 0xc0),
	},
	{"deep maps", []byte(strings.Repeat(`{"a":`, 1<<16)), bytes.Repeat([]byte{0x81, 0xa1, 'a'}, 1<<16)},
	{"a list of four billion", []byte(`{"$array":{"dtype":"<f8","shape":[4294967295,4294967295],"data":""}}`),
		[]byte{0xdd, 0xff, 0xff, 0xff, 0xff}},
	{"a map of four billion", []byte(`{"$map":`), []byte{0xdf, 0xff, 0xff, 0xff, 0xff}},
	{"text of four billion", []byte(`"never ends`), []byte{0xdb, 0xff, 0xff, 0xff, 0xff}},
	{"binary of four billion", []byte(`{"$bytes":"?"}`), []byte{0xc6, 0xff, 0xff, 0xff, 0xff}},
	{"duplicate keys", []byte(`{"a":1,"a":2}`), []byte{0x82, 0xa1, 'a', 1, 0xa1, 'a', 2}},
	{"bad UTF-8", []byte("\"\xff\""), []byte{0xa1, 0xff}},
	{"bad UTF-8 in a key", []byte("{\"\xc3\x28\":1}"), []byte{0x81, 0xa2, 0xc3, 0x28, 1}},
	{"a lone surrogate", []byte(`"\ud800"`), []byte{0xa3, 0xed, 0xa0, 0x80}},
	{"no text as a key", []byte(`{1:2}`), []byte{0x81, 1, 2}},
	{"more than one value", []byte(`1 2`), []byte{1, 2}},
	{"an unknown tag", []byte(`{"$quantum":1}`), []byte{0xd4, 42, 0}},
	{"a number out of range", []byte(`1e999`), []byte{0xc1}},
	{"a bad array", []byte(`{"$array":{"dtype":"<f8","shape":[2],"data":"AAAA"}}`),
		[]byte{0xc7, 9, 1, 0x93, 0xa3, '<', 'f', '8', 0x91, 2, 0xc4, 0}},
	{"a bad time", []byte(`{"$time":"yesterday"}`), []byte{0xc7, 3, 0xff, 1, 2, 3}},
	{"a bad duration", []byte(`{"$duration":"1s"}`), []byte{0xd4, 3, 1}},
	{"an integer of no digits", []byte(`{"$int":"0x"}`), []byte{0xc7, 0, 2}},
}

// tampered is a worker whose transport sends bytes that a handler chose, in place of an encoded value.
const tampered = `
import base64, json, os
from snakepit_bridge import ItemError, Worker, _server

transport = _server.servers[0].transport
write = transport.write
with open(os.environ["BODIES"]) as file:
    bodies = json.load(file)

def tamper(frames):
    for frame in frames:
        _, found, rest = frame.get("body", b"").partition(b"hostile:")
        if found:
            pair = bodies[int(rest.split(b":")[0])]
            frame["body"] = base64.b64decode(pair[frame["body"][:1] not in b'{"['])
    write(frames)

transport.write = tamper
worker = Worker()

@worker.command
def echo(value):
    return value

@worker.command
def item(value):
    yield 1
    yield value
    yield 2

@worker.command
def failed_item(value):
    yield 1
    yield ItemError(ValueError(value))
    yield 2

@worker.command
def fail(value):
    raise ValueError(value)

@worker.command
def ask(ctx, value):
    return ctx.call("take", value)

worker.run()
`

// A body that cannot be decoded fails only its call: no connection is lost, and the host is not harmed.
func TestHostileBodies(t *testing.T) {
	onEach(t, []string{"jsonstdio", "msgpack", "grpc"}, func(t *testing.T, adapter string) {
		var bodies [][2][]byte
		for _, h := range hostile {
			bodies = append(bodies, [2][]byte{h.json, h.msgpack})
		}
		encoded := File(t, "bodies.json", string(Must(json.Marshal(bodies))))
		taken := 0
		f, err := Begin(t, adapter, script(t, File(t, "worker.py", tampered), "BODIES="+encoded),
			snakepit.Options{Functions: map[string]snakepit.Function{
				"take": {Run: func(_ context.Context, c *core.Incoming) (any, error) {
					taken++
					var v any
					return nil, c.Decode(&v)
				}},
			}})
		if err != nil {
			t.Fatal(err)
		}
		pid := f.Workers()[0].Info().PID
		good := func(after string) {
			if got := call[int](f, "echo", Args{"value": 7}); got != 7 || f.Workers()[0].Info().PID != pid {
				t.Fatalf("after %s: %v, and the worker is another", after, got)
			}
		}
		for i, h := range hostile {
			value := Args{"value": fmt.Sprintf("hostile:%d:", i)}
			for _, command := range []string{"echo", "fail", "ask"} {
				got, err := snakepit.Execute[any](t.Context(), f.Pool, command, value)
				if err == nil {
					t.Errorf("%s: %s gave %v", command, h.name, got)
				}
				if errors.Is(err, snakepit.ErrWorkerLost) || err != nil && len(err.Error()) > 4096 {
					t.Errorf("%s: %s: %.4096v", command, h.name, err)
				}
				good(command + " of " + h.name)
			}
			for _, command := range []string{"item", "failed_item"} {
				var errs []error
				for _, err := range snakepit.ExecuteStream[any](t.Context(), f.Pool, command, value) {
					if err != nil {
						errs = append(errs, err)
					}
				}
				if len(errs) != 1 || errors.Is(errs[0], snakepit.ErrWorkerLost) {
					t.Errorf("%s: %s: %v", command, h.name, errs)
				}
				good(command + " of " + h.name)
			}
		}
		if taken == 0 || f.Stats().Lost != 0 {
			t.Errorf("%d of the worker's own calls arrived, %d workers were lost", taken, f.Stats().Lost)
		}
	})
}

// The same test, with a worker that does not use this project. It answers calls with the bytes that they carry.
func TestHostileProgram(t *testing.T) {
	onEach(t, []string{"jsonstdio", "msgpack"}, func(t *testing.T, adapter string) {
		f, err := Begin(t, adapter, raw(t, "hostile"), snakepit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hostile {
			body := h.json
			if adapter == "msgpack" {
				body = h.msgpack
			}
			if got, err := snakepit.Execute[any](t.Context(), f.Pool, "answer",
				base64.StdEncoding.EncodeToString(body)); err == nil ||
				errors.Is(err, snakepit.ErrWorkerLost) {
				t.Errorf("%s: %v, %v", h.name, got, err)
			}
			if got := call[int](f, "echo", 7); got != 7 {
				t.Error(got)
			}
		}
	})
}

// A claimed length of a whole frame ends the connection, without an allocation of that size.
func TestHostileFrames(t *testing.T) {
	lengths := binary.BigEndian.AppendUint32(nil, math.MaxUint32)
	for adapter, b := range map[string][]byte{
		"msgpack": lengths, "jsonstdio": []byte("{\"kind\":\"end\",\"id\":1}\textra\ttabs\n{\n"),
	} {
		f, err := Begin(t, adapter, raw(t, "hostile"), snakepit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = snakepit.Execute[any](t.Context(), f.Pool, "send", base64.StdEncoding.EncodeToString(b))
		if err == nil {
			t.Error(adapter, "took it")
		}
		// A call before the loss would fail with it.
		Eventually(t, "the worker is lost", func() bool { return f.Stats().Lost == 1 })
		if got := call[int](f, "echo", 7); got != 7 {
			t.Error(got)
		}
	}
}
