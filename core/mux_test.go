package core

import (
	"testing"
	"time"
)

// What waits to be written for calls that have been given up does not pile up, also if the worker reads nothing.
func TestGivenUpCallsLeaveTheQueue(t *testing.T) {
	m := newMux(nil, terms{maxFrame: 1 << 20}, nil, 1, nil)
	open := func() *stream {
		s, err := m.open(Frame{Name: "echo"}, time.Time{}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	keep := make(map[uint64]*stream)
	for i := range 1000 {
		if i%10 == 0 {
			s := open()
			keep[s.id] = s
		}
		open().abandon("test")
	}
	if most := 2*len(keep) + 2*minStale; len(m.queue) > most {
		t.Errorf("%d frames are queued for %d calls", len(m.queue), len(keep))
	}
	for i := range m.queue {
		q := &m.queue[i]
		if !q.stale() {
			delete(keep, q.frame.ID)
		}
		if q.of.inQueue != 1 {
			t.Errorf("a call with one frame in the queue counts %d", q.of.inQueue)
		}
	}
	if len(keep) > 0 {
		t.Errorf("%d calls are not in the queue any more", len(keep))
	}
}
