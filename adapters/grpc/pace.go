package grpc

import (
	"sync/atomic"
	"time"
)

// pace makes Write wait while the worker has messages that it has not read, so that frames gather and share the next
// message. gRPC itself lets Write go far ahead of a worker that reads, and each message costs far more than a frame.
type pace struct {
	sent    uint64        // messages; used by Write only
	read    atomic.Uint64 // how many of them the worker has read; 0: it does not say
	changed chan struct{} // capacity 1: read has changed
	timer   *time.Timer
	limit   time.Duration // the most that the next wait takes
}

const (
	maxUnread   = 1                      // messages that the worker may have before it: it is busy with one
	patience    = 200 * time.Microsecond // the most that Write waits: a busy worker may have nothing to say
	maxPatience = 800 * time.Microsecond // the same, if many frames gather
	many        = 8                      // frames
)

func newPace() pace {
	return pace{changed: make(chan struct{}, 1), timer: time.NewTimer(patience), limit: patience}
}

// received takes what a message of the worker says. Read calls it.
func (p *pace) received(read uint64) {
	if read > p.read.Load() {
		p.read.Store(read)
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// wait is called by Write before each message, with the number of its frames. A wait that gathered many frames is worth
// a longer one.
func (p *pace) wait(frames int) {
	p.limit = min(2*p.limit, maxPatience)
	if frames < many {
		p.limit = patience
	}
	if p.unread() >= maxUnread {
		p.timer.Reset(p.limit)
		for late := false; !late && p.unread() >= maxUnread; {
			select {
			case <-p.changed:
			case <-p.timer.C:
				late = true
			}
		}
	}
	p.sent++
}

func (p *pace) unread() uint64 {
	if read := p.read.Load(); read > 0 && read < p.sent {
		return p.sent - read
	}
	return 0
}
