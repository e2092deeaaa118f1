// Package remote has adapters for workers on other machines. A back end starts them there: a small service, to which
// the adapter connects. The adapter asks it for a worker, and the open call is the worker's lease. When the lease ends,
// in whatever way, the worker ends. When the worker ends, the lease says how. Calls do not pass through the back end:
// the pool connects to each worker where it runs, by gRPC over mutual TLS.
package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Adapter has workers started by back ends that are already there. `python -m snakepit_bridge.serve worker.py` is one.
// Each start goes to the back end on which the pool has the fewest workers. One that does not answer, or says by the
// gRPC health protocol that it is not serving, gets none until it is back.
//
// An adapter that wraps this one passes ForPool on. Otherwise each worker has a connection to the back end for itself.
type Adapter struct {
	// Targets are the addresses of the back ends, "HOST:PORT".
	Targets []string

	// Resolve is a name to resolve instead of Targets, in the syntax of gRPC, such as
	// "dns:///workers.default.svc:7000" for a headless service of Kubernetes. See
	// https://github.com/grpc/grpc/blob/master/doc/naming.md.
	Resolve string

	// TLS is how the back ends are verified, and has the certificate that this program shows them. It is for the back
	// ends alone: each worker has a key of its own, its lease tells its certificate, and it accepts only a certificate
	// that the pool makes for itself. LoadCertificates and LoadTLS make one from files. Start only reads
	// it.
	TLS *tls.Config

	// Plaintext says that the back ends and their workers have no TLS. All Targets have to be loopback addresses.
	Plaintext bool

	// WaitForRoom makes a start wait while all back ends are full, up to its time limit. Otherwise it fails with
	// core.ErrNoRoom, and a chain tries its next adapter.
	WaitForRoom bool

	// ConnectTimeout limits the time to connect to a back end, and then to a worker. 0 means 10 s.
	ConnectTimeout time.Duration
}

// Served is the program to open a pool with if the back ends know which worker they start.
type Served struct {
	Env []string // variables for the workers, "KEY=value"
}

// Command returns a command that only this package's adapters can start.
func (s Served) Command() (core.Command, error) { return core.Command{Env: s.Env, Reports: true}, nil }

// Name returns "remote".
func (Adapter) Name() string { return "remote" }

// ForPool returns the adapter of one pool. Its workers share the connections to the back ends.
func (a Adapter) ForPool(core.PoolInfo) core.OwnedAdapter { return &pool{options: a} }

// Start has a worker started, and connects to it. The worker has connections of its own.
func (a Adapter) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	own := &pool{options: a}
	release := func() { _ = own.backend.close() } // of connections that nobody uses any more
	link, err := own.start(ctx, l, release)
	if err != nil {
		release()
	}
	return link, err
}

// check returns an error that says which option is bad.
func (a Adapter) check() error {
	bad := func(remedy, format string, args ...any) error {
		return &core.RemedyError{Err: fmt.Errorf("remote: "+format, args...), Remedy: remedy}
	}
	switch {
	case len(a.Targets) == 0 && a.Resolve == "":
		return bad(`name the back ends, such as Targets: []string{"gpu-1:7000"}`, "no Targets")
	case len(a.Targets) > 0 && a.Resolve != "":
		return bad("set one of them", "both Targets and Resolve")
	case a.ConnectTimeout < 0:
		return bad("use a positive one, or 0 for 10 s", "ConnectTimeout %s is negative", a.ConnectTimeout)
	case a.TLS == nil && !a.Plaintext:
		return bad("set TLS, for instance by LoadCertificates; on loopback addresses Plaintext turns TLS off", "no TLS")
	case a.TLS != nil && a.Plaintext:
		return bad("set one of them", "both TLS and Plaintext")
	case a.Plaintext && a.Resolve != "":
		return bad("set Targets, or TLS", "Plaintext with Resolve: only loopback addresses may have no TLS")
	}
	for _, target := range a.Targets {
		host, port, err := net.SplitHostPort(target)
		switch {
		case err != nil || host == "" || port == "":
			return bad(`write "HOST:PORT", such as "gpu-1:7000"`, "the target %q is no address", target)
		case a.Plaintext && !isLoopback(host):
			return bad("set TLS", "Plaintext to %s: only loopback addresses may have no TLS", target)
		}
	}
	return nil
}

// isLoopback reports whether a host is this machine, seen from itself.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (a Adapter) connectTimeout() time.Duration {
	if a.ConnectTimeout == 0 {
		return 10 * time.Second
	}
	return a.ConnectTimeout
}

// pool is the adapter of one pool.
type pool struct {
	options Adapter
	backend backend
}

func (p *pool) Name() string { return p.options.Name() }

// Start has a worker started, and connects to it.
func (p *pool) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	return p.start(ctx, l, func() {})
}

// Close closes the connections to the back ends.
func (p *pool) Close(context.Context) error { return p.backend.close() }

// start is Start. It calls ended when the lease has ended, unless it returns an error.
func (p *pool) start(ctx context.Context, l *core.Launcher, ended func()) (*core.Link, error) {
	client, err := p.backend.open(p.options)
	if err != nil {
		return nil, err
	}
	lease, err := client.lease(ctx, l)
	if err != nil {
		return nil, err
	}
	lease.ended = ended
	return lease.connect(ctx, l)
}

var errClosed = errors.New("the adapter has been closed")
