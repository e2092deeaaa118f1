package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

type order struct {
	ID       int     `json:"id"`
	Customer string  `json:"customer"`
	Amount   float64 `json:"amount"`
}

type customer struct {
	Name        string  `json:"name"`
	UsualAmount float64 `json:"usual_amount"`
}

// database stands for a database that only Go can reach. Python's calls come from many goroutines at once. They
// only read, so it needs no lock.
type database struct {
	orders    []order
	customers map[string]customer
}

var shop = database{
	orders: []order{{1001, "ann", 36.50}, {1002, "bob", 950}, {1003, "eve", 1180}, {1004, "zoe", 75},
		{1005, "ann", 610}},
	customers: map[string]customer{"ann": {"Ann", 40}, "bob": {"Bob", 760}, "eve": {"Eve", 295}},
}

type query struct {
	Minimum float64 `json:"minimum"`
}

// findOrders is a stream to Python. It waits while Python works on earlier items.
func (d database) findOrders(_ context.Context, q query) iter.Seq2[order, error] {
	return func(yield func(order, error) bool) {
		for _, o := range d.orders {
			if o.Amount >= q.Minimum && !yield(o, nil) {
				return
			}
		}
	}
}

// findCustomer is a single answer to Python. Python raises its error.
func (d database) findCustomer(_ context.Context, id string) (customer, error) {
	c, ok := d.customers[id]
	if !ok {
		return customer{}, fmt.Errorf("there is no customer %q", id)
	}
	return c, nil
}

type progress struct {
	Order int     `json:"order"`
	Name  string  `json:"name"`
	Score float64 `json:"score"`
}

type summary struct {
	Scored   int      `json:"scored"`
	Highest  int      `json:"highest"`
	Failures []string `json:"failures"`
}

// score has Python score the orders of at least the minimum, and prints its reports.
func (d database) score(ctx context.Context, adapter core.Adapter, minimum float64, stdout, stderr io.Writer) error {
	scored := 0
	report := func(_ context.Context, p progress) (any, error) {
		scored++ // there is one call, and it reports one order at a time
		fmt.Fprintf(stdout, "📈 order %d: %.1f times what %s usually pays\n", p.Order, p.Score, p.Name)
		return nil, ctx.Err() // an interrupt ends the scoring here
	}
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // this program prints all that matters itself
	}
	pool, err := snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
		Size: 1,
		Functions: map[string]snakepit.Function{
			"orders":   snakepit.StreamFunc(d.findOrders),
			"customer": snakepit.Func(d.findCustomer),
			"progress": snakepit.Func(report),
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: stderr, Level: level}),
	})
	if err != nil {
		return err
	}
	s, err := snakepit.Execute[summary](ctx, pool, "score_orders", query{minimum})
	pool.Close() // after this no function runs
	if err != nil {
		fmt.Fprintf(stdout, "scored %d before the end\n", scored)
		return err
	}
	for _, failure := range s.Failures {
		fmt.Fprintln(stdout, "⚠️", failure)
	}
	if s.Scored == 0 {
		fmt.Fprintf(stdout, "✅ there is no order of %v or more to score\n", minimum)
		return nil
	}
	fmt.Fprintf(stdout, "✅ scored %d, the most unusual is order %d\n", s.Scored, s.Highest)
	return nil
}
