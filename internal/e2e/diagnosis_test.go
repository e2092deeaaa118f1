//go:build linux

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/snakepit-go/snakepit/core"
)

// A diagnosis tells what a worker does, on each adapter.
func TestDiagnose(t *testing.T) {
	onEach(t, adapters, func(t *testing.T, adapter string) {
		pool := stuck(t, adapter)
		for command, want := range map[string]core.Condition{
			"":                 core.ConditionIdle,
			"computes":         core.ConditionComputing,
			"sleeps":           core.ConditionWaiting,
			"waits_for_a_lock": core.ConditionLocked,
			"computes_in_c":    core.ConditionStuckComputing,
			"waits_in_c":       core.ConditionStuckWaiting,
		} {
			t.Run(strings.ReplaceAll(string(want), " ", "_"), func(t *testing.T) {
				f := pool.in(t)
				d := becomes(f, core.ConditionIdle) // the call of the subtest before has ended
				if command != "" {
					f.start(command)
					d = becomes(f, want)
				}
				if command != "" && (len(d.Running) != 1 || d.Running[0].Name != command) {
					t.Errorf("it runs %+v", d.Running)
				}
				stuck := strings.HasPrefix(string(want), "stuck")
				main := d.Threads[0]
				if d.Answered == stuck || (d.RoundTrip > 0) == stuck || main.ID != f.Workers()[0].Info().PID ||
					!strings.HasPrefix(main.Name, "snakepit/") || len(d.Threads) < 2 {
					t.Errorf("%+v", d)
				}
				if waits := command != "" && strings.Contains(d.Condition.Explain(), "wait"); waits &&
					(main.Wait == "" || main.Busy > 0.5 || !strings.Contains(d.String(), "waits in "+main.Wait)) {
					t.Errorf("%+v, %s", d, d)
				}
				if stuck { // no cancellation ends it
					f.lose()
				}
			})
		}
	})
}

// becomes diagnoses the first worker until it is in the condition.
func becomes(f *Fixture, want core.Condition) (d core.Diagnosis) {
	f.Helper()
	Eventually(f.T, "it is "+string(want), func() bool {
		var err error
		if d, err = f.Workers()[0].Diagnose(f.Context()); err != nil {
			f.Fatal(err)
		}
		return d.Condition == want
	})
	return d
}

// With several slots, all threads count together: here each gets half of the interpreter.
func TestDiagnoseThreads(t *testing.T) {
	f := stuck(t, "msgpack", "TEST_CONCURRENCY=3")
	f.start("sleeps")
	becomes(f, core.ConditionWaiting)
	f.start("computes")
	f.start("computes")
	Eventually(t, "all three are known", func() bool { return len(becomes(f, core.ConditionComputing).Running) == 3 })
}

func TestDiagnoseStoppedAndGone(t *testing.T) {
	f := stuck(t, "msgpack")
	worker := f.Workers()[0]
	pid := worker.Info().PID
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	d := becomes(f, core.ConditionStopped)
	if d.Answered || d.Threads[0].State != "T" {
		t.Errorf("%+v", d)
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	becomes(f, core.ConditionIdle)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	Eventually(t, "it is gone", func() bool {
		d, err := worker.Diagnose(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d.Condition == core.ConditionGone
	})
}
