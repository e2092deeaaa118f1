package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
)

// adapterOf is the adapter that a pool uses: what its PoolAdapter has made for it, or the adapter itself.
type adapterOf struct {
	Adapter
	owned OwnedAdapter // nil if nothing is kept for the pool
}

// forPool returns the adapter that the spawner's pool uses.
func forPool(a Adapter, sp *spawner) (adapterOf, error) {
	maker, ok := a.(PoolAdapter)
	if !ok {
		return adapterOf{Adapter: a}, nil
	}
	log := sp.opts.Log.events(noWorker)
	info := PoolInfo{RunID: sp.runID, Command: sp.cmd, Log: func(level hclog.Level, message string, args ...any) {
		log.log(level, message, args)
	}}
	var owned OwnedAdapter
	err := isolate("the adapter's ForPool", func() error {
		if owned = maker.ForPool(info); owned == nil {
			return errors.New("the adapter's ForPool returned nil")
		}
		return nil
	})
	return adapterOf{Adapter: owned, owned: owned}, err
}

// close has the adapter release what it keeps for the pool. limit bounds it.
func (a adapterOf) close(limit time.Duration) error {
	if a.owned == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := isolate("the adapter's Close", func() error { return captureError(a.owned.Close(ctx)) }); err != nil {
		return fmt.Errorf("the adapter has not released everything: %w", err)
	}
	return nil
}
