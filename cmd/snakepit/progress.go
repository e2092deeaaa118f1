package main

import (
	"io"
	"math"
	"sync"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressBar draws one bar on standard error if that is a terminal. Elsewhere it draws nothing. As a writer it is
// standard output. If standard output is the same terminal, its text goes above the bar.
type progressBar struct {
	stdout io.Writer
	stderr *console // nil: standard error is not a terminal
	eta    bool     // show the estimated time left

	container *mpb.Progress // nil until the first show
	bar       *mpb.Bar
	share     float64

	mu    sync.Mutex // guards title
	title string
}

func newProgressBar(cmd *cobra.Command, eta bool) *progressBar {
	p := &progressBar{stdout: cmd.OutOrStdout(), eta: eta}
	if stderr, ok := cmd.ErrOrStderr().(*console); ok && isTerminal(stderr) {
		p.stderr = stderr
	}
	return p
}

func (p *progressBar) Write(text []byte) (int, error) {
	if p.container != nil && isTerminal(p.stdout) {
		if n, err := p.container.Write(text); err == nil {
			return n, nil
		}
	}
	return p.stdout.Write(text) // also when the bar has just ended
}

// show draws the bar with a title and a share from 0 to 1.
func (p *progressBar) show(title string, share float64) {
	if p.stderr == nil {
		return
	}
	p.mu.Lock()
	p.title = title
	p.mu.Unlock()
	if p.container == nil {
		p.draw()
	}
	p.share = share
	p.bar.SetTotal(whole, false)
	p.bar.SetCurrent(int64(share * whole))
}

// draw draws the bar for the first time.
func (p *progressBar) draw() {
	titled := decor.Any(func(decor.Statistics) string {
		p.mu.Lock()
		defer p.mu.Unlock()
		return lineStart + p.title + " "
	})
	right := []decor.Decorator{decor.Percentage(decor.WCSyncSpace)}
	if p.eta {
		right = append(right, decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), ""))
	}
	p.container = mpb.New(mpb.WithOutput(p.stderr.out), mpb.WithAutoRefresh())
	// With a total of 0 the bar is not complete before end. Text cannot be written above a complete bar.
	p.bar = p.container.AddBar(0, mpb.PrependDecorators(titled), mpb.AppendDecorators(right...))
	p.stderr.above(p.container)
}

// end ends the bar. It leaves the bar on the screen as it is, or removes it.
func (p *progressBar) end(keep bool) {
	if p.container == nil {
		return
	}
	p.stderr.lineStart()
	if keep && p.share == 1 {
		p.bar.SetTotal(-1, true)
	} else {
		p.bar.Abort(!keep)
	}
	p.container.Wait()
	p.stderr.above(nil)
	p.container = nil
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
