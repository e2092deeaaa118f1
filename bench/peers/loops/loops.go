// Package loops has the least that Go and Python have to do for a call: bare loops over pipes, without a library but
// that of the encoding.
package loops

import (
	"bufio"
	"context"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed *.py
var files embed.FS

// process is a Python process that runs one of the files.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(python, file string) (*process, error) {
	source, err := files.ReadFile(file)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(python, "-c", string(source))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd, in, bufio.NewReaderSize(out, 1<<18)}, nil
}

func (p *process) PIDs() []int { return []int{p.cmd.Process.Pid} }

// Close closes standard input, so that the process ends by itself, and waits for it.
func (p *process) Close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

type request struct {
	ID   uint64         `json:"id" msgpack:"id"`
	Args map[string]any `json:"args" msgpack:"args"`
}

type reply struct {
	ID     uint64         `json:"id" msgpack:"id"`
	Result map[string]any `json:"result" msgpack:"result"`
}

// loop makes one call after the other: a lock is its queue.
type loop struct {
	*process
	mu       sync.Mutex
	id       uint64
	exchange func(p *process, r request) (reply, error)
}

func (l *loop) Call(_ context.Context, args map[string]any) (map[string]any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id++
	r, err := l.exchange(l.process, request{l.id, args})
	return r.Result, err
}

// JSON starts the bare loop over JSON lines.
func JSON(_ context.Context, python string) (peers.Peer, error) {
	p, err := start(python, "json_lines.py")
	return &loop{process: p, exchange: exchangeLines}, err
}

func exchangeLines(p *process, ask request) (r reply, err error) {
	line, err := json.Marshal(ask)
	if err != nil {
		return r, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return r, err
	}
	if line, err = p.out.ReadBytes('\n'); err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}

// Msgpack starts the bare loop over MessagePack with a length before each message.
func Msgpack(_ context.Context, python string) (peers.Peer, error) {
	p, err := start(python, "msgpack_loop.py")
	return &loop{process: p, exchange: exchangeFrames}, err
}

func exchangeFrames(p *process, ask request) (r reply, err error) {
	body, err := msgpack.Marshal(ask)
	if err != nil {
		return r, err
	}
	if _, err := p.in.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
		return r, err
	}
	var prefix [4]byte
	if _, err := io.ReadFull(p.out, prefix[:]); err != nil {
		return r, err
	}
	body = make([]byte, binary.BigEndian.Uint32(prefix[:]))
	if _, err := io.ReadFull(p.out, body); err != nil {
		return r, err
	}
	return r, msgpack.Unmarshal(body, &r)
}
