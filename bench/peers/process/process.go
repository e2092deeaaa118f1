// Package process calls Python by starting one process a call.
package process

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"os"
	"os/exec"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed script.py
var script string

type peer struct {
	python string
}

// Start finds the interpreter. It starts no process.
func Start(_ context.Context, python string) (peers.Peer, error) {
	python, err := exec.LookPath(python)
	if err != nil {
		return nil, err
	}
	return peer{python}, nil
}

// Call starts a process and waits for it. If ctx ends earlier, the process is killed.
func (p peer) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.python, "-c", script)
	cmd.Stdin = bytes.NewReader(body)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var result map[string]any
	return result, json.Unmarshal(out, &result)
}

// PIDs is nil. No process outlives its call.
func (peer) PIDs() []int { return nil }

// Close has nothing to end.
func (peer) Close() error { return nil }
