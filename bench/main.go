// Command bench measures this library beside hand-written code and beside plain gRPC, in one run, in turns.
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
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	run := runBench
	if job := os.Getenv(childVariable); job != "" {
		run = func([]string, io.Writer) error { return runChild(job) }
	}
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// report is the output of -json.
type report struct {
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Rounds   int               `json:"rounds"`
	Rows     []rowReport       `json:"rows,omitempty"`
	Memory   []growth          `json:"memory,omitempty"`
	Tables   []table           `json:"tables,omitempty"`
}

type rowReport struct {
	Name    string   `json:"name"`
	Unit    string   `json:"unit"`
	Figures []figure `json:"figures"`
}

// figure holds one subject's medians over the rounds. Ratio is the median of the rounds' ratios.
type figure struct {
	Subject string  `json:"subject"`
	Median  float64 `json:"median"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	Target  string  `json:"target,omitempty"`
	Met     bool    `json:"met"` // meaningless without a target
}

const usage = `Measures this library beside hand-written code, in one run, in turns. For example

    go run . -rows unary -rounds 3
    go run . -table streaming,peers -update

`

func runBench(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	rounds := flags.Int("rounds", 5, "measure each row this many `times`")
	isQuick := flags.Bool("quick", false, "measure little: shows that the bench works, not how fast anything is")
	pattern := flags.String("rows", "", "measure only rows whose name matches the `regexp`")
	list := flags.String("table", "",
		"measure these `tables` of README.md instead of rows, in Markdown: streaming, peers or streaming,peers")
	isUpdate := flags.Bool("update", false, "also write the tables of -table into README.md")
	asJSON := flags.Bool("json", false, "print JSON")
	size := flags.Int64("memory", 256, "stream this many `MiB` to measure memory")
	profile := flags.String("cpuprofile", "", "write a profile of the Go side to a `file`")
	isFull := flags.Bool("full", false, "stream 1 GiB to measure memory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	n := full
	if *isQuick {
		n, *rounds, *size = quick, 1, 16
	}
	if *isFull {
		*size = 1024
	}
	names, nameErr := tableNames(*list)
	wanted, err := regexp.Compile(*pattern)
	switch {
	case err != nil:
		return fmt.Errorf("-rows: %w", err)
	case nameErr != nil:
		return nameErr
	case *pattern != "" && *list != "":
		return errors.New("-rows and -table exclude each other: choose one")
	case *isUpdate && *list == "":
		return errors.New("-update writes the tables of -table: add -table streaming,peers")
	case *isUpdate && *isQuick:
		return errors.New("-quick measures too little for README.md: remove -quick or -update")
	case *rounds < 1:
		return fmt.Errorf("-rounds is %d; the least is 1", *rounds)
	case *size < 1:
		return fmt.Errorf("-memory is %d; the least is 1", *size)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var text []byte
	if *isUpdate {
		if text, err = placed(names); err != nil {
			return err
		}
	}
	b, err := newBed()
	if err != nil {
		return err
	}
	var r *report
	if len(names) > 0 {
		r, err = measureTables(b, names, n, *rounds, *size<<20)
	} else {
		r, err = measure(b, wanted, n, *rounds, *size<<20)
	}
	if err = errors.Join(err, b.close()); err != nil {
		return err
	}
	if *isUpdate {
		if text, err = update(text, r.line(), r.Tables); err != nil {
			return err
		}
		if err := os.WriteFile(readme, text, 0o644); err != nil {
			return err
		}
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	if len(names) > 0 {
		fmt.Fprintln(out, r.line())
		for _, t := range r.Tables {
			fmt.Fprint(out, "\n", t.markdown())
		}
		return nil
	}
	return r.print(out)
}

func measure(b *bed, wanted *regexp.Regexp, n scale, rounds int, bytes int64) (*report, error) {
	versions, err := versions(b.python)
	if err != nil {
		return nil, err
	}
	r := &report{Machine: machine(), Versions: versions, Rounds: rounds}
	for _, row := range rows {
		if wanted.MatchString(row.name) {
			figures, err := row.measure(b, n, rounds)
			if err != nil {
				return nil, err
			}
			r.Rows = append(r.Rows, rowReport{row.name, row.unit, figures})
		}
	}
	if wanted.MatchString(memoryName) {
		for _, adapter := range []string{"msgpack", "jsonstdio", "grpc"} {
			g, err := memory(adapter, bytes)
			if err != nil {
				return nil, err
			}
			r.Memory = append(r.Memory, g)
		}
	}
	if len(r.Rows)+len(r.Memory) == 0 {
		return nil, fmt.Errorf("no row's name matches %q", wanted)
	}
	return r, nil
}

// rounds measures every subject once in each round.
func (r row) rounds(b *bed, n scale, rounds int) (map[string][]float64, error) {
	values := map[string][]float64{}
	for range rounds {
		for _, s := range r.subjects {
			v, err := s.measure(b, n)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", r.name, s.name, err)
			}
			values[s.name] = append(values[s.name], v)
		}
	}
	return values, nil
}

func (r row) measure(b *bed, n scale, rounds int) ([]figure, error) {
	values, err := r.rounds(b, n, rounds)
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, s := range r.subjects {
		mine := values[s.name]
		f := figure{Subject: s.name, Median: median(mine), Least: slices.Min(mine), Most: slices.Max(mine),
			Against: s.against}
		if s.against != "" {
			f.Ratio = ratio(mine, values[s.against])
			f.Target, f.Met = fmt.Sprintf("≥ %.2g", s.target), f.Ratio >= s.target
			if s.less {
				f.Target, f.Met = fmt.Sprintf("≤ %.2g", s.target), f.Ratio <= s.target
			}
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// ratio is the median of the rounds' ratios.
func ratio(mine, theirs []float64) float64 {
	ratios := make([]float64, len(mine))
	for i := range mine {
		ratios[i] = mine[i] / theirs[i]
	}
	return median(ratios)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (r *report) print(out io.Writer) error {
	fmt.Fprintln(out, r.Machine)
	fmt.Fprintln(out, r.versions())
	fmt.Fprintln(out, "Absolute figures drift from hour to hour and from machine to machine; only the ratios count.")
	fmt.Fprintf(out, "Medians of %d rounds, in which the subjects of a row take turns.\n\n", r.Rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t%s\tleast\tmost\tratio\ttarget\t\tagainst\t\n", row.Name, row.Unit)
		for _, f := range row.Figures {
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t", f.Subject, f.Median, f.Least, f.Most)
			if f.Against == "" {
				fmt.Fprint(w, "\t\t\t\t\n")
			} else {
				fmt.Fprintf(w, "%.2f\t%s\t%s\t%s\t\n", f.Ratio, f.Target, verdict(f.Met), f.Against)
			}
		}
		fmt.Fprint(w, "\t\t\t\t\t\t\t\t\n")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Memory) == 0 {
		return nil
	}
	fmt.Fprintf(out, "%s: growth of resident memory over idle, in MiB; at most %d\n", memoryName, memoryLimit)
	w.Init(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "adapter\tstreamed\ttimes slower\thost idle\tpeak\tend\tworker idle\tpeak\tend\t\t")
	for _, g := range r.Memory {
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t%.1f\t%+.1f\t%+.1f\t%.1f\t%+.1f\t%+.1f\t%s\t\n", g.Adapter, g.Streamed,
			g.Slower, g.HostIdle, g.HostPeak, g.HostEnd, g.WorkerIdle, g.WorkerPeak, g.WorkerEnd,
			verdict(max(g.HostPeak, g.WorkerPeak) <= memoryLimit))
	}
	return w.Flush()
}

func (r *report) versions() string {
	var names []string
	for name, version := range r.Versions {
		names = append(names, name+" "+version)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

// machine describes the machine and its load.
func machine() string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.+)$`).FindSubmatch(info); m != nil {
			model = string(m[1])
		}
	}
	load := ""
	if avg, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = ", load " + strings.Join(strings.Fields(string(avg))[:3], " ")
	}
	return fmt.Sprintf("%s/%s, %d x %s%s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), model, load)
}

// versions returns the versions of everything that is measured.
func versions(python string) (map[string]string, error) {
	const script = "import platform, google.protobuf, grpc, json, msgpack; " +
		"print(json.dumps({'python': platform.python_version(), 'grpcio': grpc.__version__, " +
		"'protobuf': google.protobuf.__version__, 'msgpack': '.'.join(map(str, msgpack.version))}))"
	cmd := exec.Command(python, "-c", script)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf(
			"%s needs grpcio, protobuf and msgpack: run make install-grpc, or set SNAKEPIT_PYTHON: %w", python, err)
	}
	v := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "google.golang.org/grpc":
				v["grpc-go"] = m.Version
			case "github.com/vmihailenco/msgpack/v5":
				v["vmihailenco/msgpack"] = m.Version
			}
		}
	}
	return v, nil
}
