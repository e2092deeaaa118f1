package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
)

const aboutConformance = `Checks a worker in any language against docs/protocol.md, clause by clause.

WORKER is an executable that speaks the protocol, or a Python file (.py). It offers the commands
that docs/protocol.md lists under "Conformance". If it lacks some, the clauses that need them are
skipped and name them. An ordinary worker has none, so nothing can be checked. The clauses that most
others depend on come first. If one fails, those that depend on it are skipped and name it.

Exit codes:
  0  every clause passed or was skipped
  1  a clause failed, or the report can't be printed
  2  wrong usage
  3  the worker does not start, says no hello or has none of the commands, so nothing was checked
  130, 143  interrupted by Ctrl-C, terminated by SIGTERM`

// errClauses reports failed clauses. The report has already named them.
var errClauses = errors.New("clauses failed")

// conformanceFlags select the checks and set their limits.
type conformanceFlags struct {
	adapter, format string
	parts, known    []string
	limit           time.Duration
	reports         bool
	maxFrame        int
	maxConcurrency  int
	parallel        int
}

func conformanceCommand() *cobra.Command {
	var f conformanceFlags
	cmd := &cobra.Command{
		Use:   "conformance [flags] -- WORKER [ARGUMENT]...",
		Short: "Check a worker against the protocol",
		Long:  aboutConformance,
		Example: `  snakepit conformance --adapter jsonstdio -- ./my-worker
  snakepit conformance --adapter msgpack --format junit -- node worker.js > report.xml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("conformance needs -- and WORKER; see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: f.run,
	}
	cmd.Flags().StringVar(&f.adapter, "adapter", "jsonstdio",
		"adapter to use, or several to try in this order; a worker in another language usually has one")
	cmd.Flags().StringVar(&f.format, "format", "text", "report as text, json or junit")
	cmd.Flags().StringSliceVar(&f.parts, "parts", []string{string(conformance.Worker)},
		"tables to check: worker, adapter, pool")
	cmd.Flags().StringSliceVar(&f.known, "known", nil, "clauses that are known to fail; they still run, and must fail")
	cmd.Flags().IntVar(&f.maxFrame, "max-frame", 0,
		"largest frame in bytes to try (default what both sides allow, 8 MiB at most)")
	cmd.Flags().IntVar(&f.maxConcurrency, "max-concurrency", 0,
		"most calls to make at once (default what the worker announces)")
	cmd.Flags().IntVar(&f.parallel, "parallel", 0, "clauses to check at once (default the number of processors)")
	cmd.Flags().DurationVar(&f.limit, "time-limit", 30*time.Second, "time limit of each clause")
	cmd.Flags().BoolVar(&f.reports, "reports", false,
		"the worker writes the report of the launch contract; on grpc it has to")
	return cmd
}

// harness turns the flags and the words after -- into a harness.
func (f *conformanceFlags) harness(words []string) (h conformance.Harness, err error) {
	switch {
	case f.limit <= 0:
		return h, fmt.Errorf("--time-limit is %s; it has to be positive", f.limit)
	case f.maxFrame < 0:
		return h, fmt.Errorf("--max-frame is %d; it has to be positive", f.maxFrame)
	case f.maxConcurrency < 0:
		return h, fmt.Errorf("--max-concurrency is %d; it has to be positive", f.maxConcurrency)
	}
	if f.parallel < 0 {
		return h, fmt.Errorf("--parallel is %d; it has to be positive", f.parallel)
	}
	adapter, err := adapters(f.adapter)
	if err != nil {
		return h, err
	}
	h = conformance.Harness{
		Adapter: adapter, Worker: workerProgram(words, f.reports), TimeLimit: f.limit, Known: map[string]string{},
		MaxFrame: f.maxFrame, MaxConcurrency: f.maxConcurrency, Parallel: f.parallel,
	}
	for _, p := range f.parts {
		h.Parts = append(h.Parts, conformance.Part(p))
	}
	for _, name := range f.known { // each name is as in the report, or without the part
		for _, part := range []conformance.Part{conformance.Adapter, conformance.Worker, conformance.Pool} {
			name = strings.TrimPrefix(name, string(part)+"/")
		}
		h.Known[name] = "as --known says"
	}
	return h, nil
}

func (f *conformanceFlags) run(cmd *cobra.Command, args []string) error {
	h, err := f.harness(args)
	if err != nil {
		return err
	}
	r, err := newReporter(f.format, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	var results []conformance.Result
	failed := 0
	stop := waiting(cmd.ErrOrStderr(), args[0], "--time-limit")
	err = conformance.Check(cmd.Context(), h, func(res conformance.Result) {
		stop() // it has said hello
		results = append(results, res)
		if res.Outcome == conformance.Failed {
			failed++
		}
		r.result(res)
	})
	stop()
	var nothing *conformance.NothingError
	switch {
	case errors.As(err, &nothing):
		if f.format != "text" { // so that the report explains why it is otherwise empty
			hello := conformance.Clauses()[0]
			only := conformance.Result{Clause: hello, Outcome: conformance.Failed, Reasons: nothing.Reasons}
			if err := r.end(strings.Join(args, " "), []conformance.Result{only}); err != nil {
				return err
			}
		}
		return runError{nothing}
	case errors.Is(err, context.Canceled):
		return runError{err}
	case err != nil:
		return err
	}
	if err := r.end(strings.Join(args, " "), results); err != nil {
		return err
	}
	if failed > 0 {
		return runError{fmt.Errorf("%w: %d of %d", errClauses, failed, len(results))}
	}
	return nil
}

// workerProgram returns the program that the words after -- start.
func workerProgram(words []string, reports bool) conformance.Program {
	if isPython(words[0]) {
		return snakepit.Python(words[0], words[1:]...)
	}
	return reporting{snakepit.Command(words[0], words[1:]...), reports}
}

type reporting struct {
	snakepit.Program
	reports bool
}

func (r reporting) Command() (core.Command, error) {
	cmd, err := r.Program.Command()
	cmd.Reports = r.reports
	return cmd, err
}

// reporter writes a report in one format.
type reporter struct {
	result func(r conformance.Result)
	end    func(worker string, all []conformance.Result) error
}

func newReporter(format string, w io.Writer) (reporter, error) {
	silent := func(conformance.Result) {}
	switch format {
	case "text":
		return reporter{
			func(r conformance.Result) {
				fmt.Fprintf(w, "%-7s %s/%s (%s)\n", r.Outcome, r.Part, r.Name, r.Took.Round(time.Millisecond))
				if r.Outcome != conformance.Passed {
					fmt.Fprintf(w, "        %s\n",
						strings.ReplaceAll(strings.Join(r.Reasons, "\n"), "\n", "\n        "))
				}
				if r.Outcome == conformance.Failed {
					fmt.Fprintf(w, "        the rule: %s\n", r.Sentence)
				}
			},
			func(_ string, all []conformance.Result) error {
				n := count(all)
				_, err := fmt.Fprintf(w, "\n%d clauses: %d passed, %d failed, %d skipped, %d failed as known\n%s",
					len(all), n[conformance.Passed],
					n[conformance.Failed], n[conformance.Skipped], n[conformance.Known], fundamental(all))
				return err
			},
		}, nil
	case "json":
		return reporter{silent, func(worker string, all []conformance.Result) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(jsonReport(worker, all))
		}}, nil
	case "junit":
		return reporter{silent, func(worker string, all []conformance.Result) error {
			if _, err := io.WriteString(w, xml.Header); err != nil {
				return err
			}
			e := xml.NewEncoder(w)
			e.Indent("", "  ")
			if err := e.Encode(junitReport(worker, all)); err != nil {
				return err
			}
			_, err := io.WriteString(w, "\n")
			return err
		}}, nil
	}
	return reporter{}, fmt.Errorf("--format is %q; it has to be text, json or junit", format)
}

// fundamental names the failed clauses that skipped clauses depend on, one per line.
func fundamental(all []conformance.Result) string {
	dependents := map[string]int{}
	for _, r := range all {
		dependents[r.RestsOn]++
	}
	text := ""
	for _, r := range all {
		name := string(r.Part) + "/" + r.Name
		if n := dependents[name]; n > 0 {
			text += fmt.Sprintf("fix %s first: %d skipped clauses depend on it\n", name, n)
		}
	}
	return text
}

func count(all []conformance.Result) map[conformance.Outcome]int {
	n := map[conformance.Outcome]int{}
	for _, r := range all {
		n[r.Outcome]++
	}
	return n
}

func jsonReport(worker string, all []conformance.Result) any {
	type result struct {
		Part    conformance.Part    `json:"part"`
		Name    string              `json:"name"`
		Rule    string              `json:"rule"`
		Outcome conformance.Outcome `json:"outcome"`
		Reasons []string            `json:"reasons,omitempty"`
		RestsOn string              `json:"rests_on,omitempty"`
		Seconds float64             `json:"seconds"`
	}
	results := []result{}
	for _, r := range all {
		results = append(results, result{r.Part, r.Name, r.Sentence, r.Outcome, r.Reasons, r.RestsOn, r.Took.Seconds()})
	}
	return map[string]any{"worker": worker, "counts": count(all), "results": results}
}

// junitSuite is the XML format that most CI systems read: https://github.com/testmoapp/junitxml describes it.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Seconds string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func junitReport(worker string, all []conformance.Result) junitSuite {
	n := count(all)
	suite := junitSuite{
		Name: worker, Tests: len(all), Failures: n[conformance.Failed],
		Skipped: n[conformance.Skipped] + n[conformance.Known],
	}
	for _, r := range all {
		c := junitCase{Class: string(r.Part), Name: r.Name, Seconds: fmt.Sprintf("%.3f", r.Took.Seconds())}
		message := &junitMessage{r.Sentence, plainText(strings.Join(r.Reasons, "\n"))}
		switch r.Outcome {
		case conformance.Failed:
			c.Failure = message
		case conformance.Skipped, conformance.Known:
			// Most readers show only the message.
			c.Skipped = &junitMessage{plainText(strings.Join(r.Reasons, "; ")), r.Sentence}
		}
		suite.Cases = append(suite.Cases, c)
	}
	return suite
}

// plainText removes the characters that XML does not allow.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, s)
}
