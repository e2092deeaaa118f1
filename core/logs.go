package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

// What workers say, on its way to the log: lines that they print, and log frames. Both come from outside, so sizes are bounded and
// characters that a terminal would obey are escaped.

const (
	maxLine      = 64 << 10 // a longer line of output is logged in pieces
	lastLines    = 20       // how many lines an obituary may show
	maxLastLine  = 1 << 10  // and how much of each
	maxMessage   = 64 << 10 // of a log record
	maxFieldName = 128      //
	maxFieldText = 8 << 10  // of one text in a log record's fields
	maxFields    = 64       // in one map or list of a log record's fields
	maxFieldTree = 256      // values in all of a log record's fields, nested ones counted
	maxFieldDeep = 4        // levels of nesting in a log record's fields
)

// output is what one process prints. Lines are remembered for an obituary, and queued for the logger: a slow logger
// holds the worker up for a moment, and then costs output, which is counted and reported, but not the worker.
type output struct {
	log *logSource

	mu   sync.Mutex // guards last
	last []said     // at most lastLines, the newest last
}

// said is a line of output or a log record, and when it came.
type said struct {
	text string
	at   time.Time
}

func newOutput(book *logbook, worker int) *output {
	return &output{log: book.source(worker, "output was dropped because the logger is slow")}
}

// read takes what comes from r until its end, or its read deadline; then only what is there at once.
func (o *output) read(r *os.File) {
	s := splitter{emit: o.line}
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		s.write(buf[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.write(readAvailable(r))
		}
		s.flush()
		return
	}
}

// line remembers and queues one line.
func (o *output) line(b []byte) {
	text := harmless(string(b), false)
	if strings.TrimSpace(text) == "" {
		return
	}
	o.mu.Lock()
	if len(o.last) == lastLines {
		o.last = slices.Delete(o.last, 0, 1)
	}
	o.last = append(o.last, said{cut(text, maxLastLine), time.Now()})
	o.mu.Unlock()
	o.log.putPatiently(len(text), func(l hclog.Logger) { l.Info(text) })
}

// tail returns the last lines since then, the newest last.
func (o *output) tail(since time.Time) []said {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.last), func(line said) bool { return line.at.Before(since) })
}

// splitter cuts a stream of bytes into lines. A carriage return ends a line too, so that a progress bar is many lines, not one that
// never ends.
type splitter struct {
	emit func(line []byte) // must not keep it
	part []byte            // of a line that has not ended; at most maxLine
}

func (s *splitter) write(b []byte) {
	for len(b) > 0 {
		if end := bytes.IndexAny(b[:min(len(b), maxLine-len(s.part))], "\r\n"); end >= 0 {
			s.put(b[:end])
			s.flush()
			b = b[end+1:]
			continue
		}
		n := min(len(b), maxLine-len(s.part))
		s.put(b[:n])
		b = b[n:]
		if len(s.part) == maxLine {
			keep := partialRune(s.part)
			rest := slices.Clone(s.part[maxLine-keep:])
			s.part = s.part[:maxLine-keep]
			s.flush()
			s.put(rest)
		}
	}
}

func (s *splitter) put(b []byte) { s.part = append(s.part, b...) }

func (s *splitter) flush() {
	if len(s.part) > 0 {
		s.emit(s.part)
	}
	s.part = s.part[:0]
}

// partialRune returns how many bytes at the end of b are the beginning of a character.
func partialRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// harmless escapes what a terminal or a reader of logs would take for something else: control characters, bad UTF-8, line separators and
// characters that turn the direction of writing. Tabs stay, and line feeds if they may.
func harmless(s string, lineFeeds bool) string {
	safe := func(r rune) bool {
		switch {
		case r == '\t', r == '\n' && lineFeeds:
			return true
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
			return false
		}
		return true
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case safe(r):
			b.WriteString(s[i : i+n])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		i += n
	}
	return b.String()
}

// cut shortens s to about n bytes, at a character's boundary, and says so.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s... (%d bytes more)", s[:n], len(s)-n)
}

// logRecord is the body of a log frame.
type logRecord struct {
	Level   string         `json:"level"`
	Logger  string         `json:"logger"`
	Message string         `json:"message"`
	Fields  map[string]any `json:"fields,omitempty"`
	Call    uint64         `json:"call,omitempty"`
	Time    float64        `json:"time,omitempty"` // Unix seconds
}

// records takes the log frames of one connection. The last ones are remembered for an obituary, as they came.
type records struct {
	log   *logSource
	codec Codec

	mu   sync.Mutex // guards last
	last []body     // at most lastLines, the newest last
}

// body is the body of a log frame, and when it came.
type body struct {
	bytes []byte
	at    time.Time
}

func newRecords(book *logbook, worker int, codec Codec) *records {
	return &records{log: book.source(worker, "log records were dropped because the logger is slow"), codec: codec}
}

// put takes one body, of which it keeps a copy. It does not block.
func (r *records) put(b []byte) {
	b = bytes.Clone(b) // which is a part of all that was read with it
	r.mu.Lock()
	if len(r.last) == lastLines {
		r.last = slices.Delete(r.last, 0, 1)
	}
	if len(b) <= maxMessage { // a larger one would be kept for long
		r.last = append(r.last, body{b, time.Now()})
	}
	r.mu.Unlock()
	r.log.put(len(b), func(l hclog.Logger) {
		var rec logRecord
		decode := func() error { return r.codec.Decode(b, &rec) }
		failed := func(err error) { l.Warn("a log record could not be decoded", "error", err) }
		if err := outside("the adapter's codec", decode, failed); err != nil {
			failed(err)
			return
		}
		rec.emit(l)
	})
}

// tail returns the last records since then as lines, the newest last.
func (r *records) tail(since time.Time) []said {
	r.mu.Lock()
	last := slices.Clone(r.last)
	r.mu.Unlock()
	var lines []said
	for _, b := range last {
		var rec logRecord
		decode := func() error { return r.codec.Decode(b.bytes, &rec) }
		if b.at.Before(since) || apart("the adapter's codec", decode) != nil {
			continue
		}
		at := b.at
		if late := at.Sub(rec.at()); late > 0 && late < time.Second { // it was held up; unless the worker has another clock
			at = rec.at()
		}
		if !at.Before(since) {
			lines = append(lines, said{cut(rec.line(), maxLastLine), at})
		}
	}
	return lines
}

// at returns when the worker says that it logged the record; zero if it says nothing that makes sense.
func (r *logRecord) at() time.Time {
	if r.Time > 0 && r.Time < 1<<33 {
		return time.UnixMicro(int64(r.Time * 1e6)).UTC()
	}
	return time.Time{}
}

// line returns the record as one line, such as "ERROR app.db: no connection (OSError: timed out)".
func (r *logRecord) line() string {
	level, name := strings.ToUpper(cut(r.Level, maxFieldName)), cut(r.Logger, maxFieldName)
	text := fmt.Sprintf("%s %s: %s", level, name, cut(r.Message, maxMessage))
	if trace, ok := r.Fields["exception"].(string); ok { // its last line says what was raised
		trace = strings.TrimRight(trace, "\n")
		text += " (" + trace[strings.LastIndexByte(trace, '\n')+1:] + ")"
	}
	return harmless(text, false)
}

// emit logs the record. What it holds is the worker's: a level that is none becomes info, and what is too large is cut.
func (r *logRecord) emit(logger hclog.Logger) {
	level := hclog.LevelFromString(r.Level)
	if level == hclog.NoLevel || level == hclog.Off {
		level = hclog.Info
	}
	if !enabled(logger, level) {
		return
	}
	args := make([]any, 0, 2*len(r.Fields)+6)
	if r.Logger != "" {
		args = append(args, "logger", harmless(cut(r.Logger, maxFieldName), false))
	}
	if r.Call != 0 {
		args = append(args, "call", r.Call)
	}
	// Records usually arrive within moments; only one that was held up needs its own time.
	if at := r.at(); !at.IsZero() && time.Since(at).Abs() > time.Second {
		args = append(args, "logged_at", at)
	}
	p := pruner{left: maxFieldTree}
	fields, _ := p.prune(r.Fields, 0).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key := name
		switch name {
		case "worker", "logger", "call", "logged_at": // ours
			key = "field." + name
		}
		args = append(args, key, fields[name])
	}
	logger.Log(level, harmless(cut(r.Message, maxMessage), false), args...)
}

// pruner copies a log record's fields within bounds.
type pruner struct{ left int }

func (p *pruner) prune(v any, depth int) any {
	p.left--
	switch v := v.(type) {
	case nil, bool, time.Time, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return v
	case float32:
		return p.prune(float64(v), depth)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return strconv.FormatFloat(v, 'g', -1, 64) // JSON has no such numbers, and hclog would drop the record
		}
		return v
	case string:
		return harmless(cut(v, maxFieldText), true)
	case []byte:
		return fmt.Sprintf("(%d bytes)", len(v))
	case []any:
		if depth >= maxFieldDeep {
			return fmt.Sprintf("(list of %d)", len(v))
		}
		list := make([]any, 0, min(len(v), maxFields))
		for i, e := range v {
			if i == maxFields || p.left <= 0 {
				list = append(list, fmt.Sprintf("(%d more)", len(v)-i))
				break
			}
			list = append(list, p.prune(e, depth+1))
		}
		return list
	case map[string]any:
		if depth >= maxFieldDeep {
			return fmt.Sprintf("(map of %d)", len(v))
		}
		m := make(map[string]any, min(len(v), maxFields))
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i == maxFields || p.left <= 0 {
				m["..."] = fmt.Sprintf("(%d more)", len(v)-i)
				break
			}
			m[harmless(cut(k, maxFieldName), false)] = p.prune(v[k], depth+1)
		}
		return m
	default:
		return fmt.Sprintf("(%T)", v)
	}
}

// enabled reports whether logger logs at level. hclog has no such method, and GetLevel need not tell.
func enabled(logger hclog.Logger, level hclog.Level) bool {
	switch level {
	case hclog.Trace:
		return logger.IsTrace()
	case hclog.Debug:
		return logger.IsDebug()
	case hclog.Warn:
		return logger.IsWarn()
	case hclog.Error:
		return logger.IsError()
	default:
		return logger.IsInfo()
	}
}

// defaultLogger is where a pool logs that was given no logger: standard error, at the level in SNAKEPIT_LOG.
func defaultLogger(name string) (hclog.Logger, error) {
	level := hclog.Info
	if text := os.Getenv("SNAKEPIT_LOG"); text != "" {
		if level = hclog.LevelFromString(text); level == hclog.NoLevel {
			return nil, fmt.Errorf("the environment's SNAKEPIT_LOG is %q: use trace, debug, info, warn, error or off", text)
		}
	}
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: level, Output: os.Stderr}), nil
}

// FromSlog makes an hclog.Logger that logs to l, for Options.Logger. Trace becomes a level below slog.LevelDebug by as much as debug is
// below info. A name becomes the attribute "logger". SetLevel narrows what l's handler lets pass, for this logger and all made from it.
func FromSlog(l *slog.Logger) hclog.Logger {
	level := new(atomic.Int32)
	level.Store(int32(hclog.Trace))
	return &slogLogger{base: l.Handler(), handler: l.Handler(), level: level}
}

type slogLogger struct {
	base    slog.Handler
	handler slog.Handler // base with name and implied
	name    string
	implied []any         // pairs of a string and a value; each string once
	level   *atomic.Int32 // an hclog.Level; shared by all that come from one FromSlog
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
	return level != hclog.Off && level >= hclog.Level(l.level.Load()) && l.handler.Enabled(context.Background(), slogLevel(level))
}

// emit logs for the caller of its caller.
func (l *slogLogger) emit(level hclog.Level, msg string, args []any) {
	if !l.enabled(level) {
		return
	}
	var pc [1]uintptr
	runtime.Callers(3, pc[:]) // runtime.Callers, emit and the exported method
	r := slog.NewRecord(time.Now(), slogLevel(level), msg, pc[0])
	r.AddAttrs(slogAttrs(pairs(args))...)
	_ = l.handler.Handle(context.Background(), r) // hclog has nobody to tell
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

// StandardWriter returns a writer that logs each write, at the level that opts force or that a prefix such as "[WARN]" names if they say
// to infer it.
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

// pairs makes args an even number of alternating strings and values, as hclog does.
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

// slogAttrs makes attributes of pairs. hclog's own types of values say how they want to be shown.
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
