package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// job is work on n items. Each takes the same time. A job runs in one of two forms.
type job struct {
	Items  int     `json:"n"`
	Work   float64 `json:"work"` // seconds
	Broken int     `json:"broken"`
	Note   any     `json:"note"` // a path, or nil
}

// form is how a job's items arrive: all together at the end, as the result of a traditional call, or one by one.
type form struct {
	name, produce string
	run           func(ctx context.Context, pool *core.Pool, j job) (outcome, error)
}

var forms = []form{
	{"one list", "produce_at_once", atOnce},
	{"stream", "produce", oneByOne},
}

// outcome is the caller's view of a job.
type outcome struct {
	arrived []time.Time // the times of the items
	broken  int         // items that are errors
	ended   time.Time   // the end of the work, as the worker reports it
}

func atOnce(ctx context.Context, pool *core.Pool, j job) (o outcome, err error) {
	result, err := core.Execute[struct {
		Items []int `json:"items"`
		Ended int64 `json:"ended"`
	}](ctx, pool, "job_at_once", j)
	o.arrived = slices.Repeat([]time.Time{time.Now()}, len(result.Items))
	o.ended = time.Unix(0, result.Ended)
	return o, err
}

func oneByOne(ctx context.Context, pool *core.Pool, j job) (o outcome, err error) {
	var ended int64
	for _, err := range core.ExecuteStream[int](ctx, pool, "job", j, core.Result(&ended)) {
		var item *core.ItemError
		switch {
		case errors.As(err, &item):
			o.broken++
		case err != nil:
			return o, err
		default:
			o.arrived = append(o.arrived, time.Now())
		}
	}
	o.ended = time.Unix(0, ended)
	return o, nil
}

// column is one adapter in one form with its measurements, one value per round.
type column struct {
	adapter string
	form    form

	first, whole, cancel []float64 // ms
	early                []float64 // items that arrived before the end of the work
	kept                 int       // items that arrived although one was broken
	memory               []growth  // for each of two sizes
}

// streamingTable measures the figures of the guide's table of streaming.
func streamingTable(b *bed, n scale, rounds int, bytes int64) (table, error) {
	var columns []*column
	for _, adapter := range adapters {
		for _, m := range forms {
			columns = append(columns, &column{adapter: adapter, form: m})
		}
	}
	for range rounds {
		for _, c := range columns {
			if err := c.round(b, n.job); err != nil {
				return table{}, fmt.Errorf("%s, %s: %w", c.adapter, c.form.name, err)
			}
		}
	}
	bytes = min(bytes, 256<<20) // a list has to be one value
	sizes := []int64{bytes / 4, bytes}
	for _, c := range columns {
		for _, size := range sizes {
			var g growth
			if err := inChild(&g, order{Job: "result", Adapter: c.adapter, Command: c.form.produce,
				Bytes: size}); err != nil {
				return table{}, err
			}
			c.memory = append(c.memory, g)
		}
	}

	t := table{Name: "streaming", Header: []string{""}, Rows: [][]string{
		{fmt.Sprintf("first of %d results, %.0f ms of work for each", n.job.Items, n.job.Work*1000)},
		{"all of them"},
		{"results that came before the work ended"},
		{fmt.Sprintf("growth in Go, for %d and %d MiB of results", sizes[0]>>20, sizes[1]>>20)},
		{"growth in Python, for the same"},
		{"from cancelling to the handler's `finally`, in a worker that stays"},
		{fmt.Sprintf("item %d raises: results that come", n.job.Items/2)},
	}}
	list := columns[0]
	for _, c := range columns {
		first := duration(median(c.first))
		if c.form.name == "stream" {
			first += fmt.Sprintf(", %.0f times sooner", ratio(list.first, c.first))
		} else {
			list = c
		}
		t.Header = append(t.Header, c.adapter+", "+c.form.name)
		for i, cell := range []string{
			first,
			duration(median(c.whole)),
			fmt.Sprintf("%.0f", median(c.early)),
			fmt.Sprintf("%+.0f, %+.0f MiB", c.memory[0].HostPeak, c.memory[1].HostPeak),
			fmt.Sprintf("%+.0f, %+.0f MiB", c.memory[0].WorkerPeak, c.memory[1].WorkerPeak),
			duration(median(c.cancel)),
			fmt.Sprintf("%d of %d", c.kept, n.job.Items-1),
		} {
			t.Rows[i] = append(t.Rows[i], cell)
		}
	}
	return t, nil
}

// round takes each measurement once, except memory.
func (c *column) round(b *bed, j job) error {
	pool, err := b.pool(c.adapter)
	if err != nil {
		return err
	}
	ctx := context.Background()
	j.Broken = -1
	begin := time.Now()
	o, err := c.form.run(ctx, pool, j)
	if err != nil {
		return err
	}
	whole := time.Since(begin)
	if len(o.arrived) != j.Items {
		return fmt.Errorf("%d items instead of %d", len(o.arrived), j.Items)
	}
	early := 0
	for _, at := range o.arrived {
		if at.Before(o.ended) {
			early++
		}
	}
	c.first = append(c.first, milliseconds(o.arrived[0].Sub(begin)))
	c.whole = append(c.whole, milliseconds(whole))
	c.early = append(c.early, float64(early))

	o, err = c.form.run(ctx, pool, job{Items: j.Items, Broken: j.Items / 2})
	var remote *core.RemoteError
	if o.broken != 1 && !errors.As(err, &remote) {
		return fmt.Errorf("the broken item is no error: %w", err)
	}
	c.kept = len(o.arrived)

	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	pid := pool.Workers()[0].Info().PID
	took, ran, err := cancelNoted(filepath.Join(directory, "note"), func(ctx context.Context, note string) error {
		_, err := c.form.run(ctx, pool, job{Items: 1, Work: 60, Broken: -1, Note: note})
		return err
	})
	if err != nil {
		return err
	}
	if _, err := core.Execute[any](ctx, pool, "echo", arguments); err != nil {
		return err
	}
	if !ran || pool.Workers()[0].Info().PID != pid {
		return fmt.Errorf("the cancelled handler did not end, or process %d did not stay", pid)
	}
	c.cancel = append(c.cancel, milliseconds(took))
	return nil
}

// resultJob measures the memory of one result, in one list or in a stream.
func resultJob(_ *bed, o order) (any, error) {
	pool, err := openPool(o.Adapter, program,
		core.Options{Size: 1, MaxFrame: 1 << 30, Logger: hclog.NewNullLogger()})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if _, err := core.Execute[any](context.Background(), pool, "echo", arguments); err != nil {
		return nil, err
	}
	n := int(o.Bytes / chunk)
	return grow(pool.Workers()[0].Info().PID, func() error {
		if o.Command == "produce" {
			return consume(pool, n, func() {})
		}
		values, err := core.Execute[[][]byte](context.Background(), pool, o.Command,
			map[string]any{"n": n, "size": chunk})
		if err == nil && len(values) != n {
			err = fmt.Errorf("%d chunks instead of %d", len(values), n)
		}
		return err
	})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func duration(ms float64) string { return short(time.Duration(ms * float64(time.Millisecond))) }
