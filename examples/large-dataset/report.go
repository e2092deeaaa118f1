package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// differs returns the first difference from the reference, or "".
func (r *result) differs(reference *result) string {
	got, want := r.facts(), reference.facts()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return "no " + want[i]
		case i >= len(want):
			return got[i] + " is too much"
		case got[i] != want[i]:
			return got[i] + " instead of " + want[i]
		}
	}
	return ""
}

// facts lists everything that has to be equal.
func (r *result) facts() []string {
	facts := []string{fmt.Sprintf("%d processed, %d skipped, %d errors", r.Stats.Processed, r.Stats.Skipped,
		r.Stats.Errors)}
	facts = append(facts, r.faults...)
	for _, columns := range r.Stats.Aggregates {
		for _, c := range columns {
			fact, err := json.Marshal(c) // Marshal sorts the keys of maps
			if err != nil {
				panic(err) // a Column has only JSON values
			}
			facts = append(facts, string(fact))
		}
	}
	return facts
}

// print prints the statistics.
func (r *result) print(out *screen) {
	out.printf("%s processed, %s skipped, %s\n", count(r.Stats.Processed), count(r.Stats.Skipped),
		some(r.Stats.Errors, "error"))
	for _, fault := range r.faults {
		out.printf("skipped: %s\n", fault)
	}
	if more := r.Stats.Errors - int64(len(r.faults)); more > 0 {
		out.printf("and %s\n", some(more, "more malformed row"))
	}
	for _, columns := range r.Stats.Aggregates {
		rows := [][]string{{"column", "empty", "holds", "values"}}
		for _, c := range columns {
			rows = append(rows, []string{c.Name, count(c.Empty), c.kind(), c.content()})
		}
		out.table(rows)
	}
}

// kind names the type of a column's values.
func (c *Column) kind() string {
	if c.Numbers > 0 {
		return some(c.Numbers, "number")
	}
	return some(c.Texts, "text")
}

// content returns the most useful facts about a column.
func (c *Column) content() string {
	switch {
	case c.Numbers > 0:
		sum, _ := strconv.ParseFloat(c.Sum, 64)
		exact := c.Sum
		if len(exact) > 20 { // a sum of fractions has many digits
			exact = fmt.Sprintf("%.6g", sum)
		}
		return fmt.Sprintf("%s to %s, mean %.2f, sum %s", number(*c.Least), number(*c.Greatest), sum/float64(c.Numbers),
			exact)
	case c.Texts > 0 && c.Tally == nil:
		return fmt.Sprintf("%s to %s, up to %d characters", short(*c.First), short(*c.Last), c.Longest)
	default:
		texts := slices.SortedFunc(maps.Keys(c.Tally), func(a, b string) int {
			return cmp.Or(cmp.Compare(c.Tally[b], c.Tally[a]), cmp.Compare(a, b))
		})
		most := fmt.Sprintf("%d different:", len(texts))
		for _, text := range texts[:min(3, len(texts))] {
			most += fmt.Sprintf(" %s %s×", short(text), count(c.Tally[text]))
		}
		return most
	}
}

// number formats a double with as many digits as it needs. It uses an exponent only for very large or small numbers.
func number(x float64) string {
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e15) {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// short quotes a text and truncates a long one.
func short(s string) string {
	const most = 20
	if runes := []rune(s); len(runes) > most {
		return strconv.Quote(string(runes[:most])) + "…"
	}
	return strconv.Quote(s)
}

// row is a line of the last table.
func (r *result) row(name, verdict string) []string {
	rows := r.Stats.Processed + r.Stats.Skipped
	memory := "-"
	if r.memory > 0 { // workers report memory with their progress; without rows there is no progress
		memory = fmt.Sprintf("%.0f MiB", r.memory)
	}
	perSecond := int64(float64(rows) / r.took.Seconds())
	return []string{name, r.adapters, count(rows), r.took.Round(10 * time.Millisecond).String(), count(perSecond),
		memory, verdict}
}

// peakMemory returns the peak memory of this process in MiB: the resident memory on Linux, otherwise Go's
// memory from the system.
func peakMemory() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	if _, peak, ok := strings.Cut(string(status), "VmHWM:"); ok {
		if kib, err := strconv.ParseFloat(strings.Fields(peak)[0], 64); err == nil {
			return kib / 1024
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}
