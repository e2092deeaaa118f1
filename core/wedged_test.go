package core_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// A worker that is silent for too long is replaced. If it answers while the pool looks at it, it stays.
func TestWedgedUntilItAnswers(t *testing.T) {
	const after = 10 * time.Second
	for answersAt, wedged := range map[time.Duration]bool{
		after + 500*time.Millisecond:  false, // during the diagnosis, which takes a second
		after + 1500*time.Millisecond: false, // while it is asked for its stacks, which takes another one
		after + time.Minute:           true,
	} {
		t.Run(answersAt.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var silent atomic.Bool
				var log eventLog
				p, err := core.Open(t.Context(), mutable{&coretest.Adapter{}, &silent}, core.Command{}, &core.Options{
					Size: 1, Wedged: core.WedgedReplace, WedgedAfter: after, OnEvent: log.put,
				})
				if err != nil {
					t.Fatal(err)
				}
				silent.Store(true)
				time.Sleep(after/4 + answersAt) // the first ping comes after a quarter
				silent.Store(false)
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := p.Stats(); (s.Lost == 1) != wedged || s.Ready != 1 {
					t.Errorf("%+v", s)
				}
				if events := log.lines("WorkerWedged"); (len(events) == 1) != wedged {
					t.Errorf("%q", events)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
