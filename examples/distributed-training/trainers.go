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

// job is the argument of distributed_training. The names are those of its parameters in Python.
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

// step is one epoch, as the coordinator requests it.
type step struct {
	Epoch        int            `json:"epoch"`
	LearningRate float64        `json:"learning_rate"`
	Parameters   snakepit.Array `json:"parameters"`
}

// shardStep is the request to a trainer for one epoch on one shard.
type shardStep struct {
	job
	step
	Shard  int `json:"shard"`
	Shards int `json:"shards"`
}

// trained is the result of a shardStep.
type trained struct {
	Parameters snakepit.Array `json:"parameters"`
	Samples    int            `json:"samples"`
	TrainLoss  float64        `json:"train_loss"`
	TrainAcc   float64        `json:"train_acc"`
}

// doing is an item that a trainer streams during training.
type doing struct {
	Samples   int `json:"samples"`
	WorkerPID int `json:"worker_pid"`
}

// attempts is the number of workers that a shard may cost in one epoch. The shard itself may be what kills them.
const attempts = 3

// trainers are the pool's workers. Each holds a shard of the data in a session.
type trainers struct {
	pool    *snakepit.Pool
	job     job
	printf  func(format string, args ...any)
	observe func(step, int, doing) // receives the items of a shard; it may kill the worker
	again   atomic.Int64           // the number of times that a shard was trained again
}

// train is the function train_shards, which the coordinator calls. It trains an epoch on all shards at the same
// time and yields the results in the order of the shards.
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
					cancel(fmt.Errorf("shard %d: %w", i+1, err)) // cancel the other shards
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

// shard trains an epoch on one shard. If the worker is lost, a new session reads the shard on another worker.
// It starts with the same parameters, so no work is missing in the end.
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
		// Wait, so that the session gets the new worker and does not share one with another shard.
		if err := t.pool.WaitReady(ctx, 0); err != nil {
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

// killer kills two processes in the middle of their work: the worker of the first shard in epoch 2 and the
// coordinator in epoch 4.
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
