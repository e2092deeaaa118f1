package grpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/core"
)

// echo sends every message back.
func echo(s attachServer) error {
	for {
		batch, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.Send(batch)
		}
		if err != nil {
			return err
		}
	}
}

func everyKind() []core.Frame {
	const most = 1<<53 - 1
	return []core.Frame{
		{Kind: core.KindHello, Body: []byte(`{"version": 1}`)},
		{
			Kind: core.KindCall, Flags: core.NoInput, ID: most, Parent: most - 1, Name: "näme",
			TTL:     math.MaxInt64 / time.Millisecond * time.Millisecond,
			Session: "s", Meta: map[string]string{"": "empty", "k": ""}, Body: []byte{0, 255},
		},
		{Kind: core.KindItem, Flags: core.Failed, ID: 1, Body: []byte("error")},
		{Kind: core.KindEnd, ID: 1},
		{Kind: core.KindError, Flags: core.NotStarted, ID: 3, Body: []byte("e")},
		{Kind: core.KindCancel, ID: 5, Name: "reason"},
		{Kind: core.KindCredit, ID: 7, Items: math.MaxInt64, Bytes: 1},
		{Kind: core.KindPing, ID: 9},
		{Kind: core.KindPong, ID: 9, Body: []byte("{}")},
		{Kind: core.KindLog, Body: []byte("{}")},
		{Kind: core.KindBye, Name: "draining"},
	}
}

func TestFramesSurvive(t *testing.T) {
	inGo, _ := serve(t, echo)
	for name, l := range map[string]*core.Launcher{"go": inGo, "python": python(t, "testdata/echo.py")} {
		t.Run(name, func(t *testing.T) {
			c := start(t, Adapter{}, l).Conn
			if err := c.Write(everyKind()); err != nil {
				t.Fatal(err)
			}
			for i, got := range readN(t, c, len(everyKind())) {
				want := everyKind()[i]
				if len(got.Body) == 0 { // absent and empty are the same
					got.Body = want.Body
				}
				if len(got.Meta) == 0 {
					got.Meta = want.Meta
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("frame %d came back as %+v, not %+v", i, got, want)
				}
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if frames, err := c.Read(); err != io.EOF {
				t.Errorf("at the end Read returned %v, %v", frames, err)
			}
		})
	}
}

func TestStartShowsTheHostToken(t *testing.T) {
	l, p := serve(t, echo)
	link := start(t, Adapter{}, l)
	if shown := <-p.tokens; !reflect.DeepEqual(shown, []string{"host's"}) {
		t.Errorf("the worker was shown %q", shown)
	}
	if link.Token != "worker's" || !strings.HasPrefix(link.Endpoint, "unix:") || link.Adapter != "grpc" ||
		link.Process == nil {
		t.Errorf("the link is %+v", link)
	}
}

func TestBatchesAreSplit(t *testing.T) {
	type message struct{ frames, size int }
	sizes := make(chan message, 100)
	l, _ := serve(t, func(s attachServer) error {
		for {
			batch, err := s.Recv()
			if err != nil {
				close(sizes)
				return nil
			}
			sizes <- message{len(batch.Frames), proto.Size(batch)}
		}
	})
	c := start(t, Adapter{}, l).Conn
	frames := make([]core.Frame, 3000)
	for i := range frames {
		frames[i] = core.Frame{Kind: core.KindItem, ID: 1, Body: make([]byte, 1000)}
	}
	frames[2000].Body = make([]byte, 3<<20)
	if err := errors.Join(c.Write(frames), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	count, messages := 0, 0
	for m := range sizes {
		if m.size > batchBytes && m.frames > 1 {
			t.Errorf("a message of %d frames takes %d bytes", m.frames, m.size)
		}
		count, messages = count+m.frames, messages+1
	}
	if count != len(frames) || messages > 6 {
		t.Errorf("%d of %d frames came in %d messages", count, len(frames), messages)
	}
}

func TestWriteRetainsNothing(t *testing.T) {
	l, _ := serve(t, echo)
	c := start(t, Adapter{}, l).Conn
	body := []byte("before")
	for i := range 100 {
		copy(body, "before")
		if err := c.Write([]core.Frame{{Kind: core.KindItem, ID: uint64(i), Body: body}}); err != nil {
			t.Fatal(err)
		}
		copy(body, "after!")
	}
	for _, f := range readN(t, c, 100) {
		if string(f.Body) != "before" {
			t.Fatalf("frame %d has the body %q", f.ID, f.Body)
		}
	}
	if c.(*conn).out.frames != nil {
		t.Error("the connection still knows the frames")
	}
}

func TestWhatIsNoFrame(t *testing.T) {
	for name, frame := range map[string]*snakepitpb.Frame{
		"kind 0":     {},
		"kind 14":    {Kind: 14},
		"kind 258":   {Kind: 258},
		"flags":      {Kind: 3, Flags: 256},
		"ttl":        {Kind: 2, Ttl: math.MaxUint64},
		"over limit": {Kind: 3, Body: make([]byte, core.DefaultMaxFrame*2)},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := serve(t, func(s attachServer) error {
				good := &snakepitpb.Frame{Kind: uint32(core.KindPing)}
				if err := s.Send(&snakepitpb.Batch{}); err != nil { // Read skips an empty batch
					return err
				}
				if err := s.Send(&snakepitpb.Batch{Frames: []*snakepitpb.Frame{good, frame}}); err != nil {
					return err
				}
				return s.Send(&snakepitpb.Batch{Frames: []*snakepitpb.Frame{good}})
			})
			c := start(t, Adapter{}, l).Conn
			for range 2 {
				if frames, err := c.Read(); frames != nil || err == nil || err == io.EOF {
					t.Errorf("Read returned %v, %v", frames, err)
				}
			}
		})
	}
}

func TestCloseUnblocks(t *testing.T) {
	l, _ := serve(t, func(s attachServer) error { // it reads nothing and writes nothing
		<-s.Context().Done()
		return nil
	})
	c := start(t, Adapter{}, l).Conn
	ended := make(chan error, 2)
	go func() {
		_, err := c.Read()
		ended <- err
	}()
	started := make(chan struct{})
	go func() {
		err := c.Write(everyKind())
		close(started)
		for err == nil { // until it blocks, because the peer's window is full
			err = c.Write([]core.Frame{{Kind: core.KindItem, Body: make([]byte, 1<<20)}})
		}
		ended <- err
	}()
	<-started
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("unblocked with %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if err := c.Write(everyKind()); err == nil {
		t.Error("Write works after Close")
	}
}

func TestWriteAfterTheEnd(t *testing.T) {
	l, _ := serve(t, func(attachServer) error { return status.Error(codes.Unauthenticated, "who are you?") })
	c := start(t, Adapter{}, l).Conn
	if _, err := c.Read(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "who are you?") {
		t.Errorf("Read returned %v", err)
	}
	for range 2 {
		if err := c.Write(everyKind()); err == nil || err == io.EOF {
			t.Errorf("Write returned %v", err)
		}
	}
}

func TestCloseWriteEndsWriting(t *testing.T) {
	l, _ := serve(t, echo)
	c := start(t, Adapter{}, l).Conn
	if err := errors.Join(c.Write(everyKind()), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(everyKind()); err == nil {
		t.Error("Write works after CloseWrite")
	}
	readN(t, c, len(everyKind())) // Read goes on
}

func TestEndOfContextLeavesTheLink(t *testing.T) {
	l, _ := serve(t, echo)
	ctx, cancel := context.WithCancel(t.Context())
	link, err := Adapter{}.Start(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Conn.Close()
	cancel()
	if err := link.Conn.Write(everyKind()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind()))
}

func TestConnecting(t *testing.T) {
	// The listener accepts but never speaks HTTP/2.
	l := newLauncher(shortDir(t, "sp"))
	path := l.Dir + "/0.sock"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l.Launch = launches(listensAt("unix:" + path))

	_, err = Adapter{ConnectTimeout: time.Millisecond}.Start(t.Context(), l)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "1ms") {
		t.Errorf("after ConnectTimeout: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if _, err = (Adapter{}).Start(ctx, l); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("with a context that has ended: %v", err)
	}
	// Nobody listens now. Start does not try again: gRPC would wait for a second before it.
	_, err = Adapter{}.Start(t.Context(), l)
	if err == nil || errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("with nobody there: %v", err)
	}
	theirs := t.TempDir() + "/precious"
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Launch = launches(listensAt("unix:" + theirs))
	if _, err = (Adapter{}).Start(t.Context(), l); err == nil {
		t.Error("connected to a plain file")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("what a worker says that it listens on was removed from another directory: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	l := newLauncher("")
	l.Launch = launches(func(core.Spec) (*core.Process, error) { return nil, core.ErrUnavailable })
	_, err := Adapter{}.Start(t.Context(), l)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a worker without the protocol: %v", err)
	}
	l.Launch = launches(func(core.Spec) (*core.Process, error) { return nil, io.ErrUnexpectedEOF })
	_, err = Adapter{}.Start(t.Context(), l)
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrUnavailable) {
		t.Errorf("a broken worker: %v", err)
	}
	l.Launch = launches(func(core.Spec) (*core.Process, error) { return &core.Process{}, nil })
	_, err = Adapter{}.Start(t.Context(), l)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "Command.Reports") {
		t.Errorf("a worker that does not say where it listens: %v", err)
	}
}

func TestOptions(t *testing.T) {
	var spec core.Spec
	l := newLauncher("")
	l.Launch = launches(func(s core.Spec) (*core.Process, error) { spec = s; return nil, io.EOF })
	for _, a := range []Adapter{
		{PortRange: 100}, {BasePort: -1}, {BasePort: 1, PortRange: -1}, {BasePort: 65000, PortRange: 1000},
		{ConnectTimeout: -1},
		{BasePort: 50051, ClientToken: "c"}, {Certificate: certificate(t)},
		{BasePort: 50051, Certificate: &tls.Certificate{}},
		{BasePort: 50051, Certificate: &tls.Certificate{Certificate: [][]byte{nil}, PrivateKey: "none"}},
	} {
		if _, err := a.Start(t.Context(), l); err == nil || err == io.EOF || errors.Is(err, core.ErrUnavailable) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	a := Adapter{BasePort: 50051, PortRange: 100, ClientToken: "c", Certificate: certificate(t)}
	_, _ = a.Start(t.Context(), l) // io.EOF
	want := []string{"SNAKEPIT_GRPC_PORTS=50051-50151", "SNAKEPIT_GRPC_TLS=stdin", "SNAKEPIT_GRPC_CLIENT_TOKEN=c"}
	if spec.Protocol != "grpc" || !reflect.DeepEqual(spec.Env, want) {
		t.Errorf("the worker is launched with %+v", spec)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := messageCodec{}.Marshal(&message{frames: everyKind(), read: 7})
	if err != nil {
		f.Fatal(err)
	}
	seed := data.Materialize()
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add(bytes.Repeat([]byte{0x0a}, 100))
	f.Add([]byte("\x08\x01\x12\x01x\x0a\x04\x08\x07\x0a\x00")) // fields of the wrong forms
	f.Fuzz(func(t *testing.T, data []byte) {
		var m message
		bad := m.parse(data)
		batch := &snakepitpb.Batch{}
		if proto.Unmarshal(data, batch) != nil {
			if bad == nil {
				t.Error("protobuf reads no message here")
			}
			return
		}
		for _, f := range batch.Frames {
			if f.Kind == 0 || f.Kind > uint32(core.KindState) || f.Flags > math.MaxUint8 ||
				f.Ttl > uint64(math.MaxInt64/time.Millisecond) {
				if bad == nil {
					t.Errorf("no error for %v", f)
				}
				return
			}
		}
		if bad != nil || len(m.frames) != len(batch.Frames) || m.read != batch.Read {
			t.Fatalf("%d frames and %d, %v; not %d and %d", len(m.frames), m.read, bad, len(batch.Frames), batch.Read)
		}
		for i, want := range batch.Frames {
			got := m.frames[i]
			if uint32(got.Kind) != want.Kind || uint32(got.Flags) != want.Flags || got.ID != want.Id ||
				got.Parent != want.Parent || got.Name != want.Name || uint64(got.TTL/time.Millisecond) != want.Ttl ||
				got.Session != want.Session || !maps.Equal(got.Meta, want.Meta) || got.Items != want.Items ||
				got.Bytes != want.Bytes || !bytes.Equal(got.Body, want.Body) {
				t.Errorf("frame %d is %v, not %v", i, &got, want)
			}
		}
	})
}
