package main

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/pflag"

	"github.com/snakepit-go/snakepit"
)

// debugger is the flag --debug.
type debugger struct{ address string }

const usualDebugger = "127.0.0.1:5678"

func (d *debugger) register(flags *pflag.FlagSet) {
	flags.StringVar(&d.address, "debug", "",
		"have the worker wait for a debugger at this address before it loads (debugpy), without time limits; "+
			"--debug alone is "+usualDebugger)
	flags.Lookup("debug").NoOptDefVal = usualDebugger
}

// check checks the flag, and tells where to attach.
func (d *debugger) check(worker string, stderr io.Writer) error {
	if d.address == "" {
		return nil
	}
	if !isPython(worker) {
		return fmt.Errorf("--debug is for Python files, and %s is none", worker)
	}
	if _, _, err := net.SplitHostPort(d.address); err != nil {
		return fmt.Errorf("--debug is %q; it has to be HOST:PORT, as in --debug=%s", d.address, usualDebugger)
	}
	fmt.Fprintf(stderr, "snakepit: the worker waits for a debugger at %s, such as VS Code's \"Remote Attach\"\n",
		d.address)
	return nil
}

// noLimits removes the limits that would end a call at a breakpoint.
func noLimits(o *snakepit.Options) {
	const never = 365 * 24 * time.Hour
	o.CallTimeout, o.StreamTimeout, o.SessionIdle, o.Wedged = -1, -1, -1, snakepit.WedgedIgnore
	o.StartTimeout, o.CancelGrace = never, never
}
