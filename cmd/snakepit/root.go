package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
)

// These are the exit codes, as the help states them.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNoWorker
	exitTimeout
	exitLost
	exitInterrupted = 130
)

const about = `Snakepit calls, lists and measures the commands of a worker, and examines its environment.

WORKER is a Python file (.py), or another executable that speaks Snakepit's protocol. If it speaks
the protocol only on standard input and output, it needs --adapter jsonstdio.

Results go to standard output. Errors, with the Python traceback, and the log go to standard error.
SNAKEPIT_LOG=info or debug shows more of the log, such as the adapter in use and why earlier ones
were refused.
` + exitCodes

const exitCodes = `
Exit codes:
  0    it worked
  1    the handler raised, its result can't be sent or printed, or items of the stream failed
  2    wrong usage, or an argument that can't be sent
  3    no worker could be started
  4    the time limit passed
  5    the worker was lost
  130  interrupted by Ctrl-C (SIGINT)
  143  terminated by SIGTERM`

// run is the whole program without its process. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use: "snakepit", Short: "Call the commands of a worker", Long: about, SilenceUsage: true, SilenceErrors: true,
		Example: "  snakepit init hello && cd hello && make run\n  snakepit call worker.py add a=5 b=3\n" +
			"  snakepit doctor",
		Version: version().String() + "\n", Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(initCommand(), callCommand(), streamCommand(), commandsCommand(), genCommand(), benchCommand(),
		doctorCommand(), topCommand(), psCommand(), stackCommand(), eventsCommand(), replayCommand(), runCommand(),
		serveCommand(), rayCommand(), certificatesCommand(), conformanceCommand(), versionCommand())
	root.SetHelpCommand(helpCommand())
	root.SetArgs(args)
	root.SetOut(output{stdout})
	root.InitDefaultCompletionCmd() // it writes to the current output
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = noCommand
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	setHelp(root)
	stderr = &console{out: stderr}
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	if errors.As(err, new(runError)) && ctx.Err() != nil {
		if err = context.Cause(ctx); !errors.As(err, new(signalled)) {
			err = errors.New("interrupted")
		}
	}
	printError(stderr, err)
	return code
}

// negative matches the flag package's error for a negative number.
var negative = regexp.MustCompile(`unknown shorthand flag: '[0-9.]'`)

// noCommand rejects arguments of the root command that name no command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	near := ""
	cmd.SuggestionsMinimumDistance = 2
	names := cmd.SuggestionsFor(args[0])
	begins := func(name string) bool { return strings.HasPrefix(name, args[0]) }
	if slices.ContainsFunc(names, begins) {
		names = slices.DeleteFunc(names, func(name string) bool { return !begins(name) })
	}
	if len(names) > 0 {
		near = "did you mean " + strings.Join(names, " or ") + "? "
	}
	return fmt.Errorf("there is no command %q; %ssee %s --help", args[0], near, cmd.CommandPath())
}

// words requires these arguments. Its errors name those that are missing or empty.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s needs %s; see %s --help", cmd.Name(), strings.Join(names, " and "), cmd.CommandPath())
		}
		for i, name := range names {
			if args[i] == "" {
				return fmt.Errorf("%s is empty; see %s --help", name, cmd.CommandPath())
			}
		}
		return nil
	}
}

// atMost limits the number of arguments, in addition to args.
func atMost(n int, args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) > n {
			return fmt.Errorf("%q is one argument too many; see %s --help", given[n], cmd.CommandPath())
		}
		return args(cmd, given)
	}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Print the help of a command", Example: "  snakepit help call",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(cmd.Root(), args)
			}
			return found.Help()
		},
	}
}

// runError is an error of the work itself. All other errors are usage errors.
type runError struct{ error }

func (r runError) Unwrap() error { return r.error }

func exitCode(ctx context.Context, err error) int {
	var start *snakepit.StartError
	var by signalled
	switch {
	case !errors.As(err, new(runError)) && !errors.Is(err, errOutput):
		return exitUsage
	case errors.As(context.Cause(ctx), &by):
		return by.exitCode()
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &start), errors.Is(err, snakepit.ErrCrashLoop), errors.Is(err, errNoWorker),
		errors.Is(err, errNoHost),
		errors.As(err, new(*conformance.NothingError)):
		return exitNoWorker
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, snakepit.ErrWorkerLost), errors.As(err, new(workerError)):
		return exitLost
	case errors.As(err, new(*snakepit.RemoteError)), errors.Is(err, errItems), errors.Is(err, errOutput),
		errors.Is(err, errPrinting),
		errors.Is(err, errClauses), errors.Is(err, errProject), errors.As(err, new(genError)),
		errors.As(err, new(serveError)), errors.As(err, new(hostError)):
		return exitFailed
	default:
		return exitUsage
	}
}

var (
	errNoWorker = errors.New("no worker")
	errItems    = errors.New("items of the stream failed")
	errPrinting = errors.New("the result cannot be printed")
	errOutput   = errors.New("standard output cannot be written to")
)

// instead replaces the text of an error.
type instead struct {
	text string
	err  error
}

func (i *instead) Error() string { return i.text }
func (i *instead) Unwrap() error { return i.err }

// printError prints an error, with the traceback of the worker's exception.
func printError(w io.Writer, err error) {
	var remote *snakepit.RemoteError
	trace := ""
	if !errors.As(err, new(*snakepit.StartError)) && errors.As(err, &remote) {
		if trace = remote.Traceback(); trace == remote.Error()+"\n" {
			trace = ""
		}
	}
	text := err.Error()
	if _, remedy := core.Explain(err); remedy != "" {
		if cut, found := strings.CutSuffix(text, "; "+remedy); found {
			text = cut + "\nhint: " + remedy
		}
	}
	fmt.Fprintf(w, "%ssnakepit: %s\n", trace, inFlags.Replace(text))
}
