package grpc

import (
	"testing"
	"testing/synctest"
	"time"
)

// waited returns how long one wait takes.
func (p *pace) waited() time.Duration {
	begin := time.Now()
	p.wait(1)
	return time.Since(begin)
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		for range 3 {
			if d := p.waited(); d != 0 {
				t.Errorf("%s for a worker that does not count what it reads", d)
			}
		}
		p.received(3)
		if d := p.waited(); d != 0 {
			t.Errorf("%s for a worker that has read everything", d)
		}
		if d := p.waited(); d != patience {
			t.Errorf("%s for a worker that does not read, not %s", d, patience)
		}
		go func() {
			time.Sleep(patience / 4)
			p.received(4) // one is still unread
			time.Sleep(patience / 4)
			p.received(5)
		}()
		if d := p.waited(); d != patience/2 {
			t.Errorf("%s for a worker that reads meanwhile, not %s", d, patience/2)
		}
		for _, want := range []time.Duration{2 * patience, 4 * patience, maxPatience} {
			begin := time.Now()
			p.wait(many)
			if d := time.Since(begin); d != want {
				t.Errorf("%s where many frames gather, not %s", d, want)
			}
		}
		if d := p.waited(); d != patience {
			t.Errorf("%s where few frames gather again, not %s", d, patience)
		}
		p.received(1 << 60) // nonsense of the worker
		if d := p.waited(); d != 0 {
			t.Errorf("%s for a worker that claims too much", d)
		}
	})
}
