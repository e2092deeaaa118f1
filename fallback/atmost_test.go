package fallback

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// place is coretest's adapter under another name. It keeps count of its pools.
type place struct {
	*coretest.Adapter
	name string
	log  *placeLog
}

type placeLog struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *placeLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (p place) Name() string { return p.name }

func (p place) ForPool(core.PoolInfo) core.OwnedAdapter {
	p.log.add("open " + p.name)
	return p
}

func (p place) Close(context.Context) error {
	p.log.add("close " + p.name)
	return errors.New(p.name + " is stubborn")
}

// places returns how many ready workers each adapter has.
func places(p *core.Pool) map[string]int {
	n := map[string]int{}
	for _, w := range p.Stats().Workers {
		if w.State == core.StateReady {
			n[w.Adapter]++
		}
	}
	return n
}

// A pool takes the workers that the first adapter has room for, and the others from the next. Room that becomes free is
// used again. What a limit does is no news for the log.
func TestAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log placeLog
		var text bytes.Buffer
		here, elsewhere := &coretest.Adapter{}, &coretest.Adapter{}
		chain := New(AtMost(2, place{here, "here", &log}), place{elsewhere, "elsewhere", &log})
		p, err := core.Open(t.Context(), chain, core.Command{}, &core.Options{
			Size: 5, Logger: hclog.New(&hclog.LoggerOptions{Output: &text}),
		})
		if err != nil {
			t.Fatal(err)
		}
		full := func(what string) {
			t.Helper()
			if err := p.WaitReady(t.Context(), 5); err != nil {
				t.Fatal(err)
			}
			if n := places(p); n["here"] != 2 || n["elsewhere"] != 3 {
				t.Errorf("%s: %v", what, n)
			}
		}
		full("at first")
		for index := range 5 { // wherever it was
			here.Crash(index)
			elsewhere.Crash(index)
			time.Sleep(time.Minute)
			full("after a loss")
		}
		for _, w := range p.Stats().Workers {
			if w.Adapter == "elsewhere" && (len(w.Refused) != 1 || !errors.Is(w.Refused[0].Err, core.ErrNoRoom)) {
				t.Errorf("%+v", w)
			}
		}
		err = p.Close()
		slices.Sort(log.lines)
		if err == nil || !strings.Contains(err.Error(), "here is stubborn") ||
			!strings.Contains(err.Error(), "elsewhere is stubborn") ||
			!slices.Equal(log.lines, []string{"close elsewhere", "close here", "open elsewhere", "open here"}) {
			t.Errorf("%v %q", err, log.lines)
		}
		if strings.Contains(text.String(), "degraded") || strings.Contains(text.String(), "fallback") {
			t.Error(text.String())
		}
	})
}

// Without room there is no worker, and the error says so.
func TestAtMostAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := AtMost(1, &coretest.Adapter{})
		first, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1})
		if err != nil {
			t.Fatal(err)
		}
		options := &core.Options{Size: 1, Logger: hclog.NewNullLogger()}
		_, err = core.Open(t.Context(), a, core.Command{}, options)
		if !errors.Is(err, core.ErrNoRoom) ||
			!strings.Contains(err.Error(), "coretest has 1 workers, which is its limit") {
			t.Errorf("%v", err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second, err := core.Open(t.Context(), a, core.Command{}, options)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A start that fails takes no room.
func TestAtMostFailedStart(t *testing.T) {
	a := &adapter{name: "one", err: errors.New("broken")}
	limited := AtMost(1, a)
	for range 3 {
		if _, err := limited.Start(t.Context(), nil); !errors.Is(err, a.err) {
			t.Fatal(err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("AtMost(0) does not panic")
		}
	}()
	AtMost(0, a)
}
