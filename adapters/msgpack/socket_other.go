//go:build !unix

package msgpack

import (
	"os"
	"runtime"

	"github.com/snakepit-go/snakepit/core"
)

func socketPair() (ours socket, theirs []*os.File, err error) {
	return nil, nil, &core.UnavailableError{
		Reason: "a worker cannot inherit a socket on " + runtime.GOOS, Remedy: "use the adapter grpc or jsonstdio",
	}
}
