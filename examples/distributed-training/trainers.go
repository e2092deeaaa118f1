package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"sync/atomic"

	"github.com/snakepit-go/snakepit"
)

// job is what distributed_training is asked to do. The names are those of its arguments in Python.
type job struct {
	ModelConfig    modelConfig    `json:"model_config"`
	TrainingConfig trainingConfig `json:"training_config"`
	DatasetPath    string         `json:"dataset_path"`
}

type modelConfig struct {
	Architecture string `json:"architecture"`
	Layers       int    `json:"layers"`
	HiddenSize   int    `json:"hidden_size"`
}

type trainingConfig struct {
	Epochs       int     `json:"epochs"`
	BatchSize    int     `json:"batch_size"`
	LearningRate float64 `json:"learning_rate"`
	HalveEvery   int     `json:"halve_every"`
	Patience     int     `json:"patience"`
	Seed         int     `json:"seed"`
}

// step is one epoch, as the coordinator asks for it.
type step struct {
	Epoch        int            `json:"epoch"`
	LearningRate float64        `json:"learning_rate"`
	Parameters   snakepit.Array `json:"parameters"`
}

// shardStep is one epoch on one shard, as a trainer is asked for it.
type shardStep struct {
	job
	step
	Shard  int `json:"shard"`
	Shards int `json:"shards"`
}

// trained is what comes back of it.
type trained struct {
	Parameters snakepit.Array `json:"parameters"`
	Samples    int            `json:"samples"`
	TrainLoss  float64        `json:"train_loss"`
	TrainAcc   float64        `json:"train_acc"`
}

// doing is what a trainer streams while it trains.
type doing struct {
	Samples   int `json:"samples"`
	WorkerPID int `json:"worker_pid"`
}

// attempts is how many workers a shard may cost in one epoch before it is given up: it may itself be what kills them.
const attempts = 3

// trainers are the pool's workers, each with a shard of the data in a session.
type trainers struct {
	pool    *snakepit.Pool
	job     job
	printf  func(format string, args ...any)
	observe func(step, int, doing) // gets what a shard streams; it may kill the worker
	again   atomic.Int64           // how often a shard had to be trained again
}

// train is the function train_shards, which the coordinator calls: it trains an epoch on all shards at the same time, and sends what comes
// back in their order.
func (t *trainers) train(ctx context.Context, s step) iter.Seq2[trained, error] {
	return func(yield func(trained, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		parts := make([]trained, t.pool.Size())
		var wg sync.WaitGroup
		for i := range parts {
			wg.Go(func() {
				var err error
				if parts[i], err = t.shard(ctx, s, i); err != nil {
					cancel(fmt.Errorf("shard %d: %w", i+1, err)) // the others need not go on
				}
			})
		}
		wg.Wait()
		if err := context.Cause(ctx); err != nil {
			yield(trained{}, err)
			return
		}
		for _, part := range parts {
			if !yield(part, nil) {
				return
			}
		}
	}
}

// shard trains an epoch on one shard. If its worker is lost, a new session reads the shard on another one and begins with the same
// parameters, and nothing is missing in the end.
func (t *trainers) shard(ctx context.Context, s step, i int) (trained, error) {
	session := t.pool.Session(fmt.Sprintf("shard %d", i+1))
	for attempt := 1; ; attempt++ {
		part, err := t.attempt(ctx, session, s, i)
		lost := errors.Is(err, snakepit.ErrWorkerLost) || errors.Is(err, snakepit.ErrSessionLost)
		if !lost || attempt == attempts {
			return part, err
		}
		t.printf("💥 Epoch %d of %s is done again: %v\n", s.Epoch, session.ID(), err)
		t.again.Add(1)
		session.Close()
		if err := t.pool.WaitReady(ctx, 0); err != nil { // so that it gets the new worker, and not a place beside another shard
			return part, err
		}
	}
}

func (t *trainers) attempt(ctx context.Context, session *snakepit.Session, s step, i int) (part trained, err error) {
	args := shardStep{t.job, s, i, t.pool.Size()}
	for chunk, err := range snakepit.ExecuteStream[doing](ctx, session, "train_shard", args, snakepit.Result(&part)) {
		if err != nil {
			return part, err
		}
		t.observe(s, i, chunk)
	}
	return part, nil
}

// killer kills, in the middle of their work, the worker of the first shard in epoch 2 and the coordinator in epoch 4.
func killer(coordinator func() int, printf func(string, ...any)) func(step, int, doing) {
	var trainer, other sync.Once
	kill := func(who string, pid int) {
		printf("🔪 Killing %s, process %d\n", who, pid)
		if process, err := os.FindProcess(pid); err != nil || process.Kill() != nil {
			printf("process %d could not be killed\n", pid)
		}
	}
	return func(s step, i int, d doing) {
		switch {
		case s.Epoch == 2 && i == 0:
			trainer.Do(func() { kill("a trainer", d.WorkerPID) })
		case s.Epoch == 4 && i == 0:
			other.Do(func() { kill("the coordinator", coordinator()) })
		}
	}
}
