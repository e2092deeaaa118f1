package main

import (
	"strings"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

func TestBuckets(t *testing.T) {
	h := hdr.New(1, int64(longest), 3)
	for _, d := range []time.Duration{
		300, 15 * time.Microsecond, 15 * time.Microsecond, 49 * time.Microsecond, 3 * time.Millisecond,
		2 * time.Second, 50 * time.Minute,
	} {
		if err := h.RecordValue(int64(d)); err != nil {
			t.Fatal(err)
		}
	}
	got := map[float64]int64{}
	sum := int64(0)
	all := buckets(h)
	for _, b := range all {
		got[b.UpTo] = b.Calls
		sum += b.Calls
	}
	if sum != h.TotalCount() {
		t.Errorf("the buckets have %d of %d calls", sum, h.TotalCount())
	}
	for upTo, calls := range map[float64]int64{0.001: 1, 0.01: 0, 0.02: 2, 0.05: 1, 5: 1, 2000: 1, 5_000_000: 1} {
		if got[upTo] != calls {
			t.Errorf("up to %v ms there are %d, want %d: %v", upTo, got[upTo], calls, all)
		}
	}
}

func TestHistogram(t *testing.T) {
	for share, want := range map[float64]string{0: "    ", 0.5: "██  ", 1: "████", 1.0 / 32: "▏   ", 7.0 / 32: "▉   "} {
		if got := drawBar(share, 4); got != want {
			t.Errorf("%v is drawn as %q, want %q", share, got, want)
		}
	}
	r := benchReport{Adapters: []benchFigure{
		{Adapter: "a", Calls: 4, Histogram: []bucket{{0.001, 1}, {0.002, 3}}},
		{Adapter: "b", Refused: "it is not there"},
	}}
	var b strings.Builder
	r.histogram(&b)
	if text := b.String(); !strings.Contains(text, "up to 1µs    25.0 % █████\n") ||
		!strings.Contains(text, "up to 2µs    75.0 % ███████████████\n") {
		t.Errorf("drew %s", text)
	}
}
