//go:build unix

package e2e

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/internal/e2e/typedworker"
	"github.com/snakepit-go/snakepit/schema"
)

// TestTyped calls every method of the generated client on every adapter.
func TestTyped(t *testing.T) {
	program := snakepit.Python(filepath.Join("internal", "e2e", "typedworker", "worker.py"))
	program.Interpreter = Interpreter(t)
	for _, adapter := range adapters {
		t.Run(strings.ReplaceAll(adapter, ",", "+"), func(t *testing.T) {
			f, err := Begin(t, adapter, program, snakepit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := typedworker.CheckClient(t.Context(), f.Pool); err != nil {
				t.Error(err)
			}
			callTyped(t, typedworker.NewClient(f.Pool))
			callTyped(t, typedworker.NewClient(f.Session("ann")))
		})
	}
}

func callTyped(t *testing.T, c typedworker.Client) {
	t.Helper()
	ctx := t.Context()
	is := func(name string, want any) func(got any, err error) {
		return func(got any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %#v, %v; want %#v", name, got, err, want)
			}
		}
	}
	is("ping", "pong")(wrap(c.Ping(ctx)))
	is("add", 1.5)(wrap(c.Add(ctx, typedworker.AddArgs{A: 1})))
	is("add", 3.0)(wrap(c.Add(ctx, typedworker.AddArgs{A: 1, B: new(1.0), Times: new(2)})))
	is("values", map[string]any{"types": []any{
		"datetime", "timedelta", "bytes", "Decimal", "tuple", "dict", "str", "NoneType", "bool",
	}})(wrap(c.Values(ctx, typedworker.ValuesArgs{
		When: time.Now(), Wait: time.Second, Data: []byte("x"), Price: "1.50", Pair: []any{1, "a"},
		Table: map[string][]int{"a": {1}}, Either: "x", Flag: new(true),
	})))
	is("sent", 90*time.Second)(wrap(c.Sent(ctx, typedworker.SentArgs{Seconds: 90})))
	when := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	is("noted", &when)(wrap(c.Noted(ctx, typedworker.NotedArgs{When: &when})))
	is("noted", (*time.Time)(nil))(wrap(c.Noted(ctx, typedworker.NotedArgs{})))
	is("blob", []byte("xxx"))(wrap(c.Blob(ctx, typedworker.BlobArgs{Size: 3})))
	order := typedworker.Order{
		ItemID: 7, Price: new(2.5), Color: new(typedworker.ColorDarkBlue), Tags: []string{}, Due: new("2026-01-02"),
	}
	is("order", order)(wrap(c.Order(ctx, typedworker.OrderArgs{Order: order, Orders: []typedworker.Order{order}})))
	is("order", typedworker.Order{ItemID: 7, Price: new(1.5), Color: new(typedworker.ColorRed), Tags: []string{}})(
		wrap(c.Order(ctx, typedworker.OrderArgs{Order: typedworker.Order{ItemID: 7}})))
	node := typedworker.Node{
		Value: 1, Next: &typedworker.Node{Value: 2, Children: []typedworker.Node{}},
		Children: []typedworker.Node{{Value: 3, Children: []typedworker.Node{}}},
	}
	is("node", node)(wrap(c.Node(ctx, typedworker.NodeArgs{Node: node})))
	is("scale", typedworker.ScaledResult{Value: 6})(
		wrap(c.Scale(ctx, typedworker.ScaleArgs{Scaled: typedworker.Scaled{Value: 2, Scale: new(3.0)}})))
	is("paint", []typedworker.Color{typedworker.ColorRed, typedworker.ColorRed})(
		wrap(c.Paint(ctx, typedworker.PaintArgs{Color: typedworker.ColorRed, Level: new(typedworker.LevelHigh)})))
	is("move", typedworker.Point{2.0, 2.5})(
		wrap(c.Move(ctx, typedworker.MoveArgs{Point: typedworker.Point{1, 2}, By: typedworker.Point{1, 0.5}})))
	numbers := snakepit.ArrayOf([]float64{1, 2, 3, 4}, 2, 2)
	is("array", numbers)(wrap(c.Array(ctx, typedworker.ArrayArgs{Numbers: numbers})))
	if err := c.Forget(ctx); err != nil {
		t.Errorf("forget: %v", err)
	}
	var done string
	var items []map[string]int
	for item, err := range c.Count(ctx, typedworker.CountArgs{N: 2}, snakepit.Result(&done)) {
		if err != nil {
			t.Error(err)
		}
		items = append(items, item)
	}
	is("count", []map[string]int{{"i": 0}, {"i": 1}})(items, nil)
	is("count's result", "done")(done, nil)
	var colors []typedworker.Color
	for color, err := range c.Colors(ctx) {
		if err != nil {
			t.Error(err)
		}
		colors = append(colors, color)
	}
	is("colors", []typedworker.Color{typedworker.ColorRed, typedworker.ColorDarkBlue})(colors, nil)
	for order, err := range c.LaterColors(ctx) {
		if err != nil || order.ItemID != 1 {
			t.Errorf("later.colors: %+v, %v", order, err)
		}
	}
	is("options", map[string]float64{"first": 1})(wrap(c.Options(ctx, typedworker.OptionsArgs{First: 1})))
	is("only_options", map[string]float64{"x": 2})(wrap(c.OnlyOptions(ctx, map[string]float64{"x": 2})))
	is("listed", 1)(wrap(c.Listed(ctx, new(5))))
	is("listed", 0)(wrap(c.Listed(ctx, nil)))
	is("unknown", int64(5))(wrap(c.Unknown(ctx, typedworker.UnknownArgs{Value: 5})))
	is("a.b", 1)(wrap(c.AB(ctx)))
	is("a_b", 2)(wrap(c.AB2(ctx)))
	is("type", 3)(wrap(c.Type(ctx, typedworker.TypeArgs{Func: 1})))
	is("type", 5)(wrap(c.Type(ctx, typedworker.TypeArgs{Func: 1, Func2: new(4)})))
	own := typedworker.Client2{URL: "u", HTTPAPIID: 5}
	is("client", own)(wrap(c.Client(ctx, typedworker.ClientArgs{Client: own})))
	is("model.predict", []float64{3, 3})(
		wrap(c.ModelPredict(ctx, typedworker.ModelPredictArgs{Rows: [][]float64{{1, 2}, {3}}})))
}

func wrap[T any](v T, err error) (any, error) { return v, err }

// TestTypedDrift opens a worker whose commands are others than those of the generated code.
func TestTypedDrift(t *testing.T) {
	program := snakepit.Python(File(t, "worker.py", `from snakepit_bridge import Worker
worker = Worker()
@worker.command
def ping(loud: bool = False) -> str: return "pong"
if __name__ == "__main__": worker.run()
`))
	program.Interpreter = Interpreter(t)
	pool, _, err := typedworker.OpenClient(t.Context(), program, &snakepit.Options{Size: 1})
	var drift *schema.DriftError
	if pool != nil || !errors.As(err, &drift) || !strings.Contains(err.Error(), "a.b is gone; ") ||
		!strings.Contains(strings.Join(drift.Changes, "; "), "ping: there is a new argument loud") {
		t.Errorf("%v, %v", pool, err)
	}
	program = snakepit.Python(filepath.Join("internal", "e2e", "typedworker", "worker.py"))
	program.Interpreter = Interpreter(t)
	pool, client, err := typedworker.OpenClient(t.Context(), program, &snakepit.Options{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if pong, err := client.Ping(t.Context()); err != nil || pong != "pong" {
		t.Errorf("%q, %v", pong, err)
	}
}
