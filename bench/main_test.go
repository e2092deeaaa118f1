package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		if err := runChild(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestQuick checks that every row can be measured. Speed does not matter in a test.
func TestQuick(t *testing.T) {
	var out bytes.Buffer
	if err := runBench([]string{"-quick", "-json"}, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(rows) {
		t.Fatalf("%d rows instead of %d", len(r.Rows), len(rows))
	}
	for i, row := range r.Rows {
		if len(row.Figures) != len(rows[i].subjects) {
			t.Errorf("%s: %d figures instead of %d", row.Name, len(row.Figures), len(rows[i].subjects))
		}
		for _, f := range row.Figures {
			if f.Median <= 0 || f.Against != "" && f.Ratio <= 0 {
				t.Errorf("%s: %+v", row.Name, f)
			}
		}
	}
	if len(r.Memory) != 3 {
		t.Fatalf("the memory of %d adapters instead of 3", len(r.Memory))
	}
	for _, g := range r.Memory {
		if g.Streamed != 16 || g.HostIdle <= 0 || g.WorkerIdle <= 0 || g.Slower < 9 {
			t.Errorf("memory: %+v", g)
		}
	}
}

func TestAgainst(t *testing.T) {
	for _, row := range rows {
		known := map[string]bool{}
		for _, s := range row.subjects {
			if known[s.name] || s.against != "" && !known[s.against] {
				t.Errorf("%s: %s, against %q: its name is not unique, or its comparison does not come "+
					"before it", row.name, s.name, s.against)
			}
			known[s.name] = true
		}
	}
}

func TestNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-memory", "-1"}, {"-rows", "("}, {"extra"}, {"-quick", "-rows", "no such row"},
		{"-table", "nothing"}, {"-table", "peers,peers"}, {"-table", "peers", "-rows", "unary"}, {"-update"},
		{"-table", "peers", "-update", "-quick"},
	} {
		if err := runBench(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
