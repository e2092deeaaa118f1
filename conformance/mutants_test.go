package conformance

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// The mutants test the suite itself. Each is an adapter, a worker or a codec with one fault, and names the clause
// that has to catch it. They run in bubbles with a fake clock: there a clause's time limit costs no time.

// mutant is an adapter, a worker or a codec with one fault.
type mutant struct {
	name   string
	clause string
	make   func(m *mutation) core.Adapter
}

var mutants = slices.Concat(
	adapterMutants, leaseMutants, codecMutants, callMutants, pieceMutants, callbackMutants, snapshotMutants,
	valueMutants, flowMutants, endMutants, poolMutants,
)

// catches runs one clause on a mutant and reports whether it fails.
func (mu mutant) catches(t *testing.T, c clause) (caught bool, r Result) {
	synctest.Test(t, func(t *testing.T) {
		m := &mutation{done: make(chan struct{})}
		h := &Harness{Adapter: mu.make(m), DetectsLoss: true, TimeLimit: 20 * time.Second}
		r = c.run(t.Context(), h, failures{})
		m.release()
		time.Sleep(time.Hour) // on the bubble's clock: all that sleeps wakes up and ends
	})
	return r.Outcome == Failed, r
}

func TestMutants(t *testing.T) {
	all := map[string]clause{}
	for _, c := range clauses() {
		all[c.Name] = c
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		if seen[m.name] {
			t.Errorf("two mutants are called %q", m.name)
		}
		seen[m.name] = true
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			c, ok := all[m.clause]
			if !ok {
				t.Fatalf("there is no clause %s", m.clause)
			}
			if caught, r := m.catches(t, c); !caught {
				t.Errorf("%s does not catch it, but says: %s: %s", m.clause, r.Outcome, strings.Join(r.Reasons, "; "))
			}
		})
	}
}

// TestPanic checks that a panic of an adapter fails the clause. The adapter is not a mutant: in a pool its panic would
// end the process.
func TestPanic(t *testing.T) {
	m := mutant{make: onConn(func(_ *mutation, c core.Conn) core.Conn { return &fragile{c, make(chan struct{})} })}
	for _, c := range adapterClauses {
		if c.Name == "close/again" {
			caught, r := m.catches(t, c)
			if !caught || !strings.Contains(r.String(), "panic: close of closed channel") ||
				!strings.HasSuffix(r.String(), c.Sentence) {
				t.Errorf("%s: %s", r.Outcome, r)
			}
		}
	}
}

// fragile panics in its second Close.
type fragile struct {
	core.Conn
	closed chan struct{}
}

func (c *fragile) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// TestSound checks that an unchanged worker under the wrapping of the mutants passes.
func TestSound(t *testing.T) {
	for _, c := range clauses() {
		if caught, r := (mutant{"", "", writing(func(*core.Frame) {})}).catches(t, c); caught {
			t.Errorf("%s", r)
		}
	}
}

var update = flag.Bool("update", false, "write mutants.md anew, from a run of every clause on every mutant")

// TestTable checks that mutants.md has a row for each clause, and in it all mutants that name the clause. The other
// mutants of a row are as of the last -update.
func TestTable(t *testing.T) {
	const file = "mutants.md"
	if *update {
		if err := os.WriteFile(file, []byte(table(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clauses() {
		at := slices.Collect(strings.Lines(string(text)))
		row := fmt.Sprintf("| %s | %s |", c.Part, c.Name)
		i := slices.IndexFunc(at, func(line string) bool { return strings.HasPrefix(line, row) })
		if i < 0 {
			t.Errorf("%s has no row for %s: run go test ./conformance -run TestTable -update", file, c.Name)
			continue
		}
		for _, m := range mutants {
			if m.clause == c.Name && !strings.Contains(at[i], m.name) {
				t.Errorf("the row of %s in %s lacks the mutant that %s: "+
					"run go test ./conformance -run TestTable -update", c.Name, file, m.name)
			}
		}
	}
}

func table(t *testing.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What the suite catches

Written by `+"`go test ./conformance -run TestTable -update`"+` from a run of every clause on every mutant of
[mutants_test.go](mutants_test.go). The mutants in bold name the clause as theirs: a test checks these. The others are
as of that run. A clause without any mutant is not known to catch anything.

| part | clause | kills |
| --- | --- | --- |
`)
	for _, c := range clauses() {
		var kills []string
		others := 0
		for _, m := range mutants {
			caught, _ := m.catches(t, c)
			switch {
			case caught && m.clause == c.Name:
				kills = append(kills, "**"+m.name+"**")
			case caught:
				others++
				if others <= 5 {
					kills = append(kills, m.name)
				}
			}
		}
		slices.SortStableFunc(kills, func(a, b string) int {
			return strings.Compare(b[:1], a[:1]) * boolToInt(a[:1] == "*" || b[:1] == "*")
		})
		if others > 5 {
			kills = append(kills, fmt.Sprintf("and %d more", others-5))
		}
		if len(kills) == 0 {
			kills = []string{"none"}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.Part, c.Name, strings.Join(kills, "; "))
	}
	return b.String()
}

func boolToInt(b bool) int {
	if b {
		return -1
	}
	return 0
}
