package core_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestReplaceLeavesNoGap(t *testing.T) {
	var log eventLog
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1, OnEvent: log.put}, func(t *testing.T, p *core.Pool) {
		old := p.Workers()[0]
		var running sync.WaitGroup
		running.Go(func() { call(t, p, "nap", 1000) })
		synctest.Wait()
		old.Replace("somebody asked")
		old.Replace("again")
		synctest.Wait()
		call(t, p, "echo", 1) // by the replacement, while the old one ends its call
		if w := p.Workers(); len(w) != 2 || w[0] != old {
			t.Errorf("%v", w)
		}
		running.Wait()
		synctest.Wait()
		if s := p.Stats(); s.Replaced != 1 || s.Lost != 0 || s.Ready != 1 {
			t.Errorf("%+v", s)
		}
		want := []string{"worker 0 is to be replaced: somebody asked"}
		if got := log.lines("ReplacementPlanned"); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		old.Replace("too late")
	})
}

func TestTerminateEndsAWorkerThatHangs(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		w := p.Workers()[0]
		ended := make(chan error, 1)
		go func() {
			_, err := core.Execute[any](t.Context(), p, "wait", nil)
			ended <- err
		}()
		synctest.Wait()
		w.Terminate("it hangs")
		var exit *core.WorkerExit
		if err := <-ended; !errors.As(err, &exit) || !strings.Contains(err.Error(), "it was stopped because it hangs") {
			t.Error(err)
		}
		call(t, p, "echo", 1)
		w.Terminate("again")
		time.Sleep(time.Minute)
		if s := p.Stats(); s.Terminated != 1 || s.Lost != 1 || s.Ready != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSessionsAreListed(t *testing.T) {
	o := core.Options{Size: 1}
	bubble(t, &coretest.Adapter{}, o, func(t *testing.T, p *core.Pool) {
		for _, id := range []string{"b", "a", "c"} {
			call(t, p.Session(id), "echo", 1)
		}
		go func() { _, _ = core.Execute[any](t.Context(), p.Session("a"), "nap", 10) }()
		synctest.Wait()
		go func() { _, _ = core.Execute[any](t.Context(), p.Session("b"), "nap", 10) }()
		synctest.Wait()
		want := []core.SessionStats{{ID: "a", Running: 1}, {ID: "b", Waiting: 1}}
		if got := p.Sessions(2); !slices.Equal(got, want) {
			t.Errorf("%+v", got)
		}
		if n := len(p.Sessions(0)); n != 3 {
			t.Error(n)
		}
	})
}

func TestClosed(t *testing.T) {
	bubble(t, &coretest.Adapter{}, core.Options{Size: 1}, func(t *testing.T, p *core.Pool) {
		select {
		case <-p.Closed():
			t.Error("it is not closed")
		default:
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		<-p.Closed()
	})
}
