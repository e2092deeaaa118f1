package conformance

import (
	"bytes"
	"context"

	"github.com/snakepit-go/snakepit/core"
)

// poolMutants are broken adapters and workers. Only a pool shows their faults.
var poolMutants = []mutant{
	{"has another's name in its link", "stats/adapter",
		linked(func(_ *mutation, _ context.Context, l *core.Link) { l.Adapter = "grpc" })},
	{"loses a slot for each stream that is left", "cancel/abandoned", writing(func(f *core.Frame) {
		if f.Kind == core.KindCancel {
			drop(f)
		}
	})},
	{"answers the lost", "loss/once", onConn(func(m *mutation, c core.Conn) core.Conn { return &lossless{c, m} })},
	{"says that nothing runs", "stats/health", reading(func(f *core.Frame) {
		if f.Kind == core.KindPong {
			f.Body = []byte(`{"running":[]}`)
		}
	})},
	{"loses the level", "log/arrives", reading(func(f *core.Frame) {
		if f.Kind == core.KindLog {
			f.Body = bytes.Replace(f.Body, []byte(`"warn"`), []byte(`"info"`), 1)
		}
	})},
}
