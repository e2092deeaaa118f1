package main

import (
	"context"
	"io/fs"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// library is this library. Its worker has each function as a command.
type library struct{ pool *snakepit.Pool }

func openLibrary(adapter string) (way, error) {
	files, err := fs.Sub(wayFiles, "ways")
	if err != nil {
		return nil, err
	}
	pool, err := openPool(adapter, snakepit.PythonFS(files, "worker.py"),
		core.Options{Size: 1, Logger: hclog.NewNullLogger()})
	if err != nil {
		return nil, err
	}
	return library{pool}, nil
}

func (l library) call(ctx context.Context, function string, args map[string]any) (any, error) {
	return snakepit.Execute[any](ctx, l.pool, function, args)
}

func (l library) stream(ctx context.Context, function string, args map[string]any, each func(any)) error {
	for item, err := range snakepit.ExecuteStream[any](ctx, l.pool, function, args) {
		if err != nil {
			return err
		}
		each(item)
	}
	return nil
}

func (l library) close() error { return l.pool.Close() }
