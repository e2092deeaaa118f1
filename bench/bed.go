package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/bench/peers"
	"github.com/snakepit-go/snakepit/bench/peers/fastapi"
	"github.com/snakepit-go/snakepit/bench/peers/goplugin"
	"github.com/snakepit-go/snakepit/bench/peers/grpcio"
	"github.com/snakepit-go/snakepit/bench/peers/loops"
	"github.com/snakepit-go/snakepit/bench/peers/process"
	"github.com/snakepit-go/snakepit/bench/peers/pyproc"
	"github.com/snakepit-go/snakepit/core"
)

//go:embed worker.py streams_worker.py
var workerFiles embed.FS

var (
	program        = snakepit.PythonFS(workerFiles, "worker.py")
	streamsProgram = snakepit.PythonFS(workerFiles, "streams_worker.py")
)

var adapters = []string{"grpc", "msgpack", "jsonstdio"}

// arguments are the payload of every small call, in both directions.
var arguments = map[string]any{"operation": "add", "a": 5, "b": 3}

// The names of the subjects that are no adapter of ours.
const (
	msgpackLoop = "bare MessagePack loop"
	jsonLoop    = "bare JSON lines"
	msgpackIDs  = "MessagePack loop with ids"
	plainGRPC   = "plain grpcio"
	fastAPI     = "FastAPI"
	pyProc      = "pyproc"
	goPlugin    = "go-plugin"
	oneProcess  = "one process a call"
	rayActor    = "Ray actor"
	socketEcho  = "socket-pair echo"
	base64Echo  = "JSON lines with base64"
)

// start starts a subject that answers small calls. The bed closes it.
type start func(b *bed) (peers.Peer, error)

// starts are those subjects, by name.
var starts = map[string]start{
	msgpackLoop: theirs(loops.Msgpack),
	jsonLoop:    theirs(loops.JSON),
	msgpackIDs:  theirs(loops.MsgpackIDs),
	plainGRPC:   theirs(grpcio.Start),
	fastAPI:     theirs(fastapi.Start),
	pyProc:      theirs(pyproc.Start),
	goPlugin:    theirs(goplugin.Start),
	oneProcess:  theirs(process.Start),
	"msgpack":   ours("msgpack"),
	"jsonstdio": ours("jsonstdio"),
	"grpc":      ours("grpc"),
	served:      remotePool(served),
	onRay:       remotePool(onRay),
	rayServe:    startServe,
}

// bed holds the subjects of the measurements. Each starts on first use. Only one goroutine uses a bed.
type bed struct {
	python string
	kept   map[string]peers.Process
	ways   map[string]way
	closes []func() error
}

func newBed() (*bed, error) {
	cmd, err := program.Command()
	if err != nil {
		return nil, err
	}
	return &bed{python: cmd.Path, kept: map[string]peers.Process{}, ways: map[string]way{}}, nil
}

// close closes the subjects, the last one first: it may need an earlier one.
func (b *bed) close() error {
	var all error
	for _, c := range slices.Backward(b.closes) {
		all = errors.Join(all, c())
	}
	return all
}

func (b *bed) peer(name string) (peers.Peer, error) {
	return keep(b, name, func() (peers.Peer, error) {
		if starts[name] == nil {
			return nil, fmt.Errorf("unknown peer %q", name)
		}
		return starts[name](b)
	})
}

func (b *bed) echo(name string) (peers.Echo, error) {
	switch name {
	case socketEcho:
		return keep(b, name, func() (peers.Echo, error) { return loops.Socket(b.python) })
	case base64Echo:
		return keep(b, name, func() (peers.Echo, error) { return loops.Base64(b.python) })
	}
	p, err := b.peer(name)
	if err != nil {
		return nil, err
	}
	return p.(peers.Echo), nil
}

// keep starts a process unless the bed has it.
func keep[P peers.Process](b *bed, name string, start func() (P, error)) (p P, err error) {
	if kept := b.kept[name]; kept != nil {
		return kept.(P), nil
	}
	if p, err = start(); err != nil {
		return p, err
	}
	b.kept[name] = p
	b.closes = append(b.closes, p.Close)
	return p, nil
}

// pool returns this library's pool of one worker on the adapter.
func (b *bed) pool(adapter string) (*core.Pool, error) {
	p, err := b.peer(adapter)
	if err != nil {
		return nil, err
	}
	return p.(pool).Pool, nil
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

// theirs starts a peer of this library.
func theirs(p peers.Start) start {
	return func(b *bed) (peers.Peer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return p(ctx, b.python)
	}
}

// pool is this library as one of its peers.
type pool struct{ *core.Pool }

func ours(adapter string) start {
	return func(*bed) (peers.Peer, error) {
		p, err := openPool(adapter, program, core.Options{Size: 1, MaxFrame: 256 << 20})
		return pool{p}, err
	}
}

func (p pool) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	return core.Execute[map[string]any](ctx, p.Pool, "echo", args)
}

func (p pool) PIDs() []int { return pidsOf(p.Pool) }

func pidsOf(p *core.Pool) []int {
	var pids []int
	for _, w := range p.Workers() {
		pids = append(pids, w.Info().PID)
	}
	return pids
}

// openPool opens a pool on the adapter of that name and waits until all its workers are ready.
func openPool(adapter string, program snakepit.Program, o core.Options) (*core.Pool, error) {
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		return nil, err
	}
	return openOn(a, program, o)
}

// openOn opens a pool on an adapter and waits until all its workers are ready. Streams have no time limit.
func openOn(a core.Adapter, program snakepit.Program, o core.Options) (*core.Pool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), max(time.Minute, o.StartTimeout))
	defer cancel()
	o.StreamTimeout = -1
	if o.Logger == nil {
		o.Logger = hclog.New(&hclog.LoggerOptions{Name: "bench", Level: hclog.Warn, Output: os.Stderr})
	}
	p, err := snakepit.OpenWith(ctx, a, program, &o)
	if err != nil {
		return nil, err
	}
	if err := p.WaitReady(ctx, p.Size()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}
