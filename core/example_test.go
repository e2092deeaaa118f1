package core_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// This worker is written in Go, so the examples need no Python.
var exampleWorker = &coretest.Adapter{Functions: map[string]core.Function{
	"add": core.Func(func(_ context.Context, in struct {
		A int `json:"a"`
		B int `json:"b"`
	}) (int, error) {
		return in.A + in.B, nil
	}),
	"squares": {Stream: true, Run: func(ctx context.Context, c *core.Incoming) (any, error) {
		for i := range 4 {
			err := c.Send(ctx, i*i)
			if i == 2 {
				err = c.Fail(ctx, errors.New("no luck with 2"))
			}
			if err != nil {
				return nil, err
			}
		}
		return "done", nil
	}},
}}

func ExampleExecute() {
	ctx := context.Background()
	pool, err := core.Open(ctx, exampleWorker, core.Command{}, &core.Options{Size: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	sum, err := core.Execute[int](ctx, pool, "add", map[string]int{"a": 5, "b": 3})
	fmt.Println(sum, err)
	_, err = core.Execute[int](ctx, pool, "ad", nil)
	fmt.Println(err)
	// Output:
	// 8 <nil>
	// ad on worker 0 (coretest): unknown command "ad"; did you mean add? (it did not run)
}

func ExampleExecuteStream() {
	ctx := context.Background()
	pool, err := core.Open(ctx, exampleWorker, core.Command{}, &core.Options{Size: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	var result string
	for v, err := range core.ExecuteStream[int](ctx, pool, "squares", nil, core.Result(&result)) {
		var item *core.ItemError
		switch {
		case errors.As(err, &item):
			fmt.Println("skipped:", item)
		case err != nil:
			fmt.Println(err)
			return
		default:
			fmt.Println(v)
		}
	}
	fmt.Println(result)
	// Output:
	// 0
	// 1
	// 4
	// skipped: item 3: error: no luck with 2
	// 9
	// done
}
