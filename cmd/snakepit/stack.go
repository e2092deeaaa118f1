package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/observe/debugpage"
)

func stackCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "stack WORKER [HOST]", Short: "Print what the threads of a running worker do",
		Long: "Stack prints what a worker does, whether it answers, and the stacks of all its threads. WORKER is\n" +
			"its index, as snakepit ps shows it. The worker's calls go on.\n" + aboutHost + hostCodes,
		Args:    atMost(2, words("WORKER")),
		Example: "  snakepit stack 0\n  snakepit stack 2 localhost:6060",
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		index, err := strconv.Atoi(args[0])
		if err != nil || index < 0 {
			return fmt.Errorf("WORKER is %q; it has to be the index of a worker, such as 0", args[0])
		}
		h, err := findHost(strings.Join(args[1:], ""))
		if err != nil {
			return err
		}
		var look debugpage.Look
		if err := h.get(cmd.Context(), http.MethodPost, "stack?worker="+strconv.Itoa(index), &look); err != nil {
			return err
		}
		if asJSON {
			return printIndented(cmd.OutOrStdout(), look)
		}
		return write(cmd.OutOrStdout(), lookText(look))
	}
	return cmd
}

// lookText formats a look at a worker.
func lookText(look debugpage.Look) string {
	text := fmt.Sprintf("worker %d, pid %d: %s\n\n%s", look.Worker, look.PID, look.Text, look.Stack)
	if look.Error != "" {
		text += look.Error + "\n"
	}
	return text
}
