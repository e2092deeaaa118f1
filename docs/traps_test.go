//go:build unix

package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/internal/testnames"
)

// Each line of the tables of traps.md says where its trap was met and names a test, and the tests exist.
func TestTraps(t *testing.T) {
	there, err := testnames.In(".")
	if err != nil {
		t.Fatal(err)
	}
	clauseOrTest := regexp.MustCompile(`^(?:suite: (?:adapter|worker|pool)/[\w-]+/[\w-]+|` + // a clause
		`[\w/]+\.(?:Test|Fuzz)\w+(?:/[\w*/]+)?|test_\w+\.py::test_\w+)$`) // a test in Go, and one in Python
	sections, traps := 0, 0
	for _, section := range strings.Split(readPage(t, filepath.Join("docs", "traps.md")), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		sections++
		_, rows, ok := strings.Cut(text, "| trap | met in | test |\n| --- | --- | --- |\n")
		if !ok || rows == "" {
			t.Errorf("%s has no table", title)
		}
		for row := range strings.Lines(strings.TrimSpace(rows)) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), " | ")
			if len(cells) != 3 || strings.TrimSpace(cells[0]) == "" || strings.TrimSpace(cells[1]) == "" {
				t.Errorf("%s: the line is not trap, place and test: %s", title, row)
				continue
			}
			traps++
			tests := inline.FindAllString(cells[2], -1)
			if len(tests) == 0 {
				t.Errorf("%s: no test: %s", title, cells[0])
			}
			for _, name := range tests {
				name = strings.Trim(name, "`")
				if !clauseOrTest.MatchString(name) || !there.Has(strings.TrimPrefix(name, "suite: ")) {
					t.Errorf("%s: there is no %s", title, name)
				}
			}
		}
	}
	if sections != 12 || traps < 90 {
		t.Errorf("%d sections with %d traps", sections, traps)
	}
}
