package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/observe/debugpage"
)

func eventsCommand() *cobra.Command {
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use: "events [HOST]", Short: "Print what has happened to the workers of a running program",
		Long: "Events prints the last events of a pool: states of workers, losses, restarts, reloads, refused\n" +
			"calls.\n" + aboutHost + hostCodes,
		Args:    atMost(1, words()),
		Example: "  snakepit events\n  snakepit events localhost:6060 --follow --json",
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each as a line of JSON")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with the events to come, until Ctrl-C or the end of the pool")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		h, err := findHost(strings.Join(args, ""))
		if err != nil {
			return err
		}
		what := "events"
		if follow {
			what += "?follow=1"
		}
		body, err := h.ask(cmd.Context(), http.MethodGet, what)
		if err != nil {
			return err
		}
		defer body.Close()
		dec := json.NewDecoder(body)
		for {
			var e debugpage.Happening
			switch err := dec.Decode(&e); {
			case cmd.Context().Err() != nil:
				return runError{cmd.Context().Err()}
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return runError{hostError{fmt.Errorf("the connection to %s has ended: %w", h.name, err)}}
			}
			if err := printEvent(cmd.OutOrStdout(), e, asJSON); err != nil {
				return err
			}
		}
	}
	return cmd
}

func printEvent(w io.Writer, e debugpage.Happening, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	return write(w, fmt.Sprintf("%s  %s\n", e.Time.Local().Format("15:04:05.000"), e.Text))
}
