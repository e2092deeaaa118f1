package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

//go:embed worker.py
var workerFile embed.FS

var program = snakepit.PythonFS(workerFile, "worker.py")

// arguments are the payload of every unary call, in both directions.
var arguments = map[string]any{"operation": "add", "a": 5, "b": 3}

// bed holds the subjects of the measurements. Each starts on first use. Only one goroutine uses a bed.
type bed struct {
	python string
	pools  map[string]*core.Pool
	loops  map[string]func() error
	plain  *plainGRPC
	ways   map[string]way
	closes []func() error
}

func newBed() (*bed, error) {
	cmd, err := program.Command()
	if err != nil {
		return nil, err
	}
	return &bed{python: cmd.Path, pools: map[string]*core.Pool{}, loops: map[string]func() error{},
		ways: map[string]way{}}, nil
}

func (b *bed) close() error {
	var all error
	for _, c := range b.closes {
		all = errors.Join(all, c())
	}
	return all
}

// pool returns this library's pool of one worker on the adapter.
func (b *bed) pool(adapter string) (*core.Pool, error) {
	if p := b.pools[adapter]; p != nil {
		return p, nil
	}
	p, err := openPool(adapter)
	if err != nil {
		return nil, err
	}
	b.pools[adapter] = p
	b.closes = append(b.closes, p.Close)
	return p, nil
}

func openPool(adapter string) (*core.Pool, error) {
	log := hclog.New(&hclog.LoggerOptions{Name: "bench", Level: hclog.Warn, Output: os.Stderr})
	return openProgram(adapter, program, core.Options{Logger: log})
}

// openProgram opens a pool of one worker, without a time limit for streams.
func openProgram(adapter string, program snakepit.Program, o core.Options) (*core.Pool, error) {
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o.Size, o.StreamTimeout = 1, -1
	return snakepit.OpenWith(ctx, a, program, &o)
}

// loop returns the call of one of the bare loops.
func (b *bed) loop(name string) (func() error, error) {
	if call := b.loops[name]; call != nil {
		return call, nil
	}
	p, err := startPeer(b.python, name)
	if err != nil {
		return nil, err
	}
	b.closes = append(b.closes, p.close)
	var call func() error
	switch name {
	case "json_lines":
		call = (&jsonLines{peer: p}).call
	case "msgpack_loop":
		call = (&msgpackLoop{peer: p}).call
	case "msgpack_ids":
		call = newMsgpackIDs(p).call
	default:
		return nil, fmt.Errorf("unknown loop %q", name)
	}
	b.loops[name] = call
	return call, nil
}

func (b *bed) plainGRPC() (*plainGRPC, error) {
	if b.plain != nil {
		return b.plain, nil
	}
	p, err := startPlainGRPC(b.python)
	if err != nil {
		return nil, err
	}
	b.plain = p
	b.closes = append(b.closes, p.close)
	return p, nil
}

func (b *bed) way(name string) (way, error) {
	if w := b.ways[name]; w != nil {
		return w, nil
	}
	w, err := openWay(b.python, name)
	if err != nil {
		return nil, err
	}
	b.ways[name] = w
	b.closes = append(b.closes, w.close)
	return w, nil
}
