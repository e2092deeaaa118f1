//go:build unix

package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

// isHarmless reports whether a text can't mislead a terminal.
func isHarmless(s string, lineFeeds bool) bool {
	return utf8.ValidString(s) && escapeControl(s, lineFeeds) == s
}

// Whatever a worker writes as its report is read up to the limit, and is a report or an error of bounded length.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{
		`{"endpoint": "unix:/x"}` + "\n",
		` {"unavailable": "no grpcio\u001b[2J", "remedy": "pip install grpcio"}` + "\nmore",
		`{"failed": {"type": "OSError", "message": "no room", "frames": [{"file": "a.py", "line": 1}], "cause": {}}}`,
		"  ", "", "[]\n", `{"endpoint": 5}` + "\n", "{garbage\n",
	} {
		f.Add([]byte(seed), uint16(0))
	}
	f.Add([]byte("x"), uint16(maxReport-1))
	f.Fuzz(func(t *testing.T, data []byte, more uint16) {
		data = repeated(data, more)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		go func() {
			_, _ = w.Write(data) // an error: the reader has had enough
			_ = w.Close()
		}()
		got := readReport(r)
		line, tried, err := got.line, got.tried, got.err
		if len(line) > maxReport || tried && len(bytes.Trim(line, " ")) > 0 || bytes.ContainsRune(line, '\n') {
			t.Fatalf("read %d bytes, %.40q", len(line), line)
		}
		if err != nil || tried {
			return
		}
		report, err := parseReport(line)
		if err != nil && (len(err.Error()) > 2000 || !isHarmless(err.Error(), true)) {
			t.Errorf("the error is %q", err)
		}
		if err == nil && report.Failed != nil {
			checkRemote(t, report.Failed, len(line))
		}
	})
}

// repeated returns data once and then more times, up to some 256 KiB. A fuzzer is slow with large inputs of its own.
func repeated(data []byte, more uint16) []byte {
	return bytes.Repeat(data, 1+min(int(more), 1<<18/max(1, len(data))))
}

// checkRemote uses an error as programs do. What it prints is bounded by a multiple of its size on the wire.
func checkRemote(t *testing.T, e *RemoteError, size int) {
	printed := e.Error() + e.Traceback() + e.takeHint()
	if len(printed) > 100*size+1<<16 {
		t.Errorf("%d bytes make a text of %d", size, len(printed))
	}
	_ = errors.Is(e, Exception("ValueError")) || errors.Is(e, ErrFrameTooLarge) || errors.Is(e, ErrBadArguments)
	var data any
	_ = e.Data(&data)
	e.cameBy(jsonCodec{})
	_ = e.Data(&data)
}

// jsonCodec is encoding/json as a codec. The tests of package codec have the real ones, which import core.
type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }
func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}
func (jsonCodec) Decode(b []byte, v any) error { return json.Unmarshal(b, v) }

// Any body of an error is an error that can be printed, or cannot be decoded.
func FuzzRemoteError(f *testing.F) {
	f.Add([]byte(`{"type": "JSONDecodeError", "module": "json.decoder", "bases": ["ValueError"], "message": "bad",
		"data": {"a": 1}}`))
	f.Add([]byte(`{"type": "E", "frames": [{"file": "a.py", "line": 12, "function": "f", "source": "x"}],
		"notes": ["hint: do"], "traceback": "Traceback\n",
		"cause": {"type": "C", "context": {"type": "D", "errors": [{}, null]}}}`))
	f.Add([]byte(`{"cause": {"cause": {"cause": {"cause": {"cause": {"errors": [{"errors": [{}]}]}}}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e := &RemoteError{}
		if json.Unmarshal(body, e) == nil {
			checkRemote(t, e, len(body))
		}
	})
}

// Any body of a log record becomes a record of bounded size without control characters, or a warning.
func FuzzLogRecord(f *testing.F) {
	f.Add([]byte(`{"level": "info", "logger": "app", "message": "loaded\u001b[2J", "fields": {"a": [1, {"b": null}]},
		"call": 7, "time": 1700000000.123}`))
	f.Add([]byte(`{"level": "off", "fields": {"exception": "Traceback\nOSError: x", "\n": {"": {"": {"": {"": {}}}}}},
		"time": -1e300}`))
	f.Add([]byte(`{"time": 8589934591.9999999, "call": -1}`))
	test := func(t *testing.T, body []byte) {
		var out bytes.Buffer
		queue := newLogQueue(hclog.New(&hclog.LoggerOptions{Output: &out, JSONFormat: true, Level: hclog.Trace}))
		r := newRecords(queue, 0, jsonCodec{})
		r.put(body)
		lines := r.tail(time.Time{})
		if err := queue.close(time.Minute); err != nil {
			t.Fatal(err)
		}
		if out.Len() > 2*maxMessage+4*maxFieldTree*(maxFieldText+maxFieldName) {
			t.Errorf("%d bytes make a record of %d", len(body), out.Len())
		}
		for _, line := range lines {
			if !isHarmless(line.text, false) || len(line.text) > maxLastLine+100 {
				t.Errorf("the line is %q", line.text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) { test(t, body) }) // a busy machine must not exceed the queue's time limits
	})
}

// Whatever a worker prints becomes lines of bounded length without control characters, and nothing of it is lost.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\nb\r\n\x1b[2J\xff\xfe\u2028"), uint16(0), uint16(3))
	f.Add([]byte("xä"), uint16(maxLine-1), uint16(1000))
	f.Fuzz(func(t *testing.T, data []byte, more, step uint16) {
		data = repeated(data, more)
		var all []byte
		s := splitter{emit: func(line []byte) {
			if len(line) == 0 || len(line) > maxLine {
				t.Errorf("a line of %d bytes", len(line))
			}
			if !isHarmless(escapeControl(string(line), false), false) {
				t.Errorf("the line is %q", line)
			}
			all = append(all, line...)
		}}
		for part := range slices.Chunk(data, 1+int(step)) {
			s.write(part)
		}
		s.flush()
		if want := slices.Concat(bytes.FieldsFunc(data, isLineEnd)...); !bytes.Equal(all, want) {
			t.Errorf("%q became %q", data, all)
		}
	})
}

func isLineEnd(r rune) bool { return r == '\n' || r == '\r' }

// oneFrame is a Conn whose peer has sent one frame.
type oneFrame struct{ frame *Frame }

func (c oneFrame) Read() ([]Frame, error) {
	if c.frame.Kind == 0 {
		return nil, io.EOF
	}
	return []Frame{*c.frame}, nil
}
func (oneFrame) Write([]Frame) error { return nil }
func (oneFrame) CloseWrite() error   { return nil }
func (oneFrame) Close() error        { return nil }

// Any first frame of a worker gives terms that make sense, or an error of bounded length.
func FuzzHello(f *testing.F) {
	const hello = `{"versions": [1], "features": ["pieces"], "codecs": ["json"], "max_frame": 67108864,
		"window": {"items": 1024, "bytes": 1048576}, "concurrency": 1, "commands": [{"name": "f", "stream": true}],
		"pid": 4711, "runtime": "r", "library": "l", "token": "secret"}`
	f.Add(uint8(KindHello), []byte(hello))
	f.Add(uint8(KindHello), []byte(strings.Replace(hello, "[1]", "[2, 3]", 1)))
	f.Add(uint8(KindHello), []byte(strings.Replace(hello, `"json"`, `"xml"`, 1)))
	f.Add(uint8(KindHello), []byte(strings.Replace(hello, "67108864", "1", 1)))
	f.Add(uint8(KindError), []byte(`{"type": "ImportError", "message": "no module"}`))
	f.Add(uint8(KindItem), []byte("1"))
	queue := newLogQueue(hclog.NewNullLogger())
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		at := &attempt{spawner: &spawner{opts: spawnerOptions{Log: queue}}}
		conn := oneFrame{&Frame{Kind: Kind(kind), Body: body}}
		link := &Link{Conn: conn, Codecs: []Codec{jsonCodec{}}, Token: "secret"}
		o := &Options{MaxFrame: DefaultMaxFrame, WindowItems: 10, WindowBytes: 1000}
		c, err := handshake(context.Background(), at, link, o)
		if err != nil {
			var remote *RemoteError
			if errors.As(err, &remote) {
				checkRemote(t, remote, len(body))
			} else if text := err.Error(); len(text) > 2000 || !isHarmless(text, false) {
				t.Errorf("the error is %q", text)
			}
			return
		}
		terms := c.terms
		if terms.maxFrame < 4096 || terms.maxFrame > o.MaxFrame || terms.send.Items < 1 || terms.send.Bytes < 1 ||
			c.hello.Concurrency < 1 || terms.codec == nil || c.hello.Token != "" {
			t.Errorf("the terms are %+v of %+v", terms, c.hello)
		}
	})
}
