package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/schema"
)

// complete makes shells complete the names of worker files, of commands and of their arguments. It asks the
// worker for the commands and arguments.
func complete(cmd *cobra.Command, o *worker) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return []string{"py"}, cobra.ShellCompDirectiveFilterFileExt
		}
		if strings.Contains(typed, "=") {
			return nil, cobra.ShellCompDirectiveDefault // a value may be a file
		}
		commands, err := o.ask(cmd.Context(), args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var found []string
		for _, c := range commands {
			first, _, _ := strings.Cut(c.Doc, "\n")
			switch {
			case len(args) == 1:
				found = append(found, cobra.CompletionWithDesc(c.Name, first))
			case c.Name == args[1]:
				for _, p := range c.Params {
					if !strings.HasPrefix(p.Name, "*") {
						found = append(found, cobra.CompletionWithDesc(p.Name+"=", p.Type))
					}
				}
			}
		}
		if len(args) == 1 {
			return found, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	// This fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("adapter", cobra.FixedCompletions(
		[]string{"auto", "grpc", "msgpack", "jsonstdio"}, cobra.ShellCompDirectiveNoFileComp))
}

// ask starts a worker silently and asks it for its commands.
func (o *worker) ask(ctx context.Context, word string) ([]schema.Command, error) {
	adapter, err := adapters(o.adapter)
	if err != nil {
		return nil, err
	}
	opts := *o
	if opts.start == 0 {
		opts.start = 10 * time.Second // a user waits no longer for a completion
	}
	pool, err := opts.openWith(ctx, adapter, word, silently(), io.Discard)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return describe(ctx, pool)
}
