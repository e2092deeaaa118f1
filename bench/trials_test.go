package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// answers are the expected outcomes of the trials, in their order.
var answers = map[string]string{
	"lines":             "no no no yes yes yes",
	"http":              "yes no no yes yes no",
	"grpc":              "yes no no yes yes no",
	"library/grpc":      "yes yes yes yes yes yes",
	"library/msgpack":   "yes yes yes yes yes yes",
	"library/jsonstdio": "yes yes yes yes yes yes",
}

// TestWays tries each property on each way.
func TestWays(t *testing.T) {
	python, err := program.Command()
	if err != nil {
		t.Fatal(err)
	}
	for way, words := range answers {
		for i, want := range strings.Fields(words) {
			t.Run(way+"/"+trials[i].name, func(t *testing.T) {
				t.Parallel()
				a, err := trials[i].run(python.Path, way, leastBytes)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(a)
				if a.yes != (want == "yes") {
					t.Errorf("%v; want %s", a, want)
				}
			})
		}
	}
}

// TestWaysInReadme compares the table in README.md with the outcomes that TestWays requires.
func TestWaysInReadme(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	for i, trial := range trials {
		want := "| " + trial.name
		for _, c := range wayColumns {
			want += " | " + strings.Fields(answers[c.name])[i]
		}
		var got string
		for line := range strings.Lines(string(text)) {
			if cells := strings.Split(strings.Trim(line, "|\n"), "|"); len(cells) == len(wayColumns)+1 &&
				strings.TrimSpace(cells[0]) == trial.name {
				for _, cell := range cells {
					word, _, _ := strings.Cut(strings.TrimSpace(cell), ":")
					got += " | " + word
				}
			}
		}
		if got = strings.TrimPrefix(got, " "); got != want {
			t.Errorf("the row is %q; want %q", got, want)
		}
	}
}

// TestStreamingTable checks the parts that do not depend on speed.
func TestStreamingTable(t *testing.T) {
	var out bytes.Buffer
	if err := runBench([]string{"-quick", "-table", "streaming", "-json"}, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	rows := r.Tables[0].Rows
	if len(rows) != 7 {
		t.Fatalf("%d rows: %v", len(rows), rows)
	}
	for i, row := range rows {
		if len(row) != 7 {
			t.Errorf("row %d has %d cells: %v", i, len(row), row)
		}
	}
	for _, want := range []string{
		"results that came before the work ended|0|9|0|9|0|9",
		"item 5 raises: results that come|0 of 9|9 of 9|0 of 9|9 of 9|0 of 9|9 of 9",
	} {
		found := false
		for _, row := range rows {
			found = found || strings.Join(row, "|") == want
		}
		if !found {
			t.Errorf("no row %q in %v", want, rows)
		}
	}
}

func TestSmallCall(t *testing.T) {
	b, err := newBed()
	if err != nil {
		t.Fatal(err)
	}
	took, err := smallCall.rounds(b, quick, 1)
	if err != nil {
		t.Error(err)
	}
	for _, s := range smallCall.subjects {
		if len(took[s.name]) != 1 || took[s.name][0] <= 0 {
			t.Errorf("%s: %v", s.name, took[s.name])
		}
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func TestUpdate(t *testing.T) {
	one := table{Name: "one", Header: []string{"", "a"}, Rows: [][]string{{"b", "c|d"}}}
	text := []byte("above\n<!-- table one -->\nold\n<!-- end of table one -->\nbelow\n")
	want := "above\n<!-- table one -->\n\nToday.\n\n|  | a |\n| --- | --- |\n| b | c\\|d |\n\n" +
		"<!-- end of table one -->\nbelow\n"
	for range 2 { // the second time changes nothing
		var err error
		if text, err = update(text, "Today.", []table{one}); err != nil || string(text) != want {
			t.Fatalf("%v:\n%s", err, text)
		}
	}
	if _, err := update([]byte("<!-- table one -->\n"), "", []table{one}); err == nil {
		t.Error("no error without the second marker")
	}
	if _, err := placed([]string{"streaming", "peers"}); err != nil {
		t.Error(err)
	}
}
