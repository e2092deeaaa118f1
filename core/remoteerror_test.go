package core_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestExceptionMatchesTheTypeAndItsBases(t *testing.T) {
	decode := &core.RemoteError{
		Type: "JSONDecodeError", Module: "json.decoder", Bases: []string{"ValueError", "Exception", "pkg.errors.Base"},
		Cause:   &core.RemoteError{Type: "KeyError"},
		Context: &core.RemoteError{Type: "OSError"},
		Errors:  []*core.RemoteError{{Type: "TypeError"}},
	}
	for name, want := range map[core.Exception]bool{
		"JSONDecodeError": true, "json.decoder.JSONDecodeError": true, "ValueError": true, "Exception": true,
		"Base": true, "pkg.errors.Base": true,
		"": false, "DecodeError": false, "Error": false, "decoder": false, "json.decoder": false, "alueError": false,
		"other.JSONDecodeError": false, "pkg.ValueError": false, "jsonXdecoder.JSONDecodeError": false, ".": false,
		"KeyError": false, "OSError": false, "TypeError": false, // it does not wrap what it is linked to
	} {
		for _, err := range []error{decode, &core.CallError{Err: decode}, &core.ItemError{Err: decode}} {
			if errors.Is(err, name) != want {
				t.Errorf("errors.Is(%T, %q) is %v", err, name, !want)
			}
		}
	}
	if errors.Is(errors.New("ValueError"), core.Exception("ValueError")) {
		t.Error("an error that is no RemoteError matches")
	}
	own := &core.RemoteError{Type: "NotTrained", Module: "__main__"}
	if !errors.Is(own, core.Exception("NotTrained")) || !errors.Is(own, core.Exception("__main__.NotTrained")) {
		t.Error("a class of the worker's file does not match")
	}
	if errors.Unwrap(decode) != nil {
		t.Error("it wraps its cause")
	}
	namesake := &core.RemoteError{Type: core.TypeTooLarge, Module: "__main__"}
	if errors.Is(namesake, core.ErrFrameTooLarge) {
		t.Error("a class of the program is taken for the type of the protocol")
	}
	tooLarge := &core.RemoteError{Type: "RemoteError", Cause: &core.RemoteError{Type: core.TypeTooLarge}}
	if errors.Is(tooLarge, core.ErrFrameTooLarge) || !errors.Is(tooLarge.Cause, core.ErrFrameTooLarge) {
		t.Error("only the error of the type TooLarge is ErrFrameTooLarge")
	}
}

func TestRemoteErrorPrintsWhatPythonPrints(t *testing.T) {
	for want, e := range map[string]*core.RemoteError{
		"ValueError: bad":                   {Type: "ValueError", Message: "bad"},
		"ValueError":                        {Type: "ValueError"},
		"ValueError: b":                     {Type: "ValueError", Module: "builtins", Message: "b"},
		"NotTrained: no":                    {Type: "NotTrained", Module: "__main__", Message: "no"},
		"json.decoder.JSONDecodeError: bad": {Type: "JSONDecodeError", Module: "json.decoder", Message: "bad"},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

func TestTracebackIsRenderedWithoutAText(t *testing.T) {
	frame := func(line int) []core.TraceFrame {
		return []core.TraceFrame{{File: "worker.py", Line: line, Function: "f", Source: "g()"}}
	}
	e := &core.RemoteError{
		Type: "A", Message: "last", Frames: frame(3), Notes: []string{"a note"},
		Context: &core.RemoteError{
			Type: "B", Message: "middle", Frames: frame(2), Cause: &core.RemoteError{Type: "C", Message: "first"},
		},
		Errors: []*core.RemoteError{{Type: "D", Message: "one"}, {Type: "E", Frames: frame(4)}},
	}
	want := `C: first

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "worker.py", line 2, in f
    g()
B: middle

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 3, in f
    g()
A: last
a note
  +---------------- 1 ----------------
  | D: one
  +---------------- 2 ----------------
  | Traceback (most recent call last):
  |   File "worker.py", line 4, in f
  |     g()
  | E
  +------------------------------------
`
	if got := e.Traceback(); got != want {
		t.Errorf("got\n%s", got)
	}
	e.Text = "as the worker prints it"
	if got := e.Traceback(); got != "as the worker prints it\n" {
		t.Errorf("got %q", got)
	}
}

// stock is an error with data.
type stock struct{ data any }

func (stock) Error() string       { return "sold out" }
func (e stock) SnakepitData() any { return e.data }

type details struct {
	Left  uint8    `json:"left"`
	Price float64  `json:"price"`
	Tags  []string `json:"tags"`
}

// failWith returns the error that a caller gets if a function of a worker fails with err. A failed item has the same
// one.
func failWith(t *testing.T, maxFrame int, err error) (remote *core.RemoteError) {
	t.Helper()
	adapter := &coretest.Adapter{Functions: map[string]core.Function{
		"fail": core.Func(func(context.Context, any) (any, error) { return nil, err }),
		"item": core.StreamFunc(func(context.Context, any) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) { yield(0, &core.ItemError{Err: err}) }
		}),
	}}
	bubble(t, adapter, core.Options{MaxFrame: maxFrame}, func(t *testing.T, p *core.Pool) {
		_, called := core.Execute[any](t.Context(), p, "fail", nil)
		if !errors.As(called, &remote) {
			t.Fatalf("the call's error is %v", called)
		}
		for _, streamed := range core.ExecuteStream[any](t.Context(), p, "item", nil) {
			var item *core.ItemError
			if !errors.As(streamed, &item) || !reflect.DeepEqual(item.Err, error(remote)) {
				t.Fatalf("the item's error is %v, the call's %v", streamed, called)
			}
		}
	})
	return remote
}

func TestDataOfAnError(t *testing.T) {
	data := map[string]any{"left": 3, "price": 4.5, "tags": []string{"tea", "green"}}
	remote := failWith(t, 0, fmt.Errorf("ordering: %w", stock{data}))
	var d details
	if err := remote.Data(&d); err != nil || !reflect.DeepEqual(d, details{3, 4.5, []string{"tea", "green"}}) {
		t.Errorf("the data is %+v, %v", d, err)
	}
	var whole map[string]any
	if err := remote.Data(&whole); err != nil || whole["left"] != int64(3) || whole["price"] != 4.5 {
		t.Errorf("the data is %v, %v", whole, err)
	}
	var wrong struct {
		Price int `json:"price"`
	}
	if err := remote.Data(&wrong); err == nil || !strings.Contains(err.Error(), "price: ") ||
		errors.Is(err, core.ErrNoData) {
		t.Errorf("a float into an int is %v", err)
	}
	if err := remote.Data(nil); err == nil {
		t.Error("nil takes data")
	}
	if !strings.HasSuffix(remote.Error(), "ordering: sold out") {
		t.Errorf("the error is %v", remote)
	}

	again := failWith(t, 0, &core.RemoteError{Type: "Outer", Cause: remote}) // as a Go function passes it on
	if err := again.Data(&d); !errors.Is(err, core.ErrNoData) {
		t.Errorf("without data it is %v", err)
	}
	d = details{}
	if err := again.Cause.Data(&d); err != nil || d.Left != 3 {
		t.Errorf("the cause's data is %+v, %v", d, err)
	}
	var none *core.RemoteError
	if err := none.Data(new(any)); !errors.Is(err, core.ErrNoData) {
		t.Errorf("a nil error's data is %v", err)
	}
}

func TestDataOfAnErrorMadeByHand(t *testing.T) {
	e := &core.RemoteError{Type: "T", Message: "m", Value: map[string]any{"left": 3}}
	var d details
	if err := e.Data(&d); err != nil || d.Left != 3 {
		t.Errorf("the data is %+v, %v", d, err)
	}
	e.Value = func() {}
	if err := e.Data(&d); err == nil || !strings.HasPrefix(err.Error(), "the data of T: ") {
		t.Errorf("a function as data is %v", err)
	}
	e.Value = 5
	text, err := json.Marshal(e)
	if err != nil || string(text) != `{"type":"T","message":"m","data":5}` {
		t.Errorf("as JSON it is %s, %v", text, err)
	}
}

func TestDataThatCannotBeSentIsLeftOut(t *testing.T) {
	for why, data := range map[string]any{
		"its data can't be sent: data.f: ": map[string]any{"f": func() {}},
		"bytes, and the limit is ":         strings.Repeat("x", 10_000),
	} {
		remote := failWith(t, 8192, stock{data})
		if err := remote.Data(new(any)); !errors.Is(err, core.ErrNoData) {
			t.Errorf("the data is %v", err)
		}
		if remote.Message != "sold out" || len(remote.Notes) != 1 || !strings.Contains(remote.Notes[0], why) {
			t.Errorf("the error is %v with the notes %q, want %q", remote, remote.Notes, why)
		}
	}
	if e := failWith(t, 0, stock{nil}); len(e.Notes) != 0 || !errors.Is(e.Data(new(any)), core.ErrNoData) {
		t.Errorf("an error that gives nil has the notes %q", e.Notes)
	}
}
