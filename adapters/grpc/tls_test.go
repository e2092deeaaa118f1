package grpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/core"
)

func certificate(tb testing.TB) *tls.Certificate {
	tb.Helper()
	c, err := NewCertificate()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// authorities returns a pool of one certificate.
func authorities(tb testing.TB, der []byte) *x509.CertPool {
	tb.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return pool
}

// handedOver makes a launcher note what it hands to its worker, and returns the function that reads it.
func handedOver(t *testing.T, l *core.Launcher) func() keys {
	var spec core.Spec
	launch := l.Launch
	l.Launch = func(ctx context.Context, s core.Spec) (*core.Process, error) {
		spec = s
		return launch(ctx, s)
	}
	return func() (k keys) {
		if err := json.Unmarshal(spec.Input, &k); err != nil {
			t.Fatal(err)
		}
		return k
	}
}

// A worker on a port serves the host, and nothing of a gRPC client that lacks the host's certificate: it gets no
// answer, even with the host's token.
func TestPortsServeTheHostAlone(t *testing.T) {
	l := python(t, "testdata/echo.py")
	given := handedOver(t, l)
	link := start(t, Adapter{BasePort: freeRange(t, 1)}, l)
	block, _ := pem.Decode([]byte(given().Certificate))
	workers := authorities(t, block.Bytes)
	for name, creds := range map[string]credentials.TransportCredentials{
		"plain text":     insecure.NewCredentials(),
		"no certificate": credentials.NewTLS(&tls.Config{RootCAs: workers}),
		"another certificate": credentials.NewTLS(&tls.Config{
			RootCAs: workers, Certificates: []tls.Certificate{*certificate(t)},
		}),
	} {
		cc, err := grpc.NewClient(link.Endpoint, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		ctx := withToken(t.Context(), l.HostToken)
		_, err = snakepitpb.NewWorkerClient(cc).Execute(ctx, &snakepitpb.ExecuteRequest{Command: "x"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a client with %s: Execute says %v", name, err)
		}
		_, err = grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a client with %s: Check says %v", name, err)
		}
		stream, err := snakepitpb.NewWorkerClient(cc).Attach(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a client with %s: Attach says %v", name, err)
		}
		_ = cc.Close()
	}
	if err := link.Conn.Write(everyKind()); err != nil {
		t.Fatal(err)
	}
	readN(t, link.Conn, len(everyKind()))
}

// What a worker sends to a client that speaks no TLS is at most an alert of TLS: no byte of HTTP/2.
func TestPortsAnswerNoPlainText(t *testing.T) {
	link := start(t, Adapter{BasePort: freeRange(t, 1)}, python(t, "testdata/echo.py"))
	for _, text := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "GET / HTTP/1.1\r\n\r\n",
	} {
		c, err := net.Dial("tcp", link.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		const alert = 0x15
		if got, _ := io.ReadAll(c); len(got) > 0 && got[0] != alert || len(got) > 16 {
			t.Errorf("%.10q is answered by %q", text, got)
		}
		_ = c.Close()
	}
}

// impostor listens where a worker should. It returns a launcher of a worker that reports this address, and what the
// impostor has received, decrypted if it speaks TLS.
func impostor(t *testing.T, certificate *tls.Certificate) (*core.Launcher, <-chan []byte) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	received := make(chan []byte, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		if certificate == nil {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		} else {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: []string{"h2"}})
		}
		got, _ := io.ReadAll(c)
		received <- got
		_ = c.Close()
	}()
	l := newLauncher(t.TempDir())
	l.Launch = launches(listensAt(listener.Addr().String()))
	return l, received
}

// A program that has taken the worker's port is refused, and learns nothing.
func TestImpostors(t *testing.T) {
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		says        string
	}{
		"another certificate": {certificate(t), "it does not have the worker's certificate"},
		"no TLS":              {nil, "first record does not look like a TLS handshake"},
	} {
		l, received := impostor(t, c.certificate)
		_, err := Adapter{BasePort: 50051}.Start(t.Context(), l)
		if err == nil || errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if _, remedy := core.Explain(err); !strings.Contains(remedy, "another BasePort") {
			t.Errorf("%s: the remedy is %q", name, remedy)
		}
		if got := <-received; bytes.Contains(got, []byte(l.HostToken)) || c.certificate != nil && len(got) > 0 {
			t.Errorf("%s: it has received %q", name, got)
		}
	}
}

// The host never speaks plain text over TCP, whatever a worker reports.
func TestNoPlainTextOverTCP(t *testing.T) {
	l, _ := impostor(t, nil)
	_, err := Adapter{}.Start(t.Context(), l)
	if err == nil || !strings.Contains(err.Error(), "without TLS") || !strings.Contains(err.Error(), "set BasePort") {
		t.Error(err)
	}
}

// Each worker has keys of its own, and they are only in its standard input.
func TestKeysAreNew(t *testing.T) {
	var seen []string
	var specs []core.Spec
	l := newLauncher(t.TempDir())
	l.Launch = launches(func(s core.Spec) (*core.Process, error) { specs = append(specs, s); return nil, io.EOF })
	for range 2 {
		_, _ = Adapter{BasePort: 50051}.Start(t.Context(), l) // io.EOF
	}
	for _, spec := range specs {
		var k keys
		if err := json.Unmarshal(spec.Input, &k); err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair([]byte(k.Certificate), []byte(k.Key))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.X509KeyPair([]byte(k.Client), []byte(k.Key)); err == nil {
			t.Error("the worker has the host's key")
		}
		if pair.Leaf.NotAfter.Year() != 9999 || pair.Leaf.IsCA {
			t.Errorf("the worker's certificate is %+v", pair.Leaf)
		}
		if strings.Contains(fmt.Sprint(spec.Env), "-----BEGIN") {
			t.Errorf("the environment has %v", spec.Env)
		}
		seen = append(seen, k.Key, k.Certificate, k.Client)
	}
	if seen[0] == seen[3] || seen[1] == seen[4] || seen[2] == seen[5] {
		t.Error("two workers have the same keys")
	}
	if left, err := os.ReadDir(l.Dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// The system shows neither a key nor, in the arguments, a token of a worker.
func TestSystemShowsNoKeys(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux shows a process's environment, arguments and descriptors in /proc")
	}
	p, _ := pool(t, Adapter{BasePort: freeRange(t, 1), ClientToken: "client's", Certificate: certificate(t)})
	shown, err := core.Execute[map[string]string](t.Context(), p, "shown", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(shown["environ"], "SNAKEPIT_GRPC_TLS=stdin") || shown["input"] != "" {
		t.Errorf("the worker's environment is %q, and its input %q", shown["environ"], shown["input"])
	}
	if all := fmt.Sprint(shown); strings.Contains(all, "-----BEGIN") {
		t.Errorf("a key is shown: %s", all)
	}
	if strings.Contains(shown["cmdline"], "client's") || shown["files"] != "" {
		t.Errorf("the arguments are %q, and the files in the private directory %q", shown["cmdline"], shown["files"])
	}
}

// Other clients verify the worker by the pool's certificate. The token admits them.
func TestClientsOnPorts(t *testing.T) {
	a := Adapter{BasePort: freeRange(t, 1), ClientToken: "client's", Certificate: certificate(t)}
	p, cc := pool(t, a)
	if _, err := core.Execute[any](t.Context(), p, "nothing", nil); err != nil { // afterwards it certainly serves
		t.Fatal(err)
	}
	ctx := withToken(t.Context(), "client's")
	request := &snakepitpb.ExecuteRequest{Command: "compute", Args: []byte(`{"a": 1, "b": 2}`)}
	r, err := snakepitpb.NewWorkerClient(cc).Execute(ctx, request)
	if err != nil || !strings.Contains(string(r.Result), `"sum":3`) {
		t.Errorf("%v, %v", r, err)
	}
	health, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", health, err)
	}
	for _, token := range []string{"", "client'", "client's!", "client"} {
		_, err := snakepitpb.NewWorkerClient(cc).Execute(withToken(t.Context(), token), request)
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("with the token %q: %v", token, err)
		}
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"speaks plain text": insecure.NewCredentials(),
		"verifies by another certificate": credentials.NewTLS(&tls.Config{
			RootCAs: authorities(t, certificate(t).Certificate[0]),
		}),
	} {
		stranger, err := grpc.NewClient(p.Workers()[0].Info().Endpoint, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		_, err = snakepitpb.NewWorkerClient(stranger).Execute(ctx, request)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a client that %s: %v", name, err)
		}
		_ = stranger.Close()
	}
}

// The Python client of docs/api.md works.
func TestPythonClientOnPorts(t *testing.T) {
	a := Adapter{BasePort: freeRange(t, 1), ClientToken: "client's", Certificate: certificate(t)}
	p, _ := pool(t, a)
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "### Other gRPC clients")
	_, block, _ := strings.Cut(section, "```python\n")
	block, _, _ = strings.Cut(block, "```")
	endpoint := p.Workers()[0].Info().Endpoint
	script := "import grpc\nfrom snakepit_bridge.grpc.snakepit_pb2 import ExecuteRequest\n" +
		"from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub\ntoken = \"client's\"\n" +
		strings.NewReplacer("127.0.0.1:50051", endpoint, `"add"`, `"compute"`).Replace(block) + "print(answer.result)\n"
	bridge, err := filepath.Abs("../../python")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter(t), "-c", script)
	cmd.Dir, cmd.Env, cmd.Stderr = t.TempDir(), append(os.Environ(), "PYTHONPATH="+bridge), os.Stderr
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Certificate[0]})
	if err := os.WriteFile(filepath.Join(cmd.Dir, "worker.pem"), public, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if want := `b'{"sum":3,"data":{"$bytes":"AP8="}}'`; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("it printed %q: %v\n%s", out, err, script)
	}
}

// A worker whose standard input does not have its keys says so, without them.
func TestKeysThatDoNotArrive(t *testing.T) {
	for _, input := range []string{
		"", "secret", `{"key": "secret"}`, `["secret"]`, `{"key": "secret", "certificate": 1}`, "\xff",
	} {
		l := python(t, "testdata/echo.py")
		launch := l.Launch
		l.Launch = func(ctx context.Context, s core.Spec) (*core.Process, error) {
			s.Input = []byte(input)
			return launch(ctx, s)
		}
		_, err := Adapter{BasePort: freeRange(t, 1)}.Start(t.Context(), l)
		if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "not the keys for TLS") ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("with %q: %v", input, err)
		}
	}
	l := python(t, "testdata/echo.py", "SNAKEPIT_GRPC_TLS=")
	_, err := Adapter{BasePort: freeRange(t, 1)}.Start(t.Context(), l)
	if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "no keys for TLS") {
		t.Errorf("a port without TLS: %v", err)
	}
}
