package conformance

import (
	"github.com/snakepit-go/snakepit/core"
)

// snapshotMutants are broken workers that give and restore the states of sessions.
var snapshotMutants = []mutant{
	{"sends no state", "snapshot/sent", reading(func(f *core.Frame) {
		if f.Kind == core.KindState {
			drop(f)
		}
	})},
	{"sends the state after the answer", "snapshot/sent", frames(func(core.Conn) (frameFunc, frameFunc) {
		var held []core.Frame
		return func(f core.Frame) []core.Frame {
			if f.Kind == core.KindState {
				held = append(held, f)
				return nil
			}
			all := append([]core.Frame{f}, held...)
			held = nil
			return all
		}, nil
	})},
	{"sends the state unasked", "snapshot/unasked", writing(func(f *core.Frame) {
		if f.Session != "" {
			f.Flags |= core.KeepState
		}
	})},
	{"restores another session", "snapshot/restored", writing(func(f *core.Frame) {
		if f.Name == restoreCommand {
			f.Session = "another"
		}
	})},
	{"restores nothing", "loss/snapshot", writing(func(f *core.Frame) {
		if f.Name == restoreCommand {
			f.Name = "conformance.context"
		}
	})},
	{"takes the state of the host", "snapshot/breach", writing(func(f *core.Frame) {
		if f.Kind == core.KindState {
			drop(f)
		}
	})},
}
