package fallback

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/snakepit-go/snakepit/core"
)

var errClosed = errors.New("the adapter has been closed with its pool")

// owned holds a pool's own adapters.
type owned struct {
	adapters []core.Adapter      // the pool's own ones in the place of those that make some
	made     []core.OwnedAdapter // the pool's own ones
	closed   atomic.Bool
}

// ownedBy returns the adapters as the pool uses them.
func ownedBy(info core.PoolInfo, adapters []core.Adapter) *owned {
	o := &owned{adapters: slices.Clone(adapters)}
	for i, a := range adapters {
		if maker, ok := a.(core.PoolAdapter); ok {
			own := maker.ForPool(info)
			o.adapters[i], o.made = own, append(o.made, own)
		}
	}
	return o
}

// Close closes the pool's own adapters, all at once.
func (o *owned) Close(ctx context.Context) error {
	o.closed.Store(true)
	errs := make([]error, len(o.made))
	var closing sync.WaitGroup
	for i, own := range o.made {
		closing.Go(func() { errs[i] = own.Close(ctx) })
	}
	closing.Wait()
	return errors.Join(errs...)
}
