package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/snakepit-go/snakepit/adapters/remote/launchpb"
	"github.com/snakepit-go/snakepit/core"
)

// fake is a back end without workers.
type fake struct {
	launchpb.UnimplementedLaunchServer
	address string
	server  *grpc.Server
	health  *health.Server
	first   *launchpb.LeaseEvent // what it answers a start with
	second  *launchpb.LeaseEvent // what it sends then; nil: nothing
	refusal string               // what it says when it is full; "": the usual

	mu     sync.Mutex // guards the fields below
	freed  *sync.Cond // a lease has ended, or a start that waits for room is called off
	room   int
	asked  int // how many starts there were, also of refused ones
	starts []*launchpb.Start
	leases int
	holds  int
}

// newFake starts a fake with so much room. address may be "127.0.0.1:0".
func newFake(t *testing.T, address string, room int, opts ...grpc.ServerOption) *fake {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		address: listener.Addr().String(), server: grpc.NewServer(opts...), health: health.NewServer(), room: room,
		first: &launchpb.LeaseEvent{
			Event: &launchpb.LeaseEvent_Started{Started: &launchpb.Started{Host: "fake", Pid: 7}},
		},
	}
	f.freed = sync.NewCond(&f.mu)
	launchpb.RegisterLaunchServer(f.server, f)
	grpc_health_v1.RegisterHealthServer(f.server, f.health)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = f.server.Serve(listener) // it ends with Stop
	}()
	t.Cleanup(func() { f.server.Stop(); <-served })
	return f
}

func (f *fake) Lease(stream launchpb.Launch_LeaseServer) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	full := !f.take(stream.Context(), request.GetStart())
	if full && f.refusal != "" {
		return status.Error(codes.ResourceExhausted, f.refusal)
	}
	if full {
		return status.Errorf(codes.ResourceExhausted, "all %d workers are leased", f.room)
	}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.leases--
		f.freed.Broadcast()
	}()
	if err := stream.Send(f.first); err != nil {
		return err
	}
	if f.second != nil {
		if err := stream.Send(f.second); err != nil {
			return err
		}
	}
	for {
		if _, err := stream.Recv(); err != nil {
			<-stream.Context().Done()
			return nil
		}
	}
}

// take counts a lease. It returns false if there is no room, or if a start that waits for it is called off.
func (f *fake) take(ctx context.Context, start *launchpb.Start) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	defer context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.freed.Broadcast()
	})()
	for f.leases >= f.room && start.GetWait() && ctx.Err() == nil {
		f.freed.Wait()
	}
	if f.leases >= f.room {
		return false
	}
	f.leases++
	f.starts = append(f.starts, start)
	return true
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leases
}

func (f *fake) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// leaser gets leases from back ends.
type leaser struct {
	*client
	t *testing.T
}

func newLeaser(t *testing.T, a Adapter, fakes ...*fake) leaser {
	t.Helper()
	for _, f := range fakes {
		a.Targets = append(a.Targets, f.address)
	}
	a.Plaintext = a.TLS == nil
	var b backend
	c, err := b.open(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return leaser{c, t}
}

func (l leaser) lease() *lease {
	l.t.Helper()
	leased, err := l.client.lease(l.t.Context(), &core.Launcher{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = leased.Close() })
	return leased
}

// write writes a worker file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "worker.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually polls for what another goroutine does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("this does not happen: ", what)
		}
	}
}

// Each lease goes to the back end with the fewest.
func TestFewestLeases(t *testing.T) {
	a, b, c := newFake(t, "127.0.0.1:0", 1000), newFake(t, "127.0.0.1:0", 1000), newFake(t, "127.0.0.1:0", 1000)
	l := newLeaser(t, Adapter{}, a, b, c)
	eventually(t, "all are known", func() bool { // a start takes the first that is connected
		l.lease()
		return a.count() > 0 && b.count() > 0 && c.count() > 0
	})
	most := max(a.count(), b.count(), c.count()) + 2
	for a.count()+b.count()+c.count() < 3*most {
		l.lease()
	}
	if a.count() != most || b.count() != most || c.count() != most {
		t.Errorf("they have %d, %d and %d leases", a.count(), b.count(), c.count())
	}
}

// Leases go past back ends that are full.
func TestFullBackEnds(t *testing.T) {
	a, b, c := newFake(t, "127.0.0.1:0", 4), newFake(t, "127.0.0.1:0", 4), newFake(t, "127.0.0.1:0", 1)
	l := newLeaser(t, Adapter{}, a, b, c)
	first := l.lease()
	for range 8 {
		l.lease()
	}
	_, err := l.client.lease(t.Context(), &core.Launcher{})
	if !errors.Is(err, core.ErrNoRoom) || !errors.Is(err, core.ErrUnavailable) ||
		strings.Count(err.Error(), "has no room: all 4 workers are leased") != 2 ||
		!strings.Contains(err.Error(), c.address) {
		t.Errorf("%v", err)
	}
	_ = first.Close()
	eventually(t, "there is room", func() bool { return a.count()+b.count()+c.count() == 8 })
	l.lease()
}

// A start that waits for room gets the first that there is. Its context ends the wait. The error says what was missing,
// also if the back end itself waits.
func TestWaitForRoom(t *testing.T) {
	f := newFake(t, "127.0.0.1:0", 1)
	l := newLeaser(t, Adapter{WaitForRoom: true}, f)
	held := l.lease()
	for _, waits := range []bool{true, false} {
		l.client.waits = waits
		start := func(ctx context.Context) (got chan *lease, failed chan error) {
			before := f.requests()
			got, failed = make(chan *lease, 1), make(chan error, 1)
			go func() {
				leased, err := l.client.lease(ctx, &core.Launcher{})
				got <- leased
				failed <- err
			}()
			eventually(t, "it waits", func() bool { return f.requests() >= before+2 })
			return got, failed
		}
		late := errors.New("it is late")
		ctx, cancel := context.WithCancelCause(t.Context())
		_, failed := start(ctx)
		cancel(late)
		err := <-failed
		if !errors.Is(err, late) || errors.Is(err, core.ErrUnavailable) ||
			!strings.Contains(err.Error(), "no room in time: "+f.address+" has no room: all 1 workers are leased") {
			t.Errorf("%v", err)
		}
		if _, remedy := core.Explain(err); !strings.Contains(remedy, "make room") {
			t.Errorf("the remedy is %q", remedy)
		}
		got, failed := start(t.Context())
		if err := held.Close(); err != nil {
			t.Error(err)
		}
		if held = <-got; held == nil {
			t.Fatal(<-failed)
		}
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

// A back end that says that it is not serving gets no leases until it serves again. The same holds for one that is
// gone.
func TestHealth(t *testing.T) {
	a, b := newFake(t, "127.0.0.1:0", 100), newFake(t, "127.0.0.1:0", 100)
	l := newLeaser(t, Adapter{}, a, b)
	both := func() bool {
		first, second := l.lease(), l.lease()
		defer first.Close()
		defer second.Close()
		return first.where != second.where
	}
	eventually(t, "both are used", both)
	a.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	only := func(f *fake) bool {
		for range 3 {
			leased := l.lease()
			defer leased.Close()
			if leased.where != f.address {
				return false
			}
		}
		return true
	}
	eventually(t, "only the other is used", func() bool { return only(b) })
	a.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	eventually(t, "both are used again", both)
	b.server.Stop()
	eventually(t, "only the first is used", func() bool { return only(a) })
	newFake(t, b.address, 100)
	eventually(t, "the other is back", both)
}

// What is wrong with a back end is said in its cause and a remedy.
func TestBadBackEnds(t *testing.T) {
	refused := func(t *testing.T, a Adapter, unavailable bool, words ...string) {
		t.Helper()
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		_, err := a.Start(t.Context(), &core.Launcher{})
		_, remedy := core.Explain(err)
		if err == nil || errors.Is(err, core.ErrUnavailable) != unavailable || remedy == "" {
			t.Fatalf("%v", err)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%v\nlacks %q", err, word)
			}
		}
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	closed := newFake(t, "127.0.0.1:0", 1)
	closed.server.Stop()

	t.Run("nobody listens", func(t *testing.T) {
		refused(t, Adapter{Targets: []string{closed.address}, Plaintext: true}, true,
			"no back end answers ("+closed.address+")", "connection refused", "firewall")
	})
	t.Run("silence", func(t *testing.T) {
		refused(t, Adapter{
			Targets: []string{nobody.Addr().String()}, Plaintext: true, ConnectTimeout: 50 * time.Millisecond,
		}, true, "no back end answers")
	})
	t.Run("unknown name", func(t *testing.T) {
		a := Adapter{Resolve: "dns:///no-such-host.invalid:7000", TLS: &tls.Config{}}
		refused(t, a, true, "no-such-host.invalid")
	})
	t.Run("another service", func(t *testing.T) {
		other := grpc.NewServer()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = other.Serve(listener) }()
		defer func() { other.Stop(); <-done }()
		refused(t, Adapter{Targets: []string{listener.Addr().String()}, Plaintext: true}, false,
			"is no back end of Snakepit", "correct the address")
	})
	t.Run("a web server", func(t *testing.T) {
		server := httptest.NewServer(nil)
		defer server.Close()
		at := []string{strings.TrimPrefix(server.URL, "http://")}
		refused(t, Adapter{Targets: at, Plaintext: true}, true, "server preface", "correct the address")
	})
	back, program := certified(t)
	secured := newFake(t, "127.0.0.2:0", 1, grpc.Creds(credentials.NewTLS(back)))
	plain := newFake(t, "127.0.0.1:0", 1)
	t.Run("TLS there only", func(t *testing.T) {
		refused(t, Adapter{Targets: []string{secured.address}, Plaintext: true}, true, "it demands TLS")
	})
	t.Run("TLS here only", func(t *testing.T) {
		refused(t, Adapter{Targets: []string{plain.address}, TLS: program}, false, "--plaintext has no TLS")
	})
	t.Run("a certificate of another host", func(t *testing.T) {
		refused(t, Adapter{Targets: []string{secured.address}, TLS: program}, false, "not 127.0.0.2", "--host HOST")
	})
	t.Run("it is ending", func(t *testing.T) {
		plain.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		refused(t, Adapter{Targets: []string{plain.address}, Plaintext: true}, true, "is ending", "start another one")
	})
	t.Run("wrong first message", func(t *testing.T) {
		f := newFake(t, "127.0.0.1:0", 1)
		f.first = &launchpb.LeaseEvent{Event: &launchpb.LeaseEvent_Output{Output: []byte("x")}}
		_, err := Adapter{Targets: []string{f.address}, Plaintext: true}.Start(t.Context(), &core.Launcher{})
		if !errors.Is(err, core.ErrProtocol) {
			t.Errorf("%v", err)
		}
		eventually(t, "its lease has ended", func() bool { return f.count() == 0 })
	})
	t.Run("ctx ends", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Adapter{Targets: []string{nobody.Addr().String()}, Plaintext: true}.Start(ctx, &core.Launcher{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// certified returns both sides of TLS by new certificates.
func certified(t *testing.T, hosts ...string) (back, program *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	if err := WriteCertificates(dir, hosts, time.Hour); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	program, err := LoadTLS(in(AuthorityFile), in(ProgramFile), in(ProgramKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(in(BackEndFile), in(BackEndKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: program.RootCAs,
	}, program
}

// Each side of the connection to a back end verifies the other.
func TestMutualTLS(t *testing.T) {
	back, program := certified(t)
	_, stranger := certified(t)
	f := newFake(t, "127.0.0.1:0", 9, grpc.Creds(credentials.NewTLS(back)))
	newLeaser(t, Adapter{TLS: program}, f).lease()
	for what, config := range map[string]*tls.Config{
		"another authority": {RootCAs: stranger.RootCAs, Certificates: program.Certificates},
		"another program":   {RootCAs: program.RootCAs, Certificates: stranger.Certificates},
		"no certificate":    {RootCAs: program.RootCAs},
	} {
		_, err := Adapter{TLS: config, Targets: []string{f.address}}.Start(t.Context(), &core.Launcher{})
		if err == nil || !strings.Contains(err.Error(), "TLS with the back end") ||
			errors.Is(err, core.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := Adapter{Plaintext: true, Targets: []string{f.address}}.Start(t.Context(), &core.Launcher{})
	if err == nil {
		t.Error("plain text is accepted")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.starts) != 1 || !strings.HasPrefix(f.starts[0].GetCertificate(), "-----BEGIN CERTIFICATE") {
		t.Errorf("%v", f.starts)
	}
}

// Certificates are not overwritten, and keys are for their owner alone.
func TestWriteCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certificates")
	if err := WriteCertificates(dir, []string{"gpu-1", "10.0.0.5"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	back, err := tls.LoadX509KeyPair(filepath.Join(dir, BackEndFile), filepath.Join(dir, BackEndKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "gpu-1", "10.0.0.5"} {
		if err := back.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	err = WriteCertificates(dir, nil, time.Hour)
	if err == nil || !strings.Contains(err.Error(), "is there already; remove it") {
		t.Errorf("%v", err)
	}
	if err := WriteCertificates(t.TempDir(), nil, 0); err == nil {
		t.Error("certificates without a lifetime")
	}
}

func TestBadOptions(t *testing.T) {
	secure := &tls.Config{}
	for words, a := range map[string]Adapter{
		"no Targets":                       {TLS: secure},
		"both Targets and Resolve":         {TLS: secure, Targets: []string{"a:1"}, Resolve: "dns:///a:1"},
		"ConnectTimeout -1s is negative":   {TLS: secure, Targets: []string{"a:1"}, ConnectTimeout: -time.Second},
		"no TLS":                           {Targets: []string{"a:1"}},
		"both TLS and Plaintext":           {TLS: secure, Plaintext: true, Targets: []string{"localhost:1"}},
		"Plaintext with Resolve":           {Plaintext: true, Resolve: "dns:///localhost:1"},
		"Plaintext to 10.0.0.5:7000":       {Plaintext: true, Targets: []string{"10.0.0.5:7000"}},
		`the target "gpu-1" is no address`: {TLS: secure, Targets: []string{"a:1", "gpu-1"}},
		`the target ":7000" is no address`: {TLS: secure, Targets: []string{":7000"}},
	} {
		_, err := a.Start(t.Context(), &core.Launcher{})
		var known *core.RemedyError
		if !errors.As(err, &known) || !strings.HasPrefix(err.Error(), "remote: "+words) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// A worker that listens on all addresses is where its back end is.
func TestEndpoint(t *testing.T) {
	l := &lease{host: "10.0.0.5"}
	for reported, want := range map[string]string{
		"0.0.0.0:4000": "10.0.0.5:4000", "[::]:4000": "10.0.0.5:4000", ":4000": "10.0.0.5:4000",
		"10.0.0.7:4000": "10.0.0.7:4000", "gpu-1:4000": "gpu-1:4000", "unix:/tmp/x": "unix:/tmp/x",
	} {
		if got := l.endpoint(reported); got != want {
			t.Errorf("%s: %s", reported, got)
		}
	}
}

// events is a stream of a back end's events.
type events struct {
	launchpb.Launch_LeaseClient
	next []*launchpb.LeaseEvent
	end  error
}

func (e *events) Recv() (*launchpb.LeaseEvent, error) {
	if len(e.next) == 0 {
		return nil, e.end
	}
	first := e.next[0]
	e.next = e.next[1:]
	return first, nil
}

// Each event of a back end becomes one of core's. One that this release does not know is none.
func TestEvents(t *testing.T) {
	l := &lease{where: "gpu-1:7000", stream: &events{end: io.EOF, next: []*launchpb.LeaseEvent{
		{Event: &launchpb.LeaseEvent_Output{Output: []byte("hello")}},
		{Event: &launchpb.LeaseEvent_Report{}},
		{},
		{Event: &launchpb.LeaseEvent_Exited{Exited: &launchpb.Exited{Code: -1, Signal: 9, Oom: true}}},
	}}}
	var got []string
	for {
		e, err := l.Next()
		if err != nil {
			got = append(got, err.Error())
			break
		}
		exit := core.LeaseExit{}
		if e.Exit != nil {
			exit = *e.Exit
		}
		got = append(got, fmt.Sprintf("%q %v %+v", e.Output, e.Report != nil, exit))
	}
	if want := []string{
		`"hello" false {Code:0 Signal: OOM:false}`, `"" true {Code:0 Signal: OOM:false}`,
		`"" false {Code:0 Signal: OOM:false}`, `"" false {Code:-1 Signal:killed OOM:true}`,
		"gpu-1:7000 has ended the lease without the worker's exit",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The worker gets the program's variables, but not the directory for caches of this machine.
func TestStartHasTheProgramsVariables(t *testing.T) {
	f := newFake(t, "127.0.0.1:0", 1)
	l := newLeaser(t, Adapter{}, f)
	leased, err := l.client.lease(t.Context(), &core.Launcher{
		RunID: "pets-1", Index: 3, MaxFrame: 5000, HostToken: "h", WorkerToken: "w",
		Env: []string{"SNAKEPIT_CACHE=/here", "MODEL=large"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer leased.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.starts[0]
	if s.GetRunId() != "pets-1" || s.GetIndex() != 3 || s.GetMaxFrame() != 5000 || s.GetHostToken() != "h" ||
		s.GetWorkerToken() != "w" || s.GetCertificate() != "" || !slices.Equal(s.GetEnv(), []string{"MODEL=large"}) {
		t.Errorf("%v", s)
	}
}

// What a back end says cannot change a terminal.
func TestPlain(t *testing.T) {
	f := newFake(t, "127.0.0.1:0", 0)
	f.refusal = "no \x1b[2J room\nhere"
	l := newLeaser(t, Adapter{}, f)
	if _, err := l.client.lease(t.Context(), &core.Launcher{}); err == nil || strings.Contains(err.Error(), "\x1b") ||
		!strings.Contains(err.Error(), "room\nhere") {
		t.Errorf("%q", err)
	}
	s := &lease{where: "gpu-1:7000", stream: &events{end: status.Error(codes.Aborted, "the \x1b node")}}
	if _, err := s.Next(); err == nil || strings.Contains(err.Error(), "\x1b") || status.Code(err) != codes.Aborted {
		t.Errorf("%q", err)
	}
}
