// Package grpcio is a plain grpcio server and a Go client: raw bytes over a Unix socket. Both are set up as in gRPC's
// tutorials, https://grpc.io/docs/languages/python/basics/ and https://grpc.io/docs/languages/go/basics/.
package grpcio

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed server.py
var source []byte

// Server is a running server and its client. Any number of goroutines may use it at once.
type Server struct {
	*peers.Server
	conn *grpc.ClientConn
}

// Start starts a server.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	var address string
	process, err := peers.StartServer(python, "server.py", source, syscall.SIGTERM,
		func(program, socket string) (args, env []string) {
			address = "unix:" + socket
			return []string{program, address}, nil
		})
	if err != nil {
		return nil, err
	}
	first, err := process.Await(ctx)
	if err == nil {
		err = first.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("grpcio: %w", err), process.Close())
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return &Server{process, conn}, nil
}

// message has about the size of the bench's arguments as a protobuf message.
var message = bytes.Repeat([]byte{'x'}, 64)

// Call sends 64 raw bytes there and back. It neither encodes args nor decodes a result: it is the cost of gRPC alone.
func (s *Server) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	out, err := s.Echo(ctx, message)
	if err == nil && !bytes.Equal(out, message) {
		err = fmt.Errorf("the wrong reply: %q", out)
	}
	return args, err
}

// Echo sends bytes there and returns those that came back.
func (s *Server) Echo(ctx context.Context, data []byte) (out []byte, err error) {
	err = s.conn.Invoke(ctx, "/bench.Peer/Echo", &data, &out)
	return out, err
}

// Stream receives n small items.
func (s *Server) Stream(ctx context.Context, n int) error {
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/bench.Peer/Count")
	if err != nil {
		return err
	}
	number := fmt.Appendf(nil, "%d", n)
	if err := errors.Join(stream.SendMsg(&number), stream.CloseSend()); err != nil {
		return err
	}
	for i := 0; ; i++ {
		var out []byte
		switch err := stream.RecvMsg(&out); {
		case errors.Is(err, io.EOF) && i == n:
			return nil
		case err != nil:
			return fmt.Errorf("after %d of %d items: %w", i, n, err)
		}
	}
}

// Close ends the client and the server.
func (s *Server) Close() error {
	return errors.Join(s.conn.Close(), s.Server.Close())
}

// raw is a gRPC codec for *[]byte.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
