package core

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// Frames queued for calls that have been given up do not pile up, even if the worker reads nothing.
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

// A pong lists all calls if they surely fit into a frame, otherwise as many as surely fit.
func TestPongFits(t *testing.T) {
	const limit = 4096
	for _, n := range []int{0, 10, 1000} {
		m := newMux(nil, terms{maxFrame: limit}, nil, 1, nil)
		for i := range uint64(n) {
			name := strings.Repeat("\x01", int(i%20)) // each byte takes six bytes in JSON
			m.streams[2*i+2] = &stream{id: 2*i + 2, name: name}
		}
		pong := m.pong()
		body, err := json.Marshal(pong)
		if size := len(body) + frameOverhead; err != nil || size > limit || len(pong.Running) != n && size < limit/3 {
			t.Errorf("of %d calls %d make a frame of %d bytes: %v", n, len(pong.Running), size, err)
		}
	}
}

// The cancel frame gives the cause of the call's context as the reason, if there is one.
func TestCancelledSaysWhy(t *testing.T) {
	for reason, want := range map[string]string{
		"": "cancelled by the caller", "too late": "cancelled by the caller: too late",
	} {
		err := error(&cancelledError{reason})
		if err.Error() != want || !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
}
