package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/snakepit-go/snakepit/python"
)

//go:embed cluster.py
var clusterScript string

// cluster is a Ray cluster on this machine.
type cluster struct {
	dashboard string
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
}

// startCluster starts a cluster of a head and two nodes, with the Python that workers get.
func startCluster(ctx context.Context) (*cluster, error) {
	choice, err := python.Program{}.Choose()
	if err != nil {
		return nil, err
	}
	c := &cluster{cmd: exec.CommandContext(ctx, choice.Interpreter, "-c", clusterScript)}
	// The jobs of the cluster run "python".
	path := filepath.Dir(choice.Interpreter) + string(os.PathListSeparator) + os.Getenv("PATH")
	c.cmd.Env = append(os.Environ(), "PATH="+path)
	var said strings.Builder
	c.cmd.Stderr = &said
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	if !c.out.Scan() {
		_ = c.cmd.Wait() // what it has printed says more
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		err := fmt.Errorf("the cluster does not start: %s", lines[len(lines)-1])
		if strings.Contains(said.String(), "No module named 'ray'") {
			err = errors.New("there is no Ray: make install-ray, in the checkout, installs it into .venv")
		}
		return nil, err
	}
	c.dashboard = c.out.Text()
	return c, nil
}

// removeNode ends a node at once, as if its machine had failed.
func (c *cluster) removeNode(id string) error {
	if _, err := io.WriteString(c.in, id+"\n"); err != nil {
		return err
	}
	if !c.out.Scan() {
		return errors.New("the cluster has ended")
	}
	return nil
}

// close ends the cluster.
func (c *cluster) close() {
	_ = c.in.Close() // then it ends
	_ = c.cmd.Wait() // it has nothing to tell
}
