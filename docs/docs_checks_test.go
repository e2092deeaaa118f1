//go:build unix

package docs_test

import (
	"debug/elf"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/fallback"
	"github.com/snakepit-go/snakepit/internal/e2e"
	"github.com/snakepit-go/snakepit/python"
)

// checks are the tests of docs blocks that are neither programs nor commands, by section.
var checks = map[string]func(t *testing.T, s *section){
	"deployment/containers": checkDockerfile,
	"deployment/systemd":    checkUnit,

	"operations/debug-a-worker": checkLaunches,
}

// checkLaunches checks that VS Code can read the file, and that it names the command's port and the worker's variable.
func checkLaunches(t *testing.T, s *section) {
	text := s.take("json")[0].text
	var file struct {
		Configurations []struct {
			Request string
			Connect struct{ Port int }
			Env     map[string]string
		}
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	all := file.Configurations
	if len(all) != 2 || all[0].Connect.Port != 5678 || all[0].Request != "attach" ||
		!strings.HasSuffix(all[1].Env["SNAKEPIT_ATTACH"], "/snakepit/attach") || all[1].Request != "launch" {
		t.Errorf("%+v", all)
	}
}

// checkDockerfile checks the file without a container engine. It runs the build line and starts the binary as the image
// would, with only a temporary directory to write to. The line that installs packages must match installation.md.
func checkDockerfile(t *testing.T, s *section) {
	program := filepath.Join(filepath.Dir(s.dir), "deployment-one-static-binary")
	out := filepath.Join(t.TempDir(), "shop")
	text := s.take("dockerfile")[0].text
	builds := regexp.MustCompile("(?m)^RUN (CGO_ENABLED=0 go build .*)/out/shop (.*)$").FindStringSubmatch(text)
	installs := regexp.MustCompile("(?m)^RUN python -m venv /venv && /venv/bin/python (-m pip install .*)$").
		FindStringSubmatch(text)
	if builds == nil || installs == nil {
		t.Fatal("the lines with RUN are others")
	}
	if !strings.Contains(readPage(t, filepath.Join("docs", "installation.md")),
		"\n.venv/bin/python "+installs[1]+"\n") {
		t.Errorf("installation.md does not say python %s", installs[1])
	}
	run(t, program, []string{"GOFLAGS=-mod=mod -buildvcs=false"}, "sh", "-euc", builds[1]+"'"+out+"' "+builds[2])
	f, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary is not static: %v %v", libraries, err)
	}
	cmd := exec.CommandContext(t.Context(), out)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir(),
		"VIRTUAL_ENV=" + filepath.Dir(filepath.Dir(e2e.Interpreter(t)))}
	if got, err := cmd.CombinedOutput(); err != nil || string(got) != "tea costs 4\n" {
		t.Errorf("%v: %s", err, got)
	}
	for _, line := range []string{"ENV VIRTUAL_ENV=/venv", "COPY --from=build /out/shop /usr/local/bin/shop",
		`ENTRYPOINT ["/usr/local/bin/shop"]`} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
}

// checkUnit lets systemd verify the unit, if systemd is installed.
func checkUnit(t *testing.T, s *section) {
	unit := s.take("ini")[0].text
	for _, setting := range []string{"KillMode=mixed", "OOMPolicy=continue", "CacheDirectory=shop", "PrivateTmp=yes"} {
		if !strings.Contains(unit, "\n"+setting+"\n") {
			t.Errorf("the unit lacks %s, which the page explains", setting)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("no systemd-analyze here, so systemd has not read the unit")
		return
	}
	executable := e2e.Must(os.Executable()) // an executable must exist, no matter which
	path := e2e.File(t, "shop.service", strings.ReplaceAll(unit, "/usr/local/bin/shop", executable))
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "shop.service") {
		t.Errorf("%v: %s", err, out)
	}
}

// Each option has a line in the tables of api.md.
func TestOptionsAreDocumented(t *testing.T) {
	page := readPage(t, filepath.Join("docs", "api.md"))
	for name, of := range map[string]reflect.Type{
		"snakepit.Options": reflect.TypeFor[snakepit.Options](), "python.Program": reflect.TypeFor[python.Program](),
		"grpc.Adapter": reflect.TypeFor[grpc.Adapter](), "fallback.Chain": reflect.TypeFor[fallback.Chain](),
	} {
		_, table, ok := strings.Cut(page, "\n| `"+name+"` |")
		table, _, _ = strings.Cut(table, "\n\n")
		if !ok {
			t.Errorf("api.md has no table of %s", name)
		}
		var documented []string
		for line := range strings.Lines(table) {
			cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			for _, m := range inline.FindAllString(cell, -1) {
				if strings.HasPrefix(line, "| `") {
					documented = append(documented, strings.Trim(m, "`"))
				}
			}
		}
		var fields []string
		for field := range of.Fields() {
			if field.IsExported() {
				fields = append(fields, field.Name)
			}
		}
		slices.Sort(documented)
		slices.Sort(fields)
		if !slices.Equal(documented, fields) {
			t.Errorf("%s has %v, and api.md %v", name, fields, documented)
		}
	}
}

// Each option is read somewhere, apart from the functions that check it.
func TestOptionsAreRead(t *testing.T) {
	for dir, names := range map[string]string{
		"core":          "Options Recycle Limits Warmup Command Spec",
		"adapters/grpc": "Adapter", "adapters/remote": "Adapter Ray", "fallback": "Chain", "python": "Program",
	} {
		set := token.NewFileSet()
		var files []*ast.File
		for _, path := range e2e.Must(filepath.Glob(filepath.Join(dir, "*.go"))) {
			if !strings.HasSuffix(path, "_test.go") {
				files = append(files, e2e.Must(parser.ParseFile(set, path, nil, 0)))
			}
		}
		info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
		// Other packages stay unknown. So do the declarations for other systems, which are there twice.
		checker := types.Config{Error: func(error) {}}
		pkg, _ := checker.Check(dir, set, files, info)
		read := map[types.Object]bool{}
		for _, file := range files {
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					return n.Name.Name != "resolve" && n.Name.Name != "check"
				case *ast.SelectorExpr:
					read[info.Uses[n.Sel]] = true
				}
				return true
			})
		}
		for _, name := range strings.Fields(names) {
			fields := pkg.Scope().Lookup(name).Type().Underlying().(*types.Struct)
			for f := range fields.Fields() {
				if f.Name() == "Source" && name == "Command" {
					continue // it is for adapters
				}
				if f.Exported() && !read[f] {
					t.Errorf("nothing in %s reads %s.%s", dir, name, f.Name())
				}
			}
		}
	}
}

// Each example has a test in Go.
func TestExamplesAreTested(t *testing.T) {
	tested := 0
	for _, worker := range e2e.Must(filepath.Glob("examples/*/worker.*")) {
		dir := filepath.Dir(worker)
		found := false
		for _, path := range e2e.Must(filepath.Glob(filepath.Join(dir, "*_test.go"))) {
			found = found || strings.Contains(readPage(t, path), "\nfunc Test")
		}
		if tested++; !found {
			t.Errorf("%s has no test", dir)
		}
	}
	if tested < 11 {
		t.Errorf("only %d examples", tested)
	}
}

// The protocol's error types are spelled out in Go, in Python and on the page. All three lists must agree.
func TestErrorTypes(t *testing.T) {
	for path, line := range map[string]string{
		"core/errors.go":                    `(?m)^\tType\w+ += "(\w+)"`,
		"python/snakepit_bridge/_errors.py": `(?m)^[A-Z_]+ = "(\w+)"$`,
		"docs/protocol.md":                  "(?m)^\\| `([A-Z]\\w+)` \\| .* \\| (?:always|never|if .*) \\|$",
	} {
		var types []string
		for _, found := range regexp.MustCompile(line).FindAllStringSubmatch(readPage(t, path), -1) {
			types = append(types, found[1])
		}
		slices.Sort(types)
		want := []string{"BadArguments", "BadResult", "Cancelled", "Draining", "Saturated", "TooLarge",
			"UnknownCommand"}
		if !slices.Equal(types, want) {
			t.Errorf("%s has %v, not %v", path, types, want)
		}
	}
}

// Each make command on the pages is a target of the Makefile.
func TestMakeTargets(t *testing.T) {
	target := regexp.MustCompile("(?m)(?:^    |`)make ([a-z][a-z-]*)")
	targetInFence := regexp.MustCompile("(?m)^make ([a-z][a-z-]*)")
	makefile := readPage(t, "Makefile")
	// The Makefiles of the projects that snakepit init makes count too.
	for _, template := range e2e.Must(filepath.Glob(filepath.Join("cmd", "snakepit", "template", "Makefile*"))) {
		makefile += readPage(t, template)
	}
	for _, name := range markdown(t) {
		page := readPage(t, name)
		said := target.FindAllStringSubmatch(page, -1)
		for _, code := range anyFence.FindAllString(page, -1) {
			said = append(said, targetInFence.FindAllStringSubmatch(code, -1)...)
		}
		for _, m := range said {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("%s says make %s, and the Makefile has no such target", name, m[1])
			}
		}
	}
}

// Each command, argument and field that jobs.md names is a word of the worker that it describes.
func TestJobsAreReal(t *testing.T) {
	jobs := 0
	for _, part := range strings.Split(readPage(t, filepath.Join("docs", "jobs.md")), "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		files, err := filepath.Glob(filepath.Join("examples", name, "*.py"))
		if err != nil || len(files) == 0 {
			t.Errorf("examples/%s has no Python: %v", name, err)
			continue
		}
		source := ""
		for _, file := range files {
			source += readPage(t, file)
		}
		_, table, _ := strings.Cut(text, "| --- | --- | --- | --- |\n")
		row, _, _ := strings.Cut(table, "\n")
		for _, word := range inline.FindAllString(row, -1) {
			if !regexp.MustCompile(`\b` + strings.Trim(word, "`") + `\b`).MatchString(source) {
				t.Errorf("jobs.md says %s of %s, and no Python there does", word, name)
			}
		}
		jobs++
	}
	if jobs != 5 && !t.Failed() {
		t.Errorf("%d jobs", jobs)
	}
}

// The extras listed in installation.md are the package's own. They install the packages that the page installs by hand.
func TestExtras(t *testing.T) {
	page := readPage(t, filepath.Join("docs", "installation.md"))
	project := readPage(t, filepath.Join("python", "pyproject.toml"))
	requirements := regexp.MustCompile(`(?m)^\.venv/bin/python -m pip install ('.*')$`).FindStringSubmatch(page)
	if requirements == nil {
		t.Fatal("the page has no line that installs packages")
	}
	want := strings.Fields(strings.ReplaceAll(requirements[1], "'", ""))
	for name, of := range map[string][]string{"grpc": want[:2], "msgpack": want[2:], "all": want} {
		line := name + ` = ["` + strings.Join(of, `", "`) + `"]`
		if !strings.Contains(project, "\n"+line+"\n") {
			t.Errorf("pyproject.toml has no %s", line)
		}
		if !strings.Contains(page, "\n| `["+name+"]` |") {
			t.Errorf("the page has no extra %s", name)
		}
	}
}
