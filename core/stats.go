package core

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Stats is a snapshot of a pool. Its counters begin with Open. Its JSON is meant for a health check.
type Stats struct {
	Ready      int   `json:"ready"`       // workers that accept calls
	Running    int   `json:"running"`     // calls that hold a slot, including those whose callers have left
	Waiting    int   `json:"waiting"`     // callers in the queue
	Sessions   int   `json:"sessions"`    // live sessions
	Calls      int64 `json:"calls"`       // calls that got a slot
	Saturated  int64 `json:"saturated"`   // callers that were rejected: a full queue, or NoWait
	Waited     int64 `json:"waited"`      // callers that have waited in the queue
	Cancelled  int64 `json:"cancelled"`   // calls that were cancelled while they ran
	Lost       int64 `json:"lost"`        // workers that ended unexpectedly
	Restarts   int64 `json:"restarts"`    // workers that were started after a loss or a failed start
	Replaced   int64 `json:"replaced"`    // workers that left because their replacement was ready
	StartFails int64 `json:"start_fails"` // starts that failed
	Terminated int64 `json:"terminated"`  // workers that were ended by force

	SnapshotBytes int64 `json:"snapshot_bytes"` // the size of all snapshots of sessions

	WaitTime   time.Duration  `json:"-"`                 // of all that have waited; in JSON wait_seconds
	OldestWait time.Duration  `json:"-"`                 // of the oldest; in JSON oldest_wait_seconds
	Tenants    map[string]int `json:"tenants,omitempty"` // waiting callers by tenant; nil if none has one
	Workers    []WorkerStats  `json:"workers"`
}

// MarshalJSON writes times in seconds.
func (s Stats) MarshalJSON() ([]byte, error) {
	type plain Stats
	return json.Marshal(struct {
		plain

		WaitTime   float64 `json:"wait_seconds"`
		OldestWait float64 `json:"oldest_wait_seconds"`
	}{plain(s), s.WaitTime.Seconds(), s.OldestWait.Seconds()})
}

// addWaiters adds the facts about the callers in all queues. Callers hold mu.
func (p *Pool) addWaiters(s *Stats) {
	oldest := time.Now()
	each := func(q *waiters) {
		for _, wt := range q.all {
			if wt.since.Before(oldest) {
				oldest = wt.since
			}
		}
	}
	each(&p.waiting)
	for _, w := range p.workers {
		each(&w.waiting)
	}
	if p.queued > 0 {
		s.OldestWait = time.Since(oldest)
	}
	for name, t := range p.tenants {
		if name == "" && len(p.tenants) == 1 {
			break
		}
		if s.Tenants == nil {
			s.Tenants = map[string]int{}
		}
		s.Tenants[name] = t.waiting
	}
}

// SessionStats describes one session.
type SessionStats struct {
	ID            string `json:"id"`
	Worker        int    `json:"worker"`         // the index of its worker; -1 if it has none now, as with Hint
	Running       int    `json:"running"`        // its calls that hold a slot
	Waiting       int    `json:"waiting"`        // its calls that wait
	SnapshotBytes int    `json:"snapshot_bytes"` // the size of its snapshot; 0 if the pool has none
	Lost          bool   `json:"lost,omitempty"` // its worker is gone, and its state with it
}

// Sessions returns the live sessions by id, at most limit of them; 0 means all.
func (p *Pool) Sessions(limit int) []SessionStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := slices.Sorted(maps.Keys(p.sessions))
	if limit > 0 {
		ids = ids[:min(limit, len(ids))]
	}
	all := make([]SessionStats, 0, len(ids))
	for _, id := range ids {
		s := p.sessions[id]
		one := SessionStats{
			ID: id, Worker: -1, Running: s.users - s.queued, Waiting: s.queued, Lost: s.lost() && !p.mayMove(s),
		}
		if s.worker != nil {
			one.Worker = s.worker.index
		}
		if s.snapshot != nil {
			one.SnapshotBytes = len(s.snapshot.body)
		}
		all = append(all, one)
	}
	return all
}

// WorkerStats is the part of Stats for one worker.
type WorkerStats struct {
	Index    int           `json:"index"`
	State    WorkerState   `json:"state"`
	PID      int           `json:"pid,omitempty"`
	Adapter  string        `json:"adapter,omitempty"`
	Refused  []Refusal     `json:"refused,omitempty"` // the adapters that were tried before, and why each was refused
	Running  int           `json:"running"`           // slots in use
	Calls    int64         `json:"calls"`             // calls that got a slot of this worker
	Sessions int           `json:"sessions"`
	Age      time.Duration `json:"-"`                  // in JSON age_seconds
	Reason   string        `json:"reason,omitempty"`   // why it accepts no new callers, or ""
	Failures int           `json:"failures,omitempty"` // starts of this index that failed in a row
	Stopped  bool          `json:"stopped,omitempty"`  // its starts fail, and the pool only probes
	LastErr  error         `json:"-"`                  // the error of the last of them, or nil; in JSON last_error
}

// MarshalJSON writes the age in seconds, and the error as text.
func (s WorkerStats) MarshalJSON() ([]byte, error) {
	type plain WorkerStats
	return json.Marshal(struct {
		plain

		Age     float64 `json:"age_seconds"`
		LastErr string  `json:"last_error,omitempty"`
	}{plain(s), s.Age.Seconds(), textOf(s.LastErr)})
}

// MarshalJSON writes the error as text.
func (r Refusal) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Adapter string `json:"adapter"`
		Error   string `json:"error"`
	}{r.Adapter, textOf(r.Err)})
}

// textOf returns an error's text, or "" for nil.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
