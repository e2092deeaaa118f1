package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ServeOptions configure Serve. A nil *ServeOptions, and each zero field, means the default.
type ServeOptions struct {
	Concurrency int          // how many calls run at once; 0 means 1
	MaxFrame    int          // SNAKEPIT_MAX_FRAME, if a host launched this program; 0 means DefaultMaxFrame
	WindowItems int          // how many items the host may send ahead in one call; 0 means 1,024
	WindowBytes int          // how many bytes of items it may send ahead; 0 means 1 MiB
	Token       string       // the token that the hello shows to the host
	Logger      hclog.Logger // receives this side's problems; nil means no log

	// Snapshot returns the state of a session, so that the session survives this worker. It is called after each call
	// of the host in a session that asks for it, before the answer is sent, and never twice at once. The answer stands
	// if it fails. Restore sets the state of a session to a value that Snapshot has returned. decode decodes that value
	// into a non-nil pointer. Restore is called before the calls that need the state, perhaps in another process, and
	// perhaps more than once. Both functions are set, or none.
	Snapshot func(session string) (any, error)
	Restore  func(session string, decode func(v any) error) error
}

// Serve is the worker's side in Go. It says hello over conn and answers the host's calls with functions. It returns nil
// once the host closes, or an error if the connection breaks. By then all functions that it started have returned. When
// ctx ends, Serve closes conn. codecs are the codecs that it offers, at least one.
func Serve(ctx context.Context, conn Conn, codecs []Codec, functions map[string]Function, o *ServeOptions) error {
	if o == nil {
		o = &ServeOptions{}
	}
	if (o.Snapshot == nil) != (o.Restore == nil) {
		return errors.New("only one of the functions Snapshot and Restore is set: set both, or none")
	}
	logger := o.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	logs := newLogQueue(logger)
	defer func() { _ = logs.close(time.Second) }() // a logger that hangs must not keep Serve from returning
	log := logs.events(noWorker)
	stop := context.AfterFunc(ctx, func() { _ = isolate("the Conn's Close", conn.Close) })
	defer stop()
	h := workerHello{
		Versions: []int{version}, Features: goFeatures, MaxFrame: cmp.Or(o.MaxFrame, DefaultMaxFrame),
		Window: window{
			int64(cmp.Or(o.WindowItems, int(defaultWindow.Items))),
			int64(cmp.Or(o.WindowBytes, int(defaultWindow.Bytes))),
		},
		Concurrency: cmp.Or(o.Concurrency, 1), Commands: []CommandInfo{},
		PID: os.Getpid(), Runtime: runtime.Version(), Library: "snakepit core", Token: o.Token,
	}
	if o.Snapshot != nil {
		h.Features = append(slices.Clip(goFeatures), featureSnapshots)
		functions = maps.Clone(functions)
		if functions == nil {
			functions = map[string]Function{}
		}
		functions[restoreCommand] = Function{Run: func(_ context.Context, call *Incoming) (any, error) {
			return nil, o.Restore(call.Session, call.Decode)
		}}
	}
	for name, f := range functions {
		h.Commands = append(h.Commands, CommandInfo{Name: name, Stream: f.Stream})
	}
	slices.SortFunc(h.Commands, func(a, b CommandInfo) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range codecs {
		h.Codecs = append(h.Codecs, c.Name())
	}
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := conn.Write([]Frame{{Kind: KindHello, Body: body}}); err != nil {
		return fmt.Errorf("saying hello: %w", err)
	}
	frames, err := conn.Read()
	if err != nil {
		return fmt.Errorf("waiting for the host's hello: %w", err)
	}
	var host hostHello
	if len(frames) == 0 {
		return errNoFrames
	}
	if frames[0].Kind != KindHello || json.Unmarshal(frames[0].Body, &host) != nil {
		return fmt.Errorf("%w: the host's first frame is not a hello: %s", ErrProtocol, frames[0].String())
	}
	at := slices.IndexFunc(codecs, func(c Codec) bool { return c.Name() == host.Codec })
	if host.Version != version || at < 0 {
		return fmt.Errorf("%w: the host chose version %d and codec %q", ErrProtocol, host.Version, host.Codec)
	}
	m := newMux(conn, terms{
		codec: codecs[at], maxFrame: min(h.MaxFrame, host.MaxFrame), send: host.Window, receive: h.Window,
		incoming: min(host.Concurrency, h.Concurrency), outgoing: host.Calls,
		pieces: slices.Contains(host.Features, featurePieces),
	}, functions, 2, log)
	m.snapshot = o.Snapshot
	m.run(frames[1:])
	if endOf(m.err) == io.EOF {
		return nil
	}
	return m.err
}
