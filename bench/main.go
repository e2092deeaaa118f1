// Command bench measures this library beside bare loops and beside what people would use instead, in one run, in
// turns.
//
// Absolute figures drift by half from hour to hour and from machine to machine. Only ratios of two subjects
// from the same rounds are meaningful.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	var err error
	if os.Getenv(childVariable) != "" {
		err = runChild()
	} else {
		err = inDirectory(func() error { return runBench(os.Args[1:], os.Stdout) })
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inDirectory runs the bench with a directory for the temporary files of all its processes. Nothing of it is left, also
// after an interrupt. The children end when this program has ended.
func inDirectory(run func() error) error {
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", directory); err != nil {
		return errors.Join(err, os.RemoveAll(directory))
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupts
		if err := os.RemoveAll(directory); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(130)
	}()
	return errors.Join(run(), os.RemoveAll(directory))
}

const usage = `Measures this library beside bare loops and beside what people would use instead. For example

    go run . -quick
    go run . -only 'call|first' -rounds 3
    go run . -remote
    go run . -soak 1h

The parts are %s. Those of -remote are %s.

`

func runBench(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), usage, strings.Join(keys(), ", "), strings.Join(remoteKeys(), ", "))
		flags.PrintDefaults()
	}
	rounds := flags.Int("rounds", 3, "measure each row this many `times`")
	isQuick := flags.Bool("quick", false, "measure little: shows that the bench works, not how fast anything is")
	only := flags.String("only", "", "measure only the parts whose whole key matches the `regexp`")
	isWrite := flags.Bool("write", false, "store the run, and write the tables of the pages and the charts")
	isRewrite := flags.Bool("rewrite", false, "measure nothing: write the tables and charts of the stored runs again")
	asJSON := flags.Bool("json", false, "print JSON")
	size := flags.Int64("memory", 256, "stream this many `MiB` to measure memory")
	isRemote := flags.Bool("remote", false, "instead measure workers beyond one machine, beside Ray")
	soakTime := flags.Duration("soak", 0, "instead put a mixed load on the library for this `time`, and watch memory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile("^(?:" + *only + ")$")
	if *only == "" {
		wanted = regexp.MustCompile("")
	}
	switch {
	case err != nil:
		return fmt.Errorf("-only: %w", err)
	case *isWrite && (*only != "" || *isQuick):
		return errors.New("-write needs a whole run: remove -only and -quick")
	case *soakTime != 0 && (*only != "" || *isQuick || *isRemote):
		return errors.New("-soak excludes -only, -quick and -remote")
	case *soakTime < 0 || *soakTime > 0 && *soakTime < time.Second:
		return fmt.Errorf("-soak is %v; the least is 1s", *soakTime)
	case *rounds < 1:
		return fmt.Errorf("-rounds is %d; the least is 1", *rounds)
	case *size < 1:
		return fmt.Errorf("-memory is %d; the least is 1", *size)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *isRewrite {
		return rewrite()
	}
	p := plan{only: wanted, isQuick: *isQuick, rounds: *rounds, memory: *size << 20, say: progress(os.Stderr)}
	if *isQuick {
		p.rounds, p.memory = 1, 16<<20
	}
	names, file, measure := append(keys(), runName), resultsFile, p.measure
	switch {
	case *soakTime > 0:
		names, file = []string{soakName}, soakFile
		measure = func(python string) (*report, error) { return soak(python, *soakTime, p.say) }
	case *isRemote:
		names, file, measure = append(remoteKeys(), remoteRunName), remoteFile, p.measureRemote
	}
	if *isWrite {
		if err := place(names); err != nil {
			return err
		}
	}
	cmd, err := program.Command()
	if err != nil {
		return err
	}
	r, err := measure(cmd.Path)
	p.say("", "")
	if err != nil {
		return err
	}
	if *isWrite {
		if err := errors.Join(r.store(file), r.write()); err != nil {
			return err
		}
	}
	return r.print(out, *asJSON)
}

func (r *report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintln(out, r.line())
	if len(r.Missing) > 0 {
		fmt.Fprintf(out, "Not installed: %s. To measure them too: make bench-peers\n", strings.Join(r.Missing, ", "))
	}
	for _, t := range r.tables() {
		fmt.Fprintln(out)
		if err := t.print(out); err != nil {
			return err
		}
	}
	return nil
}

// progress returns a function that says what is measured: on a terminal in one line that changes, with the time so far,
// and otherwise in a line for each part. An empty part is the end.
func progress(out *os.File) func(part, detail string) {
	last := ""
	if !term.IsTerminal(int(out.Fd())) {
		return func(part, _ string) {
			if part != last && part != "" {
				fmt.Fprintln(out, "measuring", part)
			}
			last = part
		}
	}
	begin := time.Now()
	return func(part, detail string) {
		fmt.Fprint(out, "\r\x1b[K")
		if part == "" {
			return
		}
		fmt.Fprint(out, time.Since(begin).Round(time.Second), "  ")
		for _, all := range [][]string{keys(), remoteKeys()} {
			if i := slices.Index(all, part); i >= 0 {
				fmt.Fprintf(out, "part %d of %d, ", i+1, len(all))
			}
		}
		fmt.Fprint(out, part, ": ", detail)
	}
}
