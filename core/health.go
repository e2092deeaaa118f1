package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Health is a worker's answer to a ping.
type Health struct {
	Pong
	RoundTrip time.Duration
}

// Health pings the worker and returns its answer. It returns ctx's error if there is no answer before ctx is done. That
// does not prove a loss: the interpreter cannot answer while it is busy in C code. Diagnose tells more. The error is
// ErrWorkerLost if the worker has not said hello or its connection has ended.
func (w *Worker) Health(ctx context.Context) (Health, error) {
	m, id := w.nextPing()
	if m == nil {
		return Health{}, fmt.Errorf("%w: %s has not said hello", ErrWorkerLost, w)
	}
	begin := time.Now()
	body, err := m.ping(ctx, id, "")
	if err != nil {
		return Health{}, err
	}
	h := Health{RoundTrip: time.Since(begin)}
	return h, m.decode(body, &h.Pong)
}

// nextPing returns the worker's connection and the number of its next ping. The connection is nil if the worker has not
// said hello.
func (w *Worker) nextPing() (*mux, uint64) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.lastPing++
	return w.mux, w.lastPing
}

// Pong is a worker's answer to a ping: the calls that it runs.
type Pong struct {
	Running []RunningCall `json:"running"`        // the oldest first; a worker may list only the oldest
	More    int           `json:"more,omitempty"` // how many more it runs
}

// RunningCall is one call that a worker runs.
type RunningCall struct {
	ID   uint64 `json:"id"`   // of the call's frames, as SNAKEPIT_TRACE shows them; 0 for calls of other gRPC clients
	Name string `json:"name"` // the command
	MS   int64  `json:"ms"`   // how long it has been running, in milliseconds, by the worker's clock
}

// For returns how long the call has been running, by the worker's clock.
func (c RunningCall) For() time.Duration { return time.Duration(c.MS) * time.Millisecond }

// stacksPong is a Pong with the stacks.
type stacksPong struct {
	Running []RunningCall `json:"running"`
	More    int           `json:"more,omitempty"`
	Stacks  string        `json:"stacks"`
}

// maxRunning is how many calls a pong lists.
const maxRunning = 64

// pong returns the oldest calls that we run. They take up at most half of a frame. Callers hold mu.
func (m *mux) pong() Pong { return m.oldest(func(s *stream) bool { return !s.opener }) }

// oldest returns the oldest of some calls. They take up at most half of a frame. Callers hold mu.
func (m *mux) oldest(counts func(s *stream) bool) Pong {
	var all []*stream
	for _, s := range m.streams {
		if counts(s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *stream) int { // calls that came in one batch have the same time
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id))
	})
	running := []RunningCall{}
	room := (m.terms.maxFrame - frameOverhead) / 2
	for _, s := range all[:min(len(all), maxRunning)] {
		if room -= 64 + 6*len(s.name); room < 0 { // an escaped byte of a name takes up to six
			break
		}
		running = append(running, RunningCall{ID: s.id, Name: s.name, MS: time.Since(s.since).Milliseconds()})
	}
	return Pong{Running: running, More: len(all) - len(running)}
}

// ping sends a ping and returns the body of its pong. A name asks for more in the pong, such as featureStacks.
func (m *mux) ping(ctx context.Context, id uint64, name string) ([]byte, error) {
	ch := make(chan []byte, 1)
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrWorkerLost, m.err)
	}
	m.pings[id] = ch
	m.control = append(m.control, Frame{Kind: KindPing, ID: id, Name: name})
	m.wakeWriter()
	m.mu.Unlock()
	select {
	case body, ok := <-ch:
		if !ok {
			return nil, ErrWorkerLost
		}
		return body, nil
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.pings, id)
		m.mu.Unlock()
		return nil, endOfContext(ctx)
	}
}

// awaits reports whether the pong to a ping has neither arrived nor been given up. It is exact once the pong to a later
// ping has arrived: the goroutine that waits for the earlier one may be slower.
func (m *mux) awaits(id uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pings[id] != nil
}
