package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

func runCommand() *cobra.Command {
	var o worker
	var d debugger
	var socket string
	cmd := &cobra.Command{
		Use: "run WORKER [ARGUMENT]...", Short: "Run a worker by hand, for a program that waits for it",
		Long: "Run starts a worker in this terminal and connects it to a program that waits for one: a program that\n" +
			"calls snakepit.Attach, or any program with SNAKEPIT_ADAPTERS=attach. It waits for that program, and\n" +
			"ends with the worker. What the worker prints stays here, and breakpoint() opens pdb here. The worker\n" +
			"speaks MessagePack.\n" +
			"\nExit codes:\n" +
			"  0    the program has ended the worker\n" +
			"  2    wrong usage\n" +
			"  3    the worker could not be started\n" +
			"  5    the worker has failed\n" +
			"  130, 143  interrupted by Ctrl-C, terminated by SIGTERM",
		Args:    words("WORKER"),
		Example: "  snakepit run worker.py\n  snakepit run worker.py --debug",
	}
	cmd.Flags().StringVar(&o.python, "python", "",
		"Python interpreter (default: an active or local virtual environment, else python3)")
	cmd.Flags().StringVar(&socket, "socket", "", "the program's Unix socket (default attach in "+core.UserDir()+")")
	d.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := d.check(args[0], cmd.ErrOrStderr()); err != nil {
			return err
		}
		if socket == "" {
			socket = filepath.Join(core.UserDir(), "attach")
		}
		process, err := o.byHand(cmd, args, socket, d)
		if err != nil {
			return err
		}
		process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
		process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
		process.WaitDelay = 5 * time.Second
		err = process.Run()
		switch {
		case cmd.Context().Err() != nil:
			return runError{cmd.Context().Err()}
		case errors.As(err, new(*exec.ExitError)):
			return runError{workerError{fmt.Errorf("%s: %w", args[0], err)}}
		case err != nil:
			return runError{fmt.Errorf("%w could be started: %w", errNoWorker, err)}
		}
		return nil
	}
	return cmd
}

// workerError says that a worker which was run by hand has failed.
type workerError struct{ error }

func (e workerError) Unwrap() error { return e.error }

// byHand returns the process of a worker. A Python worker connects by itself. Another one gets the connection.
func (o *worker) byHand(cmd *cobra.Command, args []string, socket string, d debugger) (*exec.Cmd, error) {
	if isPython(args[0]) {
		c, err := python.Program{
			Script: args[0], Args: args[1:], Interpreter: o.python, Debug: d.address,
		}.Command()
		if err != nil {
			return nil, runError{fmt.Errorf("%w could be started: %w", errNoWorker, err)}
		}
		process := exec.CommandContext(cmd.Context(), c.Path, c.Args...)
		process.Env = append(append(os.Environ(), c.Env...), "SNAKEPIT_ATTACH="+socket)
		return process, nil
	}
	if err := executable(args[0]); err != nil {
		return nil, runError{fmt.Errorf("%w: %w", errNoWorker, err)}
	}
	conn, env, err := attach(cmd.Context(), socket, cmd.ErrOrStderr())
	if err != nil {
		return nil, runError{fmt.Errorf("%w could be attached: %w", errNoWorker, err)}
	}
	process := exec.CommandContext(cmd.Context(), args[0], args[1:]...)
	process.Env = append(os.Environ(), "SNAKEPIT_CONN_FD=3")
	for k, v := range env {
		process.Env = append(process.Env, k+"="+v)
	}
	process.ExtraFiles = []*os.File{conn}
	return process, nil
}

// attach connects to the program that waits at a socket. It waits for that program.
func attach(ctx context.Context, socket string, stderr io.Writer) (*os.File, map[string]string, error) {
	var dialer net.Dialer
	told := false
	for {
		c, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return greet(c.(*net.UnixConn))
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, nil, err
		}
		if !told {
			fmt.Fprintf(stderr, "snakepit: waiting for a program that waits for a worker at %s\n", socket)
			told = true
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// greet exchanges the first lines with the program. See msgpack.Attach. It returns the connection's descriptor, and the
// worker's environment.
func greet(c *net.UnixConn) (*os.File, map[string]string, error) {
	defer func() { _ = c.Close() }() // the descriptor is a copy
	if _, err := c.Write([]byte("attach\n")); err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReaderSize(oneByOne{c}, 16).ReadBytes('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("the program has closed the connection: %w", err)
	}
	var greeting struct {
		Env map[string]string `json:"env"`
	}
	if err := json.Unmarshal(line, &greeting); err != nil {
		return nil, nil, err
	}
	file, err := c.File()
	return file, greeting.Env, err
}

// oneByOne reads single bytes, because frames follow the line.
type oneByOne struct{ io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(1, len(p))]) }
