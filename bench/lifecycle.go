package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/snakepit-go/snakepit/core"
)

// timed is a subject that measures a time in milliseconds. It takes the median of several.
func timed(name string, t target, times int, measure func(b *bed, n scale) (time.Duration, error)) subject {
	return subject{name: name, target: t, measure: func(b *bed, n scale) (sample, error) {
		took := make([]time.Duration, min(times, n.times))
		for i := range took {
			var err error
			if took[i], err = measure(b, n); err != nil {
				return sample{}, err
			}
		}
		return sample{milliseconds(quantile(took, 0.5)), unknown}, nil
	}}
}

// bare starts interpreters that import what a worker on the adapter imports, without this library.
func bare(name, adapter string, count int) subject {
	return timed(name, target{}, 5, func(b *bed, n scale) (time.Duration, error) {
		var modules []string
		if adapter != "" {
			p, err := b.pool(adapter)
			if err == nil {
				modules, err = core.Execute[[]string](context.Background(), p, "imports", nil)
			}
			if err != nil {
				return 0, err
			}
		}
		script := "import importlib\nfor name in '" + strings.Join(modules, " ") +
			"'.split(): importlib.import_module(name)\nprint('ready', flush=True)\nimport sys; sys.stdin.read()"
		begin := time.Now()
		var started []*exec.Cmd
		var outs []*os.File
		defer func() {
			for _, out := range outs {
				_ = out.Close() // it was read from, so nothing is lost
			}
		}()
		var err error
		for range min(count, n.workers) {
			cmd := exec.Command(b.python, "-c", script)
			cmd.Stderr = os.Stderr
			read, write, pipeErr := os.Pipe()
			if err = pipeErr; err != nil {
				break
			}
			cmd.Stdout = write
			outs = append(outs, read)
			if err = errors.Join(cmd.Start(), write.Close()); err != nil {
				break
			}
			started = append(started, cmd)
		}
		word := make([]byte, len("ready\n"))
		for _, out := range outs {
			if _, readErr := out.Read(word); readErr != nil || !bytes.HasPrefix(word, []byte("ready")) {
				err = errors.Join(err, fmt.Errorf("a bare interpreter said %q", word), readErr)
			}
		}
		took := time.Since(begin)
		for _, cmd := range started {
			err = errors.Join(err, cmd.Wait())
		}
		return took, err
	})
}

// ready opens a pool and waits for all its workers.
func ready(adapter string, size int, t target) subject {
	return timed(adapter, t, 5, func(_ *bed, n scale) (time.Duration, error) {
		begin := time.Now()
		p, err := openPool(adapter, program, core.Options{Size: min(size, n.workers)})
		if err != nil {
			return 0, err
		}
		return time.Since(begin), p.Close()
	})
}

func startName(adapter string) string { return adapter + ", a plain start" }

// started opens a pool of one worker and makes a call.
func started(adapter string) subject {
	return timed(startName(adapter), target{}, 5, func(*bed, scale) (time.Duration, error) {
		begin := time.Now()
		p, err := openPool(adapter, program, core.Options{Size: 1})
		if err != nil {
			return 0, err
		}
		err = call(pool{p})
		return time.Since(begin), errors.Join(err, p.Close())
	})
}

// replaced kills a worker and waits for the next result.
func replaced(adapter string) subject {
	t := target{in: free, against: startName(adapter), bound: 1.3, less: true}
	return timed(adapter, t, 5, func(*bed, scale) (time.Duration, error) {
		p, err := openPool(adapter, program, core.Options{Size: 1, Logger: hclog.NewNullLogger()})
		if err != nil {
			return 0, err
		}
		took, err := replace(p)
		return took, errors.Join(err, p.Close())
	})
}

func replace(p *core.Pool) (time.Duration, error) {
	if err := call(pool{p}); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := unix.Kill(pidsOf(p)[0], unix.SIGKILL); err != nil {
		return 0, err
	}
	for {
		err := call(pool{p})
		var lost *core.WorkerExit
		if err == nil || !errors.As(err, &lost) || time.Since(begin) > time.Minute {
			return time.Since(begin), err
		}
	}
}

// idleServer measures the CPU time of an idle grpcio server, times the number of workers.
func idleServer() subject {
	return subject{name: idleGRPC, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.peer(plainGRPC)
		if err != nil {
			return sample{}, err
		}
		c, err := costOf(1, p.PIDs(), func() error {
			time.Sleep(time.Duration(n.idle * float64(time.Second)))
			return nil
		})
		return sample{c.PythonCPU / 1000 * 5 / n.idle * float64(n.workers), unknown}, err
	}}
}

const idleGRPC = "64 plain grpcio servers"

// idle measures the CPU time of idle workers and of this process.
func idle(adapter string, t target) subject {
	return subject{name: adapter, target: t, measure: func(_ *bed, n scale) (sample, error) {
		p, err := openPool(adapter, program, core.Options{Size: n.workers})
		if err != nil {
			return sample{}, err
		}
		time.Sleep(time.Second) // what a start leaves to do
		c, err := costOf(1, pidsOf(p), func() error {
			time.Sleep(time.Duration(n.idle * float64(time.Second)))
			return nil
		})
		return sample{(c.GoCPU + c.PythonCPU) / 1000 * 5 / n.idle, unknown}, errors.Join(err, p.Close())
	}}
}

func cancelToCaller(adapter string) subject {
	return cancelled(adapter, below(2), func(begin, returned, _ time.Time) time.Duration { return returned.Sub(begin) })
}

func cancelToHandler(adapter string) subject {
	return cancelled(adapter, below(20), func(begin, _, ended time.Time) time.Duration { return ended.Sub(begin) })
}

// cancelled cancels streams whose handler computes in a loop of pure Python. It knows when each was cancelled, when
// the caller had its error and when the handler ended. The value is the 95th percentile.
func cancelled(adapter string, t target, which func(begin, returned, ended time.Time) time.Duration) subject {
	return subject{name: adapter, target: t, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return sample{}, err
		}
		took := make([]time.Duration, n.times)
		for i := range took {
			ctx, cancel := context.WithCancel(context.Background())
			var begin time.Time
			var streamErr error
			for _, streamErr = range core.ExecuteStream[int](ctx, p, "compute", nil) {
				if streamErr == nil {
					begin = time.Now()
					cancel()
				}
			}
			returned := time.Now()
			cancel()
			if !errors.Is(streamErr, context.Canceled) {
				return sample{}, fmt.Errorf("a cancelled stream ended with %w", streamErr)
			}
			ended, err := core.Execute[int64](context.Background(), p, "computed", nil)
			if err != nil {
				return sample{}, err
			}
			took[i] = which(begin, returned, time.Unix(0, ended))
		}
		return sample{milliseconds(quantile(took, 0.95)), unknown}, nil
	}}
}

// busy compares two workers with one. Their handlers compute.
func busy(adapter string) subject {
	t := target{in: free, bound: 1.9}
	return subject{name: adapter, target: t, measure: func(_ *bed, n scale) (sample, error) {
		var perSecond [3]float64 // by the number of workers
		for _, workers := range []int{1, 2} {
			p, err := openPool(adapter, program, core.Options{Size: workers})
			if err != nil {
				return sample{}, err
			}
			perSecond[workers], err = callTogether(spinning{pool{p}}, workers, workers*n.times*2)
			if err = errors.Join(err, p.Close()); err != nil {
				return sample{}, err
			}
		}
		return sample{perSecond[2] / perSecond[1], unknown}, nil
	}}
}

// spinning is a pool whose calls compute for about 10 ms.
type spinning struct{ pool }

func (s spinning) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	_, err := core.Execute[any](ctx, s.Pool, "spin", nil)
	return args, err
}
