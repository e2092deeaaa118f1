// Command distributed-training trains a neural network on a pool of Python workers. Each worker holds a part of
// the data in a session. After every epoch the program averages their parameters.
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
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
)

//go:embed worker.py mlp.py dataset.py curves.py
var files embed.FS

const usage = `Usage: distributed-training [flags] [data.npz]

Trains a neural network to classify, on a pool of Python workers. Each worker has a part of the data. The data set is
an .npz file with X, a row for each sample, and y, the labels. The default is scikit-learn's handwritten digits. The
best model, a picture of the curves and a checkpoint are written to a directory.

Example: distributed-training -workers 4 -hidden-size 128 -epochs 50 -kill data.npz

`

// Epoch is an item of the stream of distributed_training.
type Epoch struct {
	Epoch        int     `json:"epoch"`
	TrainLoss    float64 `json:"train_loss"`
	ValLoss      float64 `json:"val_loss"`
	TrainAcc     float64 `json:"train_acc"`
	ValAcc       float64 `json:"val_acc"`
	LearningRate float64 `json:"learning_rate"`

	after time.Duration // since the start
}

// Outcome is the result of that stream.
type Outcome struct {
	FinalModelPath  string  `json:"final_model_path"`
	BestValAccuracy float64 `json:"best_val_accuracy"`
	BestEpoch       int     `json:"best_epoch"`
	CurvesPath      string  `json:"curves_path"`
}

// options hold the flags.
type options struct {
	job
	workers int
	adapter core.Adapter
	output  string
	cache   string
	kill    bool
	logger  hclog.Logger
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := options{logger: logger(stderr)}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	o.cache = filepath.Join(cache, "snakepit", "distributed-training")
	flags := flag.NewFlagSet("distributed-training", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	model, training := &o.ModelConfig, &o.TrainingConfig
	flags.StringVar(&model.Architecture, "architecture", "mlp", "the `kind` of network; the only one is mlp")
	flags.IntVar(&model.Layers, "layers", 1, "the `number` of hidden layers")
	flags.IntVar(&model.HiddenSize, "hidden-size", 64, "the `units` of each hidden layer")
	flags.IntVar(&training.Epochs, "epochs", 100, "the maximum number of passes over the data")
	flags.IntVar(&training.BatchSize, "batch-size", 32, "the `samples` for each step of a worker")
	flags.Float64Var(&training.LearningRate, "learning-rate", 0.05, "the length of a step at the beginning")
	flags.IntVar(&training.HalveEvery, "halve-every", 10,
		"halve the learning rate each time this many `epochs` have passed")
	flags.IntVar(&training.Patience, "patience", 10, "stop after this many `epochs` without a better one")
	flags.IntVar(&training.Seed, "seed", 0, "the `number` that decides all random choices")
	flags.IntVar(&o.workers, "workers", 2, "the number of workers that train; one more coordinates them")
	flags.StringVar(&o.output, "out", o.cache, "the `directory` for the results")
	flags.BoolVar(&o.kill, "kill", false,
		"kill a worker in the middle of epoch 2, and the coordinator in the middle of epoch 4")
	adapters := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if err := o.check(flags, *adapters); err != nil {
		fmt.Fprintf(stderr, "distributed-training: %v; see distributed-training -h\n", err)
		return 2
	}
	o.DatasetPath = flags.Arg(0)

	err = o.train(ctx, stdout)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "distributed-training: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "distributed-training:", explain.Error(err))
		return 1
	}
	return 0
}

// check returns an error for wrong flags.
func (o *options) check(flags *flag.FlagSet, adapters string) (err error) {
	if o.adapter, err = snakepit.Adapters(adapters); err != nil {
		return fmt.Errorf("-adapter: %w", err)
	}
	training := o.TrainingConfig
	for _, number := range []struct {
		flag         string
		value, least int
	}{
		{"layers", o.ModelConfig.Layers, 0}, {"hidden-size", o.ModelConfig.HiddenSize, 1},
		{"epochs", training.Epochs, 1},
		{"batch-size", training.BatchSize, 1}, {"halve-every", training.HalveEvery, 1},
		{"patience", training.Patience, 1},
		{"seed", training.Seed, 0}, {"workers", o.workers, 1},
	} {
		if number.value < number.least {
			return fmt.Errorf("-%s is %d, but it must be at least %d", number.flag, number.value, number.least)
		}
	}
	if rate := training.LearningRate; !(rate > 0) {
		return fmt.Errorf("-learning-rate is %v, but it must be above 0", rate)
	}
	if flags.NArg() > 1 {
		return fmt.Errorf("%d data sets are named, but one can be trained on", flags.NArg())
	}
	return nil
}

// train opens the trainers and the coordinator, prints the coordinator's stream, and tests the best model.
func (o *options) train(ctx context.Context, stdout io.Writer) error {
	if err := os.MkdirAll(o.output, 0o777); err != nil {
		return fmt.Errorf("the directory for the model cannot be made: %w", err)
	}
	program := snakepit.PythonFS(files, "worker.py")
	// One thread per worker is enough: the workers already run in parallel.
	program.Env = []string{"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1"}
	pool, err := snakepit.OpenWith(ctx, o.adapter, program, &snakepit.Options{
		Name: "trainers", Size: o.workers, CallTimeout: -1, StreamTimeout: -1, Logger: o.logger,
		// WindowItems is 1, so that a worker's reports match its current work.
		WindowItems: 1,
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	data, err := o.open(ctx, pool)
	if err != nil {
		return err
	}
	o.DatasetPath = data.DatasetPath
	if err := pool.WaitReady(ctx, 0); err != nil {
		return err
	}

	out := newConsole(stdout, o.TrainingConfig.Epochs)
	defer out.close()
	t := &trainers{pool: pool, job: o.job, printf: out.printf, observe: func(step, int, doing) {}}
	coordinator, err := snakepit.OpenWith(ctx, o.adapter, program, &snakepit.Options{
		Name: "coordinator", Size: 1, CallTimeout: -1, StreamTimeout: -1, Logger: o.logger,
		Functions: map[string]snakepit.Function{"train_shards": snakepit.StreamFunc(t.train)},
	})
	if err != nil {
		return err
	}
	defer coordinator.Close()
	if o.kill {
		t.observe = killer(func() int { return coordinator.Workers()[0].Info().PID }, out.printf)
	}
	out.printf("📦 %d samples to train on, %d to validate, %d to test; %d features, %d classes, %d parameters\n",
		data.Samples.Train, data.Samples.Val, data.Samples.Test, data.Features, data.Classes, data.Parameters)

	outcome, last, err := o.coordinate(ctx, coordinator, out)
	if err != nil {
		if last.Epoch > 0 {
			out.printf("Ended early, after epoch %d; the best model until then: %s\n", last.Epoch,
				filepath.Join(o.output, "mlp-best.npz"))
		}
		return err
	}
	test, err := snakepit.Execute[test](ctx, coordinator, "evaluate_model", map[string]any{
		"model_path": outcome.FinalModelPath, "dataset_path": o.DatasetPath,
	})
	if err != nil {
		return err
	}
	if last.Epoch < o.TrainingConfig.Epochs {
		out.printf("⏹  Stopped early: no epoch was better than %d\n", outcome.BestEpoch)
	}
	out.printf("🎯 Training complete! Best accuracy: %.3f\n", outcome.BestValAccuracy)
	out.printf("💾 Model saved: %s\n🖼  Curves: %s\n", outcome.FinalModelPath, outcome.CurvesPath)
	out.printf("🔎 Loaded again and tested: %.3f of %d samples that it never saw are right\n", test.Accuracy,
		test.Samples)
	out.printf("⏱  %d epochs in %v on %d workers over %s; shards trained again: %d\n",
		last.Epoch, last.after.Round(time.Millisecond), o.workers, pool.Workers()[0].Info().Adapter, t.again.Load())
	return nil
}

// coordinate prints each epoch as it ends. It returns the outcome and the last epoch. If the coordinator is
// lost, another one continues from the checkpoint.
func (o *options) coordinate(
	ctx context.Context, coordinator *snakepit.Pool, out *console,
) (outcome Outcome, last Epoch, _ error) {
	started := time.Now()
	args := struct {
		job
		OutputFolder string `json:"output_folder"`
		Resume       bool   `json:"resume"`
	}{o.job, o.output, false}
	for attempt := 1; ; attempt++ {
		var err error
		for e, failure := range snakepit.ExecuteStream[Epoch](ctx, coordinator, "distributed_training", args,
			snakepit.Result(&outcome)) {
			if failure != nil {
				err = failure
			} else if e.Epoch > last.Epoch { // an older epoch was printed before the coordinator was lost
				e.after = time.Since(started)
				last = e
				out.bar.Increment()
				out.printf(
					"📈 Epoch %d/%d:\n   Train: loss=%.3f, acc=%.3f\n   Val:   loss=%.3f, acc=%.3f\n   LR: %.4g\n",
					e.Epoch, o.TrainingConfig.Epochs, e.TrainLoss, e.TrainAcc, e.ValLoss, e.ValAcc, e.LearningRate)
			}
		}
		if !errors.Is(err, snakepit.ErrWorkerLost) || attempt == attempts {
			return outcome, last, err
		}
		out.printf("💥 Another coordinator goes on after epoch %d: %v\n", last.Epoch, err)
		args.Resume = last.Epoch > 0 // without an epoch the checkpoint belongs to another training
	}
}

// dataset describes the data to train on.
type dataset struct {
	DatasetPath string `json:"dataset_path"`
	Samples     struct {
		Train int `json:"train"`
		Val   int `json:"val"`
		Test  int `json:"test"`
	} `json:"samples"`
	Features   int `json:"features"`
	Classes    int `json:"classes"`
	Parameters int `json:"parameters"`
}

// test is the score of the saved model.
type test struct {
	Accuracy float64 `json:"accuracy"`
	Samples  int     `json:"samples"`
}

// open reads the facts about the data set. If none is named, a worker writes the digits.
func (o *options) open(ctx context.Context, pool *snakepit.Pool) (dataset, error) {
	args := struct {
		job
		Cache  string `json:"cache"`
		Shards int    `json:"shards"`
	}{o.job, o.cache, o.workers}
	return snakepit.Execute[dataset](ctx, pool, "open_dataset", args)
}

// console prints lines, on a terminal above a progress bar. Any number of goroutines may print.
type console struct {
	mu       sync.Mutex
	lines    io.Writer
	bar      *mpb.Bar
	progress *mpb.Progress
}

func newConsole(out io.Writer, total int) *console {
	progress := mpb.New(mpb.WithOutput(out)) // this draws nothing if out is no terminal
	// The bar gets its total later, so that it is not complete before close. Lines above a complete bar may be lost.
	bar := progress.AddBar(0,
		mpb.PrependDecorators(decor.CountersNoUnit("epoch %d of %d ")),
		mpb.AppendDecorators(decor.AverageETA(decor.ET_STYLE_GO)))
	bar.SetTotal(int64(total), false)
	c := &console{lines: out, bar: bar, progress: progress}
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			c.lines = progress
		}
	}
	return c
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.lines, format, args...)
}

// close removes the bar.
func (c *console) close() {
	c.bar.Abort(true)
	c.progress.Wait()
}

// logger follows SNAKEPIT_LOG.
func logger(out io.Writer) hclog.Logger {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // this program prints all that matters itself
	}
	return hclog.New(&hclog.LoggerOptions{Output: out, Level: level})
}
