package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// screen prints everything, from any number of goroutines. On a terminal it shows a bar below for the work in progress.
type screen struct {
	terminal io.Writer // nil if there is no terminal

	mu  sync.Mutex
	out io.Writer // the terminal, or the writer above the bar
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			s.terminal = out
		}
	}
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *screen) to(out io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

func (s *screen) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }

// green returns text in green on a terminal.
func (s *screen) green(text string) string {
	if s.terminal == nil || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[32m" + text + "\x1b[0m"
}

// table prints rows in columns.
func (s *screen) table(rows [][]string) {
	w := tabwriter.NewWriter(s, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// progress adds up the progress of a run's calls and shows it: as a bar on a terminal, otherwise as a line every 10 %.
type progress struct {
	out     *screen
	bars    *mpb.Progress // nil if out is no terminal
	bar     *mpb.Bar
	title   string
	total   int64 // rows
	started time.Time

	mu     sync.Mutex
	rows   map[int]int64   // of each range
	memory map[int]float64 // of each worker
	tenths int64           // of the work, as last printed
}

func (s *screen) progress(title string, total int64) *progress {
	p := &progress{out: s, title: title, total: total, started: time.Now(), rows: map[int]int64{},
		memory: map[int]float64{0: 0}}
	if s.terminal != nil {
		p.bars = mpb.New(mpb.WithOutput(s.terminal), mpb.WithWidth(30))
		s.to(p.bars)
		p.bar = p.bars.AddBar(total, mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.line() })))
	}
	return p
}

// update records a chunk of a range and returns the finished share of all rows. A zero Chunk restarts a range.
func (p *progress) update(i int, c Chunk) float64 {
	p.mu.Lock()
	p.rows[i] = c.ProcessedRows
	p.memory[c.WorkerPID] = c.MemoryUsageMB
	rows := p.done()
	tenths, printed := rows*10/max(1, p.total), p.tenths
	p.tenths = max(tenths, printed)
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.SetCurrent(rows)
	} else if tenths > printed {
		p.out.printf("%s\n", p.line())
	}
	return float64(rows) / float64(max(1, p.total))
}

func (p *progress) done() (rows int64) {
	for _, n := range p.rows {
		rows += n
	}
	return rows
}

func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows, memory := p.done(), slices.Max(slices.Collect(maps.Values(p.memory)))
	perSecond := int64(float64(rows) / time.Since(p.started).Seconds())
	return fmt.Sprintf("%s %3d %%, %s of %s, %s/s, %.0f MiB", p.title, 100*rows/max(1, p.total), count(rows),
		some(p.total, "row"),
		some(perSecond, "row"), memory)
}

// end leaves the bar on the screen as it is.
func (p *progress) end() {
	if p.bars != nil {
		p.bar.Abort(false) // this does nothing to a full bar
		p.bars.Wait()
		p.out.to(p.out.terminal)
	}
}

var english = message.NewPrinter(language.English)

// count formats a number with separators.
func count(n int64) string { return english.Sprintf("%d", n) }

// some formats a number with its noun.
func some(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return count(n) + " " + noun
}
