package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCharts(t *testing.T) {
	r := report{
		Rows: []rowReport{{Key: "call", Name: "a call", Unit: "µs", Subjects: []subjectReport{
			{Name: "msgpack", Figures: map[mode]*figure{pinned: {Median: 20}, free: {Median: 40}}},
			{Name: "Ray actor", Figures: map[mode]*figure{free: {Median: 700}}},
		}}},
		Series: []seriesReport{{Key: "callers", Points: []int{1, 100}, Lines: []line{{"grpc", []float64{1, 2}}}}},
		Soak:   &soakReport{Points: []soakPoint{{1, 10, 60, 90, 30}, {60, 11, 61, 90, 30}}},
	}
	directory := t.TempDir()
	if err := r.draw(directory); err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]string{
		"call": {"msgpack", "Ray actor", "one processor"}, "by-callers": {"grpc"}, "soak": {"six workers"},
	} {
		for _, theme := range []string{"light", "dark"} {
			text, err := os.ReadFile(filepath.Join(directory, name+"-"+theme+".svg"))
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range words {
				if !strings.Contains(string(text), ">"+word+"<") {
					t.Errorf("%s-%s.svg does not say %q", name, theme, word)
				}
			}
		}
	}
}
