package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The files that a run writes.
const (
	readme      = "README.md"
	performance = "../docs/performance.md"
	scalePage   = "../docs/scale.md"
	resultsFile = "results.json"
	soakFile    = "soak.json"
	remoteFile  = "remote.json"
)

// The places on the pages of performance and of scale for the time and place of the run.
const (
	runName       = "run"
	remoteRunName = "remote-run"
)

// pageOf is the page that has the table between two markers.
func pageOf(name string) string {
	switch {
	case name == "streaming" || name == "ways":
		return readme
	case strings.HasPrefix(name, "remote-"):
		return scalePage
	}
	return performance
}

// places are what stands between markers on the pages, by name.
func (r *report) places() map[string]string {
	all := map[string]string{}
	for _, t := range r.tables() {
		all[t.Name] = t.markdown()
		if t.Title != "" {
			all[t.Name] = "*" + t.Title + "*\n\n" + t.markdown()
		}
		if pageOf(t.Name) == readme || t.Name == soakName {
			all[t.Name] = r.line() + "\n\n" + all[t.Name]
		}
	}
	if len(r.Rows) > 0 {
		name := runName
		if r.Remote {
			name = remoteRunName
		}
		all[name] = r.line() + "\n"
	}
	return all
}

// place checks that each page has a place for its tables. This comes before the minutes of measuring.
func place(names []string) error {
	for _, name := range names {
		text, err := os.ReadFile(pageOf(name))
		if err != nil {
			return fmt.Errorf("-write has to run in the directory bench: %w", err)
		}
		if _, err := update(text, name, ""); err != nil {
			return fmt.Errorf("%s: %w", pageOf(name), err)
		}
	}
	return nil
}

// store writes the report into its file.
func (r *report) store(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// load reads a report that was stored.
func load(file string) (*report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &report{}
	return r, json.Unmarshal(text, r)
}

// write puts the report's tables into the pages and draws the charts.
func (r *report) write() error {
	for name, content := range r.places() {
		page := pageOf(name)
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if text, err = update(text, name, content); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
		if err := os.WriteFile(page, text, 0o644); err != nil {
			return err
		}
	}
	return r.draw(chartsDirectory)
}

// rewrite does so with the stored reports.
func rewrite() error {
	for _, file := range []string{resultsFile, soakFile, remoteFile} {
		r, err := load(file)
		if err == nil {
			err = r.write()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// update replaces the text between the markers of a name.
func update(text []byte, name, content string) ([]byte, error) {
	begin, end := fmt.Sprintf("<!-- table %s -->\n", name), fmt.Sprintf("<!-- end of table %s -->\n", name)
	before, rest, begins := bytes.Cut(text, []byte(begin))
	_, after, ends := bytes.Cut(rest, []byte(end))
	if !begins || !ends {
		return nil, fmt.Errorf("the lines %q and %q are not around a table", strings.TrimSpace(begin),
			strings.TrimSpace(end))
	}
	return slices.Concat(before, []byte(begin+"\n"+content+"\n"+end), after), nil
}
