package main

import (
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
				v, err := trials[i].run(python.Path, way, leastBytes)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(v)
				if v.yes != (want == "yes") {
					t.Errorf("%v; want %s", v, want)
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
