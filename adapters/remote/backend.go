package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the client's side of the health protocol
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	workers "github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/remote/launchpb"
	"github.com/snakepit-go/snakepit/core"
)

// backend is the connection to the back ends. gRPC resolves their name, connects to each of them, watches their health
// and connects again.
type backend struct {
	mu     sync.Mutex // guards the fields below
	client *client
	closed bool
}

// client starts workers.
type client struct {
	options Adapter
	name    string // of the adapter, for Link
	cc      *grpc.ClientConn
	launch  launchpb.LaunchClient
	own     *tls.Certificate // what the pool shows to its workers; nil without TLS
	pem     string           // the same in PEM
	waits   bool             // the back end itself can wait for room
	since   time.Time        // when gRPC began to connect

	moreRoom string // the remedy for back ends without room

	settled sync.Once   // the first start has waited for the connections
	ending  atomic.Bool // a back end has said that it is about to end; for Ray, which has one
}

// open returns the client. The first call makes it.
func (b *backend) open(a Adapter) (*client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, errClosed
	case b.client != nil:
		return b.client, nil
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	c := &client{
		options: a, name: a.Name(), moreRoom: "add back ends, give them more workers, or set WaitForRoom",
	}
	if !a.Plaintext {
		var err error
		if c.own, err = workers.NewCertificate(); err != nil {
			return nil, fmt.Errorf("remote: making the pool's certificate: %w", err)
		}
		c.pem = string(encode("CERTIFICATE", c.own.Certificate[0]))
	}
	if err := c.dial(); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	b.client = c
	return c, nil
}

func (b *backend) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.client == nil {
		return nil
	}
	c := b.client
	b.client = nil
	return c.cc.Close()
}

// keepalivePeriod is how often gRPC asks a silent back end for a sign of life, and how long that may take.
const keepalivePeriod = 10 * time.Second

// dial makes the connection. It does no input and output.
func (c *client) dial() error {
	creds := insecure.NewCredentials()
	if c.options.TLS != nil {
		creds = credentials.NewTLS(c.options.TLS)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // of the resolver
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(connectParams(c.options.connectTimeout())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepalivePeriod, Timeout: keepalivePeriod}),
	}
	target := c.options.Resolve
	if target == "" {
		list := manual.NewBuilderWithScheme("snakepit")
		var addresses []resolver.Address
		for _, target := range c.options.Targets {
			host, _, _ := net.SplitHostPort(target) // check has tried it
			addresses = append(addresses, resolver.Address{Addr: target, ServerName: host})
		}
		list.InitialState(resolver.State{Addresses: addresses})
		opts = append(opts, grpc.WithResolvers(list))
		target = "snakepit:///back-ends"
	}
	var err error
	if c.cc, err = grpc.NewClient(target, opts...); err != nil {
		return err
	}
	c.launch, c.since = launchpb.NewLaunchClient(c.cc), time.Now()
	return nil
}

// settling is how long the first connections to the back ends may take before those that are connected count as all.
const settling = time.Second

// roomInterval is how often a start that waits for room asks again.
const roomInterval = time.Second

// lease gets a worker from a back end that has room. ctx bounds only this. The caller owns the lease.
func (c *client) lease(ctx context.Context, l *core.Launcher) (*lease, error) {
	start := &launchpb.Start{
		RunId: l.RunID, Index: uint32(l.Index), MaxFrame: uint32(l.MaxFrame),
		HostToken: l.HostToken, WorkerToken: l.WorkerToken, Certificate: c.pem,
		WatchMemory: l.WatchMemory,
	}
	for _, v := range l.Env {
		if !strings.HasPrefix(v, "SNAKEPIT_CACHE=") { // a directory of this machine
			start.Env = append(start.Env, v)
		}
	}
	c.settle(ctx)
	var lack *refusals // why there was no room the last time; nil before the first refusal
	for {
		leased, refused, err := c.ask(ctx, start)
		switch {
		case lack != nil && err != nil && ctx.Err() != nil:
			return nil, noRoomInTime(ctx, lack)
		case !errors.Is(err, core.ErrNoRoom) || !c.options.WaitForRoom:
			return leased, err
		}
		lack = refused
		if c.waits && !start.Wait { // now it has said what is missing
			start.Wait = true
			continue
		}
		select {
		case <-time.After(roomInterval):
		case <-ctx.Done():
			return nil, noRoomInTime(ctx, lack)
		}
	}
}

func noRoomInTime(ctx context.Context, lack *refusals) error {
	return overdue(ctx, "make room, or raise Options.StartTimeout", "no room in time: "+lack.String())
}

// overdue returns the error of a start whose context has ended: what it waited for, and why the context has ended.
func overdue(ctx context.Context, remedy, what string) error {
	return &core.RemedyError{Err: fmt.Errorf("%s: %w", what, context.Cause(ctx)), Remedy: remedy}
}

// settle waits until the first back end is connected or none can be, and then a moment for the others. Otherwise the
// first starts would all go to one of them.
func (c *client) settle(ctx context.Context) {
	c.settled.Do(func() {
		c.cc.Connect()
		state := c.cc.GetState()
		for state != connectivity.Ready && state != connectivity.TransientFailure {
			if !c.cc.WaitForStateChange(ctx, state) {
				return
			}
			state = c.cc.GetState()
		}
		if state == connectivity.Ready && len(c.options.Targets) != 1 {
			time.Sleep(settling / 20)
		}
	})
}

// ask asks one back end after another until one starts a worker. Otherwise refused says why each of them did not.
func (c *client) ask(ctx context.Context, start *launchpb.Start) (l *lease, refused *refusals, err error) {
	refused = &refusals{}
	for {
		l, err = c.try(ctx, start, refused)
		code := status.Code(err)
		if code == codes.Unavailable && isEnding(err.Error()) {
			c.ending.Store(true)
		}
		switch {
		case ctx.Err() == nil && (code == codes.ResourceExhausted || code == codes.Unavailable) && refused.add(err):
			continue // with the next one
		case code == codes.ResourceExhausted && time.Since(c.since) < settling &&
			refused.count() != len(c.options.Targets):
			time.Sleep(settling / 50) // the others may still be connecting
			continue
		case (code == codes.ResourceExhausted || code == codes.Unavailable) && refused.full():
			return nil, refused, &core.UnavailableError{
				Reason: refused.String(), Full: true,
				Remedy: c.moreRoom,
			}
		case code == codes.ResourceExhausted: // some are full, and the others do not answer
			err = status.Error(codes.Unavailable, refused.String())
		}
		return l, refused, c.explain(ctx, err)
	}
}

// try asks one back end that has not refused.
func (c *client) try(ctx context.Context, start *launchpb.Start, refused *refusals) (*lease, error) {
	// The lease outlives ctx, so it has a context of its own. ctx cancels that only until there is a worker.
	own, cancel := context.WithCancel(context.WithValue(context.Background(), refusalsKey{}, refused))
	release := context.AfterFunc(ctx, cancel)
	stream, err := c.launch.Lease(own)
	if err == nil {
		err = stream.Send(&launchpb.LeaseRequest{Request: &launchpb.LeaseRequest_Start{Start: start}})
		if err == nil || errors.Is(err, io.EOF) { // Recv tells why
			var first *launchpb.LeaseEvent
			if first, err = stream.Recv(); err == nil {
				if started := first.GetStarted(); started != nil && release() {
					return newLease(c, stream, cancel, started), nil
				}
				err = fmt.Errorf("%w: the back end's first message is not that a worker was started", core.ErrProtocol)
			}
		}
	}
	release()
	cancel()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// explain turns the error of gRPC into one that says what to do.
func (c *client) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	where := strings.Join(c.options.Targets, ", ")
	if where == "" {
		where = c.options.Resolve
	}
	text := plain(s.Message())
	if s.Code() == codes.Unavailable && !isTLS(text) && !isEnding(text) {
		if refusal := c.refusal(ctx); refusal != nil {
			text = refusal.Error()
		}
	}
	switch {
	case s.Code() == codes.Unavailable && isTLS(text):
		return &core.RemedyError{
			Err: fmt.Errorf("TLS with the back end (%s) has failed: %s", where, text), Remedy: remedyOfTLS(text),
		}
	case s.Code() == codes.Unavailable && isEnding(text):
		return &core.UnavailableError{
			Reason: fmt.Sprintf("no back end starts workers (%s); one of them is ending: %s", where, text),
			Remedy: "start another one",
		}
	case s.Code() == codes.Unavailable:
		remedy := "start one there, or correct the address; a firewall has to let this port and those of the " +
			"workers pass"
		if c.options.Plaintext && strings.Contains(text, "server preface") {
			remedy = "correct the address; if a back end listens there, it demands TLS: set TLS, or start it with " +
				"--plaintext"
		}
		return &core.UnavailableError{
			Reason: fmt.Sprintf("no back end answers (%s): %s", where, text), Remedy: remedy,
		}
	case s.Code() == codes.Unimplemented:
		return &core.RemedyError{
			Err:    fmt.Errorf("what listens there (%s) is no back end of Snakepit: %s", where, text),
			Remedy: "correct the address",
		}
	default:
		return fmt.Errorf("the back end (%s): %s", where, text)
	}
}

// isEnding reports whether a text of gRPC, or of a back end, says that the back end is about to end.
func isEnding(text string) bool {
	return strings.Contains(text, "status=NOT_SERVING") || strings.Contains(text, "the back end is ending")
}

// remedyOfTLS returns what to do about a failure of TLS.
func remedyOfTLS(text string) string {
	switch {
	case strings.Contains(text, "does not look like a TLS handshake"):
		return "correct the address; a back end that was started with --plaintext has no TLS"
	case strings.Contains(text, "certificate is valid for"), strings.Contains(text, "cannot validate certificate for"):
		return "make certificates for the address that this program dials (snakepit certificates DIR --host HOST), " +
			"or dial one that the certificate names"
	}
	return "compare the certificates and authorities of both sides: each verifies the other"
}

// isTLS reports whether a text of gRPC is about TLS.
func isTLS(text string) bool {
	return strings.Contains(text, "tls: ") || strings.Contains(text, "handshake failed")
}

// tlsPatience is how long a back end may take to refuse this program's certificate.
const tlsPatience = 2 * time.Second

// refusal returns why a back end refuses this program's certificate, or nil. With TLS 1.3 it does so after the
// handshake of this side. gRPC writes then, so it often sees only a closed connection. A server that accepts sends its
// settings.
func (c *client) refusal(ctx context.Context) error {
	if c.options.TLS == nil || len(c.options.Targets) == 0 {
		return nil
	}
	config := c.options.TLS.Clone()
	config.NextProtos = []string{"h2"}
	ctx, cancel := context.WithTimeout(ctx, tlsPatience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", c.options.Targets[0])
	if err != nil {
		return nil // gRPC's own error is better
	}
	defer func() { _ = conn.Close() }() // nothing was written
	_ = conn.SetReadDeadline(time.Now().Add(tlsPatience))
	_, err = conn.Read(make([]byte, 1))
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case isTLS(err.Error()):
		return err
	default: // gRPC's C core sends no alert
		return errors.New("tls: it closed the connection after the handshake, so it does not accept the certificate " +
			"of this program")
	}
}
