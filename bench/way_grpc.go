package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// grpcSidecar is a client of ways/grpc_sidecar.py.
type grpcSidecar struct {
	*sidecar
	conn *grpc.ClientConn
}

// jsonMessages is a gRPC codec: the messages of a service for any function.
type jsonMessages struct{}

func (jsonMessages) Name() string                       { return "json" }
func (jsonMessages) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonMessages) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

func startGRPC(python string) (way, error) {
	s, err := startSidecar(python, "grpc_sidecar.py")
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", s.port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(jsonMessages{})))
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &grpcSidecar{s, conn}, nil
}

func (g *grpcSidecar) call(ctx context.Context, function string, args map[string]any) (result any, err error) {
	err = g.conn.Invoke(ctx, "/bench.Functions/"+function, args, &result)
	return result, err
}

func (g *grpcSidecar) stream(ctx context.Context, function string, args map[string]any, each func(any)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/bench.Functions/"+function)
	if err != nil {
		return err
	}
	if err := errors.Join(s.SendMsg(args), s.CloseSend()); err != nil {
		return err
	}
	for {
		var item any
		switch err := s.RecvMsg(&item); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		each(item)
	}
}

func (g *grpcSidecar) close() error {
	return errors.Join(g.conn.Close(), g.sidecar.close())
}
