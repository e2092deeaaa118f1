package fallback

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/snakepit-go/snakepit/core"
)

// AtMost returns an adapter that has at most n workers at once, in all pools together. A further start fails with
// core.ErrNoRoom, so a chain goes on with its next adapter. A worker counts until its process has ended, so a worker
// that replaces another one needs room beside it. AtMost panics if n is not positive.
//
//	fallback.New(fallback.AtMost(4, grpc.Adapter{}), remote.Adapter{Targets: targets, TLS: config})
//
// starts four workers on this machine, and the others elsewhere.
func AtMost(n int, adapter core.Adapter) core.PoolAdapter {
	if n <= 0 {
		panic(fmt.Sprintf("fallback.AtMost: %d workers", n))
	}
	return &limited{Adapter: adapter, room: make(chan struct{}, n)}
}

// limited is an adapter with a limit.
type limited struct {
	core.Adapter
	room chan struct{} // has an element for each worker
}

// Start starts a worker if there is room.
func (a *limited) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	return a.startOn(ctx, l, a.Adapter)
}

// ForPool returns the adapter of one pool. It shares the room.
func (a *limited) ForPool(info core.PoolInfo) core.OwnedAdapter {
	return &poolLimited{limited: a, owned: ownedBy(info, []core.Adapter{a.Adapter})}
}

// poolLimited is the limited adapter of one pool.
type poolLimited struct {
	*limited
	*owned
}

func (a *poolLimited) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if a.closed.Load() {
		return nil, errClosed
	}
	return a.startOn(ctx, l, a.adapters[0])
}

// startOn starts a worker with an adapter, which is the limited one or a pool's.
func (a *limited) startOn(ctx context.Context, l *core.Launcher, adapter core.Adapter) (*core.Link, error) {
	select {
	case a.room <- struct{}{}:
	default:
		return nil, &core.UnavailableError{
			Reason: fmt.Sprintf("%s has %d workers, which is its limit", a.Name(), cap(a.room)), Full: true,
		}
	}
	started := false
	defer func() {
		if !started {
			<-a.room
		}
	}()
	link, err := adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	if started = true; link.Process == nil {
		link.Conn = &counted{Conn: link.Conn, room: a.room}
		return link, nil
	}
	go func() { // it ends with the process, which core ends
		<-link.Process.Done()
		<-a.room
	}()
	return link, nil
}

// counted is the connection of a worker without a process. The worker counts until it is closed.
type counted struct {
	core.Conn
	room   chan struct{}
	closed atomic.Bool
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		<-c.room
	}
	return err
}
