package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

// Worker is a worker that serves gRPC and has been started by a back end. It is for adapters that have workers started
// elsewhere.
type Worker struct {
	Endpoint string // where it listens: "HOST:PORT", or "unix:PATH"
	Token    string // its SNAKEPIT_HOST_TOKEN
	MaxFrame int    // its SNAKEPIT_MAX_FRAME

	// Certificate is the certificate that the worker has to show, in DER, and Client is the one that is shown to it.
	// Without a Certificate the connection has no TLS.
	Certificate []byte
	Client      *tls.Certificate

	// ConnectTimeout limits the time to connect. 0 means 10 s.
	ConnectTimeout time.Duration
}

// Connect connects to the worker. ctx bounds only Connect. The link has a Conn, Codecs and an Endpoint. The caller owns
// it and sets the rest.
func (w Worker) Connect(ctx context.Context) (*core.Link, error) {
	var secure *tls.Config
	if w.Certificate != nil {
		secure = Pinned(w.Certificate, w.Client)
	}
	// A machine that is gone closes no connection.
	alive := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: silence / 2})
	return w.connect(ctx, secure, "", alive)
}

// silence is how long the machine of a worker may be silent until it is asked for a sign of life.
const silence = 10 * time.Second

// connect is Connect. secure is nil for a connection without TLS. The socket of a worker that has ended is removed if
// it lies in dir.
func (w Worker) connect(ctx context.Context, secure *tls.Config, dir string, opts ...grpc.DialOption) (
	*core.Link, error) {
	c, err := w.dial(ctx, secure, dir, opts...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the worker at %s: %w", w.Endpoint, err)
	}
	return &core.Link{Conn: c, Codecs: []core.Codec{msgpack.Codec{}, json.Codec{}}, Endpoint: w.Endpoint}, nil
}

// dial opens the stream of frames.
func (w Worker) dial(ctx context.Context, secure *tls.Config, dir string, opts ...grpc.DialOption) (*conn, error) {
	timeout := w.ConnectTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	// The largest batch has one frame of the largest size. The margin is for long metadata: Frame.Size counts only 8
	// bytes for the lengths of an entry.
	maxMessage := w.MaxFrame + w.MaxFrame/64 + batchBytes
	creds, failed := insecure.NewCredentials(), new(atomic.Pointer[error]) // a Unix socket is in a private directory
	if secure != nil {
		h := newHandshake(secure)
		creds, failed = h, h.failed
	}
	// A fixed target and a dialer: a target gives a meaning to some characters that a socket's path may hold.
	cc, err := grpc.NewClient("passthrough:///worker", append(opts,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			network, address := "tcp", w.Endpoint
			if path, isUnix := strings.CutPrefix(w.Endpoint, "unix:"); isUnix {
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
	)...)
	if err != nil {
		return nil, err
	}
	// The stream outlives ctx, so it has a context of its own. ctx cancels that only until the stream is open.
	own, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), tokenKey, w.Token))
	connecting, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no connection after %s", timeout))
	defer stop()
	release := context.AfterFunc(connecting, cancel)
	stream, err := cc.NewStream(own, &snakepitpb.Worker_ServiceDesc.Streams[0], snakepitpb.Worker_Attach_FullMethodName,
		grpc.ForceCodecV2(messageCodec{}))
	if !release() {
		err = context.Cause(connecting)
	}
	if why := failed.Load(); err != nil && why != nil {
		err = &handshakeError{*why}
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, cc.Close())
	}
	return &conn{cc: cc, stream: stream, cancel: cancel, endpoint: w.Endpoint, dir: dir, pace: newPace()}, nil
}

// window is how many bytes the worker may send ahead of Read.
const window = 4 << 20

// tokenKey is the metadata key of a caller's token.
const tokenKey = "snakepit-token"
