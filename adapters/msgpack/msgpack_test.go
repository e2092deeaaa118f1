//go:build unix

package msgpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/internal/adaptertest"
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

// fake is a socket made of a reader and a writer.
type fake struct {
	io.Reader
	io.Writer
}

func (fake) Close() error      { return nil }
func (fake) CloseWrite() error { return nil }

func reading(r io.Reader, limit int) core.Conn { return newConn(fake{r, io.Discard}, limit) }

var stream = adaptertest.Stream{
	Reading: reading,
	Writing: func(w io.Writer) core.Conn { return newConn(fake{strings.NewReader(""), w}, core.DefaultMaxFrame) },
	Pair:    pair,
	Buffer:  func(c core.Conn) int { return cap(c.(*conn).batch) },
	Bodies: rapid.Custom(func(t *rapid.T) []byte {
		size := rapid.OneOf(
			rapid.IntRange(0, 300), rapid.IntRange(large-10, large+10), rapid.IntRange(chunk-40, 3*chunk),
		).Draw(t, "size")
		if size == 0 {
			return nil
		}
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size)
	}),
	Copied: large - 1,
	Chunk:  chunk,
	Closed: net.ErrClosed,
}

func TestStream(t *testing.T)     { stream.Run(t) }
func BenchmarkRead(b *testing.B)  { stream.BenchmarkRead(b) }
func BenchmarkWrite(b *testing.B) { stream.BenchmarkWrite(b) }

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
	if link.Process == nil || link.MaxFrame != 0 || link.Conn.(*conn).limit != 1<<20 ||
		len(link.Codecs) != 2 || link.Codecs[0].Name() != "msgpack" {
		t.Errorf("got the link %+v", link)
	}
	l.err = core.ErrUnavailable
	if _, err := l.start(); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("the launcher's error became %v", err)
	}
}

func TestGolden(t *testing.T) {
	adaptertest.Golden{
		Body:  hex.DecodeString,
		Write: func(f core.Frame) string { return hex.EncodeToString(stream.Encode(t, f)) },
		Read: func(line string) ([]core.Frame, error) {
			b, err := hex.DecodeString(line)
			if err != nil {
				return nil, err
			}
			frames, err := adaptertest.ReadAll(reading(bytes.NewReader(b), core.DefaultMaxFrame))
			if err == io.EOF {
				err = nil
			}
			return frames, err
		},
	}.Check(t, *update)
}

func TestNotAFrame(t *testing.T) {
	const end = "\x82\xa4kind\x04"
	for name, wire := range map[string]string{
		"empty":            "",
		"nil":              "\xc0",
		"list":             "\x91\x01",
		"text":             "\xa4kind",
		"no kind":          "\x81\xa2id\x01",
		"empty map":        "\x80",
		"kind 0":           "\x81\xa4kind\x00",
		"kind 14":          "\x81\xa4kind\x0e",
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
		c := reading(strings.NewReader(hello+framed(wire)+hello), 4096)
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

// A length above the limit is refused before anything is allocated for it.
func TestLengths(t *testing.T) {
	for _, length := range []uint32{0, 4096 + slack + 1, 1 << 31, 1<<32 - 1} {
		begun := strings.NewReader(hello + string(binary.BigEndian.AppendUint32(nil, length)))
		c := reading(io.MultiReader(begun, iotest.ErrReader(errors.New("read on"))), 4096)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := adaptertest.ReadAll(c)
		runtime.ReadMemStats(&after)
		if len(got) != 1 || !errors.Is(err, core.ErrProtocol) ||
			!strings.Contains(err.Error(), fmt.Sprint(length, " bytes")) {
			t.Errorf("a length of %d: %d frames, %v", length, len(got), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("a length of %d took %d bytes", length, took)
		}
	}
	const limit = 256 << 10
	for over := range 2 {
		f := core.Frame{Kind: core.KindItem, ID: 1, Body: bytes.Repeat([]byte("1"), limit-256+over)}
		got, err := adaptertest.ReadAll(reading(bytes.NewReader(stream.Encode(t, f)), limit))
		if ok := len(got) == 1 && err == io.EOF; ok != (over == 0) {
			t.Errorf("a frame of %d bytes with a limit of %d: %d frames, %v", f.Size(), limit, len(got), err)
		}
	}
}

func TestEnd(t *testing.T) {
	big := string(stream.Encode(t, core.Frame{Kind: core.KindItem, Body: make([]byte, 3*chunk)}))
	for in, want := range map[string]error{
		"": io.EOF, hello[:2]: io.ErrUnexpectedEOF, hello[:4]: io.ErrUnexpectedEOF, hello[:9]: io.ErrUnexpectedEOF,
		big[:chunk]: io.ErrUnexpectedEOF, big[:4]: io.ErrUnexpectedEOF, big[:2*chunk]: io.ErrUnexpectedEOF, big: io.EOF,
	} {
		for _, r := range []io.Reader{
			strings.NewReader(hello + in), iotest.DataErrReader(strings.NewReader(hello + in)),
		} {
			c := reading(r, core.DefaultMaxFrame)
			if got, err := adaptertest.ReadAll(c); len(got) == 0 || got[0].Kind != core.KindHello || err != want {
				t.Errorf("%.20q: %d frames and %v, want %v", in, len(got), err, want)
			}
			if _, err := c.Read(); err != want {
				t.Errorf("%.20q: the next Read returned %v, want %v", in, err, want)
			}
		}
	}
}

// A worker that ends with unread input resets the connection. For the reader that is the end of the connection.
func TestReset(t *testing.T) {
	host, worker := pair(t)
	if err := errors.Join(
		host.Write([]core.Frame{{Kind: core.KindPing}}), worker.Write([]core.Frame{{Kind: core.KindBye}}),
		worker.Close(),
	); err != nil {
		t.Fatal(err)
	}
	if got, err := host.Read(); err != nil || len(got) != 1 {
		t.Errorf("the last words: %v, %v", got, err)
	}
	if _, err := host.Read(); err != io.EOF {
		t.Errorf("then: %v", err)
	}
}

// Any bytes are frames or an error, in bounded memory. The frames can be written and read again.
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
		got, err := adaptertest.ReadAll(reading(iotest.HalfReader(bytes.NewReader(data)), limit))
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
		again, err := adaptertest.ReadAll(reading(bytes.NewReader(stream.Encode(t, got...)), limit))
		if err != io.EOF || !reflect.DeepEqual(again, got) {
			t.Errorf("read again as %v, %v, not %v", again, err, got)
		}
	})
}
