// Package testnames knows the tests that a page may name: Go tests, Python tests and clauses of the conformance suite.
package testnames

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/snakepit-go/snakepit/conformance"
)

// Set has the names of all tests of the repository.
type Set map[string]bool

var defined = regexp.MustCompile(`(?m)^(?:func|def) ((?:Test|Fuzz|test_)\w+)\(`)

// In returns the tests of the repository with this root. Each test has two names: a Go test TestLengths and
// adapters/msgpack.TestLengths, a Python test test_tokens and test_grpc.py::test_tokens. The root package is called
// snakepit. A clause has one name, such as pool/loss/once.
func In(root string) (Set, error) {
	names := Set{}
	for _, c := range conformance.Clauses() {
		names[string(c.Part)+"/"+c.Name] = true
	}
	files := os.DirFS(root)
	return names, fs.WalkDir(files, ".", func(file string, d fs.DirEntry, err error) error {
		base := path.Base(file)
		isPython := strings.HasPrefix(base, "test_") && strings.HasSuffix(base, ".py")
		if err != nil || !isPython && !strings.HasSuffix(base, "_test.go") {
			return err
		}
		where := base + "::"
		switch dir := path.Dir(file); {
		case isPython:
		case dir == ".":
			where = "snakepit."
		default:
			where = dir + "."
		}
		text, err := fs.ReadFile(files, file)
		for _, found := range defined.FindAllSubmatch(text, -1) {
			names[string(found[1])], names[where+string(found[1])] = true, true
		}
		return err
	})
}

// Has reports whether there is a test of this name. TestX/y is a subtest: only TestX is checked.
func (s Set) Has(name string) bool {
	dot := strings.LastIndex(name, ".") + 1
	test, _, isSub := strings.Cut(name[dot:], "/")
	return s[name] || isSub && s[name[:dot]+test]
}
