package main

import (
	"math"
	"testing"
)

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		item           map[string]any
		current, total int64
		ok             bool
	}{
		{map[string]any{"progress": int64(3), "total": int64(8)}, 3, 8, true},
		{map[string]any{"processed_rows": int64(100), "total_rows": int64(1000), "progress_percent": 10.0}, 100, 1000, true},
		{map[string]any{"progress_percent": 12.5}, 1250, 10000, true},
		{map[string]any{"progress": int64(40)}, 4000, 10000, true},
		{map[string]any{"progress": int64(9), "total": int64(8)}, 8, 8, true},
		{map[string]any{"progress": int64(9), "total": int64(0)}, 900, 10000, true},
		{map[string]any{"progress_percent": 101.0}, 10000, 10000, true},
		{map[string]any{"progress": int64(-1), "total": int64(8)}, 0, 0, false},
		{map[string]any{"progress": math.NaN()}, 0, 0, false},
		{map[string]any{"progress": "half"}, 0, 0, false},
		{nil, 0, 0, false},
	} {
		current, total, ok := progress(c.item)
		if current != c.current || total != c.total || ok != c.ok {
			t.Errorf("%v: %d of %d, %t", c.item, current, total, ok)
		}
	}
	if _, _, ok := progress("text"); ok {
		t.Error("a text says how far it is")
	}
}
