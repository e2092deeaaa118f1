package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
)

// job is the argument of process_large_dataset. The names are those of its parameters in Python.
type job struct {
	FilePath    string   `json:"file_path"`
	ChunkSize   int      `json:"chunk_size"`
	Operations  []string `json:"operations"`
	TextColumns []string `json:"text_columns"`
}

// part is the range of the file that one call reads, with the known facts about the bytes before it.
type part struct {
	Start   int64    `json:"start"`
	End     int64    `json:"end"`
	State   string   `json:"state"`
	Line    int64    `json:"line"`
	Rows    int64    `json:"rows"`
	Columns []string `json:"columns"`
	Numbers []string `json:"numbers"` // the columns that hold numbers
}

// scan is the result of reading a range: its lines and, for each possible state at its start, its rows and its
// end state.
type scan struct {
	Lines  int64 `json:"lines"`
	States map[string]struct {
		Rows int64  `json:"rows"`
		Then string `json:"then"`
	} `json:"states"`
}

// Chunk is an item that a worker streams during its work.
type Chunk struct {
	ProgressPercent float64 `json:"progress_percent"`
	ProcessedRows   int64   `json:"processed_rows"`
	TotalRows       int64   `json:"total_rows"`
	MemoryUsageMB   float64 `json:"memory_usage_mb"`
	WorkerPID       int     `json:"worker_pid"`
}

// Stats is the result of a worker that has streamed a range.
type Stats struct {
	Processed  int64      `json:"processed"`
	Skipped    int64      `json:"skipped"` // blank lines, rows that an operation dropped, and malformed ones
	Errors     int64      `json:"errors"`  // malformed rows
	Aggregates [][]Column `json:"aggregates"`
}

// Column is the aggregate of a column. It holds exact values, so it does not depend on the ranges that were merged.
type Column struct {
	Name     string   `json:"name"`
	Empty    int64    `json:"empty"`
	Numbers  int64    `json:"numbers"`
	Sum      string   `json:"sum"` // with all digits
	Least    *float64 `json:"least"`
	Greatest *float64 `json:"greatest"`
	Texts    int64    `json:"texts"`
	First    *string  `json:"first"` // in code point order
	Last     *string  `json:"last"`
	Longest  int64    `json:"longest"` // in code points
	// Tally counts each text. It is nil if there are too many different texts or too long ones.
	Tally map[string]int64 `json:"tally"`
}

const (
	// partsPerWorker is the number of ranges per worker. With several, no worker waits long for the last one
	// and a lost range costs little.
	partsPerWorker = 4
	// attempts is the number of workers that a range may cost. The range itself may be what kills them.
	attempts = 3
	// faultsKept is the number of malformed rows that a run shows and compares one by one.
	faultsKept = 10
)

// result is the outcome of a run.
type result struct {
	Stats       Stats    `json:"final_stats"`
	faults      []string // the first malformed rows
	memory      float64  // the peak memory of a worker, in MiB
	took        time.Duration
	adapters    string
	reruns      int
	done, parts int
}

// run does the job on all workers of the pool. observe receives each chunk and the finished share of the whole
// job, from many goroutines. If ctx ends, run returns the error and the result of the finished ranges.
func (j job) run(ctx context.Context, pool *snakepit.Pool, out *screen, observe func(float64, Chunk)) (*result, error) {
	started := time.Now()
	parts, rows, err := j.split(ctx, pool, out)
	if err != nil {
		return nil, err
	}
	progress := out.progress("processing", rows)
	results := make([]*result, len(parts))
	reruns, err := parallel(ctx, len(parts), out, func(ctx context.Context, i int) (err error) {
		progress.update(i, Chunk{}) // the next worker starts the range again
		args := struct {
			job
			Part part `json:"part"`
		}{j, parts[i]}
		results[i], err = stream(ctx, pool, "process_large_dataset", args,
			func(c Chunk) { observe(progress.update(i, c), c) })
		return err
	})
	progress.end()
	merged, mergeErr := merge(context.WithoutCancel(ctx), pool, results)
	if mergeErr != nil {
		return nil, errors.Join(err, mergeErr)
	}
	merged.reruns, merged.took = reruns, time.Since(started)
	return merged, err
}

// split scans the ranges of the file in parallel. Then it steps through them to find the state at the start of
// each, and counts the rows.
func (j job) split(ctx context.Context, pool *snakepit.Pool, out *screen) (parts []part, rows int64, err error) {
	whole, err := snakepit.Execute[part](ctx, pool, "open_dataset", j)
	if err != nil {
		return nil, 0, err
	}
	parts = make([]part, partsPerWorker*pool.Size())
	scans := make([]scan, len(parts))
	at := func(i int) int64 { return whole.Start + (whole.End-whole.Start)*int64(i)/int64(len(parts)) }
	_, err = parallel(ctx, len(parts), out, func(ctx context.Context, i int) (err error) {
		args := map[string]any{"file_path": j.FilePath, "start": at(i), "end": at(i + 1)}
		scans[i], err = snakepit.Execute[scan](ctx, pool, "scan_range", args)
		return err
	})
	state, line := "record", whole.Line
	for i, s := range scans {
		here := s.States[state]
		parts[i] = part{at(i), at(i + 1), state, line, here.Rows, whole.Columns, whole.Numbers}
		state, line, rows = here.Then, line+s.Lines, rows+here.Rows
	}
	return parts, rows, err
}

// reference does the same job in one call and one pass. It uses plain Python for the operations that plain
// Python supports.
func (j job) reference(ctx context.Context, pool *snakepit.Pool, out *screen) (*result, error) {
	_, rows, err := j.split(ctx, pool, out) // only for the number of rows
	if err != nil {
		return nil, err
	}
	progress := out.progress("one pass", rows)
	defer progress.end()
	started := time.Now()
	command := "process_large_dataset"
	if plain, err := snakepit.Execute[bool](ctx, pool, "has_reference", j.Operations); err != nil {
		return nil, err
	} else if plain {
		command = "reference"
	}
	r, err := stream(ctx, pool, command, j, func(c Chunk) { progress.update(0, c) })
	if err == nil {
		r.took = time.Since(started)
	}
	return r, err
}

// stream makes a call and passes its chunks on.
func stream(ctx context.Context, pool *snakepit.Pool, command string, args any, each func(Chunk)) (*result, error) {
	r := &result{}
	for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, command, args, snakepit.Result(r)) {
		var item *snakepit.ItemError
		switch {
		case errors.As(err, &item): // a malformed row: the stream continues
			if len(r.faults) < faultsKept {
				r.faults = append(r.faults, explain.Error(item.Err))
			}
		case err != nil:
			return nil, err
		default:
			r.memory = max(r.memory, chunk.MemoryUsageMB)
			each(chunk)
		}
	}
	return r, nil
}

// merge combines the results of the parts in file order. A nil part was not finished.
func merge(ctx context.Context, pool *snakepit.Pool, parts []*result) (*result, error) {
	merged := &result{parts: len(parts)}
	var stats []Stats
	for _, r := range parts {
		if r == nil {
			continue
		}
		merged.done++
		merged.faults = append(merged.faults, r.faults...)
		merged.memory = max(merged.memory, r.memory)
		stats = append(stats, r.Stats)
	}
	merged.faults = merged.faults[:min(faultsKept, len(merged.faults))]
	total, err := snakepit.Execute[result](ctx, pool, "merge_stats", map[string]any{"parts": stats})
	merged.Stats = total.Stats
	return merged, err
}

// parallel calls do for 0 to n-1 at the same time and waits for all. If a worker is lost, its call is repeated:
// a job that only reads may run twice. reruns counts the repetitions. Any other error is returned and cancels
// the other calls.
func parallel(
	ctx context.Context, n int, out *screen, do func(ctx context.Context, i int) error,
) (reruns int, err error) {
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
