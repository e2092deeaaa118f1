// Command sessions trains two models side by side. Each lives in its own session. All calls of a session reach
// the same worker and find the state of the earlier calls there.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/snakepit-go/snakepit"
)

//go:embed worker.py
var files embed.FS

const usage = `Usage: sessions [flags]

Trains two models in two sessions, in turns. Each continues where its last call ended.

Example: sessions -epochs 10 -adapter msgpack

`

//go:generate go -C ../.. run ./cmd/snakepit gen examples/sessions/worker.py -o examples/sessions/worker_gen.go

// users train one model each, on points of their own line, in tens of degrees. One learns Fahrenheit from
// Celsius, the other the reverse.
var users = []struct {
	session string
	points  [][]float64
}{
	{"ml_training_ann", [][]float64{{-2, -4}, {-1, 14}, {0, 32}, {1, 50}, {2, 68}}},
	{"ml_training_bob", [][]float64{{-2, -28.889}, {-1, -23.333}, {0, -17.778}, {1, -12.222}, {2, -6.667}}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sessions", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	adapters := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	epochs := flags.Int("epochs", 5, "the `number` of epochs of each call")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	adapter, err := snakepit.Adapters(*adapters)
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	case err != nil:
		err = fmt.Errorf("-adapter: %w", err)
	case *epochs < 1:
		err = fmt.Errorf("-epochs is %d, but it must be at least 1", *epochs)
	}
	if err != nil {
		fmt.Fprintf(stderr, "sessions: %v; see sessions -h\n", err)
		return 2
	}
	pool, err := snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{Size: 2})
	if err == nil {
		err = train(ctx, pool, *epochs, stdout)
		pool.Close()
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "sessions: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "sessions:", explain(err))
		return 1
	}
	return 0
}

// train creates the model of each session. Then it trains the models in turns, twice.
func train(ctx context.Context, pool *snakepit.Pool, epochs int, stdout io.Writer) error {
	for _, user := range users {
		session := pool.Session(user.session)
		defer session.Close() // the worker drops the state
		if _, err := NewClient(session).InitializeModel(ctx, InitializeModelArgs{LearningRate: 0.2}); err != nil {
			return err
		}
	}
	for range 2 {
		for _, user := range users {
			session := pool.Session(user.session) // the same id is the same session
			var model Model
			data := TrainModelArgs{Points: user.points, Epochs: epochs}
			for chunk, err := range NewClient(session).TrainModel(ctx, data, snakepit.Result(&model)) {
				if err != nil {
					return err
				}
				fmt.Fprintf(stdout, "%s  Epoch %d: loss=%.3f\n", session.ID(), chunk.Epoch, chunk.Loss)
			}
			fmt.Fprintf(stdout, "%s  y = %.2fx %+.2f\n", session.ID(), model.Slope, model.Intercept)
		}
	}
	return nil
}

// explain shortens a Python exception to the part that matters to users.
func explain(err error) string {
	var start *snakepit.StartError
	var remote *snakepit.RemoteError
	if !errors.As(err, &start) && errors.As(err, &remote) {
		return remote.Message
	}
	return err.Error()
}
