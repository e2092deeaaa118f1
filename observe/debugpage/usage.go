package debugpage

import (
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// usage is what the workers use. It is read at most twice a second, for all viewers together.
type usage struct {
	mu   sync.Mutex // guards the fields below
	read time.Time
	last map[int]used // by process id
}

// used is what the processes of one worker use.
type used struct {
	memory int64
	cpu    time.Duration
	share  float64 // processors between the last two readings
}

// now returns the present values by process id. The map does not change.
func (u *usage) now(p *core.Pool) map[int]used {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	passed := now.Sub(u.read)
	if passed < time.Second/2 {
		return u.last
	}
	next := map[int]used{}
	for _, one := range p.Usage() {
		n := used{memory: one.Memory, cpu: one.CPU}
		if before, ok := u.last[one.PID]; ok && one.CPU >= before.cpu {
			n.share = float64(one.CPU-before.cpu) / float64(passed)
		}
		next[one.PID] = n
	}
	u.read, u.last = now, next
	return next
}
