package snakepit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/internal/testnames"
)

// No token is compared by an operator: its time would tell how much of a guess is right. A comparison with the empty
// string only asks whether there is a token.
func TestTokensAreComparedInConstantTime(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path != "." && strings.HasPrefix(d.Name(), ".") || path == "conformance"): // it tests tokens
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			b, ok := n.(*ast.BinaryExpr)
			if !ok || b.Op != token.EQL && b.Op != token.NEQ {
				return true
			}
			if isToken(b.X) && !isEmpty(b.Y) || isToken(b.Y) && !isEmpty(b.X) {
				t.Errorf("%s compares a token: use crypto/subtle", set.Position(b.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil || files < 50 {
		t.Errorf("read %d files: %v", files, err)
	}
}

// Every test that SECURITY.md names exists, and each of its promises has one.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	there, err := testnames.In(".")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+|test_\\w+|(?:adapter|worker|pool)/[\\w/-]+)`")
	promises := 0
	for table := range strings.SplitSeq(string(page), "\n\n") {
		heading, rows, _ := strings.Cut(table, "\n")
		for row := range strings.Lines(rows) {
			tests := named.FindAllStringSubmatch(row, -1)
			for _, test := range tests {
				if !there.Has(test[1]) {
					t.Errorf("there is no %s", test[1])
				}
			}
			if strings.Contains(heading, "held by") && !strings.HasPrefix(row, "| --- ") {
				if promises++; len(tests) == 0 {
					t.Errorf("no test holds: %s", row)
				}
			}
		}
	}
	if promises < 15 {
		t.Errorf("the page has only %d promises", promises)
	}
}

// isToken reports whether e is a variable or a field that is called a token.
func isToken(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return isToken(e.Sel)
	case *ast.Ident:
		return e.Name == "token" || strings.HasSuffix(e.Name, "Token")
	}
	return false
}

func isEmpty(e ast.Expr) bool {
	literal, ok := e.(*ast.BasicLit)
	return ok && literal.Value == `""`
}
