package conformance

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// The contract is the promises in docs/protocol.md and in the comments of two files of core. testdata/contract.txt
// lists its sentences. For each it names the clauses that check it, or says why none can.

const (
	contractFile = "testdata/contract.txt"
	contractHead = `# The promises of the contract, sentence by sentence, and the clauses that check them.
#
# TestContract compares this list with its sources: every sentence, table row, list item and code block of
# docs/protocol.md, and every sentence in the comments of core/adapter.go, backend.go and frame.go. Of some other
# comments the list has only the sentences that a clause checks.
#
#	= part/theme/rule, ...    these clauses check it
#	- why                     it, or the rest of it, can't be checked from outside; "explains": it demands nothing
#	? what                    still to be done; the test fails
#
# When a source has changed, rewrite this file with
#
#	go test ./conformance -run TestContract -update
#
# The command marks new sentences with "?": give them their clauses or their reasons. A sentence that has changed a
# little keeps its marks, with a "?" in front.
`
)

// whole has the sources whose sentences are all listed.
var whole = []string{"core/adapter.go", "core/backend.go", "core/frame.go", "docs/protocol.md"}

// promise is one sentence, table row, list item or code block.
type promise struct {
	source string   // "core/adapter.go"
	place  string   // "Conn.Read", or the heading above it
	text   string   // with single spaces
	marks  []string // lines that begin with =, - or ?
}

func (p promise) String() string { return fmt.Sprintf("%s, %s: %q", p.source, p.place, p.text) }

func (p promise) key() string { return p.source + "\n" + p.place + "\n" + p.text }

func TestContract(t *testing.T) {
	there := map[string][]promise{}
	for _, source := range whole {
		there[source] = promises(t, source)
	}
	listed := readContract(t)
	for _, p := range listed {
		if _, read := there[p.source]; !read {
			there[p.source] = promises(t, p.source)
		}
	}
	if *update {
		listed = renew(listed, there)
		if err := os.WriteFile(contractFile, []byte(writeContract(listed)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const run = "run go test ./conformance -run TestContract -update"

	// The list has all sentences of the sources, and no others.
	order := map[string][]string{}
	for _, p := range listed {
		order[p.source] = append(order[p.source], p.key())
		if !slices.ContainsFunc(there[p.source], func(q promise) bool { return q.key() == p.key() }) {
			t.Errorf("%s lists what its source does not say, or says no longer: %s; %s", contractFile, p, run)
		}
	}
	for _, source := range whole {
		complete := true
		for _, p := range there[source] {
			if !slices.Contains(order[source], p.key()) {
				complete = false
				t.Errorf("%s lacks what is new or has changed: %s; %s, and name its clauses there",
					contractFile, p, run)
			}
		}
		var want []string
		for _, p := range there[source] {
			want = append(want, p.key())
		}
		if complete && len(want) == len(order[source]) && !slices.Equal(want, order[source]) {
			t.Errorf("%s has the sentences of %s in another order; %s", contractFile, source, run)
		}
	}

	// Each sentence has a clause or a reason, and each clause a sentence.
	clauseless := map[string]bool{}
	for _, c := range Clauses() {
		clauseless[string(c.Part)+"/"+c.Name] = true
	}
	exists := func(name string) bool { _, ok := clauseless[name]; return ok }
	for _, p := range listed {
		if len(p.marks) == 0 {
			t.Errorf("%s has no mark under %s: "+
				"name its clauses (= part/theme/rule, ...) or say why there can be none (- why)", contractFile, p)
		}
		for _, mark := range p.marks {
			rest := strings.TrimSpace(mark[1:])
			switch {
			case rest == "":
				t.Errorf("%s has an empty mark under %s", contractFile, p)
			case mark[0] == '?':
				t.Errorf("%s: write a clause for it and name it in %s (= part/theme/rule, ...), "+
					"or say why there can be none (- why): %s", rest, contractFile, p)
			case mark[0] == '=':
				for _, name := range strings.Split(rest, ", ") {
					if !exists(name) {
						t.Errorf("%s names the clause %q, which there is not, under %s", contractFile, name, p)
					}
					clauseless[name] = false
				}
			}
		}
	}
	for _, c := range Clauses() {
		if name := string(c.Part) + "/" + c.Name; clauseless[name] {
			t.Errorf("the clause %s checks no sentence of the contract: name it in %s under one, or drop it (%q)",
				name, contractFile, c.Sentence)
		}
	}
}

// renew returns the list in the order of the sources. Each sentence keeps its marks, also if it has moved.
func renew(listed []promise, there map[string][]promise) []promise {
	var all []promise
	take := func(p *promise, same func(q promise) bool) bool {
		i := slices.IndexFunc(listed, same)
		if i >= 0 {
			p.marks = listed[i].marks
			listed = slices.Delete(listed, i, i+1)
		}
		return i >= 0
	}
	sources := slices.Clone(whole)
	for _, p := range listed {
		if !slices.Contains(sources, p.source) {
			sources = append(sources, p.source)
		}
	}
	for _, source := range sources {
		for _, p := range there[source] {
			if take(&p, func(q promise) bool { return q.key() == p.key() }) || slices.Contains(whole, source) {
				all = append(all, p)
			}
		}
	}
	for i := range all {
		p := &all[i]
		if p.marks == nil && !take(p, func(q promise) bool { return q.source == p.source && q.text == p.text }) {
			p.marks = proposals(listed, *p)
		}
	}
	return all
}

// proposals returns marks for a new sentence: those of the sentence that it seems to replace, each with a "?" in front.
func proposals(gone []promise, p promise) []string {
	best, most := -1, 0.6
	words := strings.Fields(p.text)
	for i, q := range gone {
		if q.source != p.source {
			continue
		}
		common := 0
		theirs := strings.Fields(q.text)
		for _, w := range words {
			if at := slices.Index(theirs, w); at >= 0 {
				common++
				theirs = slices.Delete(theirs, at, at+1)
			}
		}
		if share := float64(common) / float64(min(len(words), common+len(theirs))); share > most {
			best, most = i, share
		}
	}
	if best < 0 {
		return []string{"? no clause yet"}
	}
	var marks []string
	for _, mark := range gone[best].marks {
		marks = append(marks, changed+strings.TrimPrefix(mark, changed))
	}
	return marks
}

// changed goes in front of the marks of a sentence that has changed.
const changed = "? it has changed; do these still hold? "

func writeContract(listed []promise) string {
	var b strings.Builder
	b.WriteString(contractHead)
	source, place := "", ""
	for _, p := range listed {
		if p.source != source {
			fmt.Fprintf(&b, "\n== %s\n", p.source)
		}
		if p.source != source || p.place != place {
			fmt.Fprintf(&b, "\n-- %s\n", p.place)
		}
		source, place = p.source, p.place
		fmt.Fprintf(&b, "%s\n", p.text)
		for _, mark := range p.marks {
			fmt.Fprintf(&b, "    %s\n", mark)
		}
	}
	return b.String()
}

// readContract reads the list. A missing file is an empty list.
func readContract(t *testing.T) []promise {
	text, err := os.ReadFile(contractFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var listed []promise
	source, place := "", ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		mark, marked := strings.CutPrefix(line, "    ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "== "):
			source, place = line[3:], ""
		case strings.HasPrefix(line, "-- "):
			place = line[3:]
		case marked && len(listed) > 0 && strings.ContainsAny(mark[:1], "=-?"):
			last := &listed[len(listed)-1]
			last.marks = append(last.marks, mark)
		case marked || source == "" || place == "":
			t.Fatalf("%s has a line that belongs to nothing: %q", contractFile, line)
		default:
			listed = append(listed, promise{source: source, place: place, text: line})
		}
	}
	return listed
}

// promises returns the promises of a source.
func promises(t *testing.T, source string) []promise {
	text, err := os.ReadFile("../" + source)
	if err != nil {
		t.Fatalf("%s names a source that can't be read: %v", contractFile, err)
	}
	if strings.HasSuffix(source, ".md") {
		return fromMarkdown(source, string(text))
	}
	all, err := fromGo(source, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fromGo returns the sentences in the comments of a Go file's exported declarations, and in the comments between the
// declarations.
func fromGo(source, text string) ([]promise, error) {
	file, err := parser.ParseFile(token.NewFileSet(), source, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var all []promise
	add := func(place string, comments ...*ast.CommentGroup) {
		for _, c := range comments {
			for _, s := range paragraphs(c.Text()) {
				all = append(all, promise{source: source, place: place, text: s})
			}
		}
	}
	fields := func(of string, list *ast.FieldList) {
		for _, f := range list.List {
			if len(f.Names) == 0 || f.Names[0].IsExported() {
				name := of
				if len(f.Names) > 0 {
					name += "." + f.Names[0].Name
				}
				add(name, f.Doc, f.Comment)
			}
		}
	}
	free := file.Comments // the comments that belong to no declaration
	upTo := func(pos, end token.Pos) {
		for len(free) > 0 && free[0].Pos() < pos {
			if free[0] != file.Doc && free[0].Pos() > file.Name.End() {
				add("the file", free[0])
			}
			free = free[1:]
		}
		for len(free) > 0 && free[0].Pos() < end {
			free = free[1:]
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			upTo(startOf(d, d.Doc), d.End())
			name := d.Name.Name
			if d.Recv != nil {
				of := d.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				name = fmt.Sprint(of) + "." + name
			}
			if d.Name.IsExported() && ast.IsExported(name) {
				add(name, d.Doc)
			}
		case *ast.GenDecl:
			upTo(startOf(d, d.Doc), d.End())
			for i, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if !s.Name.IsExported() {
						continue
					}
					if i == 0 {
						add(s.Name.Name, d.Doc)
					}
					add(s.Name.Name, s.Doc, s.Comment)
					switch of := s.Type.(type) {
					case *ast.StructType:
						fields(s.Name.Name, of.Fields)
					case *ast.InterfaceType:
						fields(s.Name.Name, of.Methods)
					}
				case *ast.ValueSpec:
					if !s.Names[0].IsExported() {
						continue
					}
					if i == 0 {
						add(s.Names[0].Name, d.Doc)
					}
					add(s.Names[0].Name, s.Doc, s.Comment)
				}
			}
		}
	}
	upTo(file.FileEnd+1, file.FileEnd+1)
	return all, nil
}

func startOf(d ast.Decl, doc *ast.CommentGroup) token.Pos {
	if doc != nil {
		return doc.Pos()
	}
	return d.Pos()
}

// paragraphs returns the sentences of a comment. An indented line, as in a table, is one sentence.
func paragraphs(comment string) []string {
	var all, prose []string
	flush := func() {
		all = append(all, sentences(strings.Join(prose, " "))...)
		prose = nil
	}
	for line := range strings.Lines(comment) {
		switch {
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == '\t' || line[0] == ' ':
			flush()
			all = append(all, single(line))
		default:
			prose = append(prose, line)
		}
	}
	flush()
	return all
}

// fromMarkdown returns the sentences, table rows, list items and code blocks of a page. The place of each is the
// heading above it.
func fromMarkdown(source, text string) []promise {
	var all []promise
	place := "the top"
	const (
		none = iota
		prose
		list
		code
		table
	)
	kind, fenced := none, false
	var lines []string
	flush := func() {
		var found []string
		switch whole := single(strings.Join(lines, "\n")); kind {
		case prose:
			found = sentences(whole)
		case list, code:
			found = []string{whole}
		case table: // without its heading rows
			for _, row := range lines[min(2, len(lines)):] {
				found = append(found, single(row))
			}
		}
		for _, s := range found {
			all = append(all, promise{source: source, place: place, text: s})
		}
		kind, lines = none, nil
	}
	begin := func(k int) {
		if k != kind || k == list {
			flush()
		}
		kind = k
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "```"):
			flush()
			fenced = !fenced
			continue
		case fenced:
			begin(code)
		case line == "":
			flush()
			continue
		case strings.HasPrefix(line, "#"):
			flush()
			place = strings.TrimSpace(strings.TrimLeft(line, "#"))
			continue
		case strings.HasPrefix(line, "|"):
			begin(table)
		case strings.HasPrefix(line, "- "), strings.HasPrefix(line, "* "), numbered.MatchString(line):
			begin(list)
		case strings.HasPrefix(line, "    ") && kind != list:
			begin(code)
		case kind == list && strings.HasPrefix(line, " "):
		default:
			begin(prose)
		}
		lines = append(lines, line)
	}
	flush()
	return all
}

var (
	numbered = regexp.MustCompile(`^[0-9]+\. `)
	// A sentence ends with its full stop and the closing quotes and brackets. A bold word in front of a paragraph is no
	// sentence.
	ends = regexp.MustCompile("[.?!][\"'`)\\]]*\\s+")
	// abbreviations end no sentence.
	abbreviations = []string{"e.g.", "i.e.", ".."}
)

func sentences(text string) []string {
	text = single(text)
	var all []string
	from := 0
	for _, at := range ends.FindAllStringIndex(text, -1) {
		s := strings.TrimSpace(text[from:at[1]])
		// A name such as `snakepit.` ends no sentence.
		isName := strings.HasSuffix(s, "`") && at[1] < len(text) && unicode.IsLower(rune(text[at[1]]))
		if isName || slices.ContainsFunc(abbreviations, func(a string) bool { return strings.HasSuffix(s, a) }) {
			continue
		}
		all = append(all, s)
		from = at[1]
	}
	if from < len(text) {
		all = append(all, text[from:])
	}
	return all
}

// single returns s with a single space for each run of white space.
func single(s string) string { return strings.Join(strings.Fields(s), " ") }

// TestSentences checks that no part of a source is skipped.
func TestSentences(t *testing.T) {
	texts := func(all []promise) string {
		var lines []string
		for _, p := range all {
			lines = append(lines, p.place+": "+p.text)
		}
		return strings.Join(lines, "\n")
	}
	page := fromMarkdown("page.md", "# Title\n\nOne, e.g. this. Two\ngoes on. `call` is `a.b.` too.\n\n"+
		"## Part\n\n- an item\n  of two lines. Whole\n- another\n\n1. first\n\n"+
		"| head | of |\n| --- | --- |\n| a row. | of  a table |\n\nThree:\n\n    code {\n      more}\n\n"+
		"```go\nfenced\n\ncode\n```\n**Four.** Five? \"Six.\" Seven")
	if got, want := texts(page), `Title: One, e.g. this.
Title: Two goes on.
Title: `+"`call` is `a.b.`"+` too.
Part: - an item of two lines. Whole
Part: - another
Part: 1. first
Part: | a row. | of a table |
Part: Three:
Part: code { more}
Part: fenced code
Part: **Four.** Five?
Part: "Six."
Part: Seven`; got != want {
		t.Errorf("of a page comes\n%s", got)
	}
	file, err := fromGo("file.go", `// Package p is not part of it.
package p

import "os"

// Free. Stands alone.

// T is a type. It
// has two sentences:
//
//	a line  set off
type T struct {
	A, B int // a field
	// C has a comment before
	C string // and one behind
	d int // is not exported
	os.File // is embedded
}

// M is a method. // not a marker
func (t *T) M() {
	// inside
}

func hidden() {}

// I is an interface.
type I interface {
	// N is one of its methods.
	N()
	I2 // is embedded
}

// Two constants.
const (
	X = 1 // one
	y = 2 // two
)

// Free at the end.
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := texts(file), `the file: Free.
the file: Stands alone.
T: T is a type.
T: It has two sentences:
T: a line set off
T.A: a field
T.C: C has a comment before
T.C: and one behind
T: is embedded
T.M: M is a method.
T.M: // not a marker
I: I is an interface.
I.N: N is one of its methods.
I: is embedded
X: Two constants.
X: one
the file: Free at the end.`; got != want {
		t.Errorf("of a file comes\n%s", got)
	}
}

// TestRenew checks that an unchanged sentence keeps its marks, wherever it moves.
func TestRenew(t *testing.T) {
	listed := []promise{
		{"docs/protocol.md", "A", "same", []string{"= x"}},
		{"docs/protocol.md", "A", "old", []string{"= y"}},
		{"docs/protocol.md", "A", "moved", []string{"- z"}},
		{"docs/protocol.md", "A", "one two three", []string{"= v", "- rest"}},
		{"core/pool.go", "Open", "picked", []string{"= w"}},
	}
	there := map[string][]promise{
		"docs/protocol.md": {
			{"docs/protocol.md", "B", "moved", nil},
			{"docs/protocol.md", "A", "same", nil},
			{"docs/protocol.md", "A", "same", nil},
			{"docs/protocol.md", "A", "one two four", nil},
		},
		"core/pool.go": {{"core/pool.go", "Open", "not picked", nil}, {"core/pool.go", "Open", "picked", nil}},
	}
	want := []promise{
		{"docs/protocol.md", "B", "moved", []string{"- z"}},
		{"docs/protocol.md", "A", "same", []string{"= x"}},
		{"docs/protocol.md", "A", "same", []string{"? no clause yet"}},
		{"docs/protocol.md", "A", "one two four", []string{changed + "= v", changed + "- rest"}},
		{"core/pool.go", "Open", "picked", []string{"= w"}},
	}
	if got := renew(listed, there); !reflect.DeepEqual(got, want) {
		t.Errorf("the list becomes %v", got)
	}
}
