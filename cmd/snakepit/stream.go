package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
)

const aboutBar = `
On a terminal, standard error shows a bar for a stream whose items report progress. They do so with
progress and total, processed_rows and total_rows, progress_percent, or progress alone, in percent.`

func streamCommand() *cobra.Command {
	var c call
	var withResult bool
	cmd := &cobra.Command{
		Use:   "stream WORKER COMMAND [KEY=VALUE | JSON | @FILE]...",
		Short: "Call a command and print each item that it sends",
		Long: "Stream starts a worker, calls one of its commands and prints each item as soon as it comes.\n" +
			aboutArguments + aboutResults + aboutBar + "\n" + exitCodes,
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
		return c.repeat(cmd, func() error {
			bar := newProgressBar(cmd, true)
			defer bar.end(true)
			var result any
			failed := 0
			c.steps.say("call", "%s", args[1])
			options := []snakepit.CallOption{snakepit.Timeout(c.limit()), snakepit.Result(&result)}
			for item, err := range snakepit.ExecuteStream[any](cmd.Context(), c.target, args[1], arg, options...) {
				var one *snakepit.ItemError
				switch {
				case errors.As(err, &one):
					failed++
					c.steps.item()
					printError(cmd.ErrOrStderr(), err)
				case err != nil:
					c.steps.failed(err)
					return runError{err}
				default:
					c.steps.item()
					if share, ok := progress(item); ok {
						bar.show(args[1], share)
					}
					if err := printValue(bar, item); err != nil {
						return err
					}
				}
			}
			c.steps.end()
			if withResult {
				if err := printValue(bar, result); err != nil {
					return err
				}
			}
			if failed > 0 {
				return runError{fmt.Errorf("%w: %d", errItems, failed)}
			}
			return nil
		})
	}
	return cmd
}
