package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// benchReport is the output of bench. Times are in milliseconds.
type benchReport struct {
	Worker      string        `json:"worker"`
	Command     string        `json:"command"`
	Stream      bool          `json:"stream"`
	Seconds     float64       `json:"seconds"` // requested, per adapter
	Concurrency int           `json:"concurrency"`
	Workers     int           `json:"workers"`
	Adapters    []benchFigure `json:"adapters"`
}

// benchFigure holds the figures of one adapter.
type benchFigure struct {
	Adapter        string   `json:"adapter"`
	Refused        string   `json:"refused,omitempty"` // the reason why it was not measured
	Calls          int64    `json:"calls"`
	CallsPerSecond float64  `json:"calls_per_second"`
	Items          int64    `json:"items,omitempty"`
	ItemsPerSecond float64  `json:"items_per_second,omitempty"`
	Latency        *spread  `json:"latency_ms,omitempty"`
	FirstItem      *spread  `json:"first_item_ms,omitempty"`
	Histogram      []bucket `json:"histogram,omitempty"`
}

// spread describes a distribution.
type spread struct {
	Min  float64 `json:"min"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// bucket is a bar of the histogram. It counts the calls that took at most this long and longer than the
// previous bucket.
type bucket struct {
	UpTo  float64 `json:"up_to_ms"`
	Calls int64   `json:"calls"`
}

func (b *bench) report(lanes []*lane, args []string, stream bool) benchReport {
	r := benchReport{
		Worker: args[0], Command: args[1], Stream: stream, Seconds: b.duration.Seconds(),
		Concurrency: b.concurrency, Workers: b.workers,
	}
	for _, l := range lanes {
		f := benchFigure{Adapter: l.name}
		if l.refused != nil {
			f.Refused, _ = explain(l.refused)
			r.Adapters = append(r.Adapters, f)
			continue
		}
		f.Calls, f.Items = l.latency.TotalCount(), l.items
		f.CallsPerSecond, f.ItemsPerSecond = float64(f.Calls)/l.took.Seconds(), float64(f.Items)/l.took.Seconds()
		f.Latency, f.Histogram = spreadOf(l.latency), buckets(l.latency)
		if l.first.TotalCount() > 0 {
			f.FirstItem = spreadOf(l.first)
		}
		r.Adapters = append(r.Adapters, f)
	}
	return r
}

func spreadOf(h *hdr.Histogram) *spread {
	at := func(percent float64) float64 { return milliseconds(time.Duration(h.ValueAtQuantile(percent))) }
	return &spread{
		milliseconds(time.Duration(h.Min())), at(50), at(90), at(99), at(99.9), milliseconds(time.Duration(h.Max())),
		milliseconds(time.Duration(h.Mean())),
	}
}

// bounds yields the upper limits of the buckets: 1, 2 and 5 of each power of ten, from one microsecond.
func bounds(yield func(upTo time.Duration) bool) {
	for decade := time.Microsecond; decade <= longest; decade *= 10 {
		for _, step := range []time.Duration{1, 2, 5} {
			if !yield(step * decade) {
				return
			}
		}
	}
}

// buckets counts the calls from the first non-empty bucket to the last.
func buckets(h *hdr.Histogram) []bucket {
	var all []bucket
	counts := h.Distribution()
	for upTo := range bounds {
		b := bucket{UpTo: milliseconds(upTo)}
		for len(counts) > 0 && counts[0].From <= int64(upTo) {
			b.Calls += counts[0].Count
			counts = counts[1:]
		}
		if b.Calls > 0 || len(all) > 0 {
			all = append(all, b)
		}
	}
	for len(all) > 0 && all[len(all)-1].Calls == 0 {
		all = all[:len(all)-1]
	}
	return all
}

func (r benchReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s: %s at once, %s, %s on each adapter\n\n", r.Command, r.Worker,
		some(r.Concurrency, "call"), some(r.Workers, "worker"),
		time.Duration(r.Seconds*float64(time.Second)))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") }
	header := []string{"adapter", "calls", "calls/s", "p50", "p90", "p99", "p99.9", "max"}
	if r.Stream {
		header = append(header, "first item", "items/s")
	}
	row(header...)
	for _, f := range r.Adapters {
		if f.Latency == nil {
			continue
		}
		l := f.Latency
		cells := []string{f.Adapter, fmt.Sprint(f.Calls), rate(f.CallsPerSecond), ms(l.P50), ms(l.P90), ms(l.P99),
			ms(l.P999), ms(l.Max)}
		if r.Stream {
			first := "-"
			if f.FirstItem != nil {
				first = ms(f.FirstItem.P50)
			}
			cells = append(cells, first, rate(f.ItemsPerSecond))
		}
		row(cells...)
	}
	_ = w.Flush() // a strings.Builder never fails
	for _, f := range r.Adapters {
		if f.Latency == nil {
			fmt.Fprintf(&b, "%s was refused: %s\n", f.Adapter, f.Refused)
		}
	}
	r.histogram(&b)
	return b.String()
}

// histogram draws the distribution of the calls, one column per adapter.
func (r benchReport) histogram(b *strings.Builder) {
	const width = 20
	var least, most float64
	for _, f := range r.Adapters {
		if n := len(f.Histogram); n > 0 {
			if least == 0 || f.Histogram[0].UpTo < least {
				least = f.Histogram[0].UpTo
			}
			most = max(most, f.Histogram[n-1].UpTo)
		}
	}
	line := fmt.Sprintf("\n%14s", "a call takes")
	for _, f := range r.Adapters {
		if f.Histogram != nil {
			line += fmt.Sprintf("   %-*s", width+8, f.Adapter)
		}
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	for bound := range bounds {
		upTo := milliseconds(bound)
		if upTo < least || upTo > most {
			continue
		}
		line := fmt.Sprintf("%14s", "up to "+ms(upTo))
		for _, f := range r.Adapters {
			if f.Histogram == nil {
				continue
			}
			share := 0.0
			for _, bucket := range f.Histogram {
				if bucket.UpTo == upTo {
					share = float64(bucket.Calls) / float64(f.Calls)
				}
			}
			percent := ""
			if share > 0 {
				percent = fmt.Sprintf("%.1f %%", 100*share)
			}
			line += fmt.Sprintf("   %7s %s", percent, drawBar(share, width))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// drawBar draws a share in eighths of a character.
func drawBar(share float64, width int) string {
	eighths := int(share*float64(width)*8 + 0.5)
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text + strings.Repeat(" ", width-len([]rune(text)))
}

// ms formats milliseconds with a suitable unit.
func ms(n float64) string { return rounded(time.Duration(n * float64(time.Millisecond))).String() }

func rate(n float64) string {
	if n < 100 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

func some(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
