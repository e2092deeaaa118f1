package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// This file is the other side of the comparison: hand-written code without any library but that of the encoding.

//go:embed peers
var peerFiles embed.FS

// peer is a Python process that runs one of the programs in peers.
type peer struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func startPeer(python, name string, args ...string) (*peer, error) {
	source, err := peerFiles.ReadFile("peers/" + name + ".py")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(python, append([]string{"-c", string(source)}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &peer{cmd, stdin, bufio.NewReaderSize(stdout, 1<<18)}, nil
}

// close closes standard input, so that the process ends by itself, and waits for it.
func (p *peer) close() error {
	_ = p.stdin.Close()
	return p.cmd.Wait()
}

type request struct {
	ID   uint64         `json:"id" msgpack:"id"`
	Args map[string]any `json:"args" msgpack:"args"`
}

type reply struct {
	ID     uint64         `json:"id" msgpack:"id"`
	Result map[string]any `json:"result" msgpack:"result"`
}

// jsonLines is the bare loop over JSON lines.
type jsonLines struct {
	*peer
	id uint64
}

func (p *jsonLines) call() error {
	p.id++
	line, err := json.Marshal(request{p.id, arguments})
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return err
	}
	if line, err = p.out.ReadBytes('\n'); err != nil {
		return err
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	return check(r.ID == p.id, r.Result)
}

// msgpackLoop is the bare loop over length-prefixed MessagePack.
type msgpackLoop struct {
	*peer
	id uint64
}

func (p *msgpackLoop) call() error {
	p.id++
	body, err := msgpack.Marshal(request{p.id, arguments})
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
		return err
	}
	var prefix [4]byte
	if _, err := io.ReadFull(p.out, prefix[:]); err != nil {
		return err
	}
	body = make([]byte, binary.BigEndian.Uint32(prefix[:]))
	if _, err := io.ReadFull(p.out, body); err != nil {
		return err
	}
	var r reply
	if err := msgpack.Unmarshal(body, &r); err != nil {
		return err
	}
	return check(r.ID == p.id, r.Result)
}

// msgpackIDs keeps many calls in flight and tells them apart by ids. A client for many callers needs at least that.
type msgpackIDs struct {
	*peer
	mu      sync.Mutex // guards the fields below and the order of writes
	id      uint64
	waiting map[uint64]chan map[string]any
	ended   error
}

func newMsgpackIDs(p *peer) *msgpackIDs {
	c := &msgpackIDs{peer: p, waiting: map[uint64]chan map[string]any{}}
	go c.read()
	return c
}

func (p *msgpackIDs) read() {
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

func (p *msgpackIDs) call() error {
	answer := make(chan map[string]any, 1)
	if err := p.send(answer); err != nil {
		return err
	}
	result, ok := <-answer
	return check(ok, result)
}

func (p *msgpackIDs) send(answer chan map[string]any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		return p.ended
	}
	p.id++
	p.waiting[p.id] = answer
	var body bytes.Buffer
	if err := msgpack.NewEncoder(&body).Encode(request{p.id, arguments}); err != nil {
		return err
	}
	_, err := p.stdin.Write(body.Bytes())
	return err
}

func check(ok bool, result map[string]any) error {
	if !ok || len(result) != len(arguments) {
		return fmt.Errorf("the wrong reply: %v", result)
	}
	return nil
}

// plainGRPC is a plain grpcio server and a Go client, over a Unix socket, on raw bytes.
type plainGRPC struct {
	*peer
	conn      *grpc.ClientConn
	directory string
}

// rawMessage has about the size of arguments as a protobuf message.
var rawMessage = bytes.Repeat([]byte{'x'}, 64)

func startPlainGRPC(python string) (*plainGRPC, error) {
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	p := &plainGRPC{directory: directory}
	address := "unix:" + filepath.Join(directory, "s")
	if p.peer, err = startPeer(python, "plain_grpc", address); err == nil {
		if _, err = p.out.ReadString('\n'); err == nil {
			if p.conn, err = grpc.NewClient(address,
				grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
				return p, nil
			}
		}
	}
	return nil, errors.Join(err, p.close())
}

func (p *plainGRPC) close() error {
	var err error
	if p.conn != nil {
		err = p.conn.Close()
	}
	if p.peer != nil {
		err = errors.Join(err, p.peer.close())
	}
	return errors.Join(err, os.RemoveAll(p.directory))
}

func (p *plainGRPC) call() error {
	var out []byte
	if err := p.conn.Invoke(context.Background(), "/bench.Peer/Echo", &rawMessage, &out,
		grpc.ForceCodecV2(raw{})); err != nil {
		return err
	}
	if !bytes.Equal(out, rawMessage) {
		return fmt.Errorf("the wrong reply: %q", out)
	}
	return nil
}

// stream receives n small items.
func (p *plainGRPC) stream(n int) error {
	s, err := p.conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/bench.Peer/Count",
		grpc.ForceCodecV2(raw{}))
	if err != nil {
		return err
	}
	number := fmt.Appendf(nil, "%d", n)
	if err := errors.Join(s.SendMsg(&number), s.CloseSend()); err != nil {
		return err
	}
	for i := 0; ; i++ {
		var out []byte
		switch err := s.RecvMsg(&out); {
		case errors.Is(err, io.EOF) && i == n:
			return nil
		case err != nil:
			return fmt.Errorf("after %d of %d items: %w", i, n, err)
		}
	}
}

// raw is a gRPC codec for *[]byte.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
