//go:build unix

package fallback_test

import (
	"testing"

	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/fallback"
	"github.com/snakepit-go/snakepit/python"
)

func TestConformance(t *testing.T) {
	chain := fallback.New(grpc.Adapter{}, msgpack.Adapter{}, jsonstdio.Adapter{})
	conformance.Run(t, conformance.Harness{Adapter: chain, Worker: python.Conformance(2)})
}
