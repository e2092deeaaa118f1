package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	codecjson "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/schema"
)

func commandsCommand() *cobra.Command {
	var o worker
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "commands WORKER",
		Short: "List a worker's commands with their signatures, types and descriptions",
		Long: "Commands starts a worker and prints its commands with parameters, types, defaults and docstrings,\n" +
			"in Python's syntax. If the worker does not describe its commands, only their names are printed.\n" +
			"--json also prints the JSON Schemas of the arguments, items and results.\n" +
			"\nExit codes:\n" +
			"  0    they are printed\n" +
			"  1    they can't be printed\n" +
			"  2    wrong usage\n" +
			"  3    no worker could be started\n" +
			"  4    the worker does not answer\n" +
			"  5    the worker was lost\n" +
			"  130, 143  interrupted by Ctrl-C, terminated by SIGTERM",
		Args:    atMost(1, words("WORKER")),
		Example: "  snakepit commands worker.py\n  snakepit commands worker.py --json",
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		commands, err := o.commands(cmd, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return printIndented(cmd.OutOrStdout(), commands)
		}
		if len(commands) == 0 {
			return write(cmd.OutOrStdout(), args[0]+" offers no commands\n")
		}
		for i, c := range commands {
			text := signature(c)
			if i > 0 {
				text = "\n" + text
			}
			if err := write(cmd.OutOrStdout(), text); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// commands starts a worker, asks it for its commands and ends it.
func (o *worker) commands(cmd *cobra.Command, word string) (commands []schema.Command, err error) {
	pool, err := o.open(cmd.Context(), word, nil, cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	defer closing(pool, &err)
	if commands, err = describe(cmd.Context(), pool); err != nil {
		return nil, runError{err}
	}
	return commands, nil
}

// describe asks a worker for its commands. It leaves out the protocol's own. If the worker does not describe them, they
// have only names.
func describe(ctx context.Context, pool *snakepit.Pool) ([]schema.Command, error) {
	ctx, cancel := asked(ctx)
	defer cancel()
	all, err := schema.Describe(ctx, pool)
	if !errors.Is(err, snakepit.ErrUnknownCommand) {
		return all, err
	}
	listed := pool.Workers()[0].Info().Commands
	all = make([]schema.Command, 0, len(listed))
	for _, c := range listed {
		if !reserved(c.Name) {
			all = append(all, schema.Command{Name: c.Name, Stream: c.Stream})
		}
	}
	return all, nil
}

// signature returns the signature of a command in Python's syntax, with the docstring below.
func signature(c schema.Command) string {
	var b strings.Builder
	b.WriteString(c.Name)
	if c.Params != nil || c.Returns != "" || c.Doc != "" {
		params := make([]string, len(c.Params))
		for i, p := range c.Params {
			params[i] = parameter(p)
		}
		fmt.Fprintf(&b, "(%s)", strings.Join(params, ", "))
	}
	if c.Returns != "" {
		b.WriteString(" -> " + c.Returns)
	}
	if c.Stream {
		b.WriteString("  [stream]")
	}
	b.WriteByte('\n')
	if c.Doc != "" {
		for line := range strings.Lines(c.Doc) {
			b.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
		}
	}
	return b.String()
}

func parameter(p schema.Param) string {
	text := p.Name
	if p.Type != "" {
		text += ": " + p.Type
	}
	switch {
	case p.Required, strings.HasPrefix(p.Name, "*"):
		return text
	case p.Type != "":
		return text + " = " + literal(p.Default)
	default:
		return text + "=" + literal(p.Default)
	}
}

// literal formats a default value as Python does, with text in quotes. The worker sends a value that is not
// a scalar as its repr.
func literal(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return strings.ToUpper(strconv.FormatBool(v)[:1]) + strconv.FormatBool(v)[1:]
	case string:
		return strconv.Quote(v)
	}
	text, err := codecjson.Codec{}.Append(nil, v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(string(text))
}
