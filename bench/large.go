package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers"
	"github.com/snakepit-go/snakepit/core"
)

// roundTrip sends a value to Python and back. It returns a check of what came back, which is not part of the time.
type roundTrip func() (check func() bool, err error)

func largeBytes(size int) []subject {
	return append(largeFloors(size),
		large("msgpack", size, freely(atMost(2, socketEcho)), ourBytes),
		large("jsonstdio", size, freely(atMost(0.5, base64Echo)), ourBytes),
		large("grpc", size, freely(atMost(1.2, plainGRPC)), ourBytes),
	)
}

func largeFloats(size int) []subject {
	return append(largeFloors(size),
		large("msgpack", size, freely(atMost(2, socketEcho)), ourFloats),
		large("jsonstdio", size, freely(atMost(0.5, base64Echo)), ourFloats),
		large("grpc", size, freely(atMost(1.2, plainGRPC)), ourFloats),
	)
}

// largeFloors carry as many raw bytes.
func largeFloors(size int) []subject {
	return []subject{
		large(socketEcho, size, target{}, rawBytes),
		large(base64Echo, size, target{}, rawBytes),
		large(plainGRPC, size, target{}, rawBytes),
	}
}

func rawBytes(b *bed, name string, data []byte) (roundTrip, peers.Process, error) {
	e, err := b.echo(name)
	return func() (func() bool, error) {
		back, err := e.Echo(context.Background(), data)
		return func() bool { return bytes.Equal(back, data) }, err
	}, e, err
}

func ourBytes(b *bed, name string, data []byte) (roundTrip, peers.Process, error) {
	p, err := b.peer(name)
	return func() (func() bool, error) {
		back, err := core.Execute[[]byte](context.Background(), p.(pool).Pool, "same", data)
		return func() bool { return bytes.Equal(back, data) }, err
	}, p, err
}

func ourFloats(b *bed, name string, data []byte) (roundTrip, peers.Process, error) {
	values := make([]float64, len(data)/8)
	for i := range values {
		values[i] = float64(i) / 3
	}
	p, err := b.peer(name)
	return func() (func() bool, error) {
		array, err := core.Execute[core.Array](context.Background(), p.(pool).Pool, "same", core.ArrayOf(values))
		return func() bool {
			back, err := array.Float64s()
			return err == nil && slices.Equal(back, values)
		}, err
	}, p, err
}

// large measures the median time of a round trip. A first one is not counted.
func large(name string, size int, t target,
	open func(b *bed, name string, data []byte) (roundTrip, peers.Process, error)) subject {
	return subject{name: name, target: t, costs: true, measure: func(b *bed, n scale) (sample, error) {
		size := size / n.smaller
		trip, process, err := open(b, name, bytes.Repeat([]byte("snakepit"), size/8))
		if err != nil {
			return sample{}, err
		}
		check, err := trip()
		if err != nil {
			return sample{}, err
		}
		if !check() {
			return sample{}, errors.New("other bytes came back")
		}
		took := make([]time.Duration, max(n.large*megabyte/size, 1))
		return metered(n, len(took), process.PIDs(), func() (float64, error) {
			for i := range took {
				begin := time.Now()
				if _, err := trip(); err != nil {
					return 0, err
				}
				took[i] = time.Since(begin)
			}
			return milliseconds(quantile(took, 0.5)), nil
		})
	}}
}

// pings measures the slowest ping of each of several transfers. The value is their median: the first ones find memory
// that the machine has to make.
func pings(adapter string, t target) subject {
	return subject{name: adapter, target: t, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return sample{}, err
		}
		data := make([]byte, max(enormous/n.smaller, enormous/2)) // enough to travel in pieces
		slowest := make([]time.Duration, max(n.times/2, 1))
		for i := range slowest {
			ended := make(chan error, 1)
			go func() {
				back, err := core.Execute[[]byte](context.Background(), p, "same", data)
				if err == nil && len(back) != len(data) {
					err = fmt.Errorf("%d bytes came back", len(back))
				}
				ended <- err
			}()
			if slowest[i], err = pingUntil(p.Workers()[0], ended); err != nil {
				return sample{}, err
			}
		}
		return sample{milliseconds(quantile(slowest, 0.5)), unknown}, nil
	}}
}

// pingUntil pings a worker each millisecond until something has ended, and returns the slowest ping.
func pingUntil(w *core.Worker, ended <-chan error) (slowest time.Duration, err error) {
	for {
		begin := time.Now()
		if _, err := w.Health(context.Background()); err != nil {
			return 0, errors.Join(err, <-ended)
		}
		slowest = max(slowest, time.Since(begin))
		select {
		case err := <-ended:
			return slowest, err
		case <-time.After(time.Millisecond):
		}
	}
}
