package main

import (
	"io"
	"math"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bar shows the progress of a stream on standard error if that is a terminal. As a writer it is standard
// output. If standard output is the same terminal, its text goes above the bar.
type bar struct {
	title  string
	stdout io.Writer
	stderr *console // nil: standard error is no terminal

	bars *mpb.Progress // nil until the first item with progress
	line *mpb.Bar

	complete bool
}

func newBar(cmd *cobra.Command, title string) *bar {
	b := &bar{title: title, stdout: cmd.OutOrStdout()}
	if stderr, ok := cmd.ErrOrStderr().(*console); ok && isTerminal(stderr) {
		b.stderr = stderr
	}
	return b
}

func (b *bar) Write(p []byte) (int, error) {
	if b.bars != nil && isTerminal(b.stdout) {
		if n, err := b.bars.Write(p); err == nil {
			return n, nil
		}
	}
	return b.stdout.Write(p) // also when the bar has just ended
}

// show draws the progress that an item reports.
func (b *bar) show(item any) {
	share, ok := progress(item)
	if b.stderr == nil || !ok {
		return
	}
	if b.bars == nil {
		b.bars = mpb.New(mpb.WithOutput(b.stderr.out), mpb.WithAutoRefresh())
		// With a total of 0 the bar is not complete before end. Text cannot be written above a complete bar.
		b.line = b.bars.AddBar(0,
			mpb.PrependDecorators(decor.Name(lineStart+b.title+" ")),
			mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace),
				decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), "")))
		b.stderr.above(b.bars)
	}
	b.complete = share == 1
	b.line.SetTotal(whole, false)
	b.line.SetCurrent(int64(share * whole))
}

// end leaves the bar on the screen as it is.
func (b *bar) end() {
	if b.bars == nil {
		return
	}
	b.stderr.lineStart()
	if b.complete {
		b.line.SetTotal(-1, true)
	} else {
		b.line.Abort(false)
	}
	b.bars.Wait()
	b.stderr.above(nil)
	b.bars = nil
}

// whole is the bar's resolution: percent with two decimals.
const whole = 100 * 100

// fields are the pairs of fields that report progress. Without a total the value is a percentage.
var fields = []struct{ current, total string }{
	{"progress", "total"}, {"processed_rows", "total_rows"}, {"progress_percent", ""}, {"progress", ""},
}

// progress reads the stream's progress, from 0 to 1, from the fields of an item.
func progress(item any) (share float64, ok bool) {
	m, _ := item.(map[string]any)
	for _, f := range fields {
		c, isNumber := number(m[f.current])
		if !isNumber || c < 0 {
			continue
		}
		if f.total == "" {
			return min(c, 100) / 100, true
		}
		if t, isNumber := number(m[f.total]); isNumber && t > 0 {
			return min(c, t) / t, true
		}
	}
	return 0, false
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	}
	return 0, false
}
