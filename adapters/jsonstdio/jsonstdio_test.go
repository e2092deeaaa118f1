package jsonstdio

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
	"github.com/snakepit-go/snakepit/internal/adaptertest"
)

var update = flag.Bool("update", false, "rewrite the wire bytes in testdata")

// launcher returns a process whose other end the test holds.
type launcher struct {
	spec  core.Spec
	stdin *os.File
	out   *os.File
	err   error
}

func (l *launcher) launch(_ context.Context, s core.Spec) (*core.Process, error) {
	if l.spec = s; l.err != nil {
		return nil, l.err
	}
	p := &core.Process{}
	var err1, err2 error
	l.stdin, p.Stdin, err1 = os.Pipe()
	p.Stdout, l.out, err2 = os.Pipe()
	return p, errors.Join(err1, err2)
}

func (l *launcher) start() (*core.Link, error) {
	return Adapter{}.Start(context.Background(), &core.Launcher{Launch: l.launch, MaxFrame: 1 << 20})
}

// pair returns the adapter's connection and the worker's side of it.
func pair(t testing.TB) (host, worker core.Conn) {
	t.Helper()
	l := &launcher{}
	link, err := l.start()
	if err != nil {
		t.Fatal(err)
	}
	worker = newConn(l.stdin, l.out, nil, core.DefaultMaxFrame)
	t.Cleanup(func() { _, _ = link.Conn.Close(), worker.Close() })
	return link.Conn, worker
}

// sink is what a connection writes to.
type sink struct{ io.Writer }

func (sink) Close() error { return nil }

// reader returns a host's side that reads from r. It appends printed lines to printed.
func reader(r io.Reader, limit int, printed *[]byte) *conn {
	return newConn(io.NopCloser(r), sink{io.Discard}, func(b []byte) { *printed = append(*printed, b...) }, limit)
}

var stream = adaptertest.Stream{
	Reading: func(r io.Reader, limit int) core.Conn { return reader(r, limit, new([]byte)) },
	Writing: func(w io.Writer) core.Conn { return newConn(nil, sink{w}, nil, core.DefaultMaxFrame) },
	Pair:    pair,
	Buffer:  func(c core.Conn) int { return cap(c.(*conn).batch) },
	Bodies: rapid.Custom(func(t *rapid.T) []byte { // JSON text: without a line feed
		size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(chunk-40, 3*chunk)).Draw(t, "size")
		if size == 0 {
			return nil
		}
		b := bytes.Repeat([]byte{rapid.ByteRange(' ', '~').Draw(t, "fill")}, size)
		b[0], b[size-1] = '"', '\t'
		return b
	}),
	Copied: chunk - 1,
	Chunk:  chunk,
	Closed: os.ErrClosed,
}

func TestStream(t *testing.T)     { stream.Run(t) }
func BenchmarkRead(b *testing.B)  { stream.BenchmarkRead(b) }
func BenchmarkWrite(b *testing.B) { stream.BenchmarkWrite(b) }

const hello = `{"kind":"hello"}` + "\t{}\n"

func TestStart(t *testing.T) {
	l := &launcher{}
	link, err := l.start()
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = link.Conn.Close(), l.stdin.Close(), l.out.Close()
	if want := (core.Spec{Protocol: "jsonstdio", Stdio: true}); !reflect.DeepEqual(l.spec, want) {
		t.Errorf("launched %+v, not %+v", l.spec, want)
	}
	if link.Process == nil || link.MaxFrame != 0 || link.Conn.(*conn).limit != 1<<20 ||
		len(link.Codecs) != 1 || link.Codecs[0].Name() != "json" {
		t.Errorf("got the link %+v", link)
	}
	l.err = core.ErrUnavailable
	if _, err := l.start(); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("the launcher's error became %v", err)
	}
}

func TestGolden(t *testing.T) {
	adaptertest.Golden{
		Body:  func(text string) ([]byte, error) { return []byte(text), nil },
		Write: func(f core.Frame) string { return strings.TrimSuffix(string(stream.Encode(t, f)), "\n") },
		Read: func(line string) ([]core.Frame, error) {
			f, err := frame.ParseLine([]byte(line + "\n"))
			return []core.Frame{f}, err
		},
	}.Check(t, *update)
}

func TestNotAFrame(t *testing.T) {
	for _, line := range []string{
		"", "hello", "{", "[]", "null", `"kind"`, "{}", `{"id":1}`, `{"kind":"call"`, `{"kind":"call",}`,
		`{"kind":"call"}}`, `{"kind":"nonsense"}`, `{"kind":7}`, `{"Kind":"end"}`, `{"kind":null}`,
		`{"kind":"end","id":"1"}`, `{"kind":"end","id":-1}`, `{"kind":"end","id":1.0}`,
		`{"kind":"end","id":9007199254740992}`, `{"kind":"end","id":99999999999999999999}`,
		`{"kind":"end","name":1}`, `{"kind":"end","name":{}}`, `{"kind":"call","meta":{"a":1}}`,
		`{"kind":"call","meta":["a"]}`, `{"kind":"call","meta":"a"}`, "{\"kind\":\"call\",\"name\":\"\xff\"}",
		`{"kind":"end"} {"kind":"end"}`, `{"kind":"call","name":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		var printed []byte
		frames, err := reader(strings.NewReader(hello+line+"\n"+hello), 4096, &printed).Read()
		if err != nil || len(frames) != 1 {
			t.Errorf("before %q: %v, %v", line, frames, err)
		}
		c := reader(strings.NewReader(hello+line+"\n"+hello), 4096, &printed)
		got, err := adaptertest.ReadAll(c)
		if len(got) != 1 || !errors.Is(err, core.ErrProtocol) ||
			!strings.Contains(err.Error(), fmt.Sprintf("%.30q", line)[:min(25, len(line))]) {
			t.Errorf("%q was read as %v, %v", line, got, err)
		}
		if _, again := c.Read(); again != err {
			t.Errorf("%q: the next Read returned %v", line, again)
		}
		if len(printed) > 0 {
			t.Errorf("%q was printed", line)
		}
	}
}

// Start-up hooks may print anything before the first frame. After it nothing may be printed.
func TestPrintedBeforeTheFirstFrame(t *testing.T) {
	noise := "hook one\r\n\n" + `{"level":"info"}` + "\n\ttabs\xff\nhel\n"
	var printed []byte
	frames, err := reader(iotest.OneByteReader(strings.NewReader(noise+hello)), 4096, &printed).Read()
	if err != nil || len(frames) != 1 || frames[0].Kind != core.KindHello || string(frames[0].Body) != "{}" {
		t.Fatalf("got %v, %v", frames, err)
	}
	if want := strings.Replace(noise, "\r\n\n", "\r\n", 1); string(printed) != want {
		t.Errorf("printed %q, not %q", printed, want)
	}

	printed = nil
	_, err = reader(strings.NewReader("usage: worker [options]\nbye"), 4096, &printed).Read()
	if err != io.EOF || string(printed) != "usage: worker [options]\nbye" {
		t.Errorf("a worker that only printed: %v, printed %q", err, printed)
	}

	endless := &adaptertest.Endless{Text: strings.Repeat("x", 99) + "\n"}
	_, err = reader(endless, 4096, &printed).Read()
	if !errors.Is(err, core.ErrProtocol) || !strings.Contains(err.Error(), `"xxxx`) ||
		endless.Given > maxPrint+2*chunk {
		t.Errorf("a worker that prints for ever: %v after %d bytes", err, endless.Given)
	}
}

// The length of a line is checked while it arrives, not only at its end.
func TestLineLimit(t *testing.T) {
	const limit = 256 << 10
	for _, start := range []string{"", `{"kind":"item","id":1}` + "\t"} {
		rest := &adaptertest.Endless{Text: "x"}
		c := reader(io.MultiReader(strings.NewReader(hello+start), rest), limit, new([]byte))
		_, err := adaptertest.ReadAll(c)
		if !errors.Is(err, core.ErrProtocol) || rest.Given > 12*limit+chunk || len(c.buf) > 12*limit {
			t.Errorf("after %q: %v after %d bytes, buffer of %d", start, err, rest.Given, len(c.buf))
		}
	}
	for over := range 2 {
		f := core.Frame{Kind: core.KindItem, ID: 1, Body: bytes.Repeat([]byte("1"), limit-256+over)}
		wire := append([]byte(hello), stream.Encode(t, f)...)
		got, err := adaptertest.ReadAll(reader(bytes.NewReader(wire), limit, new([]byte)))
		if ok := len(got) == 2 && err == io.EOF; ok != (over == 0) {
			t.Errorf("a frame of %d bytes with a limit of %d: %d frames, %v", f.Size(), limit, len(got), err)
		}
	}
	quotes := core.Frame{Kind: core.KindCall, ID: 1, Name: strings.Repeat("\x01", limit-256)} // six bytes each
	wire := append([]byte(hello), stream.Encode(t, quotes)...)
	got, err := adaptertest.ReadAll(reader(bytes.NewReader(wire), limit, new([]byte)))
	if len(got) != 2 || err != io.EOF {
		t.Errorf("a name of control characters: %d frames, %v", len(got), err)
	}
}

func TestEnd(t *testing.T) {
	for in, want := range map[string]error{
		hello:                           io.EOF,
		hello + `{"kind":"end","id":1}`: io.ErrUnexpectedEOF, // its body may be missing
		hello + "{":                     io.ErrUnexpectedEOF,
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.DataErrReader(strings.NewReader(in))} {
			got, err := adaptertest.ReadAll(reader(r, 4096, new([]byte)))
			if len(got) != 1 || !errors.Is(err, want) {
				t.Errorf("%q: %d frames and %v, want %v", in, len(got), err, want)
			}
		}
	}
	broken := errors.New("broken")
	c := reader(io.MultiReader(strings.NewReader(hello+"{"), iotest.ErrReader(broken)), 4096, new([]byte))
	if got, err := adaptertest.ReadAll(c); len(got) != 1 || err != broken {
		t.Errorf("a read error became %v", err)
	}
}

// Any bytes are frames or an error, in bounded memory. The frames can be written and read again.
func FuzzRead(f *testing.F) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "frames.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		_, wire, _ := strings.Cut(string(file.Data), "\n")
		f.Add([]byte(hello + wire))
	}
	f.Add([]byte("hook\n" + hello + "{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4096
		c := reader(iotest.HalfReader(bytes.NewReader(data)), limit, new([]byte))
		got, err := adaptertest.ReadAll(c)
		if err != io.EOF && !errors.Is(err, core.ErrProtocol) {
			t.Errorf("ended with %v", err)
		}
		if len(c.buf) > max(12*limit, 2*chunk) {
			t.Errorf("the buffer has grown to %d bytes", len(c.buf))
		}
		for i := range got {
			if got[i].Kind == 0 || got[i].Size() > limit {
				t.Errorf("got the frame %v", &got[i])
			}
		}
		c = reader(bytes.NewReader(stream.Encode(t, got...)), limit, new([]byte))
		if again, err := adaptertest.ReadAll(c); err != io.EOF || !reflect.DeepEqual(again, got) {
			t.Errorf("read again as %v, %v, not %v", again, err, got)
		}
	})
}
