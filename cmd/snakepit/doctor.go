package main

import (
	"embed"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/core"
)

//go:embed doctor.py
var doctorFiles embed.FS

const aboutDoctor = `Doctor examines the environment of workers: the interpreter and the setting that chose it, versions
and packages, the generated code, the directories and sockets that a pool needs, and limits. It starts
and calls a worker on each adapter. Each problem comes with a remedy for this machine. With WORKER,
doctor uses that worker's interpreter, and also starts the worker itself.

With --ray it examines a Ray cluster instead: whether the dashboard answers, and whether a worker that
a job starts there can be called from this machine. $RAY_AUTH_TOKEN is shown to the dashboard.

Exit codes:
  0    a call works, on one adapter at least; with WORKER, the worker starts too
  1    the report can't be printed
  2    wrong usage
  3    no call works, or WORKER does not start
  130, 143  interrupted by Ctrl-C, terminated by SIGTERM`

// diagnosis is the whole report.
type diagnosis struct {
	OK       bool              `json:"ok"`
	Versions map[string]string `json:"versions"`
	Checks   []check           `json:"checks"`
	Adapters []check           `json:"adapters"`
	Worker   *check            `json:"worker,omitempty"`
}

// check is the outcome of one check.
type check struct {
	Name   string  `json:"name"`
	Status status  `json:"status"`
	Text   string  `json:"text"`
	Fix    string  `json:"fix,omitempty"` // the advice to the user
	Start  float64 `json:"start_ms,omitempty"`
	Call   float64 `json:"call_ms,omitempty"`
}

type status string

const (
	good    status = "ok"
	warning status = "warning" // needed only if everything else of its kind fails
	bad     status = "failed"
)

// doctor holds the flags.
type doctor struct {
	worker
	basePort, portRange int
	ray                 string
	json                bool
}

func doctorCommand() *cobra.Command {
	var d doctor
	cmd := &cobra.Command{
		Use: "doctor [WORKER]", Short: "Find problems on this machine, with their remedies",
		Long: aboutDoctor, Args: atMost(1, words()),
		Example: `  snakepit doctor
  snakepit doctor worker.py --adapter grpc,jsonstdio
  snakepit doctor --base-port 50051 --port-range 100 --json
  snakepit doctor --ray http://head:8265`,
	}
	d.register(cmd)
	cmd.Flags().IntVar(&d.basePort, "base-port", 0,
		"examine gRPC on loopback TCP, from this port on (default a private Unix socket)")
	cmd.Flags().IntVar(&d.portRange, "port-range", 100, "how many ports above --base-port workers may take")
	cmd.Flags().StringVar(&d.ray, "ray", "", "examine a Ray cluster by its dashboard, such as http://head:8265")
	cmd.Flags().BoolVar(&d.json, "json", false, "print the report as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		word := ""
		if len(args) > 0 {
			word = args[0]
		}
		chain, err := d.chain(cmd)
		if err != nil {
			return err
		}
		var found *diagnosis
		if cmd.Flags().Changed("ray") {
			found = d.examineRay(cmd.Context(), word)
		} else {
			found = d.examine(cmd.Context(), word, chain)
		}
		if err := cmd.Context().Err(); err != nil {
			return runError{err}
		}
		if err := found.print(cmd.OutOrStdout(), d.json); err != nil {
			return err
		}
		if !found.OK {
			return runError{&instead{found.summary(), errNoWorker}}
		}
		return nil
	}
	return cmd
}

// chain returns the adapters to examine, in order.
func (d *doctor) chain(cmd *cobra.Command) ([]core.Adapter, error) {
	whole, err := adapters(d.adapter)
	switch {
	case err != nil:
		return nil, err
	case d.start < 0:
		return nil, fmt.Errorf("--start-timeout is %s; it has to be positive", d.start)
	case d.basePort == 0 && (cmd.Flags().Changed("port-range") || cmd.Flags().Changed("base-port")):
		return nil, fmt.Errorf("--port-range needs --base-port, which has to be 1 or more")
	case d.basePort < 0 || d.portRange < 0 || d.basePort > 0 && d.basePort+d.portRange > 65535:
		return nil, fmt.Errorf("--base-port %d and --port-range %d do not lie within 1 to 65535", d.basePort,
			d.portRange)
	}
	var chain []core.Adapter
	for name := range strings.SplitSeq(whole.Name(), ",") {
		one, err := adapters(name)
		if err != nil {
			return nil, err
		}
		if g, ok := one.(grpc.Adapter); ok && d.basePort > 0 {
			g.BasePort, g.PortRange = d.basePort, d.portRange
			one = g
		}
		chain = append(chain, one)
	}
	return chain, nil
}

// summary returns the last lines of the report.
func (d *diagnosis) summary() string {
	var works []string
	for _, c := range d.Adapters {
		if c.Status == good {
			works = append(works, c.Name)
		}
	}
	switch {
	case len(works) == 0 && d.OK:
		return d.Worker.Name + " starts, but no Python worker can"
	case len(works) == 0:
		return "no call works; begin with the first ✗ above"
	case d.Worker != nil && d.Worker.Status == bad:
		return "calls work, but " + d.Worker.Name + " does not start"
	case len(works) == 1:
		return "a call works on " + works[0]
	}
	text := "a call works on " + strings.Join(works[:len(works)-1], ", ") + " and " + works[len(works)-1] +
		"; a worker takes the first, " + works[0]
	if works[0] == "grpc" {
		text += "\ngrpc comes first because it also serves other clients and health checks; " +
			"for the fastest calls set SNAKEPIT_ADAPTERS=" + strings.Join(works[1:], ",")
	}
	return text
}

func (d *diagnosis) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printIndented(w, d)
	}
	colour := isTerminal(w) && os.Getenv("NO_COLOR") == ""
	lines := append(d.Checks[:len(d.Checks):len(d.Checks)], d.Adapters...)
	if d.Worker != nil {
		lines = append(lines, *d.Worker)
	}
	width := 0
	for _, c := range lines {
		width = max(width, len([]rune(c.Name)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", version())
	for _, c := range lines {
		fmt.Fprintf(&b, "%s %-*s  %s\n", c.Status.mark(colour), width, c.Name, c.Text)
		if c.Fix != "" {
			fmt.Fprintf(&b, "  %*s  → %s\n", width, "", c.Fix)
		}
	}
	if d.OK { // otherwise the summary is the error
		fmt.Fprintf(&b, "\n%s\n", d.summary())
	}
	return write(w, b.String())
}

// mark returns the symbol of a status.
func (s status) mark(colour bool) string {
	mark, code := "✓", "32"
	switch s {
	case warning:
		mark, code = "!", "33"
	case bad:
		mark, code = "✗", "31"
	}
	if !colour {
		return mark
	}
	return "\x1b[" + code + "m" + mark + "\x1b[0m"
}

// milliseconds converts a duration, to three decimals.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// silently returns the options of a pool that is only examined.
func silently() *snakepit.Options {
	return &snakepit.Options{Size: 1, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off})}
}
