package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// series shows how a value changes with a number. Each adapter is a line.
type series struct {
	key, name, x, unit string
	mode               mode
	points             []int
	quickPoints        []int
	job                string
	logarithmic        bool // the x-axis
}

var allSeries = []series{
	{"callers", "calls per second, by callers, on two workers", "callers", "calls/s", free,
		[]int{1, 4, 16, 64, 256, 1000, 4000, 10000}, []int{1, 64}, "series", true},
	{"workers", "calls per second, by workers, on one processor", "workers", "calls/s", pinned,
		[]int{1, 2, 4, 8, 16, 32, 64}, []int{1, 2}, "series", true},
	{"streams", "growth of both processes, by open streams of one worker", "open streams", "MiB", free,
		[]int{10, 100, 250, 500, 750, 1000}, []int{10}, "streams", false},
}

// line has one value for each point of its series.
type line struct {
	Adapter string    `json:"adapter"`
	Values  []float64 `json:"values"`
}

// seriesReport is a measured series.
type seriesReport struct {
	Key    string `json:"key"`
	Points []int  `json:"points"`
	Lines  []line `json:"lines"`
}

// measure measures each point in a child of its own. The value of a point is the median of its rounds.
func (s series) measure(isQuick bool, rounds int, say func(part, detail string)) (seriesReport, error) {
	r := seriesReport{Key: s.key, Points: s.points}
	if isQuick {
		r.Points = s.quickPoints
	}
	for _, adapter := range adapters {
		r.Lines = append(r.Lines, line{adapter, make([]float64, len(r.Points))})
	}
	for i, point := range r.Points {
		say("by-"+s.key, fmt.Sprintf("%d %s", point, s.x))
		values := make([][]float64, len(adapters))
		for range rounds {
			for a, adapter := range adapters {
				c, err := startChild(s.mode)
				if err != nil {
					return r, err
				}
				var value float64
				err = c.ask(&value, order{Job: s.job, Row: s.key, Adapter: adapter, Point: point, Quick: isQuick})
				if err = errors.Join(err, c.close()); err != nil {
					return r, fmt.Errorf("%s, %s, %d: %w", s.name, adapter, point, err)
				}
				values[a] = append(values[a], value)
			}
		}
		for a := range adapters {
			r.Lines[a].Values[i] = median(values[a])
		}
	}
	return r, nil
}

// seriesJob measures the calls per second of as many callers or workers as the order says.
func seriesJob(_ *bed, o order) (any, error) {
	callers, workers := o.Point, 2
	if o.Row == "workers" {
		callers, workers = 64*o.Point, o.Point
	}
	p, err := openPool(o.Adapter, program, core.Options{Size: workers, Queue: 20000})
	if err != nil {
		return nil, err
	}
	n := scaleOf(o)
	calls := max(n.burst, 2*callers)
	if callers == 1 {
		calls = n.calls
	}
	_, err = callTogether(pool{p}, callers, min(calls/4, max(calls/10, callers)))
	var perSecond float64
	if err == nil {
		perSecond, err = callTogether(pool{p}, callers, calls)
	}
	return perSecond, errors.Join(err, p.Close())
}

// streamsJob measures the growth of both processes, in MiB, with as many open streams as the order says.
func streamsJob(_ *bed, o order) (any, error) {
	p, err := openPool(o.Adapter, streamsProgram, core.Options{Size: 1})
	if err != nil {
		return nil, err
	}
	g, err := growAtEnd(p, o.Point)
	return g, errors.Join(err, p.Close())
}

func growAtEnd(p *core.Pool, streams int) (float64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	open, ended := make(chan error, streams), make(chan struct{}, streams)
	start := func() {
		defer func() { ended <- struct{}{} }()
		isOpen := false
		for _, err := range core.ExecuteStream[int](ctx, p, "hold", nil) {
			if !isOpen {
				open <- err
			}
			isOpen = true
		}
	}
	go start() // the first one loads code
	if err := <-open; err != nil {
		return 0, err
	}
	worker := p.Workers()[0].Info().PID
	g, err := grow(worker, func() error {
		var all error
		for range streams - 1 {
			go start()
		}
		for range streams - 1 {
			all = errors.Join(all, <-open)
		}
		time.Sleep(100 * time.Millisecond)
		return all
	})
	cancel()
	for range streams {
		<-ended
	}
	return g.HostPeak + g.WorkerPeak, err
}

func seriesOf(key string) series {
	for _, s := range allSeries {
		if s.key == key {
			return s
		}
	}
	return series{}
}
