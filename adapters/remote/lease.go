package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	workers "github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/remote/launchpb"
	"github.com/snakepit-go/snakepit/core"
)

// lease is a worker that a back end holds. It is a core.Holder.
type lease struct {
	client  *client
	stream  grpc.BidiStreamingClient[launchpb.LeaseRequest, launchpb.LeaseEvent]
	cancel  context.CancelFunc
	started *launchpb.Started
	host    string // the back end's, as it was dialled
	where   string // the same with the port
	ended   func() // called once, when the lease has ended

	sending sync.Mutex // held while a message is sent
	once    sync.Once
}

func newLease(c *client, stream grpc.BidiStreamingClient[launchpb.LeaseRequest, launchpb.LeaseEvent],
	cancel context.CancelFunc, started *launchpb.Started) *lease {
	l := &lease{client: c, stream: stream, cancel: cancel, started: started, ended: func() {}}
	if p, ok := peer.FromContext(stream.Context()); ok {
		l.where = p.Addr.String()
		l.host, _, _ = net.SplitHostPort(l.where) // an address of TCP
	}
	return l
}

// connect makes a process of the lease, and connects to the worker.
func (l *lease) connect(ctx context.Context, launcher *core.Launcher) (*core.Link, error) {
	process, err := launcher.Adopt(ctx, core.Lease{
		Name: "the worker at " + l.where, Host: cmp.Or(l.started.GetHost(), l.host, "elsewhere"),
		PID: int(l.started.GetPid()), Holder: l,
	})
	if err != nil {
		return nil, err
	}
	w := workers.Worker{
		Endpoint: l.endpoint(process.Endpoint), Token: launcher.HostToken, MaxFrame: launcher.MaxFrame,
		ConnectTimeout: l.client.options.connectTimeout(),
	}
	if host, _, err := net.SplitHostPort(w.Endpoint); l.client.own == nil && (err != nil || !isLoopback(host)) {
		return nil, fmt.Errorf("%w: the worker listens at %q, and only a loopback address may have no TLS",
			core.ErrProtocol, w.Endpoint)
	}
	if l.client.own != nil {
		if len(l.started.GetCertificate()) == 0 {
			return nil, fmt.Errorf("%w: the back end at %s has not told the worker's certificate", core.ErrProtocol,
				l.where)
		}
		w.Certificate, w.Client = l.started.GetCertificate(), l.client.own
	}
	link, err := w.Connect(ctx)
	if err != nil {
		return nil, &core.RemedyError{
			Err:    err,
			Remedy: "let the firewall pass the ports of the workers; --worker-ports of the back end chooses them",
		}
	}
	link.Adapter, link.Token, link.Process = l.client.name, launcher.WorkerToken, process
	return link, nil
}

// endpoint returns the worker's address. A worker that listens on all addresses is where its back end is.
func (l *lease) endpoint(reported string) string {
	host, port, err := net.SplitHostPort(reported)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort(l.host, port)
	}
	return reported
}

// Next returns the next event.
func (l *lease) Next() (core.LeaseEvent, error) {
	e, err := l.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return core.LeaseEvent{}, fmt.Errorf("%s has ended the lease without the worker's exit", l.where)
	case err != nil:
		return core.LeaseEvent{}, fmt.Errorf("%s: %w", l.where, plainStatus(err).Err())
	}
	switch e := e.GetEvent().(type) {
	case *launchpb.LeaseEvent_Output:
		return core.LeaseEvent{Output: e.Output}, nil
	case *launchpb.LeaseEvent_Report:
		return core.LeaseEvent{Report: append([]byte{}, e.Report...)}, nil
	case *launchpb.LeaseEvent_Exited:
		exit := &core.LeaseExit{Code: int(e.Exited.GetCode()), OOM: e.Exited.GetOom()}
		if n := e.Exited.GetSignal(); n != 0 {
			exit.Signal = syscall.Signal(n).String()
		}
		return core.LeaseEvent{Exit: exit}, nil
	case *launchpb.LeaseEvent_Memory:
		return core.LeaseEvent{Memory: int64(e.Memory)}, nil
	case *launchpb.LeaseEvent_Ending:
		l.client.ending.Store(true)
		return core.LeaseEvent{Ending: cmp.Or(e.Ending.GetReason(), "its back end is ending")}, nil
	}
	return core.LeaseEvent{}, nil // of a newer release
}

// Signal asks the worker to end, or kills it.
func (l *lease) Signal(kill bool) {
	number := launchpb.Signal_SIGNAL_TERMINATE
	if kill {
		number = launchpb.Signal_SIGNAL_KILL
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	// An error means that the lease has ended, as Next tells.
	_ = l.stream.Send(&launchpb.LeaseRequest{Request: &launchpb.LeaseRequest_Signal{Signal: number}})
}

// Close ends the lease.
func (l *lease) Close() error {
	l.cancel()
	l.once.Do(l.ended)
	return nil
}
