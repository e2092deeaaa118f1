package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
)

const aboutBars = `
On a terminal a bar on standard error shows how far a stream is whose items say so: by progress of
total, processed_rows of total_rows, progress_percent, or progress alone, which are percent.`

func streamCommand() *cobra.Command {
	var c call
	var withResult bool
	cmd := &cobra.Command{
		Use:   "stream WORKER COMMAND [KEY=VALUE | JSON | @FILE]...",
		Short: "Call a command and print each item that it sends",
		Long: "Stream starts a worker, calls one of its commands and prints each item as soon as it comes.\n" +
			aboutArguments + aboutResults + aboutBars + "\n" + exitCodes,
		Args: words("WORKER", "COMMAND"),
		Example: `  snakepit stream worker.py train epochs=3 --result
  snakepit stream worker.py process file_path=sales.csv > chunks.jsonl`,
	}
	c.register(cmd)
	cmd.Flags().BoolVar(&withResult, "result", false,
		"after the items, print the stream's result (a generator's return value)")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		arg, err := c.begin(cmd, args)
		if err != nil {
			return err
		}
		defer closing(c.pool, &err)
		bar := newBar(cmd, args[1])
		defer bar.end()
		var result any
		failed := 0
		c.steps.say("call", "%s", args[1])
		options := []snakepit.CallOption{snakepit.Timeout(c.timeout), snakepit.Result(&result)}
		for item, err := range snakepit.ExecuteStream[any](cmd.Context(), c.target, args[1], arg, options...) {
			var one *snakepit.ItemError
			switch {
			case errors.As(err, &one):
				failed++
				c.steps.item()
				printError(cmd.ErrOrStderr(), err)
			case err != nil:
				c.steps.failed(err)
				return started{err}
			default:
				c.steps.item()
				bar.show(item)
				if err := printJSON(bar, item); err != nil {
					return err
				}
			}
		}
		c.steps.end()
		if withResult {
			if err := printJSON(bar, result); err != nil {
				return err
			}
		}
		if failed > 0 {
			return started{fmt.Errorf("%w: %d", errItems, failed)}
		}
		return nil
	}
	return cmd
}
