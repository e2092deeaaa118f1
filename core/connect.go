package core

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// version is the newest version of the wire protocol, and the only one so far.
const version = 1

// CommandInfo is a command as the worker's hello lists it.
type CommandInfo struct {
	Name   string `json:"name"`
	Stream bool   `json:"stream,omitempty"` // the command sends items
}

// workerHello is the body of the worker's first frame. docs/protocol.md explains its fields.
type workerHello struct {
	Versions    []int         `json:"versions"`
	Features    []string      `json:"features"`
	Codecs      []string      `json:"codecs"`
	MaxFrame    int           `json:"max_frame"`
	Window      window        `json:"window"`
	Concurrency int           `json:"concurrency"`
	Commands    []CommandInfo `json:"commands"`
	PID         int           `json:"pid"`
	Runtime     string        `json:"runtime"`
	Library     string        `json:"library"`
	Token       string        `json:"token,omitempty"`
	Stacks      *stacksHello  `json:"stacks,omitempty"`
}

type hostHello struct {
	Version     int    `json:"version"`
	Codec       string `json:"codec"`
	MaxFrame    int    `json:"max_frame"`
	Window      window `json:"window"`
	Concurrency int    `json:"concurrency"`
	Calls       int    `json:"calls"`

	Features []string `json:"features"`
}

// hostCalls is how many calls one worker may have open at its host. A worker with a higher concurrency may have one for
// each call that it runs.
const hostCalls = 64

// drainTime is how long the last frames of an ended process may take to arrive. Usually they are there already. The
// whole time passes only if a child of the process holds the connection open.
const drainTime = 100 * time.Millisecond

// helloDrainTime is the same before the hello. What a process has sent there explains why it is of no use, so it is
// worth a longer wait on a busy machine.
const helloDrainTime = time.Second

// defaultWindow is the credit that a receiver grants for one direction of a call.
var defaultWindow = window{Items: 1024, Bytes: 1 << 20}

// goFeatures are the features that a worker in Go announces. hostFeatures are those of a host.
var (
	goFeatures   = []string{"exact-numbers", featurePieces, featureStacks}
	hostFeatures = []string{featurePieces}
)

// connected is a link whose hellos have been exchanged.
type connected struct {
	link  *Link
	hello workerHello
	terms terms
	codec string  // the name of terms.codec
	first []Frame // the frames that came together with the hello
}

// connect starts a worker with the adapter and exchanges hellos. After an error nothing of the worker is left.
func connect(ctx context.Context, a Adapter, at *attempt, o *Options) (*connected, error) {
	link, err := startLink(ctx, a, at)
	if err != nil {
		at.abandon(nil)
		return nil, err
	}
	at.abandon(link.Process) // end the processes that a chain tried before
	c, err := handshake(ctx, at, link, o)
	if err != nil {
		_ = isolate("the adapter's Close", link.Conn.Close) // err is what the caller needs to know
		at.abandon(nil)
		return nil, &linkError{link, err}
	}
	return c, nil
}

// startLink calls the adapter, which may be the user's.
func startLink(ctx context.Context, a Adapter, at *attempt) (*Link, error) {
	var link *Link
	err := at.isolate("the adapter's Start", func() error {
		at.adapter = a.Name()
		l, err := at.launcher()
		if err != nil {
			return err
		}
		made, err := a.Start(ctx, l)
		if err != nil {
			return &capturedError{text: err.Error(), err: err}
		}
		if made == nil || made.Conn == nil {
			return errors.New("the adapter's Start returned no connection and no error")
		}
		own := *made // the adapter may still use its own
		if own.Adapter == "" {
			own.Adapter = at.adapter
		}
		own.Refused = slices.Clone(own.Refused)
		for i := range own.Refused {
			own.Refused[i].Err = captureIsolated(own.Refused[i].Err)
		}
		link = &own
		return nil
	})
	return link, err
}

// linkError is an error that occurred after an adapter had made a link.
type linkError struct {
	link *Link
	err  error
}

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

func handshake(ctx context.Context, at *attempt, link *Link, o *Options) (*connected, error) {
	frames, err := readHello(ctx, at, link)
	if err != nil {
		return nil, err
	}
	c := &connected{link: link, first: frames[1:]}
	if err := json.Unmarshal(frames[0].Body, &c.hello); err != nil {
		return nil, fmt.Errorf("%w: the worker's hello is unreadable: %s", ErrProtocol, brief(err))
	}
	h := &c.hello
	if subtle.ConstantTimeCompare([]byte(link.Token), []byte(h.Token)) != 1 && link.Token != "" {
		return nil, fmt.Errorf("%w: the worker's hello does not show the token it was given: "+
			"another program answers at its address", ErrProtocol)
	}
	h.Token = ""
	if !slices.Contains(h.Versions, version) {
		return nil, fmt.Errorf("%w: the worker (%s) speaks versions %s of the protocol, this host version %d: "+
			"use a worker package of the same release", ErrProtocol, brief(h.Library), brief(h.Versions), version)
	}
	if h.Concurrency < 1 || h.Window.Items < 1 || h.Window.Bytes < 1 || h.MaxFrame < 4096 {
		return nil, fmt.Errorf("%w: the worker's hello has an impossible limit: "+
			"concurrency %d, window %+v, max_frame %d", ErrProtocol, h.Concurrency, h.Window, h.MaxFrame)
	}
	c.terms = terms{
		send: h.Window, receive: window{int64(o.WindowItems), int64(o.WindowBytes)},
		pieces: slices.Contains(h.Features, featurePieces),
	}
	if err := c.chooseCodec(at); err != nil {
		return nil, err
	}
	c.terms.maxFrame = min(h.MaxFrame, o.MaxFrame)
	if link.MaxFrame > 0 {
		c.terms.maxFrame = min(c.terms.maxFrame, link.MaxFrame)
	}
	if o.Concurrency > 0 {
		h.Concurrency = min(h.Concurrency, o.Concurrency)
	}
	c.terms.incoming = max(hostCalls, h.Concurrency)
	body, err := json.Marshal(hostHello{
		Version: version, Codec: c.codec, MaxFrame: c.terms.maxFrame,
		Window: c.terms.receive, Concurrency: h.Concurrency, Calls: c.terms.incoming, Features: hostFeatures,
	})
	if err == nil {
		err = at.isolate("the adapter's Write", func() error {
			return captureError(link.Conn.Write([]Frame{{Kind: KindHello, Body: body}}))
		})
	}
	if err != nil {
		return nil, fmt.Errorf("answering the worker's hello: %w", err)
	}
	return c, nil
}

// chooseCodec takes the first of the adapter's codecs that the worker has too.
func (c *connected) chooseCodec(at *attempt) error {
	return at.isolate("the adapter's codec", func() error {
		for _, codec := range c.link.Codecs {
			if name := codec.Name(); slices.Contains(c.hello.Codecs, name) {
				c.terms.codec, c.codec = codec, name
				return nil
			}
		}
		return fmt.Errorf("%w: the worker has the codecs %s, and this adapter has none of them",
			ErrProtocol, brief(c.hello.Codecs))
	})
}

// readHello returns the first batch, whose first frame is a hello.
func readHello(ctx context.Context, at *attempt, link *Link) ([]Frame, error) {
	type result struct {
		frames []Frame
		err    error
	}
	read := make(chan result, 1)
	go func() {
		var frames []Frame
		err := at.isolate("the adapter's Read", func() (err error) {
			if frames, err = link.Conn.Read(); err == nil && len(frames) == 0 {
				err = errNoFrames
			}
			return captureError(err)
		})
		read <- result{frames, err}
	}()
	var exited <-chan struct{}
	if link.Process != nil {
		exited = link.Process.Done()
	}
	var r result
	select {
	case r = <-read:
	case <-exited:
		// Its last frames may still arrive. A child of the process may hold the connection open, so the wait is
		// bounded.
		select {
		case r = <-read:
		case <-time.After(helloDrainTime):
			_ = isolate("the adapter's Close", link.Conn.Close) // unblocks the read
			r = <-read
		}
	case <-ctx.Done():
		_ = isolate("the adapter's Close", link.Conn.Close) // unblocks the read
		<-read
		return nil, fmt.Errorf("the worker has not said hello: %w", context.Cause(ctx))
	}
	switch {
	case r.err != nil && link.Process != nil:
		return nil, &helloError{r.err}
	case r.err != nil:
		return nil, fmt.Errorf("the worker has not said hello: %w", r.err)
	case r.frames[0].Kind == KindError && r.frames[0].ID == 0:
		remote := &RemoteError{}
		if err := json.Unmarshal(r.frames[0].Body, remote); err != nil {
			return nil, fmt.Errorf("%w: the worker's error is unreadable: %s", ErrProtocol, brief(err))
		}
		return nil, remote
	case r.frames[0].Kind != KindHello:
		return nil, fmt.Errorf("%w: the worker's first frame is not a hello: %s", ErrProtocol, r.frames[0].String())
	}
	return r.frames, nil
}

// helloError: the connection ended before the hello. StartError.explain adds how the process ended.
type helloError struct{ err error }

func (e *helloError) Error() string { return fmt.Sprintf("the worker has not said hello: %v", e.err) }
func (e *helloError) Unwrap() error { return e.err }
