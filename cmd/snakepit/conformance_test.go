package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/conformance"
)

// echoes is a worker that offers only one command of the suite. Most clauses are therefore skipped.
const echoes = `
from snakepit_bridge import Worker
worker = Worker()
@worker.command(name="conformance.echo")
def echo(value=None): return value
@worker.command(name="conformance.count")
def count(n, size=0, fail=False):
    yield from range(n - 1)
    return {"sent": n}
worker.run()
`

func runConformance(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"conformance"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestConformanceReports(t *testing.T) {
	worker := filepath.Join(t.TempDir(), "worker.py")
	if err := os.WriteFile(worker, []byte(echoes), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, said := runConformance(t, "--time-limit", "5s", "--", worker)
	if code != exitFailed || !strings.Contains(out, "passed  worker/call/result") ||
		!strings.Contains(out, "failed  worker/stream/items") ||
		!strings.Contains(out, "the rule: A stream's items come in order") ||
		!strings.Contains(out, "the worker does not offer conformance.wait") ||
		!strings.Contains(out, " clauses: ") || !strings.Contains(said, "clauses failed") {
		t.Errorf("code %d\n%s\n%s", code, out, said)
	}
}

// The other formats report the same facts as the text.
func TestConformanceFormats(t *testing.T) {
	clause := func(name string) conformance.Clause {
		return conformance.Clause{Part: conformance.Worker, Name: name, Sentence: "The rule of " + name + "."}
	}
	results := []conformance.Result{
		{Clause: clause("a/passed"), Outcome: conformance.Passed, Took: time.Second},
		{Clause: clause("b/failed"), Outcome: conformance.Failed, Reasons: []string{"seen <&> \x00\x1b", "and more"}},
		{Clause: clause("c/skipped"), Outcome: conformance.Skipped, Reasons: []string{"not offered"}},
		{Clause: clause("d/known"), Outcome: conformance.Known, Reasons: []string{"as ever"}},
		{Clause: clause("e/resting"), Outcome: conformance.Skipped, Reasons: []string{"it rests on worker/b/failed"},
			RestsOn: "worker/b/failed"},
	}
	reported := func(format string) []byte {
		var out bytes.Buffer
		r, err := newReporter(format, &out)
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range results {
			r.result(res)
		}
		if err := r.end("./my-worker", results); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	var report struct {
		Worker  string
		Counts  map[string]int
		Results []struct {
			Part, Name, Rule, Outcome string
			Reasons                   []string
			RestsOn                   string `json:"rests_on"`
			Seconds                   float64
		}
	}
	if err := json.Unmarshal(reported("json"), &report); err != nil || report.Worker != "./my-worker" ||
		report.Counts["failed"] != 1 ||
		len(report.Results) != 5 || report.Results[4].RestsOn != "worker/b/failed" || report.Results[3].RestsOn != "" ||
		report.Results[0].Seconds != 1 || report.Results[1].Reasons[0] != "seen <&> \x00\x1b" ||
		report.Results[2].Rule != "The rule of c/skipped." {
		t.Errorf("%v, %+v", err, report)
	}
	var suite junitSuite
	if err := xml.Unmarshal(reported("junit"), &suite); err != nil || suite.Tests != 5 || suite.Failures != 1 ||
		suite.Skipped != 3 || len(suite.Cases) != 5 ||
		suite.Cases[1].Failure == nil || suite.Cases[1].Failure.Text != "seen <&> \nand more" ||
		suite.Cases[2].Skipped == nil || suite.Cases[0].Failure != nil ||
		suite.Cases[4].Skipped.Message != "it rests on worker/b/failed" {
		t.Errorf("%v, %+v", err, suite)
	}
	if text := string(reported("text")); !strings.Contains(text,
		"skipped worker/e/resting (0s)\n        it rests on worker/b/failed\n") ||
		!strings.HasSuffix(text, "\nfix worker/b/failed first: 1 skipped clauses depend on it\n") {
		t.Errorf("the text is\n%s", text)
	}
}

// If nothing can be checked, the output is one sentence and no report.
func TestConformanceOfNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"missing", []string{"--", "./no-such-worker"}, exitNoWorker, "no-such-worker"},
		{"not executable", []string{"--", file}, exitNoWorker, "chmod +x"},
		{"is no worker of a test", []string{"--", filepath.Join("testdata", "worker.py")}, exitNoWorker,
			"the worker offers none of the commands that the suite calls, such as conformance.echo"},
		{"says no hello", []string{"--time-limit", "1s", "--", "cat"}, exitNoWorker, "hello does not come"},
		{"exits", []string{"--", "sh", "-c", "echo out of order >&2; exit 4"}, exitNoWorker,
			"exited with code 4; its last output: out of order"},
		{"no worker", nil, exitUsage, "WORKER"},
		{"unknown adapter", []string{"--adapter", "smoke", "--", "cat"}, exitUsage, "smoke"},
		{"unknown format", []string{"--format", "pdf", "--", "cat"}, exitUsage, "pdf"},
		{"unknown part", []string{"--parts", "all", "--", "cat"}, exitUsage, "all"},
		{"negative time limit", []string{"--time-limit", "-1s", "--", "cat"}, exitUsage,
			"--time-limit is -1s; it has to be positive"},
		{"negative parallel", []string{"--parallel", "-1", "--", "cat"}, exitUsage,
			"--parallel is -1; it has to be positive"},
		{"negative frame", []string{"--max-frame", "-1", "--", "cat"}, exitUsage,
			"--max-frame is -1; it has to be positive"},
		{"negative concurrency", []string{"--max-concurrency", "-1", "--", "cat"}, exitUsage,
			"--max-concurrency is -1; it has to be positive"},
		{"unknown clause", []string{"--known", "no/rule", "--", "cat"}, exitUsage, "no/rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, said := runConformance(t, c.args...)
			if code != c.code || out != "" || !strings.Contains(said, c.says) || strings.Count(said, "\n") > 5 {
				t.Errorf("code %d\n%s\n%s", code, out, said)
			}
		})
	}
}
