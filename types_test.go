package snakepit_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the comments of types.go")

// The types of this package are aliases of core's. "go doc" shows of an alias only its comment, so the comments in
// types.go have core's comment, fields and methods. This test makes them and compares. -update writes them.
func TestTypes(t *testing.T) {
	text, err := os.ReadFile("types.go")
	if err != nil {
		t.Fatal(err)
	}
	types := typesOfCore(t)
	var b strings.Builder
	b.WriteString("package snakepit\n\nimport \"github.com/snakepit-go/snakepit/core\"\n\n" +
		"// The comments repeat those of core. To write them anew: go test . -run TestTypes -update.\n\n")
	for _, found := range regexp.MustCompile(`(?m)^type (\w+) = core\.\w+|^\t(\w+) += core\.\w+`).
		FindAllStringSubmatch(string(text), -1) {
		name := found[1] + found[2]
		if types[name] == "" {
			t.Fatalf("core has no type %s with a comment", name)
		}
		fmt.Fprintf(&b, "%stype %s = core.%s\n\n", types[name], name, name)
	}
	want, err := format.Source([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("types.go", want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != string(want) {
		t.Error("the comments of types.go are not those of core: go test . -run TestTypes -update")
	}
}

// typesOfCore returns a comment for each exported type of core.
func typesOfCore(t *testing.T) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob("core/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	core, err := doc.NewFromFiles(fset, files, "github.com/snakepit-go/snakepit/core")
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, typ := range core.Types {
		if typ.Doc == "" {
			continue
		}
		code := printed(t, fset, typ.Decl)
		for _, m := range typ.Methods {
			code += "\n" + printed(t, fset, m.Decl)
		}
		var b strings.Builder
		for line := range strings.Lines(typ.Doc + "\n") {
			b.WriteString("// " + line)
		}
		for line := range strings.Lines(code) {
			b.WriteString("//\t" + line)
		}
		comments[typ.Name] = strings.ReplaceAll(b.String(), "// \n", "//\n") + "\n"
	}
	return comments
}

func printed(t *testing.T, fset *token.FileSet, decl ast.Decl) string {
	t.Helper()
	if f, ok := decl.(*ast.FuncDecl); ok {
		f.Doc, f.Body = nil, nil
	}
	var b strings.Builder
	config := printer.Config{Mode: printer.UseSpaces | printer.TabIndent, Tabwidth: 4}
	if err := config.Fprint(&b, fset, decl); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
