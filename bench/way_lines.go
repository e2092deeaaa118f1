package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// lines is a process that receives one request per line and answers in lines. It starts on demand. If a call is
// cancelled or fails, the process is killed: nothing else makes it ready for the next call.
type lines struct {
	python, directory string

	cmd *exec.Cmd // nil: not running
	in  io.WriteCloser
	out *bufio.Reader
}

type lineRequest struct {
	Function string         `json:"function"`
	Args     map[string]any `json:"args"`
}

type lineReply struct {
	Item   any    `json:"item"`
	Result any    `json:"result"`
	Error  string `json:"error"`
}

// pythonError is a traceback.
type pythonError string

func (e pythonError) Error() string { return string(e) }

func (l *lines) call(ctx context.Context, function string, args map[string]any) (any, error) {
	var result any
	err := l.exchange(ctx, lineRequest{function, args}, func(r lineReply) { result = r.Result })
	return result, err
}

func (l *lines) stream(ctx context.Context, function string, args map[string]any, each func(any)) error {
	return l.exchange(ctx, lineRequest{function, args}, func(r lineReply) {
		if r.Item != nil {
			each(r.Item)
		}
	})
}

func (l *lines) exchange(ctx context.Context, request lineRequest, got func(lineReply)) error {
	if l.cmd == nil {
		if err := l.start(); err != nil {
			return err
		}
	}
	unwatch := context.AfterFunc(ctx, func() { _ = l.cmd.Process.Kill() })
	err := l.converse(request, got)
	var remote pythonError
	if !unwatch() || err != nil && !errors.As(err, &remote) {
		l.stop()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (l *lines) converse(request lineRequest, got func(lineReply)) error {
	if err := json.NewEncoder(l.in).Encode(request); err != nil {
		return err
	}
	for {
		line, err := l.out.ReadBytes('\n')
		if err != nil {
			return err
		}
		var r lineReply
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Error != "" {
			return pythonError(r.Error)
		}
		got(r)
		if r.Item == nil {
			return nil
		}
	}
}

func (l *lines) start() error {
	cmd := exec.Command(l.python, filepath.Join(l.directory, "json_lines.py"))
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.cmd, l.in, l.out = cmd, in, bufio.NewReader(out)
	return nil
}

func (l *lines) stop() {
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait()
	l.cmd = nil
}

func (l *lines) close() error {
	if l.cmd != nil {
		l.stop()
	}
	return os.RemoveAll(l.directory)
}
