package core

import (
	"slices"

	"github.com/hashicorp/go-hclog"
)

// tee is a logger whose messages go to sinks, too, whatever the logger's level is.
type tee struct {
	hclog.Logger

	sinks []*tap
	args  []any // of With, as the logger has them
}

func (t *tee) Log(level hclog.Level, msg string, args ...any) {
	t.Logger.Log(level, msg, args...)
	for _, s := range t.sinks {
		s.Accept(t.Name(), level, msg, slices.Concat(t.args, args)...)
	}
}

func (t *tee) Trace(msg string, args ...any) { t.Log(hclog.Trace, msg, args...) }
func (t *tee) Debug(msg string, args ...any) { t.Log(hclog.Debug, msg, args...) }
func (t *tee) Info(msg string, args ...any)  { t.Log(hclog.Info, msg, args...) }
func (t *tee) Warn(msg string, args ...any)  { t.Log(hclog.Warn, msg, args...) }
func (t *tee) Error(msg string, args ...any) { t.Log(hclog.Error, msg, args...) }

func (t *tee) With(args ...any) hclog.Logger {
	return &tee{Logger: t.Logger.With(args...), sinks: t.sinks, args: slices.Concat(t.args, args)}
}

func (t *tee) Named(name string) hclog.Logger {
	return &tee{Logger: t.Logger.Named(name), sinks: t.sinks, args: t.args}
}
