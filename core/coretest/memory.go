package coretest

import (
	"context"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// memory holds the session state of one worker.
type memory struct {
	mu       sync.Mutex // guards sessions
	sessions map[string]any
}

func newMemory() *memory { return &memory{sessions: map[string]any{}} }

func (m *memory) remember(_ context.Context, c *core.Incoming) (any, error) {
	v, err := argument(c, "value")
	if err != nil || c.Session == "" {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v != nil {
		m.sessions[c.Session] = v
	}
	return m.sessions[c.Session], nil
}

func (m *memory) snapshot(session string) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[session], nil
}

func (m *memory) restore(session string, decode func(v any) error) error {
	var v any
	if err := decode(&v); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[session] = v; v == nil {
		delete(m.sessions, session)
	}
	return nil
}

func (m *memory) forget(_ context.Context, c *core.Incoming) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, c.Session)
	return nil, nil
}

// remaining returns the seconds until ctx's deadline, and whether there is one.
func remaining(ctx context.Context) (float64, bool) {
	deadline, ok := ctx.Deadline()
	return time.Until(deadline).Seconds(), ok
}
