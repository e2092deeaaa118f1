package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/adapters/remote"
)

const aboutCertificates = `Certificates makes what "snakepit serve" and the programs that use it need to trust
each other: an authority, a certificate and a key for the back ends, and a certificate and a key for the
programs.
The key of the authority is kept nowhere. To replace the certificates, make all of them anew.

Copy authority.pem, backend.pem and backend.key to the machines of the back ends, and authority.pem,
program.pem and program.key to those of the programs.

Exit codes:
  0    the files are written
  1    they can't be written; nothing is overwritten
  2    wrong usage`

func certificatesCommand() *cobra.Command {
	var hosts []string
	var days int
	cmd := &cobra.Command{
		Use: "certificates DIR", Short: "Make certificates for back ends and programs", Long: aboutCertificates,
		Args:    atMost(1, words("DIR")),
		Example: "  snakepit certificates certs --host gpu-1 --host 10.0.0.5 --days 90",
	}
	cmd.Flags().StringSliceVar(&hosts, "host", nil,
		"name or address of a back end, as programs dial it; may be repeated (localhost is always there)")
	cmd.Flags().IntVar(&days, "days", 365, "how long they are valid")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if days < 1 {
			return fmt.Errorf("--days is %d; it has to be positive", days)
		}
		if err := remote.WriteCertificates(args[0], hosts, time.Duration(days)*24*time.Hour); err != nil {
			return runError{serveError{err}}
		}
		return write(cmd.OutOrStdout(), fmt.Sprintf(
			"back ends: %s, %s, %s\nprograms:  %s, %s, %s\nin %s, valid for %d days\n",
			remote.AuthorityFile, remote.BackEndFile, remote.BackEndKeyFile,
			remote.AuthorityFile, remote.ProgramFile, remote.ProgramKeyFile, filepath.Clean(args[0]), days))
	}
	return cmd
}
