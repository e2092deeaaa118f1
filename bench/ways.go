package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// This file and way_*.go call the functions of ways/functions.py in four ways. Three are written by hand, as an
// ordinary good engineer would do it in an afternoon. The fourth is this library. Each has a file in Go and one
// in Python.

//go:embed ways
var wayFiles embed.FS

// way calls Python functions. One goroutine uses it.
type way interface {
	// call returns a function's result.
	call(ctx context.Context, function string, args map[string]any) (any, error)
	// stream calls each with every item of a generator.
	stream(ctx context.Context, function string, args map[string]any, each func(any)) error
	// close ends the Python process.
	close() error
}

// openWay opens the way of that name: lines, http, grpc, or library/ and an adapter.
func openWay(python, name string) (way, error) {
	switch name {
	case "lines":
		directory, err := unpackWays()
		return &lines{python: python, directory: directory}, err
	case "http":
		return startHTTP(python)
	case "grpc":
		return startGRPC(python)
	}
	adapter, ok := strings.CutPrefix(name, "library/")
	if !ok {
		return nil, fmt.Errorf("unknown way %q", name)
	}
	return openLibrary(adapter)
}

// unpackWays writes the Python files into a temporary directory.
func unpackWays() (directory string, err error) {
	files, err := fs.Sub(wayFiles, "ways")
	if err != nil {
		return "", err
	}
	if directory, err = os.MkdirTemp("", "bench"); err != nil {
		return "", err
	}
	return directory, os.CopyFS(directory, files)
}

// sidecar is a Python server of this benchmark. Its first line says where it listens.
type sidecar struct {
	cmd       *exec.Cmd
	directory string
	port      int
}

func startSidecar(python, script string) (*sidecar, error) {
	directory, err := unpackWays()
	if err != nil {
		return nil, err
	}
	s := &sidecar{cmd: exec.Command(python, filepath.Join(directory, script)), directory: directory}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	if _, err := fmt.Fscanln(out, &s.port); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("%s printed no port: %w", script, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // discard later output
	return s, nil
}

func (s *sidecar) close() error {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	return os.RemoveAll(s.directory)
}
