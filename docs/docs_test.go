//go:build unix

package docs_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"slices"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit/internal/e2e"
)

// These tests run the pages of docs. A section of a page becomes a directory. Its ```python, ```go, ```dockerfile and
// ```ini blocks become files there.
//
//   - A ```text block after a Go program is the program's output.
//   - ```sh blocks are commands that must succeed. A ```console block has commands after "$ ", each followed by its
//     standard output.
//   - A ```go block without a package clause is a fragment and is compiled.
//   - Any other block has its own test, or a reason in unrun.
//
// TestDocs fails if a block was not run.

// pages are the pages that run here. The other pages of docs name in heldBy the tests that check them.
var pages = []string{"quickstart", "installation", "concepts", "api", "values", "jobs", "performance", "migration",
	"deployment", "operations", "scale", "troubleshooting"}

var heldBy = map[string]string{
	"README":    "TestLinks; it has no snippets",
	"guide-map": "TestGuideMap, TestLinks; it has no snippets",
	"command":   "cmd/snakepit's own TestDocs",
	"protocol":  "TestConformance of each adapter, and TestContract",
	"adapters":  "examples/custom-adapter, which was made by it",
	"design":    "TestImports, TestContract; it has no snippets",
	"tracing":   "observe/otel's own TestPage",
	"traps":     "TestTraps, TestLinks; it has no snippets",
}

// unrun lists the blocks that cannot run in a test, by section and language, with the reason.
var unrun = map[string]string{
	"migration/from-snakepit-for-elixir elixir": "Elixir is not among this project's tools; " +
		"the Go program beside it is run",
	"concepts/what-runs-where text": "a drawing",
	"operations/a-worker-that-does-not-answer text": "paths and times vary; " +
		"TestDiagnose and TestStack of internal/e2e have such workers",
	"operations/the-debug-page text":        "a screen; TestTopScreen of cmd/snakepit draws one",
	"operations/a-worker-that-died text":    "process ids vary; TestReplay of cmd/snakepit loses such a worker",
	"api/options/other-grpc-clients python": "adapters/grpc's own TestPythonClientOnPorts runs it beside a worker",
	"scale/workers-on-another-machine sh": "the other machine; the tests of cmd/snakepit run both commands, and " +
		"those of adapters/remote the program",
	"scale/ray sh": "it needs a cluster; TestRay of adapters/remote starts one",
	"installation/for-development sh": "make test would run itself; .ci/run runs it on each commit, " +
		"and TestMakeTargets holds the names",
}

// block is one fenced block of a page.
type block struct {
	lang, text string
	ran        bool
}

type section struct {
	page, slug string
	blocks     []*block
	dir        string
}

func (s *section) name() string { return s.page + "/" + s.slug }

var (
	headings = regexp.MustCompile("(?m)^(##+) (.+)$")
	fences   = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	fileName = regexp.MustCompile(`^(?:#|//) ([\w-]+\.\w+)\n`)
)

// sections splits a page at its headings.
func sections(t *testing.T, page string) []*section {
	t.Helper()
	text := readPage(t, filepath.Join("docs", page+".md"))
	code := fences.FindAllStringIndex(text, -1)
	all := []*section{{page: page, slug: "top"}}
	begin, parent := 0, ""
	add := func(end int) {
		for _, found := range fences.FindAllStringSubmatch(text[begin:end], -1) {
			last := all[len(all)-1]
			last.blocks = append(last.blocks, &block{lang: found[1], text: found[2]})
		}
	}
	for _, at := range headings.FindAllStringSubmatchIndex(text, -1) {
		if slices.ContainsFunc(code, func(c []int) bool { return c[0] < at[0] && at[0] < c[1] }) {
			continue // a comment
		}
		add(at[0])
		begin = at[1]
		slug := slugOf(text[at[4]:at[5]])
		if at[3]-at[2] == 2 {
			parent = slug
		} else {
			slug = parent + "/" + slug
		}
		all = append(all, &section{page: page, slug: slug})
	}
	add(len(text))
	return slices.DeleteFunc(all, func(s *section) bool { return len(s.blocks) == 0 })
}

// take returns the section's blocks of a language and marks them as run.
func (s *section) take(lang string) []*block {
	var found []*block
	for _, b := range s.blocks {
		if b.lang == lang {
			b.ran = true
			found = append(found, b)
		}
	}
	return found
}

func (s *section) has(lang string) bool {
	return slices.ContainsFunc(s.blocks, func(b *block) bool { return b.lang == lang })
}

// isProgram reports whether a block is a whole Go file.
func isProgram(b *block) bool { return b.lang == "go" && strings.Contains("\n"+b.text, "\npackage ") }

func (s *section) program() bool { return slices.ContainsFunc(s.blocks, isProgram) }

// runsItself reports whether the section's own commands run its program.
func (s *section) runsItself() bool {
	return slices.ContainsFunc(s.blocks, func(b *block) bool {
		return b.lang == "console" && (strings.Contains(b.text, "go run .") || strings.Contains(b.text, "go build"))
	})
}

func (s *section) pytest() bool {
	return slices.ContainsFunc(s.blocks, func(b *block) bool {
		return b.lang == "python" && strings.HasPrefix(b.text, "# test_")
	})
}

// write makes the section's directory. The first line of a block may name its file in a comment.
func (s *section) write(t *testing.T, root string) {
	t.Helper()
	s.dir = filepath.Join(root, strings.ReplaceAll(s.name(), "/", "-"))
	usual := map[string]string{"python": "worker.py", "go": "main.go", "dockerfile": "Dockerfile",
		"ini": "shop.service"}
	fragments := 0
	for _, b := range s.blocks {
		name := usual[b.lang]
		text := b.text
		switch first := fileName.FindStringSubmatch(text); {
		case name == "":
			continue
		case first != nil:
			name = first[1]
		case b.lang == "go" && !isProgram(b):
			fragments++
			name, text = fmt.Sprintf("fragment%d/fragment.go", fragments), fragment(text)
		}
		b.ran = b.lang == "go" || b.lang == "python"
		if _, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			t.Errorf("%s: two blocks for %s", s.name(), name)
		}
		e2e.File(t, filepath.Join(s.dir, name), text)
	}
}

// imported maps the package names that fragments use to import paths.
var imported = map[string]string{
	"cmp": "cmp", "context": "context", "errors": "errors", "fmt": "fmt", "http": "net/http",
	"log": "log", "os": "os", "pem": "encoding/pem", "slices": "slices",
	"signal": "os/signal", "syscall": "syscall",
	"slog": "log/slog", "time": "time", "hclog": "github.com/hashicorp/go-hclog",
	"snakepit": "github.com/snakepit-go/snakepit",
	"core":     "github.com/snakepit-go/snakepit/core", "grpc": "github.com/snakepit-go/snakepit/adapters/grpc",
	"msgpack":   "github.com/snakepit-go/snakepit/adapters/msgpack",
	"jsonstdio": "github.com/snakepit-go/snakepit/adapters/jsonstdio",
	"fallback":  "github.com/snakepit-go/snakepit/fallback", "python": "github.com/snakepit-go/snakepit/python",
	"remote":    "github.com/snakepit-go/snakepit/adapters/remote",
	"debugpage": "github.com/snakepit-go/snakepit/observe/debugpage",
}

// fragment wraps statements in a file that declares the names of every example: ctx, pool, session, err and a worker.
func fragment(text string) string {
	var b strings.Builder
	b.WriteString("package fragment\n\nimport (\n")
	for name, from := range imported {
		uses := regexp.MustCompile(`\b`+name+`\.[A-Z]`).MatchString(text) && !strings.Contains(text, "var "+name+" ")
		if uses ||
			slices.Contains([]string{"context", "snakepit", "core"}, name) {
			fmt.Fprintf(&b, "%s %q\n", name, from)
		}
	}
	b.WriteString(")\n\nfunc _(ctx context.Context, pool *snakepit.Pool, session *snakepit.Session, " +
		"worker *core.Worker, err error) error {\n{\n" +
		text + "\n}\nreturn nil\n}\n")
	return b.String()
}

// build is the environment of all builds. It is the same for all, so imported packages are compiled once.
var build = []string{"CGO_ENABLED=0", "GOFLAGS=-trimpath -modcacherw -buildvcs=false"}

func TestDocs(t *testing.T) {
	root := newModule(t)
	shell := newShell(t)
	var all []*section
	for _, page := range pages {
		for _, s := range sections(t, page) {
			s.write(t, root)
			shell.generate(t, s)
			all = append(all, s)
		}
	}
	bin := t.TempDir()
	// With -o, go build only compiles programs, so the other packages come first. Without -o it would link the programs
	// in vain.
	others := run(t, root, build, "go", "list", "-mod=mod",
		"-f", `{{if ne .Name "main"}}{{.ImportPath}}{{end}}`, "./...")
	run(t, root, build, "go", append([]string{"build", "-mod=mod"}, strings.Fields(others)...)...)
	run(t, root, build, "go", "build", "-mod=mod", "-ldflags=-s -w", "-o", bin+string(filepath.Separator), "./...")
	for _, s := range all {
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			if s.has("console") || s.has("sh") && unrun[s.name()+" sh"] == "" {
				shell.run(t, s)
			}
			switch {
			case s.program() && !s.runsItself():
				s.runProgram(t, filepath.Join(bin, filepath.Base(s.dir)))
			case s.pytest():
				bridge := e2e.Must(filepath.Abs("python"))
				run(t, s.dir, []string{"PYTHONPATH=" + bridge}, e2e.Interpreter(t), "-m", "pytest", "-p",
					"no:cacheprovider", ".")
			}
			if check := checks[s.name()]; check != nil {
				check(t, s)
			}
			for _, b := range s.blocks {
				_, symptom := symptoms[s.slug]
				if b.lang == "text" && s.page == "troubleshooting" && symptom {
					continue // TestTroubleshooting runs it
				}
				if !b.ran && unrun[s.name()+" "+b.lang] == "" {
					t.Errorf("no test runs this block:\n```%s\n%s```", b.lang, b.text)
				}
			}
		})
	}
}

// runProgram runs the binary that TestDocs built, on the default chain and on JSON, and compares the output.
func (s *section) runProgram(t *testing.T, binary string) {
	t.Helper()
	want := ""
	for _, b := range s.take("text") {
		want += b.text
	}
	for _, adapters := range []string{"", "jsonstdio"} {
		env := []string{
			"SNAKEPIT_ADAPTERS=" + adapters, "SNAKEPIT_PYTHON=" + e2e.Interpreter(t),
			"PATH=" + filepath.Dir(e2e.Interpreter(t)) + ":" + os.Getenv("PATH"),
		}
		if got := run(t, s.dir, env, binary); got != want {
			t.Errorf("with adapters %q printed:\n%s\nwant:\n%s", adapters, got, want)
		}
	}
}

// shell runs commands as a reader with an empty home directory would. This module and its repository appear as already
// published.
type shell struct {
	env []string
}

const modulePath = "github.com/snakepit-go/snakepit"

func newShell(t *testing.T) *shell {
	t.Helper()
	here := e2e.Must(os.Getwd())
	tools := t.TempDir()
	run(t, here, build, "go", "build", "-o", filepath.Join(tools, "snakepit"), "./cmd/snakepit")
	home := t.TempDir()
	gopath := filepath.Join(home, "go")
	cached := strings.TrimSpace(run(t, here, nil, "go", "env", "GOMODCACHE"))
	proxies := strings.TrimSpace(run(t, here, nil, "go", "env", "GOPROXY"))
	return &shell{append(slices.Clone(build),
		"HOME="+home, "XDG_CACHE_HOME="+t.TempDir(), "GOPATH="+gopath,
		"GOMODCACHE="+filepath.Join(gopath, "pkg", "mod"), "GOBIN="+filepath.Join(gopath, "bin"),
		"GOCACHE="+strings.TrimSpace(run(t, here, nil, "go", "env", "GOCACHE")),
		"GOSUMDB=off", "SNAKEPIT_PYTHON="+e2e.Interpreter(t), "PIP_NO_COMPILE=1",
		"PIP_CACHE_DIR="+filepath.Join(e2e.Must(os.UserCacheDir()), "pip"),
		"GOPROXY=file://"+publish(t, here)+",file://"+filepath.Join(cached, "cache", "download")+","+proxies,
		"PATH="+strings.Join([]string{filepath.Dir(e2e.Interpreter(t)), tools, filepath.Join(gopath, "bin"),
			os.Getenv("PATH")}, ":"),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url."+here+".insteadOf", "GIT_CONFIG_VALUE_0=https://"+modulePath,
	)}
}

// publish makes a module proxy in a directory. It serves this module as it is in the working tree.
func publish(t *testing.T, here string) string {
	t.Helper()
	source := readPage(t, filepath.Join("python", "snakepit_bridge", "_version.py"))
	version := "v" + regexp.MustCompile(`(?m)^__version__ = "(.*)"$`).FindStringSubmatch(source)[1]
	proxy := t.TempDir()
	at := filepath.Join(proxy, modulePath, "@v")
	names := strings.Split(run(t, here, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
		"\x00")
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || inNestedModule(name) {
			continue // the end of the list, a deleted file, or a file of another module
		}
		f := e2e.Must(w.Create(modulePath + "@" + version + "/" + name))
		e2e.Must(f.Write(text))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	e2e.File(t, filepath.Join(at, "list"), version+"\n")
	e2e.File(t, filepath.Join(at, version+".info"), `{"Version":"`+version+`","Time":"2026-01-02T03:04:05Z"}`)
	e2e.File(t, filepath.Join(at, version+".mod"), readPage(t, "go.mod"))
	e2e.File(t, filepath.Join(at, version+".zip"), b.String())
	return proxy
}

func inNestedModule(name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return true
		}
	}
	return false
}

// generate writes the generated code that is a part of the section's program.
func (sh *shell) generate(t *testing.T, s *section) {
	t.Helper()
	for _, b := range s.blocks {
		if b.lang == "sh" && strings.HasPrefix(b.text, "snakepit gen ") {
			run(t, s.dir, sh.env, "sh", "-c", b.text)
		}
	}
}

// run runs the section's commands in its directory, in order.
func (sh *shell) run(t *testing.T, s *section) {
	t.Helper()
	dir := t.TempDir() // outside every module
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, b := range s.blocks {
		switch b.lang {
		case "sh":
			b.ran = true
			run(t, dir, sh.env, "sh", "-euc", b.text)
		case "console":
			b.ran = true
			for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
				command, want, _ := strings.Cut(step, "\n")
				if want != "" && !strings.HasSuffix(want, "\n") {
					want += "\n"
				}
				if got := run(t, dir, sh.env, "sh", "-euc", command); want != "" && masked(got) != masked(want) {
					t.Errorf("%s\nprinted:\n%s\nwant:\n%s", command, got, want)
				}
			}
		}
	}
}

var masks = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`\bpid[ =]\d+`), "pid N"},
	{regexp.MustCompile(`\bbridge-[0-9a-f]+`), "bridge"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.+Z-]+`), "TIME"},
	{regexp.MustCompile(`\b(\d+m)?\d+(\.\d+)?(ms|µs|s)\b`), "DURATION"},
	{regexp.MustCompile(`python3\.\d+|cpython \d[\d.]*|Python 3\.\d+\.\d+`), "PYTHON"},
	{regexp.MustCompile(`(?m)^ +[~^]+\n`), ""}, // the carets of a traceback: 3.10 and earlier have none
	// The end of the process may be seen first instead.
	{regexp.MustCompile(`: grpc: the stream with the worker has ended: [^;]*`), ""},
}

// masked replaces the parts that differ between runs: process ids, times, durations, Python versions.
func masked(text string) string {
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.mask)
	}
	return text
}

// Every page of docs runs here or names the test that checks it. Every exception is needed.
func TestDocsComplete(t *testing.T) {
	for _, file := range e2e.Must(filepath.Glob("docs/*.md")) {
		page := strings.TrimSuffix(filepath.Base(file), ".md")
		if slices.Contains(pages, page) == (heldBy[page] != "") {
			t.Errorf("docs/%s.md has to stand in pages or in heldBy of docs_test.go", page)
		}
	}
	names := map[string]bool{}
	for _, page := range pages {
		for _, s := range sections(t, page) {
			for _, b := range s.blocks {
				names[s.name()+" "+b.lang] = true
			}
		}
	}
	for name := range unrun {
		if !names[name] {
			t.Errorf("unrun has %q, and there is no such block", name)
		}
	}
	for name := range checks {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(names)), func(n string) bool {
			return strings.HasPrefix(n, name+" ")
		}) {
			t.Errorf("checks has %q, and there is no such section", name)
		}
	}
}
