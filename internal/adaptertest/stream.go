package adaptertest

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
)

// Stream says how to make the connections of an adapter whose frames go over a byte stream.
type Stream struct {
	Reading func(r io.Reader, limit int) core.Conn      // the host's side; it reads from r
	Writing func(w io.Writer) core.Conn                 // the host's side; it writes to w
	Pair    func(t testing.TB) (host, worker core.Conn) // both sides, over a real connection
	Buffer  func(c core.Conn) int                       // the size of the writer's buffer in bytes
	Bodies  *rapid.Generator[[]byte]                    // bodies that the adapter may be given
	Copied  int                                         // a body of this size is copied into the batch
	Chunk   int                                         // the bytes that are read or written at once
	Closed  error                                       // returned by a Read or Write that Close has ended
}

// Run checks the rules.
func (s Stream) Run(t *testing.T) {
	t.Run("RoundTrip", s.roundTrip)
	t.Run("Batches", s.batches)
	t.Run("CloseWrite", s.closeWrite)
	t.Run("CloseUnblocks", s.closeUnblocks)
	t.Run("WriteAfterError", s.writeAfterError)
}

// Encode returns the bytes of the frames on the wire.
func (s Stream) Encode(t interface{ Fatal(...any) }, frames ...core.Frame) []byte {
	var out bytes.Buffer
	if err := s.Writing(&out).Write(frames); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Frames are read as they were written, however the bytes arrive.
func (s Stream) roundTrip(t *testing.T) {
	frames := rapid.SliceOfN(Frames(s.Bodies), 1, 6)
	rapid.Check(t, func(t *rapid.T) {
		sent := frames.Draw(t, "frames")
		wire := s.Encode(t, sent...)
		var r io.Reader = bytes.NewReader(wire)
		switch rapid.IntRange(0, 3).Draw(t, "reader") {
		case 0:
			r = iotest.HalfReader(r)
		case 1:
			r = iotest.DataErrReader(r)
		case 2:
			if len(wire) < 2*s.Chunk {
				r = iotest.OneByteReader(r)
			}
		}
		c := s.Reading(r, core.DefaultMaxFrame)
		var got []core.Frame
		for {
			frames, err := c.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames { // the caller owns them: an append to one body changes no other
				_ = append(f.Body, "spoiled"...)
			}
			got = append(got, frames...)
		}
		if !reflect.DeepEqual(got, sent) {
			t.Fatalf("read %v, not %v", got, sent)
		}
	})
}

// A batch is one write. One Read returns all frames that have arrived.
func (s Stream) batches(t *testing.T) {
	batch := make([]core.Frame, 100)
	for i := range batch {
		batch[i] = core.Frame{Kind: core.KindItem, ID: uint64(i + 1), Body: []byte("1")}
	}
	out := &counter{}
	c := s.Writing(out)
	if err := c.Write(batch); err != nil || out.writes != 1 {
		t.Fatalf("%d writes, %v", out.writes, err)
	}
	got, err := s.Reading(bytes.NewReader(out.Bytes()), 4096).Read()
	if err != nil || !reflect.DeepEqual(got, batch) {
		t.Fatalf("one Read returned %d frames, %v", len(got), err)
	}
	for i := range batch { // a long batch is split, so that its buffer stays small
		batch[i].Body = bytes.Repeat([]byte("1"), s.Copied)
	}
	if err := c.Write(batch); err != nil || s.Buffer(c) > 8*s.Chunk {
		t.Errorf("the buffer has grown to %d bytes, %v", s.Buffer(c), err)
	}
}

// counter counts the writes.
type counter struct {
	bytes.Buffer
	writes int
}

func (c *counter) Write(b []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(b)
}

// CloseWrite delivers the written frames before the end. The other direction goes on.
func (s Stream) closeWrite(t *testing.T) {
	host, worker := s.Pair(t)
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

// Close ends a waiting Read and a waiting Write. It may be called again.
func (s Stream) closeUnblocks(t *testing.T) {
	host, _ := s.Pair(t) // the worker neither reads nor writes
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
		if err := <-ended; !errors.Is(err, s.Closed) {
			t.Errorf("it ended with %v", err)
		}
	}
	if _, err := host.Read(); err == nil {
		t.Error("Read after Close succeeded")
	}
}

// After an error every Write fails. Nothing follows a frame that was written in part.
func (s Stream) writeAfterError(t *testing.T) {
	host, worker := s.Pair(t)
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
	c := s.Writing(half)
	for range 2 {
		if c.Write([]core.Frame{{Kind: core.KindHello}}) == nil {
			t.Error("Write succeeded after half a frame")
		}
	}
	if half.wrote != 5 {
		t.Errorf("after half a frame %d bytes were written", half.wrote-5)
	}
}

// halfWriter takes left bytes and then fails once.
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

// Endless is a reader that repeats a text without end.
type Endless struct {
	Text  string
	Given int // bytes so far
}

func (e *Endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], e.Text[(e.Given+n)%len(e.Text):])
	}
	e.Given += n
	return n, nil
}

// BenchmarkRead measures frames of three sizes.
func (s Stream) BenchmarkRead(b *testing.B) {
	for name, frame := range map[string]core.Frame{
		"item": {Kind: core.KindItem, ID: 12345, Body: []byte(`{"row":1}`)},
		"call": call(1),
		"16M":  {Kind: core.KindItem, ID: 12345, Body: bytes.Repeat([]byte("1"), 16<<20)},
	} {
		b.Run(name, func(b *testing.B) {
			wire := string(s.Encode(b, frame))
			c := s.Reading(&Endless{Text: wire}, core.DefaultMaxFrame)
			b.SetBytes(int64(len(wire)))
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

// BenchmarkWrite measures calls in batches of 100.
func (s Stream) BenchmarkWrite(b *testing.B) {
	batch := make([]core.Frame, 100)
	for i := range batch {
		batch[i] = call(uint64(i + 1))
	}
	c := s.Writing(io.Discard)
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(batch) {
		if err := c.Write(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func call(id uint64) core.Frame {
	return core.Frame{
		Kind: core.KindCall, Flags: core.NoInput, ID: id, Name: "compute", TTL: 30 * time.Second, Session: "user-42",
		Body: []byte("{}"),
	}
}
