// Package grpc is the adapter for workers that are gRPC servers. The pool uses one stream of the service in
// snakepit.proto. The stream carries batches of frames in both directions. Other gRPC clients may call the same
// worker by its plain RPCs.
package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

// ErrUnavailable is wrapped by Start's error if the worker can't speak gRPC: its interpreter lacks grpcio or
// protobuf, or no port is free. The error's text says which, and what to do.
var ErrUnavailable = fmt.Errorf("grpc: %w", core.ErrUnavailable)

// Adapter starts workers that serve gRPC. The zero value is ready: each worker then listens on a private Unix socket
// in the pool's own directory (on Windows, on a loopback port that the system chooses). Whatever it listens on, a
// worker refuses callers without a token. A connection to a port is always TLS, and the pool speaks TLS 1.3. The pool
// accepts only the worker's own certificate, and without ClientToken the worker accepts only the pool's.
type Adapter struct {
	// BasePort and PortRange make workers listen on loopback TCP if BasePort is set: on the first free port from
	// BasePort to BasePort + PortRange, both included. Each worker gets a new key and a new certificate. The key
	// reaches it through a pipe, never through a file, an argument or the environment.
	BasePort  int
	PortRange int

	// ConnectTimeout limits the time to connect to a worker that has reported where it listens. 0 means 10 s.
	ConnectTimeout time.Duration

	// ClientToken lets other gRPC clients call the workers' Execute, ExecuteStream and health service at
	// Link.Endpoint. They show the token as metadata "snakepit-token". "" means that only the pool may call. On ports
	// it needs a Certificate. Workers then demand no certificate of a client: any program on the machine can complete
	// the handshake, and the token alone admits it.
	ClientToken string

	// Certificate is the certificate, with its key, that all workers show on ports. Other clients verify the workers by
	// it, or by the authority that has signed it. nil means a new one for each worker, which only the pool knows. Start
	// only reads it.
	Certificate *tls.Certificate
}

// Name returns "grpc".
func (Adapter) Name() string { return "grpc" }

// Start launches a worker, waits until it has reported where it listens, and opens the stream of frames.
func (a Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	spec := core.Spec{Protocol: a.Name(), Env: env}
	var secure *tls.Config
	if a.onPorts() {
		if secure, spec.Input, err = a.secure(); err != nil {
			return nil, err
		}
	}
	process, err := l.Launch(ctx, spec)
	if errors.Is(err, core.ErrUnavailable) {
		return nil, &unavailable{err}
	}
	if err != nil {
		return nil, err
	}
	if process.Endpoint == "" {
		return nil, &unavailable{&core.UnavailableError{
			Reason: "the worker's report does not say where it listens",
			Remedy: "set Command.Reports: a worker that serves gRPC has to write a report",
		}}
	}
	if secure == nil && !strings.HasPrefix(process.Endpoint, "unix:") {
		return nil, &core.RemedyError{
			Err: fmt.Errorf("the worker listens at %s, without TLS: other users of this machine can connect there",
				process.Endpoint),
			Remedy: "set BasePort, or let the worker listen on a Unix socket",
		}
	}
	c, err := a.dial(ctx, process.Endpoint, l.HostToken, l.Dir, l.MaxFrame, secure)
	if err != nil {
		removeSocket(process.Endpoint, l.Dir)
		return nil, fmt.Errorf("connecting to the worker at %s: %w", process.Endpoint, err)
	}
	return &core.Link{
		Conn: c, Adapter: a.Name(), Codecs: []core.Codec{msgpack.Codec{}, json.Codec{}},
		Endpoint: process.Endpoint, Token: l.WorkerToken, Process: process,
	}, nil
}

// onPorts reports whether workers listen on TCP.
func (a Adapter) onPorts() bool { return a.BasePort != 0 || runtime.GOOS == "windows" }

// env checks the options. It returns those for the worker as environment variables.
func (a Adapter) env() ([]string, error) {
	var env []string
	switch {
	case a.BasePort == 0 && a.PortRange != 0:
		return nil, fmt.Errorf("grpc: PortRange %d without a BasePort: set both, or neither for a Unix socket",
			a.PortRange)
	case a.BasePort < 0 || a.PortRange < 0 || a.BasePort+a.PortRange > 65535:
		return nil, fmt.Errorf("grpc: BasePort %d and PortRange %d do not lie within 1 to 65535",
			a.BasePort, a.PortRange)
	case a.ConnectTimeout < 0:
		return nil, fmt.Errorf("grpc: ConnectTimeout %s is negative", a.ConnectTimeout)
	case a.onPorts() && a.ClientToken != "" && a.Certificate == nil:
		return nil, errors.New("grpc: a ClientToken on ports without a Certificate: clients could not verify the " +
			"workers; make one with NewCertificate, and give the clients its public part")
	case !a.onPorts() && a.Certificate != nil:
		return nil, errors.New("grpc: a Certificate without a BasePort: Unix sockets have no TLS; set both, or neither")
	}
	if a.BasePort != 0 {
		env = append(env, fmt.Sprintf("SNAKEPIT_GRPC_PORTS=%d-%d", a.BasePort, a.BasePort+a.PortRange))
	}
	if a.onPorts() {
		env = append(env, "SNAKEPIT_GRPC_TLS=stdin")
	}
	if a.ClientToken != "" {
		env = append(env, "SNAKEPIT_GRPC_CLIENT_TOKEN="+a.ClientToken)
	}
	return env, nil
}

// dial opens the stream of frames. maxFrame is the limit on Frame.Size. dir is the pool's own directory: the worker's
// socket in it is removed at the end. secure is nil for a Unix socket.
func (a Adapter) dial(ctx context.Context, endpoint, token, dir string, maxFrame int, secure *tls.Config) (
	*conn, error) {
	timeout := a.ConnectTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	// The largest batch has one frame of the largest size. The margin is for long metadata: Frame.Size counts only 8
	// bytes for the lengths of an entry.
	maxMessage := maxFrame + maxFrame/64 + batchBytes
	creds, failed := insecure.NewCredentials(), new(atomic.Pointer[error]) // a Unix socket is in a private directory
	if secure != nil {
		h := newHandshake(secure)
		creds, failed = h, h.failed
	}
	// A fixed target and a dialer: a target gives a meaning to some characters that a socket's path may hold.
	cc, err := grpc.NewClient("passthrough:///worker",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			network, address := "tcp", endpoint
			if path, isUnix := strings.CutPrefix(endpoint, "unix:"); isUnix {
				network, address = "unix", path
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithTransportCredentials(creds),
		// Fixed windows: without them grpc-go sends a ping with each message to measure the bandwidth.
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, err
	}
	// The stream outlives ctx, so it has a context of its own. ctx cancels that only until the stream is open.
	own, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), tokenKey, token))
	connecting, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no connection after %s", timeout))
	defer stop()
	release := context.AfterFunc(connecting, cancel)
	stream, err := cc.NewStream(own, &snakepitpb.Worker_ServiceDesc.Streams[0], snakepitpb.Worker_Attach_FullMethodName,
		grpc.ForceCodecV2(messageCodec{}))
	if !release() {
		err = context.Cause(connecting)
	}
	if why := failed.Load(); err != nil && why != nil {
		err = &core.RemedyError{
			Err:    fmt.Errorf("TLS with what listens there has failed: %w", *why),
			Remedy: "if another program has taken the port, choose another BasePort",
		}
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, cc.Close())
	}
	return &conn{cc: cc, stream: stream, cancel: cancel, endpoint: endpoint, dir: dir, pace: newPace()}, nil
}

// window is how many bytes the worker may send ahead of Read.
const window = 4 << 20

// tokenKey is the metadata key of a caller's token.
const tokenKey = "snakepit-token"

// removeSocket removes the socket that a killed worker leaves behind in dir, the pool's own directory. A file
// elsewhere is never removed, whatever the worker reports.
func removeSocket(endpoint, dir string) {
	if path, isUnix := strings.CutPrefix(endpoint, "unix:"); isUnix && filepath.Dir(path) == filepath.Clean(dir) {
		_ = os.Remove(path) // usually gone already
	}
}

// unavailable says why gRPC is unavailable. The caller adds the protocol's name.
type unavailable struct{ err error }

func (e *unavailable) Error() string   { return e.err.Error() }
func (e *unavailable) Unwrap() []error { return []error{ErrUnavailable, e.err} }
