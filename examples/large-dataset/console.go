package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// console is where everything is printed. On a terminal its last line is live: it is drawn anew below all that is printed. It may be used
// from any number of goroutines.
type console struct {
	out  io.Writer
	live bool

	mu   sync.Mutex
	line string // the live line as it stands
}

// newConsole has a live line if out is a terminal.
func newConsole(out io.Writer) *console {
	c := &console{out: out}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		c.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return c
}

const clearLine = "\r\x1b[K"

// Write prints whole lines above the live one.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line == "" {
		return c.out.Write(p)
	}
	if _, err := fmt.Fprintf(c.out, clearLine+"%s%s", p, c.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *console) printf(format string, args ...any) { fmt.Fprintf(c, format, args...) }

// show makes line the live one; "" takes it away.
func (c *console) show(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if line != c.line {
		c.line = line
		fmt.Fprint(c.out, clearLine, line)
	}
}

// table prints rows in columns.
func (c *console) table(header []any, rows [][]any) {
	w := tabwriter.NewWriter(c, 0, 0, 2, ' ', 0)
	for _, row := range slices.Concat([][]any{header}, rows) {
		for i, cell := range row {
			row[i] = fmt.Sprint(cell)
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, row[i])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// progress adds up how far the calls of a run are, and shows it: as the live line of a terminal, else as a line every 10 %.
type progress struct {
	out     *console
	title   string
	started time.Time

	mu     sync.Mutex
	total  int64         // rows
	rows   map[int]int64 // of each range
	memory map[int]float64
	tenths int64 // of the work that were printed
}

func newProgress(out *console, title string, total int64) *progress {
	return &progress{out: out, title: title, started: time.Now(), total: total, rows: map[int]int64{}, memory: map[int]float64{}}
}

// update takes a chunk of a range in and returns the share of all rows that are done. A zero Chunk is a range's beginning.
func (p *progress) update(i int, c Chunk) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows[i] = c.ProcessedRows
	if c.WorkerPID != 0 {
		p.memory[c.WorkerPID] = c.MemoryUsageMB
	}
	var rows int64
	for _, n := range p.rows {
		rows += n
	}
	if p.total == 0 || rows == 0 {
		return 0
	}
	share, tenths := float64(rows)/float64(p.total), rows*10/p.total
	if !p.out.live && tenths <= p.tenths {
		return share
	}
	p.tenths = tenths
	perSecond := int64(float64(rows) / time.Since(p.started).Seconds())
	line := fmt.Sprintf("%s %.1f %%, %s of %s, %s/s, %.0f MiB", p.title, 100*share,
		count(rows), some(p.total, "row"), some(perSecond, "row"), slices.Max(slices.Collect(maps.Values(p.memory))))
	if p.out.live {
		p.out.show(line)
	} else {
		p.out.printf("%s\n", line)
	}
	return share
}

// end takes the live line away.
func (p *progress) end() {
	if p.out.live {
		p.out.show("")
	}
}

// report prints how a run went.
func (r *result) report(out *console) {
	memory := ""
	if r.memory > 0 { // workers say it with their progress, and without rows there is none
		memory = ", workers took " + r.mostMemory() + " at most"
	}
	out.printf("%s in %s, %s/s%s\n", some(r.rows(), "row"), r.took.Round(time.Millisecond), some(r.perSecond(), "row"), memory)
	for _, fault := range r.faults {
		out.printf("skipped: %s\n", fault)
	}
	if more := r.Errors - int64(len(r.faults)); more > 0 {
		out.printf("and %s\n", some(more, "more malformed row"))
	}
}

func (r *result) rows() int64      { return r.Processed + r.Skipped }
func (r *result) perSecond() int64 { return int64(float64(r.rows()) / r.took.Seconds()) }

func (r *result) mostMemory() string {
	if r.memory == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f MiB", r.memory)
}

// row is a line of the last table.
func (r *result) row(name, verdict string) []any {
	return []any{
		name, r.adapters, count(r.rows()), r.took.Round(10 * time.Millisecond), count(r.perSecond()), r.mostMemory(), verdict,
	}
}

// print prints the statistics.
func (s *Stats) print(out *console) {
	out.printf("%s processed, %s skipped, %s\n", count(s.Processed), count(s.Skipped), some(s.Errors, "error"))
	var rows [][]any
	for _, c := range s.Columns {
		rows = append(rows, []any{c.Name, count(c.Empty), c.kind(), c.content()})
	}
	if rows != nil {
		out.table([]any{"column", "empty", "holds", "values"}, rows)
	}
}

// kind says what a column holds.
func (c *Column) kind() string {
	switch {
	case c.Numbers > 0 && c.Texts > 0:
		return some(c.Texts, "text") + ", " + some(c.Numbers, "number")
	case c.Numbers > 0:
		return some(c.Numbers, "number")
	default:
		return some(c.Texts, "text")
	}
}

// content tells the most useful of what is known of a column.
func (c *Column) content() string {
	var facts []string
	if c.Numbers > 0 && c.Texts == 0 {
		mean := new(big.Rat).Quo(c.Sum, new(big.Rat).SetInt64(c.Numbers))
		facts = append(facts, fmt.Sprintf("%s to %s, mean %s, sum %s", decimal(c.Least), decimal(c.Greatest), mean.FloatString(3),
			decimal(c.Sum)))
	}
	switch {
	case c.Texts > 0 && c.Tally == nil:
		facts = append(facts, fmt.Sprintf("%s to %s, up to %d characters", short(*c.First), short(*c.Last), c.Longest))
	case len(c.Tally) > 0:
		values := slices.SortedFunc(maps.Keys(c.Tally), func(a, b string) int {
			return cmp.Or(cmp.Compare(c.Tally[b], c.Tally[a]), cmp.Compare(a, b))
		})
		most := fmt.Sprintf("%d different:", len(values))
		for _, value := range values[:min(3, len(values))] {
			most += fmt.Sprintf(" %s %s×", short(value), count(c.Tally[value]))
		}
		facts = append(facts, most)
	}
	return strings.Join(facts, "; ")
}

var english = message.NewPrinter(language.English)

// count writes a number with separators.
func count(n int64) string { return english.Sprintf("%d", n) }

// some writes how many there are of what the noun names.
func some(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return count(n) + " " + noun
}

// size writes a number of bytes in a unit that leaves something in front of the point.
func size(bytes int64) string {
	switch {
	case bytes < 1e3:
		return some(bytes, "byte")
	case bytes < 1e6:
		return fmt.Sprintf("%.1f kB", float64(bytes)/1e3)
	default:
		return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
	}
}

// decimal writes a fraction of which a decimal number was made, with all its digits.
func decimal(r *big.Rat) string {
	if r == nil {
		return ""
	}
	digits, _ := r.FloatPrec()
	return r.FloatString(digits)
}

// text returns what s points to, or "".
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// short quotes a text and cuts a long one.
func short(s string) string {
	const most = 24
	if runes := []rune(s); len(runes) > most {
		return strconv.Quote(string(runes[:most])) + "…"
	}
	return strconv.Quote(s)
}

// peakMemory returns the most memory in MiB that this process has had: resident where the system is Linux, else what Go took from it.
func peakMemory() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kib), "kB")), 64)
			if err == nil {
				return n / 1024
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}
