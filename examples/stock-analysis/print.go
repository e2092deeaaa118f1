package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// console prints the items of all streams. On a terminal it shows a bar for each share below.
type console struct {
	screen io.Writer
	out    io.Writer     // the screen, or the writer above the bars
	bars   *mpb.Progress // nil if there are none
	market []*progress   // in the order of the symbols

	mu sync.Mutex
}

// progress is the progress of a share.
type progress struct {
	share
	bar   *mpb.Bar
	seen  int
	today string
	done  string // from its stream's summary
}

func newConsole(out io.Writer, market []share) *console {
	c := &console{screen: out, out: out}
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			c.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
			c.out = c.bars
		}
	}
	for _, s := range market {
		p := &progress{share: s}
		if c.bars != nil {
			p.bar = c.bars.AddBar(int64(s.Days), mpb.PrependDecorators(decor.Name(s.Symbol, decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.CountersNoUnit("%d of %d days")))
		}
		c.market = append(c.market, p)
	}
	return c
}

func (c *console) progress(symbol string) *progress {
	for _, p := range c.market {
		if p.Symbol == symbol {
			return p
		}
	}
	return &progress{} // of no requested symbol
}

// chunk prints a day of a share.
func (c *console) chunk(day Chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rsi := "-"
	if day.RSI != nil {
		rsi = fmt.Sprintf("%.1f", *day.RSI)
	}
	emoji, verdict := "⚪", "HOLD"
	switch day.TradingSignal {
	case "BUY":
		emoji, verdict = "🟢", "BUY signal"
	case "SELL":
		emoji, verdict = "🔴", "SELL signal"
	}
	text := fmt.Sprintf("%s %s: $%.2f - %s (RSI: %s)\n", emoji, day.Symbol, day.Price, verdict, rsi)
	if len(day.Alerts) > 0 {
		text += fmt.Sprintf("   ⚡ %s: %s%s\n", day.Date, strings.Join(day.Alerts, ", "), trend(day))
	}
	fmt.Fprint(c.out, text)
	p := c.progress(day.Symbol)
	p.seen, p.today = p.seen+1, day.Date
	if p.bar != nil {
		p.bar.Increment()
	}
}

// trend returns the other indicators that are present.
func trend(day Chunk) string {
	var text strings.Builder
	for _, indicator := range []struct {
		name  string
		value *float64
	}{{"MACD", day.MACD}, {"its signal", day.MACDSignal}, {"SMA_20", day.SMA20}, {"SMA_50", day.SMA50}} {
		if indicator.value != nil {
			fmt.Fprintf(&text, "; %s %.2f", indicator.name, *indicator.value)
		}
	}
	return text.String()
}

// done records the summary of a stream.
func (c *console) done(s Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for symbol, found := range s.Symbols {
		c.progress(symbol).done = fmt.Sprintf("BUY on %d, SELL on %d, alerts on %d", found.Signals["BUY"],
			found.Signals["SELL"], found.Alerts)
	}
}

// end prints the totals, or the progress of each share.
func (c *console) end() {
	if c.bars != nil {
		for _, p := range c.market {
			p.bar.Abort(false) // this does nothing to a complete bar
		}
		c.bars.Wait()
		c.out = c.screen
	}
	fmt.Fprintln(c.out, "📊 Market session ended")
	for _, p := range c.market {
		switch {
		case p.done != "":
			fmt.Fprintf(c.out, "   %s: %s from %s to %s; %s\n", p.Symbol, days(p.Days), p.First, p.Last, p.done)
		case p.seen > 0:
			fmt.Fprintf(c.out, "   %s: %d of %s, to %s\n", p.Symbol, p.seen, days(p.Days), p.today)
		default:
			fmt.Fprintf(c.out, "   %s: none of %s\n", p.Symbol, days(p.Days))
		}
	}
}

// days formats a number of days.
func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprint(n, " days")
}
