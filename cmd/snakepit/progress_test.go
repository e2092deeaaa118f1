package main

import (
	"math"
	"testing"
)

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		item  map[string]any
		share float64
		ok    bool
	}{
		{map[string]any{"progress": int64(3), "total": int64(8)}, 0.375, true},
		{map[string]any{"progress": 0.25, "total": 0.5}, 0.5, true},
		{map[string]any{"progress": 0.25, "total": int64(1)}, 0.25, true},
		{map[string]any{"progress": 1e300, "total": 2e300}, 0.5, true},
		{map[string]any{"progress": uint64(1 << 63), "total": uint64(1 << 63)}, 1, true},
		{map[string]any{"processed_rows": int64(100), "total_rows": int64(1000), "progress_percent": 20.0}, 0.1, true},
		{map[string]any{"progress_percent": 12.5}, 0.125, true},
		{map[string]any{"progress": int64(40)}, 0.4, true},
		{map[string]any{"progress": int64(9), "total": int64(8)}, 1, true},
		{map[string]any{"progress": int64(9), "total": int64(0)}, 0.09, true},
		{map[string]any{"progress": int64(9), "total": math.Inf(1)}, 0.09, true},
		{map[string]any{"progress_percent": 101.0}, 1, true},
		{map[string]any{"progress": int64(-1), "total": int64(8)}, 0, false},
		{map[string]any{"progress": math.NaN()}, 0, false},
		{map[string]any{"progress": math.Inf(1), "total": math.Inf(1)}, 0, false},
		{map[string]any{"progress": "half"}, 0, false},
		{nil, 0, false},
	} {
		if share, ok := progress(c.item); share != c.share || ok != c.ok {
			t.Errorf("%v: %v, %t", c.item, share, ok)
		}
	}
	if _, ok := progress("text"); ok {
		t.Error("a text says how far it is")
	}
}
