package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snakepit-go/snakepit"
)

// job is what process_large_dataset is asked to do. The names are those of its arguments in Python.
type job struct {
	FilePath   string   `json:"file_path"`
	ChunkSize  int      `json:"chunk_size"`
	Operations []string `json:"operations"`
}

// byteRange is a part of the file for one call, with what is known of the bytes before it.
type byteRange struct {
	job
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	State     string `json:"state"`
	Line      int64  `json:"line"`
	TotalRows int64  `json:"total_rows"`
}

// Chunk is what a worker streams while it works.
type Chunk struct {
	ProgressPercent float64 `json:"progress_percent"`
	ProcessedRows   int64   `json:"processed_rows"`
	TotalRows       int64   `json:"total_rows"`
	MemoryUsageMB   float64 `json:"memory_usage_mb"`
	WorkerPID       int     `json:"worker_pid"`
}

// dataset is a file that can be worked on: where its rows begin and end.
type dataset struct {
	Start   int64    `json:"start"`
	End     int64    `json:"end"`
	Line    int64    `json:"line"` // of the first row
	Columns []string `json:"columns"`
}

// scan is what a worker finds in a range: its lines and, for each state that may hold where it begins, its rows and the state where it
// ends.
type scan struct {
	Lines  int64 `json:"lines"`
	States map[string]struct {
		Rows int64  `json:"rows"`
		Then string `json:"then"`
	} `json:"states"`
}

// knownOperations are Pipeline.NAMES of operations.py.
var knownOperations = []string{"clean", "transform", "aggregate"}

const (
	// rangesPerWorker: with several ranges for each worker, no worker waits long for the last one, and one that is lost costs little.
	rangesPerWorker = 4
	// attempts is how many workers a range may cost before it is given up: it may itself be what kills them.
	attempts = 3
)

// run does the job on all workers of the pool. observe gets each chunk, with the share of the whole job that is done, from many
// goroutines. When ctx ends, the result has what was finished until then, beside the error.
func (j job) run(ctx context.Context, pool *snakepit.Pool, out *console, observe func(float64, Chunk)) (*result, error) {
	started := time.Now()
	data, err := snakepit.Execute[dataset](ctx, pool, "open_dataset", j)
	if err != nil {
		return nil, err
	}
	ranges, err := j.split(ctx, pool, data, out)
	if err != nil {
		return nil, err
	}
	var rows int64
	for _, r := range ranges {
		rows += r.TotalRows
	}
	progress := newProgress(out, "processing", rows)
	parts := make([]*part, len(ranges))
	reruns, err := parallel(ctx, len(ranges), out, func(ctx context.Context, i int) (err error) {
		progress.update(i, Chunk{}) // what a lost worker had done is done again
		parts[i], err = stream(ctx, pool, "process_large_dataset", ranges[i], func(c Chunk) {
			observe(progress.update(i, c), c)
		})
		return err
	})
	progress.end()
	result := merge(parts)
	result.reruns = reruns
	result.took = time.Since(started)
	return result, err
}

// split finds out in parallel what the ranges hold, and steps through them for what each begins with.
func (j job) split(ctx context.Context, pool *snakepit.Pool, data dataset, out *console) ([]byteRange, error) {
	ranges := make([]byteRange, rangesPerWorker*pool.Size())
	at := func(i int) int64 { return data.Start + (data.End-data.Start)*int64(i)/int64(len(ranges)) }
	scans := make([]scan, len(ranges))
	_, err := parallel(ctx, len(ranges), out, func(ctx context.Context, i int) (err error) {
		args := map[string]any{"file_path": j.FilePath, "start": at(i), "end": at(i + 1)}
		scans[i], err = snakepit.Execute[scan](ctx, pool, "scan_range", args)
		return err
	})
	if err != nil {
		return nil, err
	}
	state, line := "record", data.Line
	for i, s := range scans {
		here := s.States[state]
		ranges[i] = byteRange{job: j, Start: at(i), End: at(i + 1), State: state, Line: line, TotalRows: here.Rows}
		state, line = here.Then, line+s.Lines
	}
	return ranges, nil
}

// reference does the same in one call and one pass.
func (j job) reference(ctx context.Context, pool *snakepit.Pool, data dataset, out *console) (*result, error) {
	ranges, err := j.split(ctx, pool, data, out) // only for the number of rows
	if err != nil {
		return nil, err
	}
	var rows int64
	for _, r := range ranges {
		rows += r.TotalRows
	}
	progress := newProgress(out, "processing", rows)
	started := time.Now()
	p, err := stream(ctx, pool, "reference", j, func(c Chunk) { progress.update(0, c) })
	progress.end()
	if err != nil {
		return nil, err
	}
	result := merge([]*part{p})
	result.took, result.adapters = time.Since(started), adapters(pool)
	return result, nil
}

// part is the outcome of one call.
type part struct {
	Stats    Stats    `json:"final_stats"`
	faults   []string // of malformed rows, the first ones
	reported int64    // how many faults there were
	memory   float64  // the worker's most, in MiB
}

// stream makes a call and passes its chunks on.
func stream(ctx context.Context, pool *snakepit.Pool, command string, args any, each func(Chunk)) (*part, error) {
	p := &part{}
	for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, command, args, snakepit.Result(p)) {
		var item *snakepit.ItemError
		switch {
		case errors.As(err, &item): // a malformed row: the stream goes on
			p.reported++
			if len(p.faults) < faultsKept {
				p.faults = append(p.faults, explain(item.Err))
			}
		case err != nil:
			return nil, err
		default:
			p.memory = max(p.memory, chunk.MemoryUsageMB)
			each(chunk)
		}
	}
	return p, nil
}

// parallel calls do for 0 to n-1 at the same time and waits for all. What a lost worker was doing is done again, because a job that only
// reads may run twice, and reruns says how often that was. Any other error is returned, and ends the others' ctx.
func parallel(ctx context.Context, n int, out *console, do func(ctx context.Context, i int) error) (reruns int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var again atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := do(ctx, i)
			for try := 1; errors.Is(err, snakepit.ErrWorkerLost) && try < attempts; try++ {
				out.printf("%v\nrange %d of %d is run again\n", err, i+1, n)
				again.Add(1)
				err = do(ctx, i)
			}
			if err != nil {
				cancel(fmt.Errorf("range %d of %d: %w", i+1, n, err))
			}
		})
	}
	wg.Wait()
	return int(again.Load()), context.Cause(ctx)
}
