// Package grpcio is a plain grpcio server, set up as in its tutorial, and a Go client: raw bytes over a Unix socket.
package grpcio

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed server.py
var source string

// Server is a running server and its client. Any number of goroutines may use it at once.
type Server struct {
	cmd       *exec.Cmd
	in        io.Closer
	conn      *grpc.ClientConn
	directory string
}

// Start starts a server.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	s := &Server{directory: directory}
	if err := s.start(python, "unix:"+filepath.Join(directory, "s")); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(python, address string) error {
	cmd := exec.Command(python, "-c", source, address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.in = cmd, in
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the grpcio server said nothing: %w", err)
	}
	s.conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	return err
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

// PIDs lists the server.
func (s *Server) PIDs() []int { return []int{s.cmd.Process.Pid} }

// Close ends the server and removes its socket.
func (s *Server) Close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	if s.cmd != nil {
		err = errors.Join(err, s.in.Close(), s.cmd.Wait()) // the server ends by itself
	}
	return errors.Join(err, os.RemoveAll(s.directory))
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
