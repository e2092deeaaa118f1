//go:build !unix

package msgpack

import (
	"fmt"
	"os"
	"runtime"

	"github.com/snakepit-go/snakepit/core"
)

func socketPair() (ours socket, theirs []*os.File, err error) {
	return nil, nil, fmt.Errorf("%w: on %s a worker cannot inherit a socket; use the adapter grpc or jsonstdio", core.ErrUnavailable, runtime.GOOS)
}
