package loops

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/snakepit-go/snakepit/bench/peers"
)

// ids keeps many calls in flight and tells them apart by ids. A client for many callers needs at least that.
type ids struct {
	*process
	mu      sync.Mutex // guards the fields below and the order of writes
	id      uint64
	waiting map[uint64]chan map[string]any
	ended   error
	done    chan struct{} // closed when read has returned
}

// MsgpackIDs starts a loop over MessagePack with many calls in flight.
func MsgpackIDs(_ context.Context, python string) (peers.Peer, error) {
	p, err := start(python, "msgpack_ids.py")
	if err != nil {
		return nil, err
	}
	c := &ids{process: p, waiting: map[uint64]chan map[string]any{}, done: make(chan struct{})}
	go c.read()
	return c, nil
}

// Close is that of process, which must not wait while the pipe is read.
func (p *ids) Close() error {
	err := p.in.Close()
	<-p.done
	return errors.Join(err, p.cmd.Wait())
}

func (p *ids) read() {
	defer close(p.done)
	decoder := msgpack.NewDecoder(p.out)
	for {
		var r reply
		err := decoder.Decode(&r)
		p.mu.Lock()
		if err != nil {
			p.ended = err
			for _, answer := range p.waiting {
				close(answer)
			}
			p.mu.Unlock()
			return
		}
		answer := p.waiting[r.ID]
		delete(p.waiting, r.ID)
		p.mu.Unlock()
		answer <- r.Result
	}
}

func (p *ids) Call(_ context.Context, args map[string]any) (map[string]any, error) {
	answer := make(chan map[string]any, 1)
	if err := p.send(args, answer); err != nil {
		return nil, err
	}
	result, ok := <-answer
	if !ok {
		return nil, p.ended // written before the channel was closed
	}
	return result, nil
}

func (p *ids) send(args map[string]any, answer chan map[string]any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		return p.ended
	}
	p.id++
	p.waiting[p.id] = answer
	var body bytes.Buffer
	if err := msgpack.NewEncoder(&body).Encode(request{p.id, args}); err != nil {
		return err
	}
	_, err := p.in.Write(body.Bytes())
	return err
}
