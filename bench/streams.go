package main

import (
	"context"
	"fmt"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers/grpcio"
	"github.com/snakepit-go/snakepit/core"
)

// plainStream measures the items per second of a plain grpcio stream.
func plainStream() subject {
	return subject{name: plainGRPC, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.peer(plainGRPC)
		if err != nil {
			return sample{}, err
		}
		items := n.items / slow
		return metered(n, items, p.PIDs(), func() (float64, error) {
			begin := time.Now()
			err := p.(*grpcio.Server).Stream(context.Background(), items)
			return float64(items) / time.Since(begin).Seconds(), err
		})
	}}
}

// ourStream measures the items per second of a stream of integers.
func ourStream(adapter string, t target) subject {
	return subject{name: adapter, target: t, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return sample{}, err
		}
		return metered(n, n.items, pidsOf(p), func() (float64, error) {
			begin, next := time.Now(), 0
			for i, err := range core.ExecuteStream[int](context.Background(), p, "count", n.items) {
				if err != nil {
					return 0, err
				}
				if i != next {
					return 0, fmt.Errorf("item %d is %d", next, i)
				}
				next++
			}
			if next != n.items {
				return 0, fmt.Errorf("%d items instead of %d", next, n.items)
			}
			return float64(n.items) / time.Since(begin).Seconds(), nil
		})
	}}
}

// firstItem measures the median time to the first item. The handlers of the streams continue for 2 ms after it.
func firstItem(adapter string, t target) subject {
	return subject{name: adapter, target: t, costs: true, measure: func(b *bed, n scale) (sample, error) {
		p, err := b.pool(adapter)
		if err != nil {
			return sample{}, err
		}
		took := make([]time.Duration, 0, n.firsts)
		return metered(n, n.firsts, pidsOf(p), func() (float64, error) {
			for range n.firsts {
				begin := time.Now()
				for _, err := range core.ExecuteStream[int](context.Background(), p, "first", 0.002) {
					if err != nil {
						return 0, err
					}
					took = append(took, time.Since(begin))
				}
			}
			if len(took) != n.firsts {
				return 0, fmt.Errorf("%d first items of %d streams", len(took), n.firsts)
			}
			return microsecondsIn(quantile(took, 0.5)), nil
		})
	}}
}
