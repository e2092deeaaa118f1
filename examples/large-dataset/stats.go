package main

import (
	"fmt"
	"maps"
	"math/big"
	"strings"
	"time"
)

// Stats are the statistics of some rows. Those of a file are the same whatever ranges they were merged from: nothing in them is rounded.
type Stats struct {
	Processed int64    `json:"processed"`
	Skipped   int64    `json:"skipped"` // blank lines, rows that clean dropped, and malformed ones
	Errors    int64    `json:"errors"`  // malformed ones
	Columns   []Column `json:"columns"` // none without the operation aggregate
}

// Column has the aggregates of one column. Python sends its decimal numbers as text with all digits; here they are fractions.
type Column struct {
	Name     string           `json:"name"`
	Empty    int64            `json:"empty"`
	Numbers  int64            `json:"numbers"`
	Sum      *big.Rat         `json:"sum"`
	Least    *big.Rat         `json:"least"` // nil if there are no numbers
	Greatest *big.Rat         `json:"greatest"`
	Texts    int64            `json:"texts"`
	First    *string          `json:"first"` // in the order of code points; nil if there are no texts
	Last     *string          `json:"last"`
	Longest  int64            `json:"longest"` // in code points
	Tally    map[string]int64 `json:"tally"`   // how often there is which value; nil if there are too many different or too long ones
}

// tallyLimit is TALLY_LIMIT of operations.py.
const tallyLimit = 256

// add merges other into s.
func (s *Stats) add(other Stats) {
	s.Processed += other.Processed
	s.Skipped += other.Skipped
	s.Errors += other.Errors
	if s.Columns == nil {
		s.Columns = other.Columns
		return
	}
	for i := range s.Columns {
		s.Columns[i].add(other.Columns[i])
	}
}

func (c *Column) add(other Column) {
	c.Empty += other.Empty
	c.Numbers += other.Numbers
	c.Sum = new(big.Rat).Add(c.Sum, other.Sum)
	c.Least = choose(c.Least, other.Least, func(a, b *big.Rat) bool { return a.Cmp(b) <= 0 })
	c.Greatest = choose(c.Greatest, other.Greatest, func(a, b *big.Rat) bool { return a.Cmp(b) >= 0 })
	c.Texts += other.Texts
	c.First = choose(c.First, other.First, func(a, b *string) bool { return *a <= *b }) // UTF-8 is in the order of code points
	c.Last = choose(c.Last, other.Last, func(a, b *string) bool { return *a >= *b })
	c.Longest = max(c.Longest, other.Longest)
	if c.Tally == nil || other.Tally == nil {
		c.Tally = nil
		return
	}
	c.Tally = maps.Clone(c.Tally)
	for value, n := range other.Tally {
		c.Tally[value] += n
	}
	if len(c.Tally) > tallyLimit {
		c.Tally = nil
	}
}

// choose returns a if it is the better one, or the only one.
func choose[T any](a, b *T, better func(a, b *T) bool) *T {
	if b == nil || a != nil && better(a, b) {
		return a
	}
	return b
}

// faultsKept is how many malformed rows of a run are shown and compared one by one.
const faultsKept = 10

// result is the outcome of a run.
type result struct {
	Stats
	faults       []string
	reported     int64
	memory       float64 // the most that a worker took, in MiB
	took         time.Duration
	adapters     string
	reruns       int
	done, ranges int
}

// merge puts the parts together, in the order of the file. Those that are nil were not finished.
func merge(parts []*part) *result {
	r := &result{ranges: len(parts)}
	for _, p := range parts {
		if p == nil {
			continue
		}
		r.done++
		r.add(p.Stats)
		r.faults = append(r.faults, p.faults...)
		r.reported += p.reported
		r.memory = max(r.memory, p.memory)
	}
	r.faults = r.faults[:min(faultsKept, len(r.faults))]
	return r
}

// differs says what is different from the reference first, or "".
func (r *result) differs(reference *result) string {
	type pair struct {
		what      string
		got, want any
	}
	pairs := []pair{
		{"processed rows", r.Processed, reference.Processed},
		{"skipped rows", r.Skipped, reference.Skipped},
		{"errors", r.Errors, reference.Errors},
		{"reported errors", r.reported, reference.Errors},
		{"the first errors", strings.Join(r.faults, "; "), strings.Join(reference.faults, "; ")},
		{"columns", len(r.Columns), len(reference.Columns)},
	}
	for i := range min(len(r.Columns), len(reference.Columns)) {
		got, want := r.Columns[i].facts(), reference.Columns[i].facts()
		for j, name := range factNames {
			pairs = append(pairs, pair{fmt.Sprintf("column %q, %s", reference.Columns[i].Name, name), got[j], want[j]})
		}
	}
	for _, p := range pairs {
		if p.got != p.want {
			return fmt.Sprintf("%s: %v instead of %v", p.what, p.got, p.want)
		}
	}
	return ""
}

var factNames = []string{
	"name", "empty fields", "numbers", "sum", "least", "greatest", "texts", "first text", "last text", "longest text", "tally",
}

// facts returns what factNames lists, in forms that can be compared by ==.
func (c *Column) facts() []any {
	return []any{
		c.Name, c.Empty, c.Numbers, decimal(c.Sum), decimal(c.Least), decimal(c.Greatest), c.Texts, text(c.First), text(c.Last),
		c.Longest, fmt.Sprintf("%#v", c.Tally), // with its keys in order
	}
}
