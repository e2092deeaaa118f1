package snakepit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// imports lists the allowed imports: on the left a package of this module or of the examples, on the right the packages
// it may import beside the standard library. A dot is the root package. A module stands for all its packages. Tests may
// import more.
//
// This is policy: core knows calls and no protocol; an adapter knows neither another adapter nor the chain. Remote is
// the exception: its workers are those of gRPC, started elsewhere. If this test fails, change the code. Changing the
// list is rarely right.
const imports = `
core:                     github.com/hashicorp/go-hclog
core/coretest:            core codec/json

codec:                    core
codec/json:               core codec
codec/msgpack:            core codec github.com/vmihailenco/msgpack/v5

frame:                    core github.com/vmihailenco/msgpack/v5

adapters/jsonstdio:       core codec/json frame
adapters/msgpack:         core codec/json codec/msgpack frame
adapters/grpc:            core codec/json codec/msgpack frame adapters/grpc/snakepitpb
adapters/grpc:            google.golang.org/grpc google.golang.org/protobuf
adapters/grpc/snakepitpb: google.golang.org/grpc google.golang.org/protobuf

adapters/remote:          core adapters/grpc adapters/remote/launchpb google.golang.org/grpc
adapters/remote:          github.com/hashicorp/go-hclog
adapters/remote/launchpb: google.golang.org/grpc google.golang.org/protobuf

conformance:              core github.com/hashicorp/go-hclog
observe/debugpage:        core github.com/hashicorp/go-hclog
fallback:                 core
internal/adaptertest:     core golang.org/x/tools pgregory.net/rapid
internal/chaos:           . core adapters/grpc adapters/jsonstdio adapters/msgpack adapters/remote fallback
internal/chaos:           internal/venv github.com/hashicorp/go-hclog
internal/e2e:             . core adapters/grpc adapters/jsonstdio adapters/msgpack fallback python
internal/e2e:             internal/venv github.com/hashicorp/go-hclog
internal/e2e/typedworker: . schema
internal/testnames:       conformance
internal/venv:
docs:                     internal/e2e
python:                   core
schema:                   core

.:                        core adapters/grpc adapters/jsonstdio adapters/msgpack fallback python
.:                        observe/debugpage
.:                        github.com/hashicorp/go-hclog
cmd/snakepit:             . adapters/grpc adapters/remote conformance core codec/json codec/msgpack
cmd/snakepit:             observe/debugpage python schema
cmd/snakepit:             github.com/hashicorp/go-hclog github.com/spf13/cobra github.com/spf13/pflag
cmd/snakepit:             github.com/HdrHistogram/hdrhistogram-go github.com/vbauerster/mpb/v8 golang.org/x/term
cmd/snakepit:             charm.land/bubbletea/v2 github.com/charmbracelet/x/ansi
examples/*:               . core python schema adapters/remote examples/internal/explain
examples/internal/explain: .
examples/*:               github.com/hashicorp/go-hclog github.com/vbauerster/mpb/v8 golang.org/x/text
`

func TestImports(t *testing.T) {
	rules := map[string][]string{}
	for line := range strings.Lines(imports) {
		if name, allowed, ok := strings.Cut(line, ":"); ok {
			rules[name] = append(rules[name], strings.Fields(allowed)...)
		}
	}
	for _, system := range []string{"linux", "darwin", "windows"} {
		used := map[string]bool{}
		all := packages(t, ".", system)
		maps.Copy(all, packages(t, "examples", system))
		for name, imported := range all {
			rule := name
			if path.Dir(name) == "examples" {
				rule = "examples/*"
			}
			used[rule] = true
			if _, known := rules[rule]; !known {
				t.Errorf("there is no rule for the package %s: say in deps_test.go what it may import", name)
			}
			for _, p := range imported {
				if !slices.ContainsFunc(rules[rule], func(a string) bool {
					return p == a || isModule(a) && strings.HasPrefix(p, a+"/")
				}) {
					t.Errorf("on %s, %s imports %s, which deps_test.go does not allow", system, name, p)
				}
			}
		}
		for rule := range rules {
			if !used[rule] {
				t.Errorf("on %s there is no package %s: take it out of deps_test.go", system, rule)
			}
		}
	}
}

// packages returns the packages of the module in dir with their imports beside the standard library, by the names in
// the rules.
func packages(t *testing.T, dir, system string) map[string][]string {
	t.Helper()
	const module = "github.com/snakepit-go/snakepit"
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		short := func(p string) string {
			if p == module {
				return "."
			}
			return strings.TrimPrefix(p, module+"/")
		}
		all[short(p.ImportPath)] = []string{}
		for _, imported := range p.Imports {
			if isModule(imported) {
				all[short(p.ImportPath)] = append(all[short(p.ImportPath)], short(imported))
			}
		}
	}
}

// isModule reports whether the path begins with a domain. No path of the standard library does, and none of the rules'
// short names.
func isModule(path string) bool {
	domain, _, _ := strings.Cut(path, "/")
	return strings.Contains(strings.Trim(domain, "."), ".")
}

// A program that uses the library gets what the library needs, and none of what the command, the tests and the examples
// need: neither in its build nor in its go.mod.
func TestUsersGetNoMore(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const module = "github.com/snakepit-go/snakepit"
	write("go.mod", "module example\n\ngo 1.26\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+here+"\n")
	write("main.go", "package main\n\nimport _ \""+module+"\"\n\nfunc main() {}\n")
	output := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return string(out)
	}
	output("mod", "tidy")
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	built := output("list", "-deps", ".")
	for _, wanted := range []string{
		"hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf", "vmihailenco/msgpack",
	} {
		if !strings.Contains(string(text), wanted) || !strings.Contains(built, wanted) {
			t.Errorf("%s is not there, so this test sees nothing", wanted)
		}
	}
	for _, unwanted := range []string{
		"spf13/cobra", "vbauerster/mpb", "HdrHistogram", "pgregory.net/rapid", "goleak", "rogpeppe",
		"golang.org/x/term",
	} {
		if strings.Contains(string(text), unwanted) || strings.Contains(built, unwanted) {
			t.Errorf("a user of the library gets %s:\n%s", unwanted, text)
		}
	}
}
