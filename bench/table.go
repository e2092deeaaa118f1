package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// table is a table of README.md, between two markers there.
type table struct {
	Name   string     `json:"name"`
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

// tables are the tables that -table accepts.
var tables = map[string]func(b *bed, n scale, rounds int, bytes int64) (table, error){
	"streaming": streamingTable,
	"peers":     peersTable,
}

const readme = "README.md"

// tableNames parses a comma-separated list. "" means none.
func tableNames(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	names := strings.Split(list, ",")
	for i, name := range names {
		if tables[name] == nil || slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("-table is %q; it is streaming, peers, or streaming,peers", list)
		}
	}
	return names, nil
}

func (t table) markdown() string {
	cells := append([][]string{t.Header, slices.Repeat([]string{"---"}, len(t.Header))}, t.Rows...)
	var b strings.Builder
	for _, row := range cells {
		for _, cell := range row {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(cell, "|", `\|`))
		}
		b.WriteString("|\n")
	}
	return b.String()
}

func measureTables(b *bed, names []string, n scale, rounds int, bytes int64) (*report, error) {
	versions, err := versions(b.python)
	if err != nil {
		return nil, err
	}
	r := &report{Machine: machine(), Versions: versions, Rounds: rounds}
	for _, name := range names {
		t, err := tables[name](b, n, rounds, bytes)
		if err != nil {
			return nil, err
		}
		r.Tables = append(r.Tables, t)
	}
	return r, nil
}

// line is the text above a table: the time and place of the measurement.
func (r *report) line() string {
	return fmt.Sprintf("On %s; %s; %s; medians of %d rounds in turns.", time.Now().Format("2 January 2006"), r.Machine,
		r.versions(), r.Rounds)
}

// placed returns the text of README.md. It fails if the text lacks a place for a table. This check comes before
// the minutes of measuring.
func placed(names []string) ([]byte, error) {
	text, err := os.ReadFile(readme)
	if err != nil {
		return nil, fmt.Errorf("-update has to run in the directory bench: %w", err)
	}
	for _, name := range names {
		if _, err := update(text, "", []table{{Name: name}}); err != nil {
			return nil, err
		}
	}
	return text, nil
}

// update replaces the text between each table's markers in a Markdown text. Above each table it puts line.
func update(text []byte, line string, all []table) ([]byte, error) {
	for _, t := range all {
		begin, end := fmt.Sprintf("<!-- table %s -->\n", t.Name), fmt.Sprintf("<!-- end of table %s -->\n", t.Name)
		before, rest, begins := bytes.Cut(text, []byte(begin))
		_, after, ends := bytes.Cut(rest, []byte(end))
		if !begins || !ends {
			return nil, fmt.Errorf("%s lacks the lines %q and %q around the table", readme,
				strings.TrimSpace(begin), strings.TrimSpace(end))
		}
		text = slices.Concat(before, []byte(begin+"\n"+line+"\n\n"+t.markdown()+"\n"+end), after)
	}
	return text, nil
}
