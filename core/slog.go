package core

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// FromSlog makes an hclog.Logger that logs to l, for Options.Logger. Trace becomes slog.LevelDebug - 4, as far below
// debug as debug is below info. A logger's name becomes the attribute "logger". SetLevel sets a minimum level on top of
// the level of l's handler, for this logger and all loggers made from it.
func FromSlog(l *slog.Logger) hclog.Logger {
	level := new(atomic.Int32)
	level.Store(int32(hclog.Trace))
	return &slogLogger{base: l.Handler(), handler: l.Handler(), level: level}
}

type slogLogger struct {
	base    slog.Handler
	handler slog.Handler // base with the attributes of name and implied
	name    string
	implied []any         // pairs of a string and a value; each string occurs once
	level   *atomic.Int32 // an hclog.Level; shared by all loggers that come from one FromSlog
}

var _ hclog.Logger = (*slogLogger)(nil)

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (l *slogLogger) enabled(level hclog.Level) bool {
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	return level != hclog.Off && level >= hclog.Level(l.level.Load()) &&
		l.handler.Enabled(context.Background(), slogLevel(level))
}

// emit logs a record. The record's source is the caller of emit's caller.
func (l *slogLogger) emit(level hclog.Level, msg string, args []any) {
	if !l.enabled(level) {
		return
	}
	var pc [1]uintptr
	runtime.Callers(3, pc[:]) // skips runtime.Callers, emit and the exported method
	r := slog.NewRecord(time.Now(), slogLevel(level), msg, pc[0])
	r.AddAttrs(slogAttrs(pairs(args))...)
	_ = l.handler.Handle(context.Background(), r) // hclog's methods return no error
}

func (l *slogLogger) Log(level hclog.Level, msg string, args ...any) { l.emit(level, msg, args) }
func (l *slogLogger) Trace(msg string, args ...any)                  { l.emit(hclog.Trace, msg, args) }
func (l *slogLogger) Debug(msg string, args ...any)                  { l.emit(hclog.Debug, msg, args) }
func (l *slogLogger) Info(msg string, args ...any)                   { l.emit(hclog.Info, msg, args) }
func (l *slogLogger) Warn(msg string, args ...any)                   { l.emit(hclog.Warn, msg, args) }
func (l *slogLogger) Error(msg string, args ...any)                  { l.emit(hclog.Error, msg, args) }

func (l *slogLogger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *slogLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *slogLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *slogLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *slogLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *slogLogger) SetLevel(level hclog.Level) { l.level.Store(int32(level)) }

func (l *slogLogger) GetLevel() hclog.Level {
	for level := hclog.Trace; level <= hclog.Error; level++ {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *slogLogger) Name() string       { return l.name }
func (l *slogLogger) ImpliedArgs() []any { return slices.Clone(l.implied) }

func (l *slogLogger) With(args ...any) hclog.Logger {
	implied := slices.Clone(l.implied)
	args = pairs(args)
next:
	for i := 0; i < len(args); i += 2 {
		for j := 0; j < len(implied); j += 2 {
			if implied[j] == args[i] { // both are strings
				implied[j+1] = args[i+1]
				continue next
			}
		}
		implied = append(implied, args[i], args[i+1])
	}
	return l.derive(l.name, implied)
}

func (l *slogLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.derive(name, l.implied)
}

func (l *slogLogger) ResetNamed(name string) hclog.Logger { return l.derive(name, l.implied) }

func (l *slogLogger) derive(name string, implied []any) *slogLogger {
	var attrs []slog.Attr
	if name != "" {
		attrs = append(attrs, slog.String("logger", name))
	}
	handler := l.base
	if attrs = append(attrs, slogAttrs(implied)...); len(attrs) > 0 {
		handler = handler.WithAttrs(attrs)
	}
	return &slogLogger{base: l.base, handler: handler, name: name, implied: implied, level: l.level}
}

func (l *slogLogger) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(opts), "", 0)
}

// StandardWriter returns a writer that logs each write, at opts.ForceLevel if that is set. Otherwise, with
// opts.InferLevels, a prefix such as "[WARN]" sets the level.
func (l *slogLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	w := &slogWriter{logger: l}
	if opts != nil {
		w.opts = *opts
	}
	return w
}

type slogWriter struct {
	logger *slogLogger
	opts   hclog.StandardLoggerOptions
}

func (w *slogWriter) Write(b []byte) (int, error) {
	text := string(bytes.TrimRight(b, " \t\r\n"))
	level := hclog.NoLevel
	if w.opts.InferLevels || w.opts.ForceLevel != hclog.NoLevel {
		if w.opts.InferLevelsWithTimestamp {
			if i := strings.IndexByte(text, '['); i >= 0 && strings.Trim(text[:i], "0123456789 \t:/.+-TZ") == "" {
				text = text[i:]
			}
		}
		if name, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && text[0] == '[' {
			if name == "ERR" {
				name = "ERROR"
			}
			if found := hclog.LevelFromString(name); found != hclog.NoLevel && found != hclog.Off {
				level, text = found, strings.TrimSpace(rest)
			}
		}
	}
	if w.opts.ForceLevel != hclog.NoLevel {
		level = w.opts.ForceLevel
	}
	w.logger.emit(level, text, nil)
	return len(b), nil
}

// pairs returns args as alternating strings and values, as hclog does.
func pairs(args []any) []any {
	args = slices.Clone(args)
	if n := len(args); n%2 != 0 {
		name := any(hclog.MissingKey)
		if _, ok := args[n-1].(hclog.CapturedStacktrace); ok {
			name = "stacktrace"
		}
		args = append(args[:n-1], name, args[n-1])
	}
	for i := 0; i < len(args); i += 2 {
		if _, ok := args[i].(string); !ok {
			args[i] = fmt.Sprint(args[i])
		}
	}
	return args
}

// slogAttrs makes attributes from pairs. Values of hclog's own types are formatted as these types define.
func slogAttrs(pairs []any) []slog.Attr {
	attrs := make([]slog.Attr, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		v := pairs[i+1]
		switch h := v.(type) {
		case hclog.Format:
			if format, ok := first(h).(string); ok {
				v = fmt.Sprintf(format, h[1:]...)
			}
		case hclog.Hex:
			v = "0x" + strconv.FormatUint(uint64(h), 16)
		case hclog.Octal:
			v = "0" + strconv.FormatUint(uint64(h), 8)
		case hclog.Binary:
			v = "0b" + strconv.FormatUint(uint64(h), 2)
		case hclog.Quote:
			v = strconv.Quote(string(h))
		case hclog.CapturedStacktrace:
			v = string(h)
		}
		attrs = append(attrs, slog.Any(pairs[i].(string), v))
	}
	return attrs
}

func first(f hclog.Format) any {
	if len(f) == 0 {
		return nil
	}
	return f[0]
}
