package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpTemplate is the help of every command: first how it is used, last the exit codes.
const helpTemplate = `{{with or .Long .Short}}{{.}}

{{end}}Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND [ARGUMENT]...{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}{{with index .Annotations "exit codes"}}

Exit codes:
{{.}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" has more about a command.{{end}}
`

// setHelp sets the help of a command and of its subcommands. The exit codes at the end of a long text move behind the
// flags.
func setHelp(cmd *cobra.Command) {
	cmd.SetHelpTemplate(helpTemplate)
	if about, codes, found := strings.Cut(cmd.Long, "\nExit codes:\n"); found {
		cmd.Long = strings.TrimSpace(about)
		cmd.Annotations = map[string]string{"exit codes": codes}
	}
	for _, sub := range cmd.Commands() {
		setHelp(sub)
	}
}

// flagError adds the probable meaning to an error about a flag.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	switch {
	case negative.MatchString(text):
		return fmt.Errorf("%w; a negative number needs -- before it, as in: %s worker.py f -- -5", err,
			cmd.CommandPath())
	case strings.Contains(text, "missing unit in duration"):
		return fmt.Errorf("%w; a duration has a unit, as in 10s or 2m", err)
	case strings.HasPrefix(text, "unknown flag: --"):
		if near := nearFlag(cmd, strings.TrimPrefix(text, "unknown flag: --")); near != "" {
			return fmt.Errorf("%w; did you mean --%s? see %s --help", err, near, cmd.CommandPath())
		}
	}
	return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
}

// nearFlag returns a flag that begins with the same three letters, or "".
func nearFlag(cmd *cobra.Command, name string) (near string) {
	if len(name) < 3 {
		return ""
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if near == "" && strings.HasPrefix(f.Name, name[:3]) {
			near = f.Name
		}
	})
	return near
}
