package conformance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// broken has a name that the contract does not allow, and never answers pings. If refuses is set, it never connects.
type broken struct {
	core.Adapter
	refuses bool
}

func (broken) Name() string { return "Broken!" }

func (b broken) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	if b.refuses {
		return nil, errors.New("the line is dead")
	}
	link, err := b.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = pingless{link.Conn}
	}
	return link, err
}

type pingless struct{ core.Conn }

func (c pingless) Write(frames []core.Frame) error {
	var rest []core.Frame
	for _, f := range frames {
		if f.Kind != core.KindPing {
			rest = append(rest, f)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return c.Conn.Write(rest)
}

// check returns the results by name.
func check(t *testing.T, h conformance.Harness) (results map[string]conformance.Result, err error) {
	results = map[string]conformance.Result{}
	synctest.Test(t, func(t *testing.T) {
		err = conformance.Check(t.Context(), h, func(r conformance.Result) { results[r.Name] = r })
		time.Sleep(time.Hour) // on the bubble's clock
	})
	return results, err
}

func TestCheck(t *testing.T) {
	results, err := check(t, conformance.Harness{
		Adapter:   broken{Adapter: coretest.Conformance(2)},
		Parts:     []conformance.Part{conformance.Adapter, conformance.Worker},
		Known:     map[string]string{"start/name": "it shouts", "stream/items": "it does not, in fact"},
		TimeLimit: 15 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]conformance.Outcome{
		"start/name":    conformance.Known,
		"stream/items":  conformance.Failed,
		"ping/answered": conformance.Failed,
		"stream/empty":  conformance.Passed,
		"close/corrupt": conformance.Skipped,
		"close/loss":    conformance.Skipped,
		"ping/busy":     conformance.Skipped,
		"frames/order":  conformance.Skipped,
	} {
		r := results[name]
		if r.Outcome != want || r.Sentence == "" || want != conformance.Passed && len(r.Reasons) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := results["ping/busy"]; r.RestsOn != "worker/ping/answered" || !strings.Contains(r.Reasons[0], r.RestsOn) {
		t.Errorf("what rests on a clause that failed says %q and rests on %q", r.Reasons, r.RestsOn)
	}
	hang := results["ping/answered"]
	if !strings.Contains(hang.Dump, "goroutine") || !strings.Contains(hang.String(), "15s") ||
		!strings.Contains(hang.String(), hang.Sentence) ||
		!strings.Contains(hang.String(), "the answer to ping 1 does not come") {
		t.Errorf("a hang says: %.2000s", hang)
	}
	if said := results["stream/items"].String(); !strings.Contains(said, "it does not, in fact") ||
		!strings.Contains(said, "take it off the list") {
		t.Errorf("a known failure that passes says: %s", said)
	}
	if _, ok := results["pool/execute"]; ok {
		t.Error("a part that is not wanted was checked")
	}
}

// stuck has connections whose Close waits until done is closed.
type stuck struct {
	core.Adapter
	done chan struct{}
}

func (s stuck) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := s.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = stuckConn{link.Conn, s.done}
	}
	return link, err
}

type stuckConn struct {
	core.Conn
	done chan struct{}
}

func (c stuckConn) Close() error {
	<-c.done
	return c.Conn.Close()
}

// A Close that does not return is a failure of its clause. The suite goes on. It skips the clauses that would only wait
// for Close again.
func TestCloseThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		n := map[conformance.Outcome]int{}
		var closing conformance.Result
		h := conformance.Harness{Adapter: stuck{coretest.Conformance(2), done}}
		err := conformance.Check(t.Context(), h, func(r conformance.Result) {
			if n[r.Outcome]++; r.Name == "close/unblocks-read" {
				closing = r
			}
		})
		if err != nil || closing.Outcome != conformance.Failed || closing.Dump == "" ||
			!strings.Contains(closing.String(), "does Close return?") {
			t.Errorf("%v, %.500s", err, closing)
		}
		if n[conformance.Failed] > 10 || n[conformance.Skipped] < 100 {
			t.Errorf("the outcomes are %v", n)
		}
		close(done)
		time.Sleep(time.Hour) // on the bubble's clock
	})
}

// A worker that does not start is one failure, not a hundred.
func TestNothing(t *testing.T) {
	results, err := check(t, conformance.Harness{Adapter: broken{refuses: true}})
	var nothing *conformance.NothingError
	if !errors.As(err, &nothing) || !strings.Contains(err.Error(), "the line is dead") || len(results) > 0 {
		t.Errorf("%d results and %v", len(results), err)
	}
}

func TestBadHarness(t *testing.T) {
	for words, h := range map[string]conformance.Harness{
		"Harness.Adapter":        {},
		`Parts has "everything"`: {Adapter: coretest.Conformance(1), Parts: []conformance.Part{"everything"}},
		`Known has "no/such-rule"`: {
			Adapter: coretest.Conformance(1), Known: map[string]string{"no/such-rule": "because"},
		},
	} {
		if results, err := check(t, h); err == nil || !strings.Contains(err.Error(), words) || len(results) > 0 {
			t.Errorf("%d results and %v, which should say %s", len(results), err, words)
		}
	}
}

func TestClauses(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range conformance.Clauses() {
		theme, rule, ok := strings.Cut(c.Name, "/")
		if !ok || theme == "" || rule == "" || seen[c.Name] || c.Part == "" || !strings.HasSuffix(c.Sentence, ".") {
			t.Errorf("%+v: a name is theme/rule and there once, and a sentence ends", c)
		}
		seen[c.Name] = true
	}
	if len(seen) < 100 {
		t.Errorf("there are %d clauses", len(seen))
	}
}

// crowd counts how many workers live at once.
type crowd struct {
	core.Adapter
	mu        sync.Mutex
	now, most int
}

func (c *crowd) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := c.Adapter.Start(ctx, l)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
	link.Conn = &counted{Conn: link.Conn, left: func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}}
	return link, nil
}

type counted struct {
	core.Conn
	once sync.Once
	left func()
}

func (c *counted) Close() error {
	c.once.Do(c.left)
	return c.Conn.Close()
}

// As many clauses are checked at once as Harness.Parallel says. The results are the same.
func TestParallel(t *testing.T) {
	most := map[int]int{}
	var order []string
	for _, parallel := range []int{1, 6} {
		synctest.Test(t, func(t *testing.T) {
			a := &crowd{Adapter: coretest.Conformance(1)}
			var names []string
			err := conformance.Check(t.Context(), conformance.Harness{
				Adapter: a, Parts: []conformance.Part{conformance.Worker}, Parallel: parallel,
			}, func(r conformance.Result) {
				names = append(names, r.Name)
				if r.Outcome == conformance.Failed {
					t.Error(r)
				}
			})
			time.Sleep(time.Hour) // on the bubble's clock
			if err != nil {
				t.Error(err)
			}
			most[parallel] = a.most
			slices.Sort(names)
			if order == nil {
				order = names
			}
			if !slices.Equal(names, order) || len(names) < 90 {
				t.Errorf("%d at once: %d clauses", parallel, len(names))
			}
		})
	}
	if most[6] <= most[1] {
		t.Errorf("one at a time has %d workers at once, six have %d", most[1], most[6])
	}
	h := conformance.Harness{Adapter: coretest.Conformance(1), Parallel: -1}
	err := conformance.Check(t.Context(), h, func(conformance.Result) {})
	if err == nil || !strings.Contains(err.Error(), "Parallel is -1") {
		t.Errorf("-1 at once: %v", err)
	}
}
