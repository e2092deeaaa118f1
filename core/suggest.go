package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// suggest returns "; did you mean x or y?" with the names in known that are close to name. If none is close, it lists
// the known names. The built-in commands, which begin with "snakepit.", do not count.
func suggest[V any](name string, known map[string]V) string {
	type match struct {
		name string
		far  int
	}
	var near []match
	var all []string
	for k := range known {
		if strings.HasPrefix(k, "snakepit.") {
			continue
		}
		all = append(all, k)
		if d := distance(name, k); d <= max(2, len(name)/3) {
			near = append(near, match{k, d})
		}
	}
	slices.SortFunc(near, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.far, b.far), strings.Compare(a.name, b.name))
	})
	slices.Sort(all)
	switch {
	case len(near) > 0:
		names := make([]string, 0, 3)
		for _, m := range near[:min(len(near), 3)] {
			names = append(names, m.name)
		}
		return "; did you mean " + strings.Join(names, " or ") + "?"
	case len(all) == 0:
		return "; there are none"
	case len(all) > 8:
		return fmt.Sprintf("; there are %s and %d more", strings.Join(all[:8], ", "), len(all)-8)
	}
	return "; there are " + strings.Join(all, ", ")
}

// distance is the Levenshtein distance: how many bytes to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			up := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, up+1, diagonal+cost)
			diagonal = up
		}
	}
	return row[len(b)]
}
