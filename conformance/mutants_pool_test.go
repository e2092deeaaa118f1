package conformance

import (
	"bytes"
	"context"
	"sync"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// poolMutants are broken adapters and workers. Only a pool shows their faults.
var poolMutants = []mutant{
	{"has another's name in its link", "stats/adapter",
		linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Adapter = "grpc" })},
	{"loses a slot for each stream that is left", "cancel/abandoned", writing(func(f *core.Frame) {
		if f.Kind == core.KindCancel {
			drop(f)
		}
	})},
	{"has one worker for each index", "start/overlap",
		func(m *mutation) core.Adapter { return &byIndex{Adapter: coretest.Conformance(4), m: m} }},
	{"answers the lost", "loss/once", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"says that nothing runs", "stats/health", reading(func(f *core.Frame) {
		if f.Kind == core.KindPong {
			f.Body = []byte(`{"running":[]}`)
		}
	})},
	{"loses the level", "log/arrives", reading(func(f *core.Frame) {
		if f.Kind == core.KindLog {
			f.Body = bytes.Replace(f.Body, []byte(`"warn"`), []byte(`"info"`), 1)
		}
	})},
}

// byIndex closes the connection of an index when another worker starts there.
type byIndex struct {
	core.Adapter
	m *mutation

	mu    sync.Mutex
	conns map[int]core.Conn
}

func (a *byIndex) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		a.conns = map[int]core.Conn{}
	}
	if old := a.conns[l.Index]; old != nil {
		_ = old.Close()
	}
	a.conns[l.Index] = link.Conn
	a.m.conns = append(a.m.conns, link.Conn)
	return link, nil
}
