//go:build unix

package msgpack

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// byHand is Attach with somebody who starts a worker whenever one is waited for. Each start has a socket of its own,
// because the suite has pools of several workers.
type byHand struct {
	dir     string
	command core.Command
	count   *atomic.Int64
}

func (byHand) Name() string { return Attach{}.Name() }

func (b byHand) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	own := *l
	own.Index = 0
	return Attach{
		Socket: filepath.Join(b.dir, strconv.FormatInt(b.count.Add(1), 10)),
		Waiting: func(socket string) {
			cmd := exec.Command(b.command.Path, b.command.Args...)
			cmd.Env = append(append(os.Environ(), b.command.Env...), "SNAKEPIT_ATTACH="+socket)
			if cmd.Start() == nil {
				go func() { _ = cmd.Wait() }() // it ends with its connection
			}
		},
	}.Start(ctx, &own)
}

func TestConformanceOfAttach(t *testing.T) {
	cmd, err := python.Conformance(4).Command()
	if err != nil {
		t.Fatal(err)
	}
	conformance.Run(t, conformance.Harness{Adapter: byHand{t.TempDir(), cmd, new(atomic.Int64)}, DetectsLoss: true})
}

func TestAttachErrors(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "attach")
	if _, err := (Attach{Socket: socket}).Start(t.Context(), &core.Launcher{Index: 1}); err == nil ||
		!strings.Contains(err.Error(), "the pool has to have a size of 1") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		_, err := Attach{Socket: socket, Waiting: func(path string) { waiting <- path }}.Start(ctx, &core.Launcher{})
		ended <- err
	}()
	<-waiting
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	// Another program that looks, or wants to wait there, too, does not take the place of the worker.
	if _, err := (Attach{Socket: socket}).Start(t.Context(), &core.Launcher{}); err == nil ||
		!strings.Contains(err.Error(), "another program waits for a worker at "+socket) {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no worker has connected") {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Error("the socket is left:", err)
	}
}

// A socket that a killed program has left is no obstacle. A file of another kind is not removed.
func TestAttachReplacesADeadSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "attach")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	linked := make(chan *core.Link, 1)
	waiting := make(chan string, 1)
	go func() {
		link, err := Attach{Socket: socket, Waiting: func(path string) { waiting <- path }}.Start(t.Context(),
			&core.Launcher{RunID: "pool-1", MaxFrame: 4096})
		if err != nil {
			t.Error(err)
		}
		linked <- link
	}()
	c, err := net.Dial("unix", <-waiting)
	if err == nil {
		_, err = c.Write([]byte("attach\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	link := <-linked
	line := make([]byte, 1024)
	n, err := c.Read(line)
	if err != nil || !strings.Contains(string(line[:n]), `"SNAKEPIT_RUN_ID":"pool-1"`) || line[n-1] != '\n' {
		t.Errorf("%q, %v", line[:n], err)
	}
	if err := errors.Join(link.Conn.Close(), c.Close()); err != nil {
		t.Error(err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Attach{Socket: file}).Start(t.Context(), &core.Launcher{}); err == nil {
		t.Error("it listens at a file")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}
