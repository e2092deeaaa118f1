package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build describes the source that this program was built from.
type build struct {
	Snakepit string `json:"snakepit"`
	Protocol int    `json:"protocol"`
	Go       string `json:"go"`
	System   string `json:"system"`
	released bool   // a module proxy has this version, so other modules can require it
}

func version() build {
	b := build{Snakepit: "(devel)", Protocol: 1, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		b.Snakepit, b.released = info.Main.Version, info.Main.Sum != ""
	}
	return b
}

func (b build) String() string {
	return fmt.Sprintf("snakepit %s, protocol %d, %s %s", b.Snakepit, b.Protocol, b.Go, b.System)
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: atMost(0, words()), Example: "  snakepit version --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printIndented(cmd.OutOrStdout(), version())
			}
			return write(cmd.OutOrStdout(), version().String()+"\n")
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}
