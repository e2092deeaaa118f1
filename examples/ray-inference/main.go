// Command ray-inference recognises handwritten digits on the nodes of a Ray cluster. In the middle of the work a node
// is lost.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/remote"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
	"github.com/snakepit-go/snakepit/python"
)

//go:embed worker.py
var files embed.FS

const usage = `Usage: ray-inference [flags]

Workers on a Ray cluster recognise handwritten digits. Without -dashboard the program starts a cluster of two nodes on
this machine, and removes one of them in the middle of the work.

Example: ray-inference -workers 4

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ray-inference", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	dashboard := flags.String("dashboard", "", "the `address` of a cluster's dashboard, such as http://head:8265")
	workers := flags.Int("workers", 4, "the number of workers")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *workers < 1 {
		fmt.Fprintf(stderr, "ray-inference: -workers is %d, but it must be at least 1\n", *workers)
		return 2
	}
	err := infer(ctx, *dashboard, *workers, stdout, stderr)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "ray-inference: interrupted")
		return 130
	case err != nil:
		fmt.Fprintln(stderr, "ray-inference:", explain.Error(err))
		return 1
	}
	return 0
}

// infer recognises all images, and prints what happens.
func infer(ctx context.Context, dashboard string, workers int, stdout, stderr io.Writer) error {
	end := func(string) bool { return false } // of a node
	if dashboard == "" {
		fmt.Fprintln(stdout, "🚀 Starting a Ray cluster of two nodes on this machine")
		c, err := startCluster(ctx)
		if err != nil {
			return err
		}
		defer c.close()
		dashboard = c.dashboard
		end = func(node string) bool {
			if err := c.removeNode(node); err != nil {
				return false
			}
			fmt.Fprintf(stdout, "💥 The node %.8s is gone\n", node)
			return true
		}
	}
	pool, err := snakepit.OpenWith(ctx, remote.Ray{Dashboard: dashboard, Strategy: "SPREAD"},
		python.Elsewhere{Script: "worker.py", FS: files}, &snakepit.Options{
			Size: workers, StartBudget: -1,
			Logger: hclog.New(&hclog.LoggerOptions{Name: "pool", Level: hclog.Error, Output: stderr}),
		})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.WaitReady(ctx, workers); err != nil {
		return err
	}
	busiest, most, err := printPlaces(ctx, pool, workers, stdout)
	if err != nil {
		return err
	}

	var data struct {
		Images  [][]float64 `json:"images"`
		Answers []int       `json:"answers"`
	}
	if data, err = snakepit.Execute[struct {
		Images  [][]float64 `json:"images"`
		Answers []int       `json:"answers"`
	}](ctx, pool, "held_out", nil); err != nil {
		return err
	}
	begun := time.Now()
	right, again, err := classify(ctx, pool, data.Images, data.Answers, workers, func() {
		if end(busiest) {
			awaitLosses(ctx, pool, most)
		}
	})
	if err != nil {
		return err
	}
	stats := pool.Stats()
	fmt.Fprintf(stdout, "🎉 %d digits in %s; workers lost: %d; batches done again: %d\n",
		len(data.Images), time.Since(begun).Round(100*time.Millisecond), stats.Lost, again)
	fmt.Fprintf(stdout, "🎯 Accuracy: %.1f%%\n", 100*float64(right)/float64(len(data.Images)))
	if err := pool.WaitReady(ctx, workers); err != nil {
		return err
	}
	_, _, err = printPlaces(ctx, pool, workers, stdout)
	return err
}

// awaitLosses waits until the pool has lost so many workers. Those of a lost node end within moments, and all of the
// work may be done before.
func awaitLosses(ctx context.Context, pool *snakepit.Pool, count int) {
	for int(pool.Stats().Lost) < count && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// printPlaces prints how many workers each node has. It returns the node with the most, and how many it has.
func printPlaces(ctx context.Context, pool *snakepit.Pool, workers int, stdout io.Writer) (
	busiest string, most int, err error) {
	nodes := map[string]int{}
	var sessions []*snakepit.Session
	for i := range workers { // each session has a worker of its own
		s := pool.Session(fmt.Sprintf("place-%d", i))
		sessions = append(sessions, s)
		at, err := snakepit.Execute[[]string](ctx, s, "place", nil)
		if err != nil {
			return "", 0, err
		}
		if nodes[at[0]]++; nodes[at[0]] >= most {
			busiest, most = at[0], nodes[at[0]]
		}
	}
	for _, s := range sessions {
		s.Close()
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		fmt.Fprintf(stdout, "📍 node %.8s: %d workers\n", node, nodes[node])
	}
	return busiest, most, nil
}

// batchSize is the number of images in a call.
const batchSize = 10

// classify recognises the images, as many batches at once as there are workers. A batch whose worker is lost is done
// again: a second answer is the same. middle is called once half of the images are done.
func classify(ctx context.Context, pool *snakepit.Pool, images [][]float64, answers []int, workers int, middle func()) (
	right, again int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards right, again and done
	done := 0
	batches := make(chan int)
	go func() {
		defer close(batches)
		for first := 0; first < len(images); first += batchSize {
			select {
			case batches <- first:
			case <-ctx.Done():
				return
			}
		}
	}()
	var callers sync.WaitGroup
	for range workers {
		callers.Go(func() {
			for first := range batches {
				last := min(first+batchSize, len(images))
				found, lost, err := one(ctx, pool, images[first:last])
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				again += lost
				half := done < len(images)/2
				for i, digit := range found {
					done++
					if digit == answers[first+i] {
						right++
					}
				}
				half = half && done >= len(images)/2
				mu.Unlock()
				if half {
					middle()
				}
			}
		})
	}
	callers.Wait()
	return right, again, context.Cause(ctx)
}

// one recognises one batch. It returns how often its worker was lost.
func one(ctx context.Context, pool *snakepit.Pool, images [][]float64) (found []int, lost int, err error) {
	array, err := snakepit.ArrayOfRows(images)
	if err != nil {
		return nil, 0, err
	}
	for complete := false; !complete; {
		found, complete = found[:0], true
		for digit, err := range snakepit.ExecuteStream[int](ctx, pool, "classify", map[string]any{"images": array}) {
			if errors.Is(err, snakepit.ErrWorkerLost) {
				lost++
				complete = false
				break
			}
			if err != nil {
				return nil, lost, err
			}
			found = append(found, digit)
		}
	}
	return found, lost, nil
}
