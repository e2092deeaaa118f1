package core

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Limits of a log record. It comes from a worker, so all its parts are bounded, and control characters are escaped.
const (
	maxMessage   = 64 << 10 // bytes of the message
	maxFieldName = 128      // bytes of one name
	maxFieldText = 8 << 10  // bytes of one text in the fields
	maxFields    = 64       // entries of one map or list in the fields
	maxFieldTree = 256      // values in all fields, including nested ones
	maxFieldDeep = 4        // levels of nesting in the fields
)

// logRecord is the body of a log frame.
type logRecord struct {
	Level   string         `json:"level"`
	Logger  string         `json:"logger"`
	Message string         `json:"message"`
	Fields  map[string]any `json:"fields,omitempty"`
	Call    uint64         `json:"call,omitempty"`
	Time    float64        `json:"time,omitempty"` // Unix seconds
}

// records receives the log frames of one connection. It keeps the last ones, undecoded, for a WorkerExit.
type records struct {
	log   *logSource
	codec Codec

	mu   sync.Mutex // guards last
	last []logBody  // at most lastLines, the newest last
}

// logBody is the body of a log frame.
type logBody struct {
	bytes []byte
	at    time.Time // when it arrived
}

func newRecords(logs *logQueue, worker int, codec Codec) *records {
	return &records{log: logs.source(worker, "log records were dropped because the logger is slow"), codec: codec}
}

// put adds one body. It keeps a copy. It does not block.
func (r *records) put(b []byte) {
	b = bytes.Clone(b) // the original pins the read buffer that it came in
	r.mu.Lock()
	if len(r.last) == lastLines {
		r.last = slices.Delete(r.last, 0, 1)
	}
	if len(b) <= maxMessage { // a larger one would use too much memory for too long
		r.last = append(r.last, logBody{b, time.Now()})
	}
	r.mu.Unlock()
	r.log.put(len(b), func(l hclog.Logger) {
		var rec logRecord
		decode := func() error { return r.codec.Decode(b, &rec) }
		failed := func(err error) { l.Warn("a log record could not be decoded", "error", err) }
		if err := guardAdapter("the adapter's codec", decode, failed); err != nil {
			failed(err)
			return
		}
		rec.emit(l)
	})
}

// tail returns the last records that were logged at or after since, as lines, the newest last.
func (r *records) tail(since time.Time) []logLine {
	r.mu.Lock()
	last := slices.Clone(r.last)
	r.mu.Unlock()
	var lines []logLine
	for _, b := range last {
		var rec logRecord
		decode := func() error { return r.codec.Decode(b.bytes, &rec) }
		if b.at.Before(since) || isolate("the adapter's codec", decode) != nil {
			continue
		}
		at := b.at
		// The record may have arrived late. Its own time counts, unless the worker's clock seems to differ.
		if late := at.Sub(rec.at()); late > 0 && late < time.Second {
			at = rec.at()
		}
		if !at.Before(since) {
			lines = append(lines, logLine{truncate(rec.line(), maxLastLine), at})
		}
	}
	return lines
}

// at returns the time at which the worker says that it logged the record. It returns the zero time if there is none
// that makes sense.
func (r *logRecord) at() time.Time {
	if r.Time > 0 && r.Time < 1<<33 {
		return time.UnixMicro(int64(r.Time * 1e6)).UTC()
	}
	return time.Time{}
}

// line returns the record as one line, such as "ERROR app.db: no connection (OSError: timed out)".
func (r *logRecord) line() string {
	level, name := strings.ToUpper(truncate(r.Level, maxFieldName)), truncate(r.Logger, maxFieldName)
	text := fmt.Sprintf("%s %s: %s", level, name, truncate(r.Message, maxMessage))
	if trace, ok := r.Fields["exception"].(string); ok { // its last line names the exception
		trace = strings.TrimRight(trace, "\n")
		text += " (" + trace[strings.LastIndexByte(trace, '\n')+1:] + ")"
	}
	return escapeControl(text, false)
}

// emit logs the record. The worker is not trusted: an unknown level becomes info, and parts that are too large are
// truncated.
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
		args = append(args, "logger", escapeControl(truncate(r.Logger, maxFieldName), false))
	}
	if r.Call != 0 {
		args = append(args, "call", r.Call)
	}
	// Records usually arrive at once. Only a late one needs its own time.
	if at := r.at(); !at.IsZero() && time.Since(at).Abs() > time.Second {
		args = append(args, "logged_at", at)
	}
	p := pruner{left: maxFieldTree}
	fields, _ := p.prune(r.Fields, 0).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key := name
		switch name {
		case "worker", "logger", "call", "logged_at": // the pool's own keys
			key = "field." + name
		}
		args = append(args, key, fields[name])
	}
	logger.Log(level, escapeControl(truncate(r.Message, maxMessage), false), args...)
}

// pruner copies a log record's fields and applies the limits.
type pruner struct{ left int } // values that may still be copied

func (p *pruner) prune(v any, depth int) any {
	p.left--
	switch v := v.(type) {
	case nil, bool, time.Time, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return v
	case float32:
		return p.prune(float64(v), depth)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return strconv.FormatFloat(v, 'g', -1, 64) // JSON has no such number, so hclog would drop the record
		}
		return v
	case string:
		return escapeControl(truncate(v, maxFieldText), true)
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
			m[escapeControl(truncate(k, maxFieldName), false)] = p.prune(v[k], depth+1)
		}
		return m
	default:
		return fmt.Sprintf("(%T)", v)
	}
}

// enabled reports whether logger logs at level. hclog has no such method, and GetLevel may not know.
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
