package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// plan is what to measure.
type plan struct {
	only    *regexp.Regexp // the parts, by their keys
	isQuick bool
	rounds  int
	memory  int64                     // bytes to stream, to measure memory
	say     func(part, detail string) // progress
}

// memoryKey is the key of the part that measures memory.
const memoryKey = "memory"

// remoteKeys are those of the parts beyond one machine.
func remoteKeys() []string {
	var all []string
	for _, r := range remoteRows {
		all = append(all, r.key)
	}
	return append(all, growingKey)
}

// keys are those of all other parts.
func keys() []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.key)
	}
	for _, s := range allSeries {
		all = append(all, "by-"+s.key)
	}
	return append(all, memoryKey, "streaming", "ways")
}

func (p plan) has(key string) bool { return p.only.MatchString(key) }

// measure carries the plan out.
func (p plan) measure(python string) (*report, error) {
	r, err := p.begin(python, keys(), rows)
	if err != nil {
		return nil, err
	}
	for _, s := range allSeries {
		if p.has("by-" + s.key) {
			s, err := s.measure(p.isQuick, p.rounds, p.say)
			if err != nil {
				return nil, err
			}
			r.Series = append(r.Series, s)
		}
	}
	if p.has(memoryKey) {
		for _, adapter := range adapters {
			p.say(memoryKey, adapter)
			g, err := memory(adapter, p.memory)
			if err != nil {
				return nil, err
			}
			r.Memory = append(r.Memory, g)
		}
	}
	return r, p.tables(r)
}

// begin begins a report and measures the rows.
func (p plan) begin(python string, keys []string, rows []row) (*report, error) {
	if !slices.ContainsFunc(keys, p.has) {
		return nil, fmt.Errorf("-only %v matches no part; the parts are %q", p.only, keys)
	}
	r, err := newReport(python, p.rounds)
	if err != nil {
		return nil, err
	}
	r.Quick, r.Missing = p.isQuick, missing(python)
	for _, row := range rows {
		if p.has(row.key) {
			row, err := p.row(row, r.Missing)
			if err != nil {
				return nil, err
			}
			r.Rows = append(r.Rows, row)
		}
	}
	return r, nil
}

// measureRemote carries the plan out for workers beyond one machine.
func (p plan) measureRemote(python string) (*report, error) {
	r, err := p.begin(python, remoteKeys(), remoteRows)
	if err != nil {
		return nil, err
	}
	r.Remote = true
	if p.has(growingKey) {
		isMissing := func(name string) bool { return slices.Contains(r.Missing, name) }
		r.Growing, err = growing(p.isQuick, isMissing, p.say)
	}
	return r, err
}

// tables measures the tables that are no rows.
func (p plan) tables(r *report) error {
	for _, t := range []struct {
		key     string
		measure func(b *bed, n scale, rounds int, bytes int64) (table, error)
	}{{"streaming", streamingTable}, {"ways", waysTable}} {
		if !p.has(t.key) {
			continue
		}
		p.say(t.key, "")
		b, err := newBed()
		if err != nil {
			return err
		}
		measured, err := t.measure(b, scaleOf(order{Quick: p.isQuick}), p.rounds, p.memory)
		if err = errors.Join(err, b.close()); err != nil {
			return err
		}
		r.Tables = append(r.Tables, measured)
	}
	return nil
}

// row measures a row: in each round and each mode every subject once, and at the end their system calls.
func (p plan) row(r row, missing []string) (report rowReport, err error) {
	report = rowReport{Key: r.key, Name: r.name, Unit: r.unit}
	children := map[mode]*child{}
	defer func() {
		for _, c := range children {
			err = errors.Join(err, c.close())
		}
	}()
	for _, m := range r.modes {
		if m == pinned && !canPin {
			continue
		}
		c, err := startChild(m)
		if err != nil {
			return report, err
		}
		children[m] = c
	}
	subjects := slices.DeleteFunc(slices.Clone(r.subjects), func(s subject) bool {
		return slices.Contains(missing, s.name)
	})
	samples := map[mode]map[string][]sample{pinned: {}, free: {}}
	ask := func(m mode, s subject, trace bool) (got sample, err error) {
		err = children[m].ask(&got, order{Job: "row", Row: r.key, Subject: s.name, Quick: p.isQuick, Trace: trace})
		return got, err
	}
	for round := range p.rounds {
		for _, m := range r.modes {
			for _, s := range subjects {
				if children[m] == nil || s.modes != nil && !slices.Contains(s.modes, m) {
					continue
				}
				p.say(r.key, fmt.Sprintf("round %d of %d, %s, %s", round+1, p.rounds, modeTitles[m], s.name))
				got, err := ask(m, s, false)
				if err != nil {
					return report, err
				}
				samples[m][s.name] = append(samples[m][s.name], got)
			}
		}
	}
	for _, s := range subjects {
		mine := subjectReport{Name: s.name, Figures: map[mode]*figure{}}
		for _, m := range r.modes {
			if all := samples[m][s.name]; len(all) > 0 {
				mine.Figures[m] = figureOf(all)
			}
		}
		if f := mine.Figures[pinned]; s.costs && f != nil && (!p.isQuick || r.key == "call") {
			p.say(r.key, "system calls of "+s.name)
			got, err := ask(pinned, s, true)
			if err != nil {
				return report, err
			}
			f.Cost.GoCalls, f.Cost.PyCalls = got.Cost.GoCalls, got.Cost.PyCalls
		}
		report.Subjects = append(report.Subjects, mine)
	}
	for i, s := range subjects {
		if !p.isQuick { // so little says nothing about a target
			report.Subjects[i].judge(s.target, report.Subjects)
		}
	}
	return report, nil
}
