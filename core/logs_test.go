package core

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"lines":              {"a\nb\n", []string{"a", "b"}},
		"no end":             {"a\nb", []string{"a", "b"}},
		"dos":                {"a\r\nb\r\n", []string{"a", "b"}},
		"progress bar":       {"\r10%\r20%\rdone\n", []string{"10%", "20%", "done"}},
		"blank":              {"\n\n", nil},
		"as long as allowed": {long + "\nb", []string{long, "b"}},
		"longer":             {long + "yz\nb", []string{long, "yz", "b"}},
		"cut character":      {long[1:] + "äb\n", []string{long[1:], "äb"}},
		"cut bad bytes":      {long[1:] + "\xff\xffb\n", []string{long[1:] + "\xff", "\xffb"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{1, 7, 1 << 20} {
				var got []string
				s := splitter{emit: func(line []byte) { got = append(got, string(line)) }}
				for chunk := range slices.Chunk([]byte(c.in), step) {
					s.write(chunk)
				}
				s.flush()
				if !slices.Equal(got, c.want) {
					t.Errorf("%d bytes at a time: %.100q", step, got)
				}
			}
		})
	}
}

// The splitter loses only line ends, and no line is too long, however the output is split into pieces.
func TestSplitterLosesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "ä", "日", "🙂", "\xff", "\x80", "\n", "\r", strings.Repeat("z", 30_000)}
	for range 50 {
		var in []byte
		for range 100 {
			in = append(in, alphabet[random.IntN(len(alphabet))]...)
		}
		var out []byte
		s := splitter{emit: func(line []byte) {
			if len(line) > maxLine {
				t.Errorf("a line has %d bytes", len(line))
			}
			out = append(out, line...)
		}}
		for rest := in; len(rest) > 0; {
			n := 1 + random.IntN(len(rest))
			s.write(rest[:n])
			rest = rest[n:]
		}
		s.flush()
		want := bytes.ReplaceAll(bytes.ReplaceAll(in, []byte("\n"), nil), []byte("\r"), nil)
		if !bytes.Equal(out, want) {
			t.Fatalf("%d bytes of %d are left", len(out), len(want))
		}
	}
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain täxt 日本 🙂":       "plain täxt 日本 🙂",
		"tab\tstays":            "tab\tstays",
		"\x1b[31mred\x1b[0m":    `\x1b[31mred\x1b[0m`,
		"line\nfeed\r":          `line\nfeed\r`,
		"nul\x00 del\x7f":       `nul\x00 del\x7f`,
		"c1 \u009b31m":          `c1 \u009b31m`,
		"bad \xff\xc3":          `bad \xff\xc3`,
		"\u202egnp.exe\u2028":   `\u202egnp.exe\u2028`,
		"replacement \ufffd":    "replacement \ufffd",
		"quotes ' \" and \\x1b": "quotes ' \" and \\x1b",
	} {
		got := escapeControl(in, false)
		if got != want || !utf8.ValidString(got) {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got := escapeControl("a\nb\x1b", true); got != "a\nb\\x1b" {
		t.Errorf("with line feeds it becomes %q", got)
	}
}

func TestCut(t *testing.T) {
	if got := truncate("abc", 3); got != "abc" {
		t.Error(got)
	}
	if got := truncate("aäbc", 2); got != "a... (4 bytes more)" {
		t.Error(got)
	}
}

func TestLogRecord(t *testing.T) {
	now := float64(time.Now().UnixMilli()) / 1e3
	for name, c := range map[string]struct {
		record logRecord
		want   map[string]any
	}{
		"all": {
			logRecord{Level: "warn", Logger: "myapp.model", Message: "loaded",
				Fields: map[string]any{"path": "/x", "n": int64(3)}, Call: 7, Time: now},
			map[string]any{"@level": "warn", "@message": "loaded", "@module": "test", "logger": "myapp.model",
				"call": 7.0, "path": "/x", "n": 3.0},
		},
		"bare": {logRecord{Level: "debug", Message: "m"},
			map[string]any{"@level": "debug", "@message": "m", "@module": "test"}},
		"trace": {logRecord{Level: "trace", Message: "m"},
			map[string]any{"@level": "trace", "@message": "m", "@module": "test"}},
		"error": {logRecord{Level: "error", Message: "m"},
			map[string]any{"@level": "error", "@message": "m", "@module": "test"}},
		"unknown level": {logRecord{Level: "\x1b", Message: "m"},
			map[string]any{"@level": "info", "@message": "m", "@module": "test"}},
		"off": {logRecord{Level: "off", Message: "m"},
			map[string]any{"@level": "info", "@message": "m", "@module": "test"}},
		"held up": {
			logRecord{Level: "info", Message: "m", Time: 1700000000.5},
			map[string]any{"@level": "info", "@message": "m", "@module": "test", "logged_at": "2023-11-14T22:13:20.5Z"},
		},
		"forged": {
			logRecord{Level: "info", Message: "m\n[ERROR] forged", Logger: "l\x1b",
				Fields: map[string]any{"worker": 9, "call": 9, "k\n": "v\x1b"}},
			map[string]any{
				"@level": "info", "@message": `m\n[ERROR] forged`, "@module": "test", "logger": `l\x1b`,
				"field.worker": 9.0, "field.call": 9.0,
				`k\n`: `v\x1b`,
			},
		},
		"values": {
			logRecord{Level: "info", Message: "m", Fields: map[string]any{
				"nan": math.NaN(), "inf": float32(math.Inf(-1)), "nil": nil, "bytes": []byte("abc"),
				"list": []any{1, "x", []any{true}},
				"map":  map[string]any{"k": 1.5}, "text": "two\nlines", "other": struct{}{},
				"time": time.Unix(0, 0).UTC(),
			}},
			map[string]any{
				"@level": "info", "@message": "m", "@module": "test", "nan": "NaN",
				"inf": "-Inf", "nil": nil, "bytes": "(3 bytes)",
				"list": []any{1.0, "x", []any{true}}, "map": map[string]any{"k": 1.5}, "text": "two\nlines",
				"other": "(struct {})",
				"time":  "1970-01-01T00:00:00Z",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c.record.emit(hclog.New(&hclog.LoggerOptions{Name: "test", Level: hclog.Trace, JSONFormat: true,
				Output: &out}))
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, out.Bytes())
			}
			delete(got, "@timestamp")
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("logged %v,\nwant   %v", got, c.want)
			}
		})
	}
}

// A hostile record adds a bounded amount to the log, on every kind of logger.
func TestLogRecordIsBounded(t *testing.T) {
	deep := any("bottom")
	for range 100_000 {
		deep = []any{map[string]any{"k": deep}}
	}
	wide := map[string]any{}
	for i := range 10_000 {
		wide[fmt.Sprintf("%05d%s", i, strings.Repeat("k", 1000))] = strings.Repeat("v", 100)
	}
	broad := any("leaf")
	for range 3 {
		broad = []any{broad, broad, broad, broad, broad, broad, broad, broad, broad, broad, broad, broad}
	}
	huge := strings.Repeat("\x00", 10<<20)
	record := logRecord{
		Level: huge, Logger: huge, Message: huge, Call: math.MaxUint64, Time: math.Inf(1),
		Fields: map[string]any{huge: huge, "deep": deep, "wide": wide, "broad": broad, "bytes": make([]byte, 10<<20),
			"": nil},
	}
	var plain, structured, slogged bytes.Buffer
	for name, c := range map[string]struct {
		logger hclog.Logger
		out    *bytes.Buffer
	}{
		"plain": {hclog.New(&hclog.LoggerOptions{Output: &plain}), &plain},
		"json":  {hclog.New(&hclog.LoggerOptions{Output: &structured, JSONFormat: true}), &structured},
		"slog":  {FromSlog(slog.New(slog.NewTextHandler(&slogged, nil))), &slogged},
	} {
		t.Run(name, func(t *testing.T) {
			record.emit(c.logger)
			if n := c.out.Len(); n == 0 || n > 1<<20 {
				t.Errorf("the log has %d bytes", n)
			}
			if bytes.IndexByte(c.out.Bytes(), 0) >= 0 {
				t.Error("the log has a raw control character")
			}
		})
	}
	for _, sec := range []float64{math.NaN(), -1, 1e300, math.MaxFloat64} {
		(&logRecord{Level: "info", Time: sec}).emit(hclog.NewNullLogger())
	}
	(&logRecord{}).emit(hclog.NewNullLogger())
}

func TestDefaultLogger(t *testing.T) {
	for value, want := range map[string]hclog.Level{
		"": hclog.Info, "trace": hclog.Trace, "debug": hclog.Debug, "info": hclog.Info,
		"WARN": hclog.Warn, "error": hclog.Error, "off": hclog.Off,
	} {
		t.Setenv("SNAKEPIT_LOG", value)
		l, err := defaultLogger("test")
		if err != nil || l.GetLevel() != want || l.Name() != "test" {
			t.Errorf("%q gives %v %v", value, l, err)
		}
	}
	t.Setenv("SNAKEPIT_LOG", "verbose")
	if _, err := defaultLogger("test"); err == nil ||
		!strings.Contains(err.Error(), `"verbose": use trace, debug, info, warn, error or off`) {
		t.Error(err)
	}
}

// slogFixture logs to a buffer as JSON, without the time.
func slogFixture(level slog.Level) (hclog.Logger, func() map[string]any) {
	var out bytes.Buffer
	handler := slog.NewJSONHandler(&out,
		&slog.HandlerOptions{Level: level, AddSource: true, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}})
	return FromSlog(slog.New(handler)), func() map[string]any {
		defer out.Reset()
		var m map[string]any
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			return map[string]any{"nothing": out.String()}
		}
		return m
	}
}

func TestFromSlog(t *testing.T) {
	l, logged := slogFixture(slog.LevelDebug - 4)
	_, _, line, _ := runtime.Caller(0)
	l.Named("a").Named("b").With("worker", 1, "x", "old").With("x", "new").Warn("hello", "n", hclog.Hex(255), 5,
		hclog.Fmt("%d%%", 50))
	got := logged()
	source, _ := got["source"].(map[string]any)
	file, _ := source["file"].(string)
	if filepath.Base(file) != "logs_test.go" || source["line"] != float64(line+1) {
		t.Errorf("the source is %v", source)
	}
	delete(got, "source")
	want := map[string]any{
		"level": "WARN", "msg": "hello", "logger": "a.b", "worker": 1.0, "x": "new", "n": "0xff", "5": "50%",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("logged %v,\nwant   %v", got, want)
	}

	for want, log := range map[string]func(string, ...any){
		"DEBUG-4": l.Trace, "DEBUG": l.Debug, "INFO": l.Info, "WARN": l.Warn, "ERROR": l.Error,
	} {
		if log("m"); logged()["level"] != want {
			t.Errorf("%s has another level", want)
		}
	}
	for level, want := range map[hclog.Level]string{
		hclog.Trace: "DEBUG-4", hclog.Debug: "DEBUG", hclog.Info: "INFO", hclog.Warn: "WARN",
		hclog.Error: "ERROR", hclog.NoLevel: "INFO",
	} {
		if l.Log(level, "m"); logged()["level"] != want {
			t.Errorf("%v is not %s", level, want)
		}
	}
	if l.Log(hclog.Off, "m"); logged()["msg"] != nil {
		t.Error("logged at level off")
	}
	if l.Info("m", "odd"); logged()[hclog.MissingKey] != "odd" {
		t.Error("a value without a name is lost")
	}
	l.Info("m", "q", hclog.Quote("a\n"), "o", hclog.Octal(8), "b", hclog.Binary(5), "f", hclog.Format{},
		hclog.Stacktrace())
	if got := logged(); got["q"] != `"a\n"` || got["o"] != "010" || got["b"] != "0b101" || got["stacktrace"] == nil {
		t.Errorf("logged %v", got)
	}
}

func TestFromSlogNames(t *testing.T) {
	l, logged := slogFixture(slog.LevelInfo)
	args := []any{"k", "v"}
	child := l.With(args...)
	args[1] = "changed"
	if child.Info("m"); logged()["k"] != "v" {
		t.Error("With keeps the caller's slice")
	}
	if l.Info("m"); logged()["k"] != nil {
		t.Error("With changes its parent")
	}
	if got := child.ImpliedArgs(); !reflect.DeepEqual(got, []any{"k", "v"}) {
		t.Errorf("the implied arguments are %v", got)
	}
	named := child.Named("a").ResetNamed("b")
	if named.Name() != "b" || l.Name() != "" || named.ImpliedArgs()[0] != "k" {
		t.Errorf("the name is %q", named.Name())
	}
	if named.ResetNamed("").Info("m"); logged()["logger"] != nil {
		t.Error("a reset name is still there")
	}
}

func TestFromSlogLevels(t *testing.T) {
	l, logged := slogFixture(slog.LevelInfo)
	if l.IsTrace() || l.IsDebug() || !l.IsInfo() || !l.IsWarn() || !l.IsError() || l.GetLevel() != hclog.Info {
		t.Error("the handler's level does not hold")
	}
	child := l.Named("child")
	l.SetLevel(hclog.Error) // also applies to loggers made from it
	if child.Warn("m"); logged()["msg"] != nil || child.IsWarn() || !child.IsError() ||
		child.GetLevel() != hclog.Error {
		t.Error("SetLevel does not hold")
	}
	l.SetLevel(hclog.Off)
	if child.Error("m"); logged()["msg"] != nil || child.GetLevel() != hclog.Off {
		t.Error("off is not off")
	}
	l.SetLevel(hclog.Trace) // cannot go below the handler's own level
	if child.GetLevel() != hclog.Info || FromSlog(slog.New(slog.DiscardHandler)).GetLevel() != hclog.Off {
		t.Error("the handler's level does not hold")
	}
}

func TestFromSlogStandard(t *testing.T) {
	l, logged := slogFixture(slog.LevelDebug)
	for _, c := range []struct {
		opts       *hclog.StandardLoggerOptions
		in         string
		level, msg string
	}{
		{nil, "[WARN] plain", "INFO", "[WARN] plain"},
		{&hclog.StandardLoggerOptions{InferLevels: true}, "[WARN] careful", "WARN", "careful"},
		{&hclog.StandardLoggerOptions{InferLevels: true}, "[ERR] broken", "ERROR", "broken"},
		{&hclog.StandardLoggerOptions{InferLevels: true}, "[what] is it", "INFO", "[what] is it"},
		{&hclog.StandardLoggerOptions{InferLevels: true}, "[", "INFO", "["},
		{&hclog.StandardLoggerOptions{InferLevels: true}, "\n", "INFO", ""},
		{&hclog.StandardLoggerOptions{InferLevels: true, InferLevelsWithTimestamp: true},
			"2026/01/02 03:04:05 [DEBUG] in time", "DEBUG", "in time"},
		{&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}, "[DEBUG] forced", "ERROR", "forced"},
	} {
		l.StandardLogger(c.opts).Print(c.in)
		if got := logged(); got["level"] != c.level || got["msg"] != c.msg {
			t.Errorf("%q is logged as %v", c.in, got)
		}
	}
}

func TestFromSlogGroups(t *testing.T) {
	var out bytes.Buffer
	h := slog.NewTextHandler(&out, nil).WithGroup("g")
	FromSlog(slog.New(h)).With("a", 1).Info("m", "b", 2)
	if !strings.Contains(out.String(), "g.a=1 g.b=2") {
		t.Errorf("logged %s", out.String())
	}
}

func TestReasonOfARefusal(t *testing.T) {
	lacking := &UnavailableError{Reason: "no module", Remedy: "pip install it"}
	for want, err := range map[string]error{
		"no module":       lacking,
		"no port is free": &UnavailableError{Reason: "no port is free\nand more"},
		"plain; and so":   errors.New("plain; and so\nand more"),
		"not found":       fmt.Errorf("starting: %w", &RemedyError{errors.New("not found"), "install it"}),
	} {
		if got := (Refusal{"grpc", captureError(err)}).reason(); got != want {
			t.Errorf("%q: %q", err, got)
		}
	}
	if !errors.Is(fmt.Errorf("grpc: %w", lacking), ErrUnavailable) {
		t.Error("an UnavailableError is not ErrUnavailable")
	}
	start := &StartError{Err: fmt.Errorf("over grpc: %w", lacking), Remedy: "read the page"}
	if reason, remedy := Explain(start); reason != "no module" || remedy != "pip install it" {
		t.Errorf("explained by %q, %q", reason, remedy)
	}
	start.Err = errors.New("it ended")
	if reason, remedy := Explain(start); reason != "it ended" || remedy != "read the page" {
		t.Errorf("explained by %q, %q", reason, remedy)
	}
}
