package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// call holds the flags of call and stream.
type call struct {
	worker
	timeout time.Duration
	session string
	trace   bool
	watch   bool
	reloads chan core.Reloaded // with watch
	pool    *snakepit.Pool
	target  snakepit.Target
	steps   *steps
}

const aboutResults = `

Each result is one line of JSON. Values that JSON lacks have the tags of docs/protocol.md, such as
{"$bytes": "..."}.
`

func (c *call) register(cmd *cobra.Command) {
	c.worker.register(cmd)
	c.debug.register(cmd.Flags())
	cmd.Flags().DurationVar(&c.timeout, "timeout", 0,
		"time limit of the call, such as 90s; negative means none (default 30s, stream 5m)")
	cmd.Flags().StringVar(&c.session, "session", "",
		"make the call in a session with this id; worker and session end with this command")
	cmd.Flags().BoolVar(&c.trace, "trace", false,
		"print each step with its time on standard error; SNAKEPIT_TRACE=frames logs each frame")
	cmd.Flags().BoolVar(&c.watch, "watch", false,
		"make the call again whenever a Python file beside WORKER or below changes, until Ctrl-C")
}

// begin parses the arguments, then starts the worker.
func (c *call) begin(cmd *cobra.Command, args []string) (arg any, err error) {
	if cmd.Flags().Changed("session") && c.session == "" {
		return nil, fmt.Errorf("--session is empty; it has to be an id, such as --session ann")
	}
	if arg, err = readArgs(cmd.Context(), args[2:], cmd.InOrStdin()); err != nil {
		return nil, err
	}
	return arg, c.start(cmd, args[0])
}

// start starts the worker.
func (c *call) start(cmd *cobra.Command, word string) (err error) {
	if err := c.debug.check(word, cmd.ErrOrStderr()); err != nil {
		return err
	}
	c.steps = newSteps(c.trace, cmd.ErrOrStderr())
	c.steps.say("start", "%s, adapter %s", word, c.adapter)
	opts := &snakepit.Options{Watch: c.watch}
	if c.watch {
		c.reloads = make(chan core.Reloaded)
		opts.OnEvent = func(e snakepit.Event) {
			if r, ok := e.(core.Reloaded); ok {
				select {
				case c.reloads <- r:
				case <-cmd.Context().Done():
				}
			}
		}
	}
	if c.pool, err = c.open(cmd.Context(), word, opts, cmd.ErrOrStderr()); err != nil {
		return err
	}
	c.steps.ready(c.pool)
	c.target = c.pool
	if c.session != "" {
		c.target = c.pool.Session(c.session)
	}
	return nil
}

// limit returns the time limit of the call, as Timeout takes it.
func (c *call) limit() time.Duration {
	if c.timeout == 0 && c.debug.address != "" {
		return -1
	}
	return c.timeout
}

func callCommand() *cobra.Command {
	var c call
	cmd := &cobra.Command{
		Use: "call WORKER COMMAND [KEY=VALUE | JSON | @FILE]...", Short: "Call a command and print its result",
		Long: "Call starts a worker, calls one of its commands and prints the result.\n" + aboutArguments +
			aboutResults + exitCodes,
		Args: words("WORKER", "COMMAND"),
		Example: `  snakepit call worker.py add a=5 b=3
  snakepit call worker.py say '"hello"' --adapter jsonstdio
  snakepit call worker.py predict features=@features.json --trace
  snakepit call worker.py price '"tea"' --watch`,
	}
	c.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		arg, err := c.begin(cmd, args)
		if err != nil {
			return err
		}
		defer closing(c.pool, &err)
		if info, _ := commandInfo(c.pool, args[1]); info.Stream {
			return fmt.Errorf("%s sends a stream: use snakepit stream", args[1])
		}
		return c.repeat(cmd, func() error {
			c.steps.say("call", "%s", args[1])
			result, err := snakepit.Execute[any](cmd.Context(), c.target, args[1], arg, snakepit.Timeout(c.limit()))
			if err != nil {
				c.steps.failed(err)
				return runError{err}
			}
			c.steps.say("result", "")
			return printValue(cmd.OutOrStdout(), result)
		})
	}
	return cmd
}

// repeat makes a call once, or with --watch again after each reload. The pool logs why a reload failed.
func (c *call) repeat(cmd *cobra.Command, once func() error) error {
	if !c.watch {
		return once()
	}
	for {
		if err := once(); err != nil && cmd.Context().Err() == nil {
			printError(cmd.ErrOrStderr(), err)
		}
		if s, ok := c.target.(*snakepit.Session); ok {
			s.Close() // otherwise it would stay with the worker that has the old program
		}
		for again := false; !again; {
			select {
			case r := <-c.reloads:
				again = r.Err == nil
			case <-cmd.Context().Done():
				return nil
			}
		}
	}
}

// asked returns the context for a question that this program asks on its own behalf.
func asked(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 30*time.Second)
}
