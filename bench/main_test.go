package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(mainVariable) != "" {
		main()
		return
	}
	// A child with the race detector would wait a second for more to report before it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		// The parallel tests mostly wait for what must not happen.
		if err := f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// mainVariable makes a process of the tests the bench.
const mainVariable = "SNAKEPIT_BENCH_MAIN"

// reportOf runs the bench and decodes its report.
func reportOf(args ...string) (r report, err error) {
	var out bytes.Buffer
	if err = runBench(append(args, "-json"), &out); err == nil {
		err = json.Unmarshal(out.Bytes(), &r)
	}
	return r, err
}

// run is reportOf for a test.
func run(t *testing.T, args ...string) report {
	t.Helper()
	r, err := reportOf(args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRows checks that each row can be measured: the first one in each mode, the others without a pinned processor. A
// mode is what the child process does before it measures, whatever the row. Speed does not matter in a test.
func TestRows(t *testing.T) {
	r := quickly(t)
	if len(r.Rows) != len(rows) {
		t.Fatalf("%d rows instead of %d", len(r.Rows), len(rows))
	}
	checkRows(t, quickRows(), r)
}

// quickRows are the rows of quickly.
func quickRows() []row {
	all := slices.Clone(rows)
	for i := range all[1:] {
		if r := &all[i+1]; slices.Contains(r.modes, free) {
			r.modes = []mode{free}
		}
	}
	return all
}

// quickReport is the report of a quick run of all but what has a run of its own: memory and ways.
var quickReport = sync.OnceValues(func() (report, error) {
	all := rows
	defer func() { rows = all }()
	rows = quickRows()
	only := slices.DeleteFunc(keys(), func(key string) bool { return key == memoryKey || key == "ways" })
	return reportOf("-quick", "-only", strings.Join(only, "|"))
})

// quickly returns the report of the quick run that several tests share.
func quickly(t *testing.T) report {
	t.Helper()
	r, err := quickReport()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRemote checks that the rows beyond one machine can be measured, and what workers take.
func TestRemote(t *testing.T) {
	r := run(t, "-remote", "-quick")
	if len(r.Rows) != len(remoteRows) {
		t.Fatalf("%d rows instead of %d", len(r.Rows), len(remoteRows))
	}
	checkRows(t, remoteRows, r)
	lines := 5
	if slices.Contains(r.Missing, rayActor) {
		lines = 2
	}
	if len(r.Growing) != lines {
		t.Errorf("%d numbers of workers instead of %d", len(r.Growing), lines)
	}
	for _, e := range r.Growing {
		t.Run(fmt.Sprintf("growing/%s/%d", e.Subject, e.Workers), func(t *testing.T) {
			if e.Ready <= 0 {
				t.Errorf("ready after %v s", e.Ready)
			}
			if e.Subject != rayActor && e.Subject != ofRayJob && min(e.PerSecond, e.Host, e.Goroutines, e.Worker) <= 0 {
				t.Errorf("%+v", e)
			}
			if (e.Subject == served || e.Subject == onRay) != (e.BackEnd > 0) {
				t.Errorf("a back end of %v MiB", e.BackEnd)
			}
			for _, ofRay := range []float64{e.Actor, e.Head} {
				if (e.Subject == onRay) != (ofRay > 0) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func checkRows(t *testing.T, rows []row, r report) {
	for i, row := range rows {
		found := map[string]subjectReport{}
		for _, s := range r.Rows[i].Subjects {
			found[s.Name] = s
		}
		for _, s := range row.subjects {
			t.Run(row.key+"/"+s.name, func(t *testing.T) { checkSubject(t, row, s, found[s.name], r.Missing) })
		}
	}
}

func checkSubject(t *testing.T, row row, s subject, got subjectReport, missing []string) {
	for _, name := range missing {
		if s.name == name {
			t.Skipf("%s is not installed: make bench-peers", name)
		}
	}
	modes := row.modes
	if s.modes != nil {
		modes = s.modes
	}
	for _, m := range modes {
		f := got.Figures[m]
		if f == nil {
			if m != pinned || canPin {
				t.Errorf("no figure of %s", m)
			}
			continue
		}
		if f.Median <= 0 {
			t.Errorf("%s: %+v", m, f)
		}
		if s.costs && (f.Cost.Allocs <= 0 || canPin && (f.Cost.GoCPU <= 0 || f.Cost.PythonCPU <= 0)) {
			t.Errorf("%s has no cost: %+v", m, f.Cost)
		}
	}
	if got.Met != nil {
		t.Errorf("a quick run judges: %+v", got)
	}
}

func TestSeries(t *testing.T) {
	r := quickly(t)
	if len(r.Series) != len(allSeries) {
		t.Fatalf("%d series instead of %d", len(r.Series), len(allSeries))
	}
	for i, s := range r.Series {
		if len(s.Points) != len(allSeries[i].quickPoints) || len(s.Lines) != len(adapters) {
			t.Errorf("%+v", s)
		}
		for _, l := range s.Lines {
			for _, v := range l.Values {
				if v <= 0 {
					t.Errorf("%s, %s: %v", s.Key, l.Adapter, l.Values)
				}
			}
		}
	}
}

func TestMemory(t *testing.T) {
	r := run(t, "-rounds", "1", "-memory", "4", "-only", memoryKey)
	if len(r.Memory) != 3 {
		t.Fatalf("the memory of %d adapters instead of 3", len(r.Memory))
	}
	for _, g := range r.Memory {
		if g.Streamed != 4 || g.HostIdle <= 0 || g.WorkerIdle <= 0 || g.Slower < 9 {
			t.Errorf("memory: %+v", g)
		}
	}
}

// TestStreamingTable checks the parts that do not depend on speed.
func TestStreamingTable(t *testing.T) {
	r := quickly(t)
	rows := r.Tables[0].Rows
	if len(rows) != 7 {
		t.Fatalf("%d rows: %v", len(rows), rows)
	}
	for i, row := range rows {
		if len(row) != 7 {
			t.Errorf("row %d has %d cells: %v", i, len(row), row)
		}
	}
	for _, want := range []string{
		"results that came before the work ended|0|9|0|9|0|9",
		"item 5 raises: results that come|0 of 9|9 of 9|0 of 9|9 of 9|0 of 9|9 of 9",
	} {
		found := false
		for _, row := range rows {
			found = found || strings.Join(row, "|") == want
		}
		if !found {
			t.Errorf("no row %q in %v", want, rows)
		}
	}
}

func TestSmallCalls(t *testing.T) {
	b, err := newBed()
	if err != nil {
		t.Fatal(err)
	}
	took, err := smallCalls(b, quick, 1)
	if err != nil {
		t.Error(err)
	}
	if len(took) != 6 {
		t.Errorf("%d ways: %v", len(took), took)
	}
	for name, values := range took {
		if len(values) != 1 || values[0] <= 0 {
			t.Errorf("%s: %v", name, values)
		}
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func TestSoak(t *testing.T) {
	r := run(t, "-soak", "3s")
	if r.Soak == nil || r.Soak.Calls == 0 || len(r.Soak.Points) == 0 {
		t.Fatalf("%+v", r.Soak)
	}
	for _, p := range r.Soak.Points {
		if p.Host <= 0 || p.Workers <= 0 || p.Descriptors < 20 || p.Goroutines < 10 {
			t.Errorf("%+v", p)
		}
	}
	if got := r.Soak.table(); len(got.Rows) != 4 {
		t.Errorf("%+v", got)
	}
}

// TestInterrupt checks that an interrupted bench leaves no files.
func TestInterrupt(t *testing.T) {
	directory := t.TempDir()
	cmd := exec.Command(os.Args[0], "-soak", "10m") // it says its first line after a 180th
	cmd.Env = append(os.Environ(), mainVariable+"=1", "TMPDIR="+directory)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil {
		t.Errorf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Error(err)
	}
	if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestTargets checks that each target compares with a subject of its row, in a mode of both.
func TestTargets(t *testing.T) {
	for _, row := range slices.Concat(rows, remoteRows) {
		known := map[string]bool{"": true}
		for _, s := range row.subjects {
			if known[s.name] {
				t.Errorf("%s has %q twice", row.key, s.name)
			}
			known[s.name] = true
		}
		for _, s := range row.subjects {
			if !known[s.target.against] || !known[s.target.plus] {
				t.Errorf("%s: the target of %s is %+v, which names no subject of the row", row.key, s.name, s.target)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	other := subjectReport{Name: "other", Figures: map[mode]*figure{free: {Median: 10, values: []float64{10, 20, 5}}}}
	extra := subjectReport{Name: "extra", Figures: map[mode]*figure{free: {Median: 4, values: []float64{4, 4, 4}}}}
	for _, c := range []struct {
		target target
		met    bool
		ratio  float64
	}{
		{target{in: free, bound: 13, less: true}, true, 0},
		{target{in: free, bound: 11, less: true}, false, 0},
		{target{in: free, bound: 11}, true, 0},
		{target{in: free, against: "other", bound: 1.2, less: true}, true, 1.2},
		{target{in: free, against: "other", bound: 1.1, less: true}, false, 1.2},
		{target{in: free, against: "other", bound: 1.3}, false, 1.2},
		{target{in: free, against: "other", bound: 1, less: true, plus: "extra"}, true, 1.2},
	} {
		s := subjectReport{Figures: map[mode]*figure{free: {Median: 12, values: []float64{12, 12, 12}}}}
		s.judge(c.target, []subjectReport{other, extra})
		if s.Met == nil || *s.Met != c.met || s.Ratio != c.ratio {
			t.Errorf("%+v: %+v", c.target, s)
		}
	}
	s := subjectReport{Figures: map[mode]*figure{free: {Median: 12, values: []float64{12}}}}
	if s.judge(target{in: pinned, bound: 1}, nil); s.Met != nil {
		t.Error("a target was met in a mode that was not measured")
	}
}

func TestNumber(t *testing.T) {
	for want, v := range map[string]float64{
		"0.00": 0, "1.23": 1.234, "12.3": 12.34, "123": 123.4, "1,230": 1234, "12,300": 12345, "1,230,000": 1234567,
		"-1,230": -1234,
	} {
		if got := number(v); got != want {
			t.Errorf("%v is %q, not %q", v, got, want)
		}
	}
}

func TestUpdate(t *testing.T) {
	text := []byte("above\n<!-- table one -->\nold\n<!-- end of table one -->\nbelow\n")
	want := "above\n<!-- table one -->\n\nToday.\n\n<!-- end of table one -->\nbelow\n"
	for range 2 { // the second time changes nothing
		var err error
		if text, err = update(text, "one", "Today.\n"); err != nil || string(text) != want {
			t.Fatalf("%v:\n%s", err, text)
		}
	}
	if _, err := update([]byte("<!-- table one -->\n"), "one", ""); err == nil {
		t.Error("no error without the second marker")
	}
	if err := place(slices.Concat(keys(), remoteKeys(), []string{runName, remoteRunName, soakName})); err != nil {
		t.Error(err)
	}
	got := table{Header: []string{"", "a"}, Rows: [][]string{{"b", "c|d"}}}.markdown()
	if want := "|  | a |\n| --- | --- |\n| b | c\\|d |\n"; got != want {
		t.Errorf("%q instead of %q", got, want)
	}
}

// TestPages checks that the tables of the pages are those of the stored runs.
func TestPages(t *testing.T) {
	for _, file := range []string{resultsFile, soakFile, remoteFile} {
		r, err := load(file)
		if err != nil {
			t.Fatal(err)
		}
		all := r.places()
		if len(all) == 0 {
			t.Errorf("%s has no tables", file)
		}
		for name, content := range all {
			page, err := os.ReadFile(pageOf(name))
			if err != nil {
				t.Fatal(err)
			}
			if written, err := update(page, name, content); err != nil || !bytes.Equal(written, page) {
				t.Errorf("%s does not have %s of %s: run go run . -rewrite (%v)", pageOf(name), name, file, err)
			}
		}
	}
}

// TestStored checks that the stored runs have the rows and subjects of the code.
func TestStored(t *testing.T) {
	for file, rows := range map[string][]row{resultsFile: rows, remoteFile: remoteRows} {
		r, err := load(file)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, row := range rows {
			for _, s := range row.subjects {
				want = append(want, row.key+" of "+s.name)
			}
		}
		for _, row := range r.Rows {
			for _, s := range row.Subjects {
				got = append(got, row.Key+" of "+s.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, the code %q: run make bench or make bench-remote", file, got, want)
		}
	}
}

func TestNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-memory", "-1"}, {"-only", "("}, {"extra"}, {"-quick", "-only", "no such part"},
		{"-write", "-quick"}, {"-write", "-only", "call"}, {"-soak", "-1s"}, {"-soak", "1ms"},
		{"-soak", "1s", "-quick"}, {"-soak", "1s", "-remote"}, {"-remote", "-only", "call"},
	} {
		if err := runBench(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
