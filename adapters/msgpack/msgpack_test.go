//go:build unix

package msgpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
)

var update = flag.Bool("update", false, "rewrite the wire bytes in testdata")

// launcher takes the worker's end of the connection.
type launcher struct {
	spec core.Spec
	sock net.Conn
	err  error
}

func (l *launcher) launch(_ context.Context, s core.Spec) (*core.Process, error) {
	l.spec = s
	defer func() { _ = s.Files[0].Close() }()
	if l.err != nil {
		return nil, l.err
	}
	var err error
	l.sock, err = net.FileConn(s.Files[0])
	return &core.Process{}, err
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
	worker = newConn(l.sock.(*net.UnixConn), core.DefaultMaxFrame)
	t.Cleanup(func() { _, _ = link.Conn.Close(), worker.Close() })
	return link.Conn, worker
}

// fake is a socket of the test's own.
type fake struct {
	io.Reader
	bytes.Buffer
	writes int
}

func (s *fake) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s *fake) Write(b []byte) (int, error) { s.writes++; return s.Buffer.Write(b) }
func (s *fake) Close() error                { return nil }
func (s *fake) CloseWrite() error           { return nil }

func reading(r io.Reader, limit int) *conn { return newConn(&fake{Reader: r}, limit) }

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
	out := &fake{}
	if err := newConn(out, core.DefaultMaxFrame).Write(frames); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// framed puts the length in front.
func framed(b string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + b
}

var hello = framed("\x81\xa4kind\x01")

func TestStart(t *testing.T) {
	l := &launcher{}
	link, err := l.start()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = link.Conn.Close(), l.sock.Close()
	if l.spec.Protocol != "msgpack" || l.spec.Stdio || len(l.spec.Files) != 1 || len(l.spec.Env) != 0 {
		t.Errorf("launched %+v", l.spec)
	}
	if link.Process == nil || link.MaxFrame != 0 || link.Conn.(*conn).limit != 1<<20 || len(link.Codecs) != 2 || link.Codecs[0].Name() != "msgpack" {
		t.Errorf("got the link %+v", link)
	}
	l.err = core.ErrUnavailable
	if _, err := l.start(); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("the launcher's error became %v", err)
	}
}

// TestGolden holds the wire bytes in testdata, which the tests of other languages read too. In each section the first line is the frame,
// its body in hex; the second what is written for it, in hex; and the rest other bytes that mean the same.
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
			f.Body, err = hex.DecodeString(g.Body)
			if err != nil {
				t.Fatalf("%s: %v", file.Name, err)
			}
		}
		wire := hex.EncodeToString(encode(t, f)) + "\n"
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
			b, err := hex.DecodeString(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("%s: %v", file.Name, err)
			}
			if got, err := readAll(reading(bytes.NewReader(b), core.DefaultMaxFrame)); err != io.EOF || !reflect.DeepEqual(got, []core.Frame{f}) {
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
	const end = "\x82\xa4kind\x04"
	for name, frame := range map[string]string{
		"empty":            "",
		"nil":              "\xc0",
		"list":             "\x91\x01",
		"text":             "\xa4kind",
		"no kind":          "\x81\xa2id\x01",
		"empty map":        "\x80",
		"kind 0":           "\x81\xa4kind\x00",
		"kind 12":          "\x81\xa4kind\x0c",
		"kind 257":         "\x81\xa4kind\xcd\x01\x01",
		"kind by name":     "\x81\xa4kind\xa3end",
		"key is a number":  "\x82\xa4kind\x04\x01\x01",
		"id below 0":       end + "\xa2id\xff",
		"id below 0 long":  end + "\xa2id\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
		"id of 2^53":       end + "\xa2id\xcf\x00\x20\x00\x00\x00\x00\x00\x00",
		"id is a float":    end + "\xa2id\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
		"name is a number": end + "\xa4name\x01",
		"name is binary":   end + "\xa4name\xc4\x01x",
		"name is no UTF-8": end + "\xa4name\xa1\xff",
		"body is text":     end + "\xa4body\xa1x",
		"meta is a list":   end + "\xa4meta\x90",
		"meta of numbers":  end + "\xa4meta\x81\xa1a\x01",
		"cut short":        end + "\xa2id",
		"cut in a number":  end + "\xa2id\xcd\x01",
		"more behind":      "\x81\xa4kind\x04\xc0",
		"huge map":         "\xdf\xff\xff\xff\xff\xa4kind\x04",
		"huge meta":        end + "\xa4meta\xdf\xff\xff\xff\xff",
		"huge body":        end + "\xa4body\xc6\xff\xff\xff\xff",
		"huge unknown":     end + "\xa1x\xdd\xff\xff\xff\xff",
		"huge extension":   end + "\xa1x\xc9\xff\xff\xff\xff",
		"unknown code":     end + "\xa1x\xc1",
		"over the limit":   end + "\xa4name\xda\x0f\xff" + strings.Repeat("x", 0xfff),
	} {
		c := reading(strings.NewReader(hello+framed(frame)+hello), 4096)
		got, err := c.Read()
		if err != nil || len(got) != 1 {
			t.Errorf("%s: the frame before it: %v, %v", name, got, err)
		}
		got, err = c.Read()
		if got != nil || !errors.Is(err, core.ErrProtocol) {
			t.Errorf("%s was read as %v, %v", name, got, err)
		}
		if _, again := c.Read(); again != err {
			t.Errorf("%s: the next Read returned %v", name, again)
		}
	}
}

// What is unknown is skipped, however deep it nests.
// A length above the limit is refused before anything is allocated for it.
func TestLengths(t *testing.T) {
	for _, length := range []uint32{0, 4096 + slack + 1, 1 << 31, 1<<32 - 1} {
		c := reading(io.MultiReader(strings.NewReader(hello+string(binary.BigEndian.AppendUint32(nil, length))), iotest.ErrReader(errors.New("read on"))), 4096)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := readAll(c)
		runtime.ReadMemStats(&after)
		if len(got) != 1 || !errors.Is(err, core.ErrProtocol) || !strings.Contains(err.Error(), fmt.Sprint(length, " bytes")) {
			t.Errorf("a length of %d: %d frames, %v", length, len(got), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("a length of %d took %d bytes", length, took)
		}
	}
	const limit = 256 << 10
	for over := range 2 {
		f := core.Frame{Kind: core.KindItem, ID: 1, Body: bytes.Repeat([]byte("1"), limit-256+over)}
		got, err := readAll(reading(bytes.NewReader(encode(t, f)), limit))
		if ok := len(got) == 1 && err == io.EOF; ok != (over == 0) {
			t.Errorf("a frame of %d bytes with a limit of %d: %d frames, %v", f.Size(), limit, len(got), err)
		}
	}
}

func TestEnd(t *testing.T) {
	big := string(encode(t, core.Frame{Kind: core.KindItem, Body: make([]byte, 3*chunk)}))
	for in, want := range map[string]error{
		"": io.EOF, hello[:2]: io.ErrUnexpectedEOF, hello[:4]: io.ErrUnexpectedEOF, hello[:9]: io.ErrUnexpectedEOF, big[:chunk]: io.ErrUnexpectedEOF,
		big[:4]: io.ErrUnexpectedEOF, big[:2*chunk]: io.ErrUnexpectedEOF, big: io.EOF,
	} {
		for _, r := range []io.Reader{strings.NewReader(hello + in), iotest.DataErrReader(strings.NewReader(hello + in))} {
			c := reading(r, core.DefaultMaxFrame)
			if got, err := readAll(c); len(got) == 0 || got[0].Kind != core.KindHello || err != want {
				t.Errorf("%.20q: %d frames and %v, want %v", in, len(got), err, want)
			}
			if _, err := c.Read(); err != want {
				t.Errorf("%.20q: the next Read returned %v, want %v", in, err, want)
			}
		}
	}
}

// A worker that ends before it has read all that was sent resets the connection; for the reader that is its end.
func TestReset(t *testing.T) {
	host, worker := pair(t)
	if err := errors.Join(host.Write([]core.Frame{{Kind: core.KindPing}}), worker.Write([]core.Frame{{Kind: core.KindBye}}), worker.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := host.Read(); err != nil || len(got) != 1 {
		t.Errorf("the last words: %v, %v", got, err)
	}
	if _, err := host.Read(); err != io.EOF {
		t.Errorf("then: %v", err)
	}
}

var (
	textGen   = rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringOfN(rapid.Rune(), 40, 400, -1))
	numberGen = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, 300), rapid.Uint64Range(0, 1<<53-1))
	bodyGen   = rapid.Custom(func(t *rapid.T) []byte {
		size := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(large-10, large+10), rapid.IntRange(chunk-40, 3*chunk)).Draw(t, "size")
		if size == 0 {
			return nil
		}
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size)
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
		c := reading(r, core.DefaultMaxFrame)
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
	out := &fake{}
	c := newConn(out, core.DefaultMaxFrame)
	if err := c.Write(batch); err != nil || out.writes != 1 {
		t.Fatalf("%d writes, %v", out.writes, err)
	}
	got, err := reading(bytes.NewReader(out.Bytes()), 4096).Read()
	if err != nil || !reflect.DeepEqual(got, batch) {
		t.Fatalf("one Read returned %d frames, %v", len(got), err)
	}
	for i := range batch { // a long batch is split, so that its buffer stays small
		batch[i].Body = bytes.Repeat([]byte("1"), large-1)
	}
	if err := c.Write(batch); err != nil || cap(c.batch) > 4*chunk {
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
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
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
	c := newConn(half, 4096)
	for range 2 {
		if c.Write([]core.Frame{{Kind: core.KindHello}}) == nil {
			t.Error("Write succeeded after half a frame")
		}
	}
	if half.wrote != 5 {
		t.Errorf("after half a frame %d bytes were written", half.wrote-5)
	}
}

// halfWriter fails once, after left bytes.
type halfWriter struct {
	fake
	left, wrote int
}

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

// Any bytes are frames or an error; what was read can be written and read again.
func FuzzRead(f *testing.F) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "frames.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		for _, line := range strings.Split(string(file.Data), "\n")[1:] {
			b, err := hex.DecodeString(line)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4096
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := readAll(reading(iotest.HalfReader(bytes.NewReader(data)), limit))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20+100*uint64(len(data)) {
			t.Errorf("%d bytes took %d bytes", len(data), took)
		}
		if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, core.ErrProtocol) {
			t.Errorf("ended with %v", err)
		}
		for i := range got {
			if got[i].Kind == 0 || got[i].Size() > limit {
				t.Errorf("got the frame %v", &got[i])
			}
		}
		if again, err := readAll(reading(bytes.NewReader(encode(t, got...)), limit)); err != io.EOF || !reflect.DeepEqual(again, got) {
			t.Errorf("read again as %v, %v, not %v", again, err, got)
		}
	})
}

// endless gives a text again and again.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], e.text[(e.at+n)%len(e.text):])
	}
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

func BenchmarkRead(b *testing.B) {
	for name, frame := range map[string]core.Frame{
		"item": {Kind: core.KindItem, ID: 12345, Body: []byte(`{"row":1}`)},
		"call": {Kind: core.KindCall, ID: 1, Flags: core.NoInput, Name: "compute", TTL: 30 * time.Second, Session: "user-42", Body: []byte("{}")},
		"16M":  {Kind: core.KindItem, ID: 12345, Body: bytes.Repeat([]byte("1"), 16<<20)},
	} {
		b.Run(name, func(b *testing.B) {
			line := string(encode(b, frame))
			c := reading(&endless{text: line}, core.DefaultMaxFrame)
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
	out := &fake{}
	c := newConn(out, core.DefaultMaxFrame)
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(batch) {
		if err := c.Write(batch); err != nil {
			b.Fatal(err)
		}
		out.Reset()
	}
}
