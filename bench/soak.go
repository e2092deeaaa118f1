package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// soakName is the name of the table.
const soakName = "soak"

// soakReport is how this process and its workers developed under a mixed load.
type soakReport struct {
	Time   time.Duration `json:"nanoseconds"`
	Calls  int64         `json:"calls"` // of all kinds
	Points []soakPoint   `json:"points"`
}

type soakPoint struct {
	Seconds     float64 `json:"seconds"`
	Host        float64 `json:"host_mib"`    // resident
	Workers     float64 `json:"workers_mib"` // resident, all together
	Descriptors int     `json:"descriptors"` // of this process and of the workers
	Goroutines  int     `json:"goroutines"`
}

// soak puts a mixed load on two workers of each adapter for a time.
func soak(python string, length time.Duration, say func(part, detail string)) (*report, error) {
	r, err := newReport(python, 1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var pools []*core.Pool
	defer func() {
		for _, p := range pools {
			_ = p.Close()
		}
	}()
	for _, adapter := range adapters {
		p, err := openPool(adapter, program, core.Options{Size: 2})
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	var calls atomic.Int64
	failed := make(chan error, 1)
	var users sync.WaitGroup
	for _, p := range pools {
		for user := range 2 {
			users.Go(func() {
				for i := user; ctx.Err() == nil; i++ {
					if err := soakKinds[i%len(soakKinds)](ctx, p); err != nil && ctx.Err() == nil {
						select {
						case failed <- err:
						default:
						}
						cancel()
						return
					}
					calls.Add(1)
					time.Sleep(5 * time.Millisecond) // otherwise the load takes all processors
				}
			})
		}
	}
	r.Soak = &soakReport{Time: length}
	err = r.Soak.watch(ctx, length, pools, say)
	if err == nil && len(r.Soak.Points) == 0 {
		err = errors.New("the machine was too busy to look at the processes even once")
	}
	cancel()
	users.Wait()
	r.Soak.Calls = calls.Load()
	select {
	case soakErr := <-failed:
		err = errors.Join(err, soakErr)
	default:
	}
	return r, err
}

// watch takes 180 points.
func (s *soakReport) watch(
	ctx context.Context, length time.Duration, pools []*core.Pool, say func(part, detail string),
) error {
	begin, tick := time.Now(), time.NewTicker(length/180)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		say(soakName, fmt.Sprintf("mixed load of %v", length))
		debug.FreeOSMemory() // so that garbage is no growth
		p := soakPoint{Seconds: time.Since(begin).Seconds(), Goroutines: runtime.NumGoroutine()}
		var err error
		if p.Host, err = mebibytes(os.Getpid(), "VmRSS"); err != nil {
			return err
		}
		pids := []int{os.Getpid()}
		for _, pool := range pools {
			pids = append(pids, pidsOf(pool)...)
		}
		for _, pid := range pids {
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				return err
			}
			p.Descriptors += len(open)
			if pid == os.Getpid() {
				continue
			}
			size, err := mebibytes(pid, "VmRSS")
			if err != nil {
				return err
			}
			p.Workers += size
		}
		s.Points = append(s.Points, p)
	}
}

// soakKinds are the calls of the mixed load, in their order.
var soakKinds = []func(context.Context, *core.Pool) error{
	soakCall, soakStream, soakCall, soakLarge, soakCall, soakSession, soakCall, soakCancel, soakCall, soakError,
	soakCall, soakAbandoned, soakCall, soakTimeout,
}

func soakCall(_ context.Context, p *core.Pool) error { return call(pool{p}) }

func soakStream(ctx context.Context, p *core.Pool) error {
	for _, err := range core.ExecuteStream[int](ctx, p, "count", 100) {
		if err != nil {
			return err
		}
	}
	return nil
}

func soakAbandoned(ctx context.Context, p *core.Pool) error {
	for _, err := range core.ExecuteStream[int](ctx, p, "count", 100000) {
		return err
	}
	return errors.New("a stream without items")
}

func soakLarge(ctx context.Context, p *core.Pool) error {
	back, err := core.Execute[[]byte](ctx, p, "same", make([]byte, small))
	if err == nil && len(back) != small {
		err = fmt.Errorf("%d bytes came back", len(back))
	}
	return err
}

func soakSession(ctx context.Context, p *core.Pool) error {
	s := p.Session(rand.Text())
	for range 3 {
		if _, err := core.Execute[any](ctx, s, "echo", arguments); err != nil {
			return err
		}
	}
	s.Close()
	return nil
}

func soakError(ctx context.Context, p *core.Pool) error {
	_, err := core.Execute[any](ctx, p, "fail", nil)
	return expected[*core.RemoteError](err)
}

// soakCancel cancels a handler that computes.
func soakCancel(ctx context.Context, p *core.Pool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last error
	for _, last = range core.ExecuteStream[int](ctx, p, "compute", nil) {
		cancel()
	}
	if errors.Is(last, context.Canceled) {
		return nil
	}
	return fmt.Errorf("a cancelled stream ended with %w", last)
}

// soakTimeout cancels a handler that sleeps.
func soakTimeout(ctx context.Context, p *core.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := core.Execute[any](ctx, p, "job_at_once", job{Items: 1, Work: 60, Broken: -1})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("a call without time ended with %w", err)
}

func expected[E error](err error) error {
	var want E
	if errors.As(err, &want) {
		return nil
	}
	return fmt.Errorf("%w; expected was a %T", err, want)
}

// table compares the second sixth of the time with the last. In the first the processes grow to their size.
func (s *soakReport) table() table {
	mean := func(points []soakPoint, of func(soakPoint) float64) float64 {
		sum := 0.0
		for _, p := range points {
			sum += of(p)
		}
		return sum / float64(len(points))
	}
	sixth := max(len(s.Points)/6, 1)
	early, late := s.Points[min(sixth, len(s.Points)-1):min(2*sixth, len(s.Points))], s.Points[len(s.Points)-sixth:]
	t := table{Name: soakName, Title: fmt.Sprintf("a mixed load of %v, %s calls", s.Time, thousands(float64(s.Calls))),
		Header: []string{"", "second sixth of the time", "last sixth", "change"}}
	for _, row := range []struct {
		name string
		of   func(soakPoint) float64
	}{
		{"Go, resident MiB", func(p soakPoint) float64 { return p.Host }},
		{"six workers, resident MiB", func(p soakPoint) float64 { return p.Workers }},
		{"descriptors of all seven processes", func(p soakPoint) float64 { return float64(p.Descriptors) }},
		{"goroutines", func(p soakPoint) float64 { return float64(p.Goroutines) }},
	} {
		a, b := mean(early, row.of), mean(late, row.of)
		change := math.Round(10*(b-a))/10 + 0 // without the sign of a zero
		t.Rows = append(t.Rows, []string{row.name, fmt.Sprintf("%.1f", a), fmt.Sprintf("%.1f", b),
			fmt.Sprintf("%+.1f", change)})
	}
	return t
}
