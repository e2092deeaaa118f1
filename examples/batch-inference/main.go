// Command batch-inference recognises the digits in images on a pool of Python workers. Each worker loads the
// model once. Each prediction is printed as soon as it arrives.
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
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
)

//go:embed worker.py digits.py
var files embed.FS

const usage = `Usage: batch-inference [flags] [file or directory ...]

A pool of Python workers recognises what images show. The default images are scikit-learn's handwritten digits that the
model was not trained on, and a broken file. A directory stands for the files in it.

Example: batch-inference -workers 2 -adapter msgpack three.png scans/

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("batch-inference", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	model := flags.String("model", "",
		"the classifier, a `file` saved by joblib that you trust (default: one for digits, trained the first time)")
	workers := flags.Int("workers", min(4, runtime.NumCPU()), "the number of workers")
	adapters := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	adapter, err := snakepit.Adapters(*adapters)
	if err != nil {
		err = fmt.Errorf("-adapter: %w", err)
	} else if *workers < 1 {
		err = fmt.Errorf("-workers is %d, but it must be at least 1", *workers)
	}
	if err != nil {
		fmt.Fprintf(stderr, "batch-inference: %v; see batch-inference -h\n", err)
		return 2
	}

	err = func() error {
		items, err := images(flags.Args())
		if err != nil {
			return err
		}
		pool, err := snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
			Size: *workers, CallTimeout: -1, StreamTimeout: -1, Logger: logger(stderr),
		})
		if err != nil {
			return err
		}
		defer pool.Close()
		return infer(ctx, pool, batch{*model, items}, stdout)
	}()
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "batch-inference: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "batch-inference:", explain.Error(err))
		return 1
	}
	return 0
}

// images returns the files that the arguments name.
func images(args []string) ([]string, error) {
	var items []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read: %w", arg, errors.Unwrap(err))
		}
		if !info.IsDir() {
			items = append(items, arg)
			continue
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, fmt.Errorf("the directory %s cannot be read: %w", arg, errors.Unwrap(err))
		}
		before := len(items)
		for _, entry := range entries {
			if entry.Type().IsRegular() && !strings.HasPrefix(entry.Name(), ".") {
				items = append(items, filepath.Join(arg, entry.Name()))
			}
		}
		if len(items) == before {
			return nil, fmt.Errorf("the directory %s has no files; name one that has images", arg)
		}
	}
	return items, nil
}

// infer does the job and prints the results. It first creates or finds the files that job lacks.
func infer(ctx context.Context, pool *snakepit.Pool, job batch, stdout io.Writer) error {
	if job.ModelPath == "" || job.BatchItems == nil {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		directory := map[string]any{"directory": filepath.Join(cache, "snakepit", "batch-inference")}
		digits, err := snakepit.Execute[batch](ctx, pool, "prepare", directory)
		if err != nil {
			return err
		}
		if job.ModelPath == "" {
			job.ModelPath = digits.ModelPath
		}
		if job.BatchItems == nil {
			job.BatchItems = digits.BatchItems
		}
	}
	if err := pool.WaitReady(ctx, 0); err != nil { // for the figures: all begin at the same time
		return err
	}
	fmt.Fprintf(stdout, "📦 %d images, %d workers on %s, model %s\n",
		len(job.BatchItems), pool.Size(), pool.Workers()[0].Info().Adapter, job.ModelPath)

	out := newConsole(stdout, len(job.BatchItems))
	started := time.Now()
	var first, total time.Duration
	var predicted, failed, labelled, right int
	var summary Summary
	var end error
	for p, err := range predict(ctx, pool, job, &summary) {
		var item *snakepit.ItemError
		total = time.Since(started)
		switch {
		case errors.As(err, &item): // a broken image: the stream continues
			failed++
			out.printf("❌ %s\n", explain.Error(item.Err))
		case err != nil:
			end = err
			continue
		default:
			if predicted++; predicted == 1 {
				first = total
			}
			remark := ""
			if label, ok := label(p.Item); ok {
				labelled++
				if p.Prediction == label {
					right++
				} else {
					remark = ", but it is " + label
				}
			}
			out.printf("🧠 %s: %s (%.0f%% confidence)%s\n", filepath.Base(p.Item), p.Prediction, p.Confidence, remark)
		}
		out.bar.Increment()
	}
	out.close()
	switch {
	case end == nil:
		fmt.Fprintf(stdout, "🎉 Batch inference complete! %d predictions; failed: %d; loads of the model: %d\n",
			summary.Processed, summary.Failed, summary.Loads)
	case predicted+failed > 0:
		fmt.Fprintf(stdout, "Ended early: %d predictions; failed: %d; not done: %d\n",
			predicted, failed, len(job.BatchItems)-predicted-failed)
	}
	if labelled > 0 {
		fmt.Fprintf(stdout, "🎯 Accuracy: %.1f%% (%d of %d)\n", 100*float64(right)/float64(labelled), right, labelled)
	}
	if predicted > 0 {
		fmt.Fprintf(stdout, "⏱  First prediction after %v, the last after %v\n", first.Round(time.Millisecond),
			total.Round(time.Millisecond))
	} else if end == nil {
		end = errors.New("none of the images could be read")
	}
	return end
}

// label returns the digit that the name of an image states, as in digit-0007-is-3.png.
func label(item string) (string, bool) {
	name := filepath.Base(item)
	_, label, ok := strings.Cut(strings.TrimSuffix(name, filepath.Ext(name)), "-is-")
	return label, ok
}

// console prints lines, on a terminal above a progress bar.
type console struct {
	lines    io.Writer
	bar      *mpb.Bar
	progress *mpb.Progress
}

func newConsole(out io.Writer, total int) console {
	progress := mpb.New(mpb.WithOutput(out)) // this draws nothing if out is no terminal
	bar := progress.AddBar(int64(total), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.CountersNoUnit("%d / %d ")),
		mpb.AppendDecorators(decor.AverageETA(decor.ET_STYLE_GO)))
	c := console{out, bar, progress}
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			c.lines = progress
		}
	}
	return c
}

func (c console) printf(format string, args ...any) { fmt.Fprintf(c.lines, format, args...) }

// close removes the bar.
func (c console) close() {
	c.bar.Abort(true)
	c.progress.Wait()
}

// logger logs errors, or follows SNAKEPIT_LOG.
func logger(out io.Writer) hclog.Logger {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off
	}
	return hclog.New(&hclog.LoggerOptions{Output: out, Level: level})
}
