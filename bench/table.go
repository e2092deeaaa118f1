package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// table is a table for the terminal and for a page.
type table struct {
	Name   string     `json:"name"`
	Title  string     `json:"title,omitempty"`
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

func (t table) markdown() string {
	cells := append([][]string{t.Header, slices.Repeat([]string{"---"}, len(t.Header))}, t.Rows...)
	var b strings.Builder
	for _, row := range cells {
		for _, cell := range row {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(cell, "|", `\|`))
		}
		b.WriteString("|\n")
	}
	return b.String()
}

func (t table) print(out io.Writer) error {
	if t.Title != "" {
		fmt.Fprintln(out, t.Title)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	return w.Flush()
}

// tables are all tables of a report.
func (r *report) tables() []table {
	var all []table
	for _, row := range r.Rows {
		all = append(all, row.table())
	}
	for _, s := range r.Series {
		all = append(all, s.table())
	}
	if len(r.Memory) > 0 {
		all = append(all, memoryTable(r.Memory))
	}
	if r.Soak != nil {
		all = append(all, r.Soak.table())
	}
	if len(r.Growing) > 0 {
		all = append(all, growingTable(r.Growing))
	}
	return append(all, r.Tables...)
}

var modeTitles = map[mode]string{pinned: "one processor", free: "all processors"}

func (r rowReport) table() table {
	t := table{Name: r.Key, Title: r.Name + ", in " + r.Unit, Header: []string{""}}
	hasMode := func(m mode) bool {
		return slices.ContainsFunc(r.Subjects, func(s subjectReport) bool { return s.Figures[m] != nil })
	}
	var modes []mode
	for _, m := range both {
		if hasMode(m) {
			modes = append(modes, m)
		}
	}
	for _, m := range modes {
		title := r.Unit
		if len(modes) > 1 {
			title += ", " + modeTitles[m]
		}
		t.Header = append(t.Header, title)
	}
	hasTarget := slices.ContainsFunc(r.Subjects, func(s subjectReport) bool { return s.Met != nil })
	if hasTarget {
		t.Header = append(t.Header, "ratio", "target")
	}
	if hasMode(pinned) {
		t.Header = append(t.Header, "CPU µs: Go", "Python", "system calls: Go", "Python", "allocations in Go")
	}
	for _, s := range r.Subjects {
		cells := []string{s.Name}
		for _, m := range modes {
			if f := s.Figures[m]; f != nil {
				cells = append(cells, number(f.Median))
			} else {
				cells = append(cells, "")
			}
		}
		if hasTarget {
			cells = append(cells, s.ratio(len(modes) > 1), s.verdict())
		}
		if hasMode(pinned) {
			cells = append(cells, s.costs()...)
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// ratio names the column that it is of if there are several.
func (s subjectReport) ratio(isOneOfSeveral bool) string {
	if s.Ratio == 0 {
		return ""
	}
	text := fmt.Sprintf("%.2f of %s", s.Ratio, s.Against)
	if isOneOfSeveral {
		text += ", " + modeTitles[s.In]
	}
	return text
}

func (s subjectReport) verdict() string {
	if s.Met == nil {
		return ""
	}
	return s.Target + ": " + metOrMissed(*s.Met)
}

func metOrMissed(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

// costs are the cells of what an operation costs on one processor.
func (s subjectReport) costs() []string {
	f := s.Figures[pinned]
	if f == nil {
		return make([]string, 5)
	}
	c := f.Cost
	return []string{known(c.GoCPU), known(c.PythonCPU), known(c.GoCalls), known(c.PyCalls), known(c.Allocs)}
}

func known(v float64) string {
	if v < 0 {
		return "–"
	}
	return number(v)
}

// number has three digits or more.
func number(v float64) string {
	switch {
	case math.Abs(v) >= 1000:
		return thousands(v)
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// thousands rounds to three digits and separates the thousands.
func thousands(v float64) string {
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	text := strconv.FormatFloat(math.Round(v/unit)*unit, 'f', 0, 64)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func (r seriesReport) table() table {
	s := seriesOf(r.Key)
	t := table{Name: "by-" + r.Key, Title: s.name + ", in " + s.unit, Header: []string{s.x}}
	for _, point := range r.Points {
		t.Header = append(t.Header, count(point))
	}
	for _, l := range r.Lines {
		cells := []string{l.Adapter}
		for _, v := range l.Values {
			cells = append(cells, number(v))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

func count(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return thousands(float64(n))
}

func memoryTable(all []growth) table {
	t := table{Name: memoryKey, Title: "growth of resident memory, with a consumer ten times slower than the producer",
		Header: []string{"", "MiB streamed", "times slower", "Go, peak", "Go, end", "Python, peak", "Python, end",
			"target: peaks ≤ " + strconv.Itoa(memoryLimit)}}
	for _, g := range all {
		t.Rows = append(t.Rows, []string{g.Adapter, fmt.Sprintf("%.0f", g.Streamed), fmt.Sprintf("%.1f", g.Slower),
			fmt.Sprintf("%+.1f", g.HostPeak), fmt.Sprintf("%+.1f", g.HostEnd), fmt.Sprintf("%+.1f", g.WorkerPeak),
			fmt.Sprintf("%+.1f", g.WorkerEnd), metOrMissed(max(g.HostPeak, g.WorkerPeak) <= memoryLimit)})
	}
	return t
}
