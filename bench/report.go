package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// report is a run: the content of results.json.
type report struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Rounds   int               `json:"rounds"`
	Quick    bool              `json:"quick,omitempty"`
	Missing  []string          `json:"missing,omitempty"` // peers that are not installed
	Rows     []rowReport       `json:"rows,omitempty"`
	Series   []seriesReport    `json:"series,omitempty"`
	Memory   []growth          `json:"memory,omitempty"`
	Soak     *soakReport       `json:"soak,omitempty"`
	Remote   bool              `json:"remote,omitempty"` // of workers beyond one machine
	Growing  []extent          `json:"growing,omitempty"`
	Tables   []table           `json:"tables,omitempty"`
}

type rowReport struct {
	Key      string          `json:"key"`
	Name     string          `json:"name"`
	Unit     string          `json:"unit"`
	Subjects []subjectReport `json:"subjects"`
}

// subjectReport holds the figures of one subject by mode. A target holds in one mode.
type subjectReport struct {
	Name    string           `json:"name"`
	Figures map[mode]*figure `json:"figures"`
	In      mode             `json:"target_in,omitempty"`
	Against string           `json:"against,omitempty"`
	Ratio   float64          `json:"ratio,omitempty"`
	Target  string           `json:"target,omitempty"`
	Met     *bool            `json:"met,omitempty"`
}

// figure holds the medians of the rounds. The costs are -1 where they are unknown.
type figure struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Cost   cost    `json:"cost"`
	values []float64
}

func figureOf(samples []sample) *figure {
	of := func(field func(sample) float64) []float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = field(s)
		}
		return values
	}
	values := of(func(s sample) float64 { return s.Value })
	return &figure{
		Median: median(values), Least: slices.Min(values), Most: slices.Max(values), values: values,
		Cost: cost{
			GoCPU:     medianCost(of(func(s sample) float64 { return s.Cost.GoCPU })),
			PythonCPU: medianCost(of(func(s sample) float64 { return s.Cost.PythonCPU })),
			Allocs:    medianCost(of(func(s sample) float64 { return s.Cost.Allocs })),
			GoCalls:   -1, PyCalls: -1,
		},
	}
}

// medianCost returns -1 if a round has no figure.
func medianCost(values []float64) float64 {
	if slices.Min(values) < 0 {
		return -1
	}
	return median(values)
}

// judge compares the subject with its target. others are the subjects of the row.
func (s *subjectReport) judge(t target, others []subjectReport) {
	mine := s.Figures[t.in]
	if t.in == "" || mine == nil {
		return
	}
	figureOfOther := func(name string) *figure {
		for _, o := range others {
			if o.Name == name {
				return o.Figures[t.in]
			}
		}
		return nil
	}
	word := "≥"
	if t.less {
		word = "≤"
	}
	s.In, s.Against, s.Target = t.in, t.against, fmt.Sprintf("%s %.4g", word, t.bound)
	value, bound := mine.Median, t.bound
	if t.against != "" {
		theirs := figureOfOther(t.against)
		if theirs == nil {
			return
		}
		s.Ratio = ratio(mine.values, theirs.values)
		value = s.Ratio
		if plus := figureOfOther(t.plus); plus != nil {
			s.Target += " + " + t.plus
			bound += plus.Median / theirs.Median
		}
	}
	met := value >= bound
	if t.less {
		met = value <= bound
	}
	s.Met = &met
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

// newReport begins a report.
func newReport(python string, rounds int) (*report, error) {
	v, err := versions(python)
	if err != nil {
		return nil, err
	}
	return &report{Date: time.Now().Format("2 January 2006"), Machine: machine(), Versions: v, Rounds: rounds}, nil
}

// missing lists the peers whose packages this Python does not have.
func missing(python string) (names []string) {
	lacking := map[string]bool{}
	for name, modules := range needs {
		lacks, known := lacking[modules]
		if !known {
			lacks = exec.Command(python, "-c", "import "+modules).Run() != nil
			lacking[modules] = lacks
		}
		if lacks {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// line is the time and place of the measurement.
func (r *report) line() string {
	var names []string
	for name, version := range r.Versions {
		names = append(names, name+" "+version)
	}
	slices.Sort(names)
	line := fmt.Sprintf("%s; %s; %s", r.Date, r.Machine, strings.Join(names, ", "))
	if r.Soak != nil {
		return line + "."
	}
	if r.Quick {
		return line + ".\nA quick run: sizes and numbers are smaller than the titles say, and no figure means anything."
	}
	return fmt.Sprintf("%s; medians of %d rounds in turns.", line, r.Rounds)
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

// versions returns the versions of everything that is measured. Peers that are not installed have none.
func versions(python string) (map[string]string, error) {
	const script = `
import importlib.metadata, json, platform
found = {"python": platform.python_version()}
for name in ("grpcio", "protobuf", "msgpack", "numpy", "fastapi", "uvicorn", "uvloop", "pyproc-worker", "ray"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))`
	cmd := exec.Command(python, "-c", script)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	v := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s for the versions of its packages: %w", python, err)
	}
	for _, name := range []string{"grpcio", "protobuf", "msgpack", "numpy"} {
		if v[name] == "" {
			return nil, fmt.Errorf("%s has no %s: run make bench-peers, or set SNAKEPIT_PYTHON", python, name)
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "google.golang.org/grpc":
				v["grpc-go"] = m.Version
			case "github.com/vmihailenco/msgpack/v5":
				v["vmihailenco/msgpack"] = m.Version
			case "github.com/hashicorp/go-plugin":
				v["go-plugin"] = m.Version
			}
		}
	}
	return v, nil
}
