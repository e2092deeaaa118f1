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

// The suite is worth what it finds. Each mutant below is an adapter, a worker or a codec with one thing wrong, and names the clause that
// has to catch it. They run in bubbles on a false clock, where a clause's time limit costs nothing.

// mutant is something broken.
type mutant struct {
	name   string
	clause string
	make   func(m *mutation) core.Adapter
}

var mutants = slices.Concat(
	adapterMutants, codecMutants, callMutants, callbackMutants, valueMutants, flowMutants, endMutants, poolMutants,
)

// catches runs one clause on a mutant and reports whether it fails.
func (mu mutant) catches(t *testing.T, c clause) (caught bool, r Result) {
	synctest.Test(t, func(t *testing.T) {
		m := &mutation{done: make(chan struct{})}
		h := &Harness{Adapter: mu.make(m), DetectsLoss: true, TimeLimit: 20 * time.Second}
		r = c.run(t.Context(), h, failures{})
		m.release()
		time.Sleep(time.Hour) // on the bubble's clock: whatever sleeps wakes up and ends
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

// TestPanic sees that the panic of an adapter is its clause's failure. It is no mutant, because in a pool it would end the process.
func TestPanic(t *testing.T) {
	m := mutant{make: onConn(func(_ *mutation, c core.Conn) core.Conn { return &fragile{c, make(chan struct{})} })}
	for _, c := range adapterClauses {
		if c.Name == "close/again" {
			caught, r := m.catches(t, c)
			if !caught || !strings.Contains(r.String(), "panic: close of closed channel") || !strings.HasSuffix(r.String(), c.Sentence) {
				t.Errorf("%s: %s", r.Outcome, r)
			}
		}
	}
}

// fragile panics at its second Close.
type fragile struct {
	core.Conn
	closed chan struct{}
}

func (c *fragile) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// TestSound sees that what the mutants are made of passes.
func TestSound(t *testing.T) {
	for _, c := range clauses() {
		if caught, r := (mutant{"", "", writing(func(*core.Frame) {})}).catches(t, c); caught {
			t.Errorf("%s", r)
		}
	}
}

var update = flag.Bool("update", false, "write mutants.md anew, from a run of every clause on every mutant")

// TestTable holds mutants.md to the clauses and the mutants that there are. What else a clause kills than the mutants that name it, the
// table says as of its writing.
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
		i := slices.IndexFunc(at, func(line string) bool { return strings.HasPrefix(line, fmt.Sprintf("| %s | %s |", c.Part, c.Name)) })
		if i < 0 {
			t.Errorf("%s has no row for %s: run go test ./conformance -run TestTable -update", file, c.Name)
			continue
		}
		for _, m := range mutants {
			if m.clause == c.Name && !strings.Contains(at[i], m.name) {
				t.Errorf("the row of %s in %s lacks the mutant that %s: run go test ./conformance -run TestTable -update", c.Name, file, m.name)
			}
		}
	}
}

func table(t *testing.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What the suite catches

Written by `+"`go test ./conformance -run TestTable -update`"+` from a run of every clause on every mutant of
[mutants_test.go](mutants_test.go). In bold stand the mutants that name the clause as theirs, which a test holds; the others as they fell in that run.
A clause without any is not known to catch anything.

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
		slices.SortStableFunc(kills, func(a, b string) int { return strings.Compare(b[:1], a[:1]) * boolToInt(a[:1] == "*" || b[:1] == "*") })
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
