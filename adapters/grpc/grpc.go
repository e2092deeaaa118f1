// Package grpc is the adapter for workers that are gRPC servers. The pool uses one stream of the service in
// snakepit.proto. The stream carries batches of frames in both directions. Other gRPC clients may call the same
// worker by its plain RPCs.
package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// ErrUnavailable is wrapped by Start's error if the worker can't speak gRPC: its interpreter lacks grpcio or
// protobuf, or no port is free. The error's text says which, and what to do.
var ErrUnavailable = fmt.Errorf("grpc: %w", core.ErrUnavailable)

// Adapter starts workers that serve gRPC. The zero value is ready: each worker then listens on a private Unix socket
// in the pool's own directory (on Windows, on a loopback port that the system chooses). Whatever it listens on, a
// worker refuses callers without a token. A connection to a port is always TLS, and the pool speaks version 1.3. It
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
	w := Worker{
		Endpoint: process.Endpoint, Token: l.HostToken, MaxFrame: l.MaxFrame, ConnectTimeout: a.ConnectTimeout,
	}
	link, err := w.connect(ctx, secure, l.Dir)
	if err != nil {
		removeSocket(process.Endpoint, l.Dir)
		if errors.As(err, new(*handshakeError)) {
			err = &core.RemedyError{Err: err, Remedy: "if another program has taken the port, choose another BasePort"}
		}
		return nil, err
	}
	link.Adapter, link.Token, link.Process = a.Name(), l.WorkerToken, process
	return link, nil
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
