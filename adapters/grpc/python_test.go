package grpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

// freeRange returns the first of n consecutive ports that are all free now.
func freeRange(tb testing.TB, n int) int {
	tb.Helper()
	for base := 20000; base < 32000; base += n { // below the ports that the system assigns itself
		var held []net.Listener
		for port := base; port < base+n; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				break
			}
			held = append(held, l)
		}
		for _, l := range held {
			_ = l.Close()
		}
		if len(held) == n {
			return base
		}
	}
	tb.Fatal("no free ports")
	return 0
}

func TestPorts(t *testing.T) {
	base := freeRange(t, 3)
	a := Adapter{BasePort: base, PortRange: 2}
	l := python(t, "testdata/echo.py")
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i := 1; i <= 2; i++ {
		link := start(t, a, l)
		if want := fmt.Sprintf("127.0.0.1:%d", base+i); link.Endpoint != want {
			t.Errorf("worker %d listens on %s, not on %s", i, link.Endpoint, want)
		}
		if err := link.Conn.Write(everyKind()); err != nil {
			t.Fatal(err)
		}
		readN(t, link.Conn, len(everyKind()))
	}
	_, err = a.Start(t.Context(), l)
	want := fmt.Sprintf("each port from %d to %d is in use", base, base+2)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("with all ports in use: %v", err)
	}
}

// Without ports to choose from, as on Windows, the system chooses one.
func TestAnyPort(t *testing.T) {
	l := python(t, "testdata/echo.py", "SNAKEPIT_GRPC_PORTS=")
	link := start(t, Adapter{BasePort: 50051}, l)
	if err := link.Conn.Write(everyKind()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind()))
}

func TestPythonWithoutGRPC(t *testing.T) {
	for module, says := range map[string]string{
		"grpc": "grpcio cannot be imported", "google": "protobuf cannot be imported",
	} {
		dir := t.TempDir()
		err := os.WriteFile(filepath.Join(dir, module+".py"), []byte("raise ImportError('not here')"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Adapter{}.Start(t.Context(), python(t, "testdata/echo.py", "PYTHONPATH="+dir))
		if !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		for _, want := range []string{
			says, "not here", interpreter(t) + " -m pip install 'grpcio>=1.50' 'protobuf>=3.20.3'",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in the error: %v", want, err)
			}
		}
	}
}

func TestOddDirectoryInPython(t *testing.T) {
	l := python(t, "testdata/echo.py")
	l.Dir = shortDir(t, "sp #?%20 ü ")
	link := start(t, Adapter{}, l)
	if filepath.Dir(strings.TrimPrefix(link.Endpoint, "unix:")) != l.Dir {
		t.Errorf("the worker listens at %s", link.Endpoint)
	}
	if err := errors.Join(link.Conn.Write(everyKind()), link.Conn.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind()))
	if _, err := link.Conn.Read(); err != io.EOF {
		t.Error(err)
	}
	if err := link.Conn.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(l.Dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestLargeFrames(t *testing.T) {
	const limit = 100 << 20
	l := python(t, "testdata/echo.py")
	l.MaxFrame = limit
	c := start(t, Adapter{}, l).Conn
	f := core.Frame{Kind: core.KindItem, ID: 1}
	f.Body = bytes.Repeat([]byte{7}, limit-f.Size())
	if err := c.Write([]core.Frame{f}); err != nil {
		t.Fatal(err)
	}
	if got := readN(t, c, 1)[0]; !bytes.Equal(got.Body, f.Body) {
		t.Error("the largest frame came back changed")
	}
}

func TestSecondHostIsRefused(t *testing.T) {
	l := python(t, "testdata/echo.py")
	link := start(t, Adapter{}, l)
	if err := link.Conn.Write(everyKind()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind()))
	for token, want := range map[string]codes.Code{
		"host's": codes.FailedPrecondition, "": codes.Unauthenticated, "worker's": codes.Unauthenticated,
	} {
		w := Worker{Endpoint: link.Endpoint, Token: token, MaxFrame: core.DefaultMaxFrame}
		second, err := w.dial(t.Context(), nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Read(); status.Code(err) != want {
			t.Errorf("with the token %q: %v", token, err)
		}
		_ = second.cc.Close() // not second.Close: it would remove the socket
		second.cancel()
	}
	if err := link.Conn.Write(everyKind()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind())) // the first one does not notice
}

// pool opens a pool of one worker. It dials the worker as a client.
func pool(t *testing.T, a Adapter) (*core.Pool, *grpc.ClientConn) {
	t.Helper()
	cmd := core.Command{Path: interpreter(t), Args: []string{"../../python", "testdata/worker.py"}, Reports: true}
	p, err := core.Open(t.Context(), a, cmd, &core.Options{Size: 1, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	endpoint := p.Workers()[0].Info().Endpoint
	creds := insecure.NewCredentials()
	if a.Certificate != nil {
		creds = credentials.NewTLS(&tls.Config{RootCAs: authorities(t, a.Certificate.Certificate[0])})
	}
	cc, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return p, cc
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, tokenKey, token)
}

func TestExecute(t *testing.T) {
	_, cc := pool(t, Adapter{ClientToken: "client's"})
	client := snakepitpb.NewWorkerClient(cc)
	ctx := withToken(t.Context(), "client's")

	r, err := client.Execute(ctx, &snakepitpb.ExecuteRequest{Command: "compute", Args: []byte(`{"a": 1, "b": 2.5}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Result); got != `{"sum":3.5,"data":{"$bytes":"AP8="}}` {
		t.Errorf("json: %s", got)
	}
	args, err := msgpack.Codec{}.Append(nil, []any{1, 2}) // one positional argument is too few
	if err != nil {
		t.Fatal(err)
	}
	request := &snakepitpb.ExecuteRequest{Command: "compute", Args: args, Encoding: "msgpack"}
	if _, err = client.Execute(ctx, request); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if request.Args, err = (msgpack.Codec{}).Append(nil, map[string]int{"a": 1, "b": 2}); err != nil {
		t.Fatal(err)
	}
	if r, err = client.Execute(ctx, request); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	err = msgpack.Codec{}.Decode(r.Result, &got)
	if want := (map[string]any{"sum": int64(3), "data": []byte{0, 255}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("msgpack: %v, %v", got, err)
	}
	r, err = client.Execute(ctx, &snakepitpb.ExecuteRequest{Command: "nothing"})
	if err != nil || string(r.Result) != "null" {
		t.Errorf("nothing: %v, %v", r, err)
	}
}

func TestClientsNeedAToken(t *testing.T) {
	_, cc := pool(t, Adapter{})
	client := snakepitpb.NewWorkerClient(cc)
	for _, ctx := range []context.Context{t.Context(), withToken(t.Context(), "")} {
		_, err := client.Execute(ctx, &snakepitpb.ExecuteRequest{Command: "nothing"})
		if status.Code(err) != codes.Unauthenticated {
			t.Error(err)
		}
	}
}

func TestExecuteStatuses(t *testing.T) {
	_, cc := pool(t, Adapter{ClientToken: "client's"})
	client := snakepitpb.NewWorkerClient(cc)
	ctx := withToken(t.Context(), "client's")
	for _, test := range []struct {
		command, args, encoding string
		code                    codes.Code
		says                    string
	}{
		{"comput", "", "", codes.NotFound, "compute"},
		{"compute", `{"a": 1}`, "", codes.InvalidArgument, "'b'"},
		{"compute", `{"a": `, "", codes.InvalidArgument, ""},
		{"compute", "", "xml", codes.InvalidArgument, "xml"},
		{"fail", "", "", codes.Internal, "ValueError: bad operand"},
		{"fail", fmt.Sprintf("%q", strings.Repeat("long ", 1e5)), "", codes.Internal, "ValueError: long"},
		{"count", "5", "", codes.FailedPrecondition, "ExecuteStream"},
	} {
		var trailer metadata.MD
		request := &snakepitpb.ExecuteRequest{Command: test.command, Args: []byte(test.args), Encoding: test.encoding}
		_, err := client.Execute(ctx, request, grpc.Trailer(&trailer))
		if status.Code(err) != test.code || !strings.Contains(status.Convert(err).Message(), test.says) {
			t.Errorf("%s(%.20s): %.300v", test.command, test.args, err)
		}
		if test.command != "fail" {
			continue
		}
		var remote core.RemoteError
		if shown := trailer.Get("snakepit-error-bin"); len(shown) != 1 {
			t.Errorf("the trailer is %v", trailer)
		} else if err := json.Unmarshal([]byte(shown[0]), &remote); err != nil {
			t.Error(err)
		} else if remote.Type != "ValueError" || len(remote.Frames) != 1 ||
			filepath.Base(remote.Frames[0].File) != "worker.py" {
			t.Errorf("the error in the trailer is %+v", remote)
		}
	}
}

func TestExecuteStream(t *testing.T) {
	_, cc := pool(t, Adapter{ClientToken: "client's"})
	client := snakepitpb.NewWorkerClient(cc)
	ctx, cancel := context.WithTimeout(withToken(t.Context(), "client's"), time.Minute)
	defer cancel()
	const n = 5000 // several windows of items and of bytes
	stream, err := client.ExecuteStream(ctx, &snakepitpb.ExecuteRequest{
		Command: "count", Args: fmt.Appendf(nil, `{"n": %d, "pad": 1000}`, n), Session: "s",
		Metadata: map[string]string{"k": "v"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		chunk, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			var failed core.RemoteError
			if err := json.Unmarshal(chunk.GetItemError(), &failed); err != nil || failed.Message != "odd one out" {
				t.Errorf("item 3: %v, %v", chunk, err)
			}
			continue
		}
		var item struct{ I int }
		if err := json.Unmarshal(chunk.GetItem(), &item); err != nil || item.I != i {
			t.Fatalf("item %d: %v, %v", i, chunk, err)
		}
	}
	last, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Total    int
		Session  string
		Metadata map[string]string
		Left     float64
	}
	if err := json.Unmarshal(last.GetResult(), &result); err != nil {
		t.Fatal(err)
	}
	if result.Total != n || result.Session != "s" || result.Metadata["k"] != "v" ||
		result.Left <= 0 || result.Left > 60 {
		t.Errorf("the result is %+v", result)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// waitFor waits until a file exists. The worker makes it.
func waitFor(t *testing.T, path string) {
	t.Helper()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s did not appear", path)
		case <-time.After(time.Millisecond): // polls: the result does not depend on the time
		}
	}
}

func TestClientThatLeavesCancels(t *testing.T) {
	p, cc := pool(t, Adapter{ClientToken: "client's"})
	client := snakepitpb.NewWorkerClient(cc)
	touch := func(ctx context.Context, path string) error {
		args, err := json.Marshal(map[string]string{"path": path})
		if err == nil {
			_, err = client.Execute(ctx, &snakepitpb.ExecuteRequest{Command: "touch", Args: args})
		}
		return err
	}
	dir := t.TempDir()

	ctx, cancel := context.WithCancel(withToken(t.Context(), "client's"))
	ended := make(chan error)
	running, waiting := filepath.Join(dir, "running"), filepath.Join(dir, "waiting")
	go func() { ended <- touch(ctx, running) }()
	waitFor(t, running)
	short, cancelShort := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelShort()
	err := touch(short, waiting) // waits: the worker runs one call at a time
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	waitFor(t, running+".cancelled")

	// The worker is free for its pool and for other clients. The call that waited never ran.
	if _, err := core.Execute[any](t.Context(), p, "compute", map[string]int{"a": 1, "b": 2}); err != nil {
		t.Error(err)
	}
	_, err = client.Execute(withToken(t.Context(), "client's"), &snakepitpb.ExecuteRequest{Command: "nothing"})
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(waiting); err == nil {
		t.Error("a call ran whose client had left")
	}
}

func TestPoolWaitsForAClientsCall(t *testing.T) {
	p, cc := pool(t, Adapter{ClientToken: "client's"})
	client := snakepitpb.NewWorkerClient(cc)
	ctx := withToken(t.Context(), "client's")
	dir := t.TempDir()
	running, until := filepath.Join(dir, "running"), filepath.Join(dir, "until")
	args, err := json.Marshal(map[string]string{"path": running, "until": until})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() {
		_, err := client.Execute(ctx, &snakepitpb.ExecuteRequest{Command: "touch", Args: args})
		ended <- err
	}()
	waitFor(t, running)
	health, err := p.Workers()[0].Health(t.Context())
	if err != nil || len(health.Running) != 1 || health.Running[0].Name != "touch" {
		t.Errorf("while it runs: %+v, %v", health, err)
	}
	go func() {
		_, err := core.Execute[any](t.Context(), p, "nothing", nil)
		ended <- err
	}()
	if err := os.WriteFile(until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestHealth(t *testing.T) {
	p, cc := pool(t, Adapter{ClientToken: "client's"})
	client := grpc_health_v1.NewHealthClient(cc)
	ctx := withToken(t.Context(), "client's")
	if _, err := core.Execute[any](t.Context(), p, "nothing", nil); err != nil { // afterwards it certainly serves
		t.Fatal(err)
	}
	for _, service := range []string{"", "snakepit.v1.Worker"} {
		r, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, r, err)
		}
	}
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "other"})
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	_, err = client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	unknown, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := unknown.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("an unknown service: %v, %v", r, err)
	}
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("at first: %v, %v", r, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("after Close: %v, %v", r, err)
	}
	if r, err := watch.Recv(); err == nil {
		t.Errorf("after the worker has ended: %v", r)
	}
}

func TestForkedChildHasNoConnection(t *testing.T) {
	p, _ := pool(t, Adapter{})
	got, err := core.Execute[map[string]int](t.Context(), p, "fork", nil)
	if err != nil || got["child"] != 7 || got["own"] != 2 { // own: the listening socket and the connected one
		t.Errorf("the worker has so many descriptors, and the child ended with: %v, %v", got, err)
	}
	if _, err := core.Execute[any](t.Context(), p, "nothing", nil); err != nil {
		t.Error(err)
	}
}

func TestWorkerThatCannotServe(t *testing.T) {
	cmd := core.Command{Path: interpreter(t), Args: []string{"../../python", "testdata/broken.py"}, Reports: true}
	_, err := core.Open(t.Context(), Adapter{}, cmd, &core.Options{Size: 1, Logger: hclog.NewNullLogger()})
	var remote *core.RemoteError
	if !errors.As(err, &remote) || remote.Type != "ZeroDivisionError" {
		t.Errorf("the import's error is not told: %v", err)
	}
}
