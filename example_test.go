package snakepit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"testing/fstest"
	"time"

	"github.com/snakepit-go/snakepit"
)

// worker is the Python file of the examples. A program has it beside its Go files: snakepit.Python("worker.py").
const worker = `
import threading

import snakepit_bridge

worker = snakepit_bridge.Worker()

@worker.command
def add(a, b):
    return a + b

@worker.command
def count(n):
    for i in range(n):
        yield {"i": i}
    return {"counted": n}

@worker.command
def remember(ctx, word):
    words = ctx.session.state.setdefault("words", [])
    words.append(word)
    return words

@worker.command
def total(ctx, items):
    return sum(ctx.call("price", item) for item in items)

@worker.command
def mean(grid):
    return sum(map(sum, grid)) / 4

@worker.command
def upper(ctx):
    for word in ctx.input:
        yield word.upper()

@worker.command
def wait():
    threading.Event().wait()
`

func open(opts *snakepit.Options) *snakepit.Pool {
	program := snakepit.PythonFS(fstest.MapFS{"worker.py": {Data: []byte(worker)}}, "worker.py")
	pool, err := snakepit.Open(context.Background(), program, opts)
	if err != nil {
		log.Fatal(err)
	}
	return pool
}

// One result. The keys of the map, or the json tags of a struct, are the names of the arguments.
func ExampleExecute() {
	pool := open(nil)
	defer pool.Close()

	sum, err := snakepit.Execute[int](context.Background(), pool, "add", map[string]any{"a": 1, "b": 2})
	fmt.Println(sum, err)
	// Output: 3 <nil>
}

// A generator's items, as they come, and its return value.
func ExampleExecuteStream() {
	pool := open(nil)
	defer pool.Close()

	type item struct {
		I int `json:"i"`
	}
	var result struct {
		Counted int `json:"counted"`
	}
	ctx, args := context.Background(), map[string]any{"n": 3}
	for it, err := range snakepit.ExecuteStream[item](ctx, pool, "count", args, snakepit.Result(&result)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(it.I)
	}
	fmt.Println(result.Counted)
	// Output:
	// 0
	// 1
	// 2
	// 3
}

// The calls of a session reach one worker, which keeps its state.
func ExampleSession() {
	pool := open(&snakepit.Options{Size: 2})
	defer pool.Close()

	session := pool.Session("ann")
	defer session.Close()
	for _, word := range []string{"one", "two"} {
		args := map[string]any{"word": word}
		words, err := snakepit.Execute[[]string](context.Background(), session, "remember", args)
		fmt.Println(words, err)
	}
	// Output:
	// [one] <nil>
	// [one two] <nil>
}

// A Python handler calls a Go function by ctx.call.
func ExampleFunc() {
	prices := map[string]int{"tea": 4, "milk": 1}
	price := snakepit.Func(func(_ context.Context, item string) (int, error) { return prices[item], nil })
	pool := open(&snakepit.Options{Functions: map[string]snakepit.Function{"price": price}})
	defer pool.Close()

	args := map[string]any{"items": []string{"tea", "milk", "milk"}}
	total, err := snakepit.Execute[int](context.Background(), pool, "total", args)
	fmt.Println(total, err)
	// Output: 6 <nil>
}

// A slice as an array of two rows. Python gets a numpy.ndarray, or nested lists without NumPy.
func ExampleArrayOf() {
	pool := open(nil)
	defer pool.Close()

	grid := snakepit.ArrayOf([]float64{1, 2, 3, 4}, 2, 2)
	mean, err := snakepit.Execute[float64](context.Background(), pool, "mean", map[string]any{"grid": grid})
	fmt.Println(mean, err)
	// Output: 2.5 <nil>
}

// A call that takes too long is cancelled in the worker too.
func ExampleTimeout() {
	pool := open(nil)
	defer pool.Close()

	_, err := snakepit.Execute[any](context.Background(), pool, "wait", nil, snakepit.Timeout(200*time.Millisecond))
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// Values that are streamed to the handler, which reads them from ctx.input.
func ExampleInput() {
	pool := open(nil)
	defer pool.Close()

	words := snakepit.Input(slices.Values([]string{"a", "b"}))
	for word, err := range snakepit.ExecuteStream[string](context.Background(), pool, "upper", nil, words) {
		fmt.Println(word, err)
	}
	// Output:
	// A <nil>
	// B <nil>
}
