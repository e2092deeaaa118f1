package conformance

import (
	"slices"

	"github.com/snakepit-go/snakepit/core"
)

const restoreCommand = "snakepit.restore"

// reserved has the commands with a reserved name that a worker may list.
var reserved = []string{"snakepit.describe", "snakepit.forget", restoreCommand}

// snapshotClauses is about workers that give the states of sessions to the host, and restore them.
var snapshotClauses = []clause{
	rule("snapshot/sent", "A worker with the feature snapshots sends the state of the session before the answer "+
		"of each call that asks for it, however the call ends.", func(t *trial) {
		p := t.connectSnapshots()
		p.kept(p.open("conformance.remember", args{"value": "a value"}, inSession("a"), keepState))
		p.kept(p.open("conformance.fail", args{"message": "as asked"}, inSession("a"), keepState))
		id := p.open("conformance.wait", nil, inSession("a"), keepState)
		p.running(id)
		p.cancel(id)
		p.kept(id)
		p.echo("it goes on")
	}),
	rule("snapshot/unasked", "A worker sends no state for a call that does not ask for it.", func(t *trial) {
		p := t.connectSnapshots()
		id := p.open("conformance.remember", args{"value": "a value"}, inSession("a"))
		if f := p.answer(id); f.Kind != core.KindEnd {
			t.Errorf("the call does not ask for the state, and gets %s", f.String())
		}
	}),
	rule("snapshot/restored", "snakepit.restore sets the state of its session, and of no other, "+
		"to a state that another worker has sent.", func(t *trial) {
		p := t.connectSnapshots()
		value := args{"name": "ann", "n": int64(7)}
		state := p.kept(p.open("conformance.remember", args{"value": value}, inSession("a"), keepState))
		empty := p.kept(p.open("conformance.remember", nil, inSession("b"), keepState))
		q := t.connectSnapshots()
		remembers := func(session string, want any) {
			if got := q.call("conformance.remember", nil, inSession(session)); show(got) != show(want) {
				t.Errorf("session %q remembers %s, not %s", session, show(got), show(want))
			}
		}
		q.restore("a", state)
		remembers("a", value)
		remembers("b", nil)
		q.call("conformance.remember", args{"value": "more"}, inSession("a"))
		q.restore("a", state)
		remembers("a", value)
		if bad := hostile(q.codec.Name(), 1).wrong; len(bad) > 0 {
			q.expectError(q.open(restoreCommand, nil, inSession("a"), func(f *core.Frame) { f.Body = bad[0] }))
			remembers("a", value) // as before
		}
		q.restore("a", empty)
		remembers("a", nil)
	}),
	rule("snapshot/breach", "A state from the host ends the connection.", func(t *trial) {
		p := t.connect()
		p.echo("before")
		id := p.open("conformance.wait", nil)
		p.send(core.Frame{Kind: core.KindState, ID: id, Body: p.encode(int64(1))})
		p.breach("the host sends a state")
	}),
}

// connectSnapshots connects to a worker that gives snapshots. It skips the clause if the worker gives none.
func (t *trial) connectSnapshots() *peer {
	p := t.connect()
	if !slices.Contains(p.hello.Features, "snapshots") {
		t.Skipf("the worker does not announce snapshots")
	}
	return p
}

func keepState(f *core.Frame) { f.Flags |= core.KeepState }

// kept returns the body of the state of a call. It fails the clause if the state does not come before the answer.
func (p *peer) kept(id uint64) []byte {
	f := p.answer(id)
	switch {
	case f.Kind != core.KindState:
		p.t.Fatalf("the state does not come before the answer, but %s", f.String())
	case f.Flags&core.Failed != 0:
		p.t.Fatalf("the worker does not give the state")
	}
	if end := p.answer(id); !terminal(&end) {
		p.t.Fatalf("after the state, the answer does not come, but %s", end.String())
	}
	return f.Body
}

// restore restores a session.
func (p *peer) restore(session string, state []byte) {
	p.call(restoreCommand, nil, inSession(session), func(f *core.Frame) { f.Body = state })
}
