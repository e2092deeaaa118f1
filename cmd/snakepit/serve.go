package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/snakepit-go/snakepit"
)

const aboutServe = `Serve starts workers on this machine for Go programs on other machines, which use the adapter
remote.Adapter. Each program leases workers. A worker ends with its lease, and so at the latest with
its program. What follows -- are arguments of the worker.

Both sides verify each other by certificates. "snakepit certificates DIR" makes them, and
--certificates takes the directory. On a loopback address --plaintext turns TLS off.

Ctrl-C or SIGTERM ends it: it grants no more workers, and those that run may go on for --grace. A
second signal ends them at once. It is the Python module snakepit_bridge.serve, which needs
grpcio, protobuf and cryptography; without Go, run it by python -m snakepit_bridge.serve.

Exit codes:
  0    a signal has ended it
  1    it can't serve
  2    wrong usage`

// serveError means that no back end runs, or that there are no certificates for it.
type serveError struct{ error }

func (s serveError) Unwrap() error { return s.error }

// back holds the flags that are handed on to a Python module. Their names and meanings are the same there.
type back struct {
	name   string // of the command
	python string
	module string
	own    []string // the names of flags that are not handed on
}

func serveCommand() *cobra.Command {
	b := back{name: "serve", module: "snakepit_bridge.serve"}
	cmd := &cobra.Command{
		Use: "serve WORKER [-- ARGUMENT...]", Short: "Start workers for programs on other machines", Long: aboutServe,
		Args: words("WORKER"),
		Example: `  snakepit certificates certs --host gpu-1
  snakepit serve worker.py --listen :7000 --workers 8 --certificates certs
  snakepit serve worker.py --plaintext -- --model large`,
	}
	f := cmd.Flags()
	f.String("listen", "127.0.0.1:7000", "where to listen, HOST:PORT; workers listen on the same address")
	f.Int("workers", 0, "how many workers may run at once (default: the processors)")
	f.String("worker-ports", "", "ports for workers, FIRST-LAST (default: any)")
	f.String("certificates", "", `directory of "snakepit certificates"`)
	f.String("certificate", "", "file of the certificate to show, in PEM, instead of --certificates")
	f.String("key", "", "file of its private key")
	f.String("clients", "", "file of the certificates of programs that may connect, or of their authorities")
	f.Bool("plaintext", false, "no TLS; only on a loopback address")
	f.Float64("grace", 20, "seconds that workers may go on after a signal")
	b.register(cmd)
	return cmd
}

// register adds --python and the command's function.
func (b *back) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.python, "python", "",
		"Python interpreter (default: an active or local virtual environment, else python3)")
	b.own = append(b.own, "python", "help")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return b.run(cmd.Context(), args[0], b.flags(cmd.Flags()), args[1:])
	}
}

// flags returns the flags that were set.
func (b *back) flags(set *pflag.FlagSet) []string {
	own := map[string]bool{}
	for _, name := range b.own {
		own[name] = true
	}
	var args []string
	set.Visit(func(f *pflag.Flag) {
		switch isBool, err := strconv.ParseBool(f.Value.String()); {
		case own[f.Name]:
		case f.Value.Type() != "bool":
			args = append(args, "--"+f.Name, f.Value.String())
		case err == nil && isBool:
			args = append(args, "--"+f.Name)
		}
	})
	return args
}

// run runs the module in the place of this program, or as its child.
func (b *back) run(ctx context.Context, worker string, flags, args []string) error {
	if !isPython(worker) {
		return fmt.Errorf("%s is no Python file: only workers in Python can be served", worker)
	}
	program := snakepit.Python(worker)
	program.Interpreter = b.python
	start, err := program.Command()
	if err != nil {
		return runError{serveError{err}}
	}
	// Command starts the worker by a file beside the package. That file runs modules too.
	argv := append([]string{start.Path, start.Args[0], "-m", b.module, worker}, flags...)
	if len(args) > 0 {
		argv = append(append(argv, "--"), args...)
	}
	env := append(os.Environ(), "SNAKEPIT_COMMAND=snakepit "+b.name)
	return become(ctx, argv, append(env, start.Env...))
}
