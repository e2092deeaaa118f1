package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"github.com/snakepit-go/snakepit"
)

// batch is what batch_inference is asked to do. The names are those of its arguments in Python.
type batch struct {
	ModelPath  string   `json:"model_path"`
	BatchItems []string `json:"batch_items"`
}

// Prediction is what a worker finds in one image.
type Prediction struct {
	Item       string  `json:"item"`
	Prediction string  `json:"prediction"`
	Confidence float64 `json:"confidence"` // percent
}

// Summary is what a worker returns at the end of a stream.
type Summary struct {
	Processed int `json:"processed"`
	Failed    int `json:"failed"`
	Loads     int `json:"loads"` // how often the model was loaded
}

// batchSize: a worker that is through with its items takes some more, so none is idle while others have much to do.
const batchSize = 16

// result is what a stream has to say: of one image, or at its end.
type result struct {
	prediction Prediction
	err        error
	summary    *Summary
}

// predict has all workers of the pool look at the images, and yields what they find as they find it. As of a single stream, an *ItemError
// is one image's, any other error is the last, and total is complete when the sequence has ended normally.
func predict(ctx context.Context, pool *snakepit.Pool, job batch, total *Summary) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := streams(ctx, pool, job)
		defer func() { // leaving early ends the streams
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

// streams has one stream running for each worker, and merges them into a channel that is closed when all have ended.
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
				for p, err := range snakepit.ExecuteStream[Prediction](ctx, pool, "batch_inference", call, snakepit.Result(&summary)) {
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
