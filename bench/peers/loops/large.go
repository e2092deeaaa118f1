package loops

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"

	"github.com/snakepit-go/snakepit/bench/peers"
)

// base64Lines is a loop over JSON lines that carry bytes in base64.
type base64Lines struct{ *process }

// Base64 starts a loop over JSON lines that carry bytes in base64.
func Base64(python string) (peers.Echo, error) {
	p, err := start(python, "base64_lines.py")
	return base64Lines{p}, err
}

type base64Line struct {
	Data []byte `json:"data"`
}

func (b base64Lines) Echo(_ context.Context, data []byte) ([]byte, error) {
	line, err := json.Marshal(base64Line{data})
	if err != nil {
		return nil, err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	if line, err = b.out.ReadBytes('\n'); err != nil {
		return nil, err
	}
	var r base64Line
	err = json.Unmarshal(line, &r)
	return r.Data, err
}

// socket is a bare echo over a socket pair.
type socket struct {
	cmd  *exec.Cmd
	conn net.Conn
}

// Socket starts a bare echo over a socket pair.
func Socket(python string) (peers.Echo, error) {
	source, err := files.ReadFile("echo.py")
	if err != nil {
		return nil, err
	}
	syscall.ForkLock.RLock()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(pair[0])
		syscall.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "host"), os.NewFile(uintptr(pair[1]), "worker")
	defer ours.Close()
	defer theirs.Close()
	s := &socket{cmd: exec.Command(python, "-c", string(source))}
	s.cmd.Stderr, s.cmd.ExtraFiles = os.Stderr, []*os.File{theirs}
	if s.conn, err = net.FileConn(ours); err != nil {
		return nil, err
	}
	return s, s.cmd.Start()
}

func (s *socket) Echo(_ context.Context, data []byte) ([]byte, error) {
	var prefix [4]byte
	binary.BigEndian.PutUint32(prefix[:], uint32(len(data)))
	sent := make(chan error, 1)
	go func() {
		_, err := (&net.Buffers{prefix[:], data}).WriteTo(s.conn)
		sent <- err
	}()
	var back [4]byte
	if _, err := io.ReadFull(s.conn, back[:]); err != nil {
		return nil, errors.Join(err, <-sent)
	}
	result := make([]byte, binary.BigEndian.Uint32(back[:]))
	_, err := io.ReadFull(s.conn, result)
	return result, errors.Join(err, <-sent)
}

func (s *socket) PIDs() []int { return []int{s.cmd.Process.Pid} }

// Close closes the socket, so that the process ends by itself, and waits for it.
func (s *socket) Close() error {
	return errors.Join(s.conn.Close(), s.cmd.Wait())
}
