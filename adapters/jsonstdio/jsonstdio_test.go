package jsonstdio

import (
	"bytes"
	"context"
	"encoding/json"
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
	"time"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
)

var update = flag.Bool("update", false, "rewrite the wire bytes in testdata")

// launcher gives a process whose other end the test holds.
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

type sink struct {
	bytes.Buffer
	writes int
}

func (s *sink) Write(b []byte) (int, error) { s.writes++; return s.Buffer.Write(b) }
func (s *sink) Close() error                { return nil }

// reader reads what r has, as a host; what was printed is appended to printed.
func reader(r io.Reader, limit int, printed *[]byte) *conn {
	return newConn(io.NopCloser(r), &sink{}, func(b []byte) { *printed = append(*printed, b...) }, limit)
}

func readAll(c *conn) (all []core.Frame, err error) {
	for {
		frames, err := c.Read()
		if err != nil {
			return all, err
		}
		all = append(all, frames...)
	}
}

func encode(t interface{ Fatal(...any) }, frames ...core.Frame) []byte {
	out := &sink{}
	if err := newConn(nil, out, nil, core.DefaultMaxFrame).Write(frames); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

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
	if link.Process == nil || link.MaxFrame != 0 || link.Conn.(*conn).limit != 1<<20 || len(link.Codecs) != 1 || link.Codecs[0].Name() != "json" {
		t.Errorf("got the link %+v", link)
	}
	l.err = core.ErrUnavailable
	if _, err := l.start(); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("the launcher's error became %v", err)
	}
}

// TestGolden holds the wire bytes in testdata, which the tests of other languages read too. In each section the first line is the frame, the
// second what is written for it, and the rest other lines that mean the same.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "frames.txtar")
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range archive.Files {
		lines := strings.SplitAfter(string(file.Data), "\n")
		var g struct {
			Kind                string
			Flags               core.Flags
			ID, Parent          uint64
			TTL, Items, Bytes   int64
			Name, Session, Body string
			Meta                map[string]string
		}
		if err := json.Unmarshal([]byte(lines[0]), &g); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		f := core.Frame{
			Kind: core.ParseKind(g.Kind), Flags: g.Flags, ID: g.ID, Parent: g.Parent, Name: g.Name, TTL: time.Duration(g.TTL) * time.Millisecond,
			Session: g.Session, Meta: g.Meta, Items: g.Items, Bytes: g.Bytes,
		}
		if g.Body != "" {
			f.Body = []byte(g.Body)
		}
		wire := string(encode(t, f))
		if *update {
			lines = append([]string{lines[0], wire}, lines[min(2, len(lines)):]...)
			archive.Files[i].Data = []byte(strings.Join(lines, ""))
		}
		if wire != lines[1] {
			t.Errorf("%s: wrote %q, not %q", file.Name, wire, lines[1])
		}
		for _, line := range lines[1:] {
			if line == "" {
				continue
			}
			if got, err := frame.ParseLine([]byte(line)); err != nil || !reflect.DeepEqual(got, f) {
				t.Errorf("%s: read %q as %+v, %v", file.Name, line, got, err)
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNotAFrame(t *testing.T) {
	for _, line := range []string{
		"", "hello", "{", "[]", "null", `"kind"`, "{}", `{"id":1}`, `{"kind":"call"`, `{"kind":"call",}`, `{"kind":"call"}}`, `{"kind":"nonsense"}`,
		`{"kind":7}`, `{"Kind":"end"}`, `{"kind":null}`, `{"kind":"end","id":"1"}`, `{"kind":"end","id":-1}`, `{"kind":"end","id":1.0}`,
		`{"kind":"end","id":9007199254740992}`, `{"kind":"end","id":99999999999999999999}`, `{"kind":"end","name":1}`, `{"kind":"end","name":{}}`,
		`{"kind":"call","meta":{"a":1}}`, `{"kind":"call","meta":["a"]}`, `{"kind":"call","meta":"a"}`, "{\"kind\":\"call\",\"name\":\"\xff\"}",
		`{"kind":"end"} {"kind":"end"}`, `{"kind":"call","name":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		var printed []byte
		frames, err := reader(strings.NewReader(hello+line+"\n"+hello), 4096, &printed).Read()
		if err != nil || len(frames) != 1 {
			t.Errorf("before %q: %v, %v", line, frames, err)
		}
		c := reader(strings.NewReader(hello+line+"\n"+hello), 4096, &printed)
		got, err := readAll(c)
		if len(got) != 1 || !errors.Is(err, core.ErrProtocol) || !strings.Contains(err.Error(), fmt.Sprintf("%.30q", line)[:min(25, len(line))]) {
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

// Start-up hooks may print anything before the first frame; from then on nothing may.
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

	endless := &endless{text: strings.Repeat("x", 99) + "\n"}
	_, err = reader(endless, 4096, &printed).Read()
	if !errors.Is(err, core.ErrProtocol) || !strings.Contains(err.Error(), `"xxxx`) || endless.given > maxPrint+2*chunk {
		t.Errorf("a worker that prints for ever: %v after %d bytes", err, endless.given)
	}
}

// endless gives a text again and again.
type endless struct {
	text  string
	given int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], e.text[(e.given+n)%len(e.text):])
	}
	e.given += n
	return n, nil
}

// A line is bounded while it comes, not when it has come.
func TestLineLimit(t *testing.T) {
	const limit = 256 << 10
	for _, start := range []string{"", `{"kind":"item","id":1}` + "\t"} {
		rest := &endless{text: "x"}
		c := reader(io.MultiReader(strings.NewReader(hello+start), rest), limit, new([]byte))
		_, err := readAll(c)
		if !errors.Is(err, core.ErrProtocol) || rest.given > 12*limit+chunk || len(c.buf) > 12*limit {
			t.Errorf("after %q: %v after %d bytes, buffer of %d", start, err, rest.given, len(c.buf))
		}
	}
	for over := range 2 {
		f := core.Frame{Kind: core.KindItem, ID: 1, Body: bytes.Repeat([]byte("1"), limit-256+over)}
		got, err := readAll(reader(bytes.NewReader(append([]byte(hello), encode(t, f)...)), limit, new([]byte)))
		if ok := len(got) == 2 && err == io.EOF; ok != (over == 0) {
			t.Errorf("a frame of %d bytes with a limit of %d: %d frames, %v", f.Size(), limit, len(got), err)
		}
	}
	quotes := core.Frame{Kind: core.KindCall, ID: 1, Name: strings.Repeat("\x01", limit-256)} // six bytes each
	if got, err := readAll(reader(bytes.NewReader(append([]byte(hello), encode(t, quotes)...)), limit, new([]byte))); len(got) != 2 || err != io.EOF {
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
			got, err := readAll(reader(r, 4096, new([]byte)))
			if len(got) != 1 || !errors.Is(err, want) {
				t.Errorf("%q: %d frames and %v, want %v", in, len(got), err, want)
			}
		}
	}
	broken := errors.New("broken")
	c := reader(io.MultiReader(strings.NewReader(hello+"{"), iotest.ErrReader(broken)), 4096, new([]byte))
	if got, err := readAll(c); len(got) != 1 || err != broken {
		t.Errorf("a read error became %v", err)
	}
}

var (
	textGen   = rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringOfN(rapid.Rune(), 40, 400, -1))
	numberGen = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, 300), rapid.Uint64Range(0, 1<<53-1))
	bodyGen   = rapid.Custom(func(t *rapid.T) []byte { // JSON text: without a line feed
		size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(chunk-40, 3*chunk)).Draw(t, "size")
		if size == 0 {
			return nil
		}
		b := bytes.Repeat([]byte{rapid.ByteRange(' ', '~').Draw(t, "fill")}, size)
		b[0], b[size-1] = '"', '\t'
		return b
	})
	frameGen = rapid.Custom(func(t *rapid.T) core.Frame {
		f := core.Frame{
			Kind: core.Kind(rapid.IntRange(int(core.KindHello), int(core.KindBye)).Draw(t, "kind")), Flags: core.Flags(rapid.Uint8().Draw(t, "flags")),
			ID: numberGen.Draw(t, "id"), Parent: numberGen.Draw(t, "parent"), Name: textGen.Draw(t, "name"), Session: textGen.Draw(t, "session"),
			TTL:   time.Duration(rapid.Int64Range(0, maxTTL).Draw(t, "ttl")) * time.Millisecond,
			Items: int64(numberGen.Draw(t, "items")), Bytes: int64(numberGen.Draw(t, "bytes")), Body: bodyGen.Draw(t, "body"),
		}
		if meta := rapid.MapOfN(textGen, textGen, 0, 4).Draw(t, "meta"); len(meta) > 0 {
			f.Meta = meta
		}
		return f
	})
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.SliceOfN(frameGen, 1, 6).Draw(t, "frames")
		wire := encode(t, sent...)
		var r io.Reader = bytes.NewReader(wire)
		switch rapid.IntRange(0, 3).Draw(t, "reader") {
		case 0:
			r = iotest.HalfReader(r)
		case 1:
			r = iotest.DataErrReader(r)
		case 2:
			if len(wire) < 2*chunk {
				r = iotest.OneByteReader(r)
			}
		}
		c := reader(r, core.DefaultMaxFrame, new([]byte))
		var got []core.Frame
		for {
			frames, err := c.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames { // the caller owns them: to append to a body spoils no other
				_ = append(f.Body, "spoiled"...)
			}
			got = append(got, frames...)
		}
		if !reflect.DeepEqual(got, sent) {
			t.Fatalf("read %v, not %v", got, sent)
		}
	})
}

// A batch is one write, and what has come is one read.
func TestBatches(t *testing.T) {
	batch := make([]core.Frame, 100)
	for i := range batch {
		batch[i] = core.Frame{Kind: core.KindItem, ID: uint64(i + 1), Body: []byte("1")}
	}
	out := &sink{}
	c := newConn(nil, out, nil, core.DefaultMaxFrame)
	if err := c.Write(batch); err != nil || out.writes != 1 {
		t.Fatalf("%d writes, %v", out.writes, err)
	}
	got, err := reader(bytes.NewReader(out.Bytes()), 4096, new([]byte)).Read()
	if err != nil || !reflect.DeepEqual(got, batch) {
		t.Fatalf("one Read returned %d frames, %v", len(got), err)
	}
	for i := range batch { // a long batch is split, so that its buffer stays small
		batch[i].Body = bytes.Repeat([]byte("1"), chunk-1)
	}
	if err := c.Write(batch); err != nil || cap(c.batch) > 8*chunk {
		t.Errorf("the buffer has grown to %d bytes, %v", cap(c.batch), err)
	}
}

// What Write took is delivered before the end, and the other direction goes on.
func TestCloseWrite(t *testing.T) {
	host, worker := pair(t)
	big := core.Frame{Kind: core.KindHello, Body: bytes.Repeat([]byte("1"), 8<<20)}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(host.Write([]core.Frame{big}), host.CloseWrite()) }()
	if got, err := worker.Read(); err != nil || len(got) != 1 || !bytes.Equal(got[0].Body, big.Body) {
		t.Fatalf("got %d frames, %v", len(got), err)
	}
	if _, err := worker.Read(); err != io.EOF {
		t.Errorf("after CloseWrite the peer read %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := host.Write([]core.Frame{big}); err == nil {
		t.Error("Write after CloseWrite succeeded")
	}
	if err := worker.Write([]core.Frame{{Kind: core.KindHello}}); err != nil {
		t.Error(err)
	}
	if got, err := host.Read(); err != nil || len(got) != 1 {
		t.Errorf("after CloseWrite Read returned %v, %v", got, err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	host, _ := pair(t) // whose worker neither reads nor writes
	ended := make(chan error, 2)
	go func() {
		_, err := host.Read()
		ended <- err
	}()
	wrote := make(chan struct{}, 1)
	go func() {
		for {
			if err := host.Write([]core.Frame{{Kind: core.KindItem, ID: 1, Body: make([]byte, 1000)}}); err != nil {
				ended <- err
				return
			}
			select {
			case wrote <- struct{}{}:
			default:
			}
		}
	}()
	<-wrote
	for range 2 {
		if err := host.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
	}
	if _, err := host.Read(); err == nil {
		t.Error("Read after Close succeeded")
	}
}

func TestWriteAfterError(t *testing.T) {
	host, worker := pair(t)
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := host.Write([]core.Frame{{Kind: core.KindHello}}); err == nil {
			t.Error("Write to a closed peer succeeded")
		}
	}
	if _, err := host.Read(); err != io.EOF {
		t.Errorf("Read from a closed peer: %v", err)
	}
	half := &halfWriter{left: 5}
	c := newConn(nil, half, nil, 4096)
	for range 2 {
		if c.Write([]core.Frame{{Kind: core.KindHello}}) == nil {
			t.Error("Write succeeded after half a line")
		}
	}
	if half.wrote != 5 {
		t.Errorf("after half a line %d bytes were written", half.wrote-5)
	}
}

// halfWriter fails once, after left bytes.
type halfWriter struct{ left, wrote int }

func (w *halfWriter) Write(b []byte) (int, error) {
	n := len(b)
	if w.left > 0 {
		n = min(n, w.left)
	}
	w.wrote, w.left = w.wrote+n, 0
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func (w *halfWriter) Close() error { return nil }

// Any bytes are frames or an error, in bounded memory; what was read can be written and read again.
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
		got, err := readAll(c)
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
		if again, err := readAll(reader(bytes.NewReader(encode(t, got...)), limit, new([]byte))); err != io.EOF || !same(again, got) {
			t.Errorf("read again as %v, %v, not %v", again, err, got)
		}
	})
}

// same compares frames; an empty map is none.
func same(a, b []core.Frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if x, y := a[i], b[i]; len(x.Meta)+len(y.Meta) == 0 {
			x.Meta, y.Meta = nil, nil
			if !reflect.DeepEqual(x, y) {
				return false
			}
		} else if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

func BenchmarkRead(b *testing.B) {
	for name, frame := range map[string]core.Frame{
		"item": {Kind: core.KindItem, ID: 12345, Body: []byte(`{"row":1}`)},
		"call": {Kind: core.KindCall, ID: 1, Flags: core.NoInput, Name: "compute", TTL: 30 * time.Second, Session: "user-42", Body: []byte("{}")},
		"16M":  {Kind: core.KindItem, ID: 12345, Body: bytes.Repeat([]byte("1"), 16<<20)},
	} {
		b.Run(name, func(b *testing.B) {
			line := string(encode(b, frame))
			c := reader(&endless{text: line}, core.DefaultMaxFrame, new([]byte))
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for read := 0; read < b.N; {
				frames, err := c.Read()
				if err != nil {
					b.Fatal(err)
				}
				read += len(frames)
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	batch := make([]core.Frame, 100)
	for i := range batch {
		batch[i] = core.Frame{Kind: core.KindCall, Flags: core.NoInput, ID: uint64(i + 1), Name: "compute", TTL: 30 * time.Second, Body: []byte("{}")}
	}
	out := &sink{}
	c := newConn(nil, out, nil, core.DefaultMaxFrame)
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(batch) {
		if err := c.Write(batch); err != nil {
			b.Fatal(err)
		}
		out.Reset()
	}
}
