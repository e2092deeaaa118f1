//go:build unix

package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	inline    = regexp.MustCompile("`[^`\n]*`")
	anyFence  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	mapped    = regexp.MustCompile(`\[(Test\w+)\]\(([^)]+)\)`)
	htmlID    = regexp.MustCompile(`<a (?:id|name)="([^"]+)">`)
	atxHeader = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
)

// slugOf returns GitHub's anchor for a heading: lower case, no punctuation, hyphens for spaces.
func slugOf(heading string) string {
	heading = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

// anchors returns the anchors of a page.
func anchors(page string) map[string]bool {
	page = anyFence.ReplaceAllString(page, "")
	found := map[string]bool{}
	for _, m := range htmlID.FindAllStringSubmatch(page, -1) {
		found[m[1]] = true
	}
	for _, m := range atxHeader.FindAllStringSubmatch(page, -1) {
		slug := slugOf(m[1])
		for n := 1; found[slug]; n++ {
			slug = fmt.Sprintf("%s-%d", slugOf(m[1]), n)
		}
		found[slug] = true
	}
	return found
}

// markdown lists the pages of this repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var pages []string
	files := run(t, ".", nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md")
	for _, name := range strings.Split(files, "\x00") {
		if _, err := os.Stat(name); name != "" && err == nil {
			pages = append(pages, name)
		}
	}
	if len(pages) < 10 {
		t.Fatalf("found only %q", pages)
	}
	return pages
}

// Every link within the repository leads to an existing file and, after a #, to one of its headings. External links are
// not checked.
func TestLinks(t *testing.T) {
	const own = "https://github.com/snakepit-go/snakepit/blob/main/"
	known := map[string]map[string]bool{}
	anchorsOf := func(path string) map[string]bool {
		if known[path] == nil {
			known[path] = anchors(readPage(t, path))
		}
		return known[path]
	}
	for _, name := range markdown(t) {
		page := readPage(t, name)
		text := inline.ReplaceAllString(anyFence.ReplaceAllString(page, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, base := m[1], filepath.Dir(name)
			if rest, ok := strings.CutPrefix(target, own); ok {
				target, base = rest, "."
			}
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			to := name
			if path != "" {
				to = filepath.Join(base, path)
			}
			info, err := os.Stat(to)
			switch {
			case err != nil:
				t.Errorf("%s links %s, which is not there", name, m[1])
			case anchor != "" && (info.IsDir() || filepath.Ext(to) != ".md"):
				t.Errorf("%s links %s, which has no headings", name, m[1])
			case anchor != "" && !anchorsOf(to)[anchor]:
				t.Errorf("%s links %s, and %s has no such heading", name, m[1], to)
			}
		}
	}
}

func TestSlugs(t *testing.T) {
	for heading, want := range map[string]string{
		"Go functions that Python calls":           "go-functions-that-python-calls",
		"Cancellation, and how things end":         "cancellation-and-how-things-end",
		"`protocol degraded` in the log":           "protocol-degraded-in-the-log",
		"From `exec.Command` with JSON lines":      "from-execcommand-with-json-lines",
		"[v0.1.0](https://example.org) - Größe_1?": "v010---größe_1",
	} {
		if got := slugOf(heading); got != want {
			t.Errorf("%q becomes %q, not %q", heading, got, want)
		}
	}
	page := "# A b\n## A b\n```sh\n# no heading\n```\n<a id=\"here\"></a>\n"
	for anchor, want := range map[string]bool{
		"a-b": true, "a-b-1": true, "a-b-2": false, "no-heading": false, "here": true,
	} {
		if anchors(page)[anchor] != want {
			t.Errorf("%s: %v", anchor, !want)
		}
	}
}

// The lines of the guide map are numbered without a gap. Each names a place here and a test, and the linked file
// contains the test.
func TestGuideMap(t *testing.T) {
	n := 0
	for line := range strings.Lines(readPage(t, filepath.Join("docs", "guide-map.md"))) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) < 4 || strings.TrimSpace(cells[0]) == "no." ||
			strings.HasPrefix(line, "| ---") {
			continue
		}
		n++
		if strings.TrimSpace(cells[0]) != fmt.Sprint(n) {
			t.Errorf("line %d has the number %s", n, cells[0])
		}
		if !link.MatchString(cells[2]) {
			t.Errorf("line %d has no place: %s", n, line)
		}
		tests := mapped.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			t.Errorf("line %d has no test: %s", n, line)
		}
		for _, test := range tests {
			source, err := os.ReadFile(filepath.Join("docs", test[2]))
			if err != nil {
				t.Errorf("line %d: %v", n, err)
			} else if !strings.Contains(string(source), "\nfunc "+test[1]+"(") {
				t.Errorf("line %d: %s has no func %s(", n, test[2], test[1])
			}
		}
	}
	if n != 119 { // the number of lines in the guide
		t.Errorf("the map has %d lines", n)
	}
}
