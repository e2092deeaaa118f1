package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"github.com/snakepit-go/snakepit"
)

// batch is the argument of batch_inference. The names are those of its parameters in Python.
type batch struct {
	ModelPath  string   `json:"model_path"`
	BatchItems []string `json:"batch_items"`
}

// Prediction is the result for one image.
type Prediction struct {
	Item       string  `json:"item"`
	Prediction string  `json:"prediction"`
	Confidence float64 `json:"confidence"` // percent
}

// Summary is the result of a worker's stream.
type Summary struct {
	Processed int `json:"processed"`
	Failed    int `json:"failed"`
	Loads     int `json:"loads"` // the number of times that the model was loaded
}

// batchSize is the number of items in a call. A worker that finishes its items takes more. So none is idle
// while others have much to do.
const batchSize = 16

// result is the outcome of one image, or of a stream at its end.
type result struct {
	prediction Prediction
	err        error
	summary    *Summary
}

// predict runs the images through all workers of the pool and yields the predictions as they arrive. As in a
// single stream, an *ItemError concerns one image and any other error is the last. total is complete if the
// sequence ends normally.
func predict(ctx context.Context, pool *snakepit.Pool, job batch, total *Summary) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := streams(ctx, pool, job)
		defer func() { // leaving early cancels the streams
			cancel()
			for range results {
			}
		}()
		for r := range results {
			var item *snakepit.ItemError
			switch {
			case r.summary != nil:
				total.Processed += r.summary.Processed
				total.Failed += r.summary.Failed
				total.Loads += r.summary.Loads
			case !yield(r.prediction, r.err), r.err != nil && !errors.As(r.err, &item):
				return
			}
		}
	}
}

// streams keeps one stream running per worker and merges them into a channel. It closes the channel when all
// have ended.
func streams(ctx context.Context, pool *snakepit.Pool, job batch) <-chan result {
	batches := make(chan []string, len(job.BatchItems)/batchSize+1)
	for items := range slices.Chunk(job.BatchItems, batchSize) {
		batches <- items
	}
	close(batches)
	results := make(chan result)
	var workers sync.WaitGroup
	for range pool.Size() {
		workers.Go(func() {
			for items := range batches {
				var summary Summary
				call := batch{job.ModelPath, items}
				for p, err := range snakepit.ExecuteStream[Prediction](ctx, pool, "batch_inference", call,
					snakepit.Result(&summary)) {
					results <- result{prediction: p, err: err}
				}
				results <- result{summary: &summary}
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	return results
}
