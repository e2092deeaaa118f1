package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// console prints the streams of all files, each chunk in one piece.
type console struct {
	out  io.Writer
	many bool // several files, so each line names its file

	mu sync.Mutex
}

var emoji = map[string]string{"FATAL": "💀", "ERROR": "🚨", "WARN": "⚠️"}

// chunk prints a match with the lines around it, or a note.
func (c *console) chunk(chunk Chunk) {
	if chunk.Note != "" {
		c.printf("📄 %s %s\n", chunk.File, chunk.Note)
		return
	}
	var text strings.Builder
	for _, line := range chunk.ContextBefore {
		fmt.Fprintf(&text, "     │ %s\n", short(line))
	}
	sign, ok := emoji[chunk.Severity]
	if !ok {
		sign = "ℹ️"
	}
	fmt.Fprint(&text, sign, " ")
	if c.many {
		fmt.Fprintf(&text, "%s:%d ", chunk.File, chunk.LineNumber)
	}
	if chunk.Timestamp != "" {
		fmt.Fprintf(&text, "[%s] ", chunk.Timestamp)
	}
	fmt.Fprintf(&text, "%s: %s", chunk.PatternMatched, short(chunk.Message))
	if chunk.DroppedBytes > 0 {
		fmt.Fprintf(&text, " (a long line; %d bytes were not kept)", chunk.DroppedBytes)
	}
	fmt.Fprintln(&text)
	for _, line := range chunk.ContextAfter {
		fmt.Fprintf(&text, "     │ %s\n", short(line))
	}
	c.printf("%s", text.String())
}

// summary prints the totals.
func (c *console) summary(paths []string, summaries []Summary) {
	c.printf("📊 Log analysis session ended\n")
	patterns, severities := map[string]int{}, map[string]int{}
	for i, s := range summaries {
		if !s.IsFinal {
			c.printf("   %s: it did not come to its end, so its counts are missing\n", paths[i])
			continue
		}
		c.printf("   %s: %s read, %s, %s\n", paths[i], some(s.Lines, "line"), some(s.Rotations, "rotation"),
			some(s.Truncations, "truncation"))
		for pattern, n := range s.Patterns {
			patterns[pattern] += n
		}
		for severity, n := range s.Severities {
			severities[severity] += n
		}
	}
	c.printf("   by pattern: %s\n   by severity: %s\n", counts(patterns), counts(severities))
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, format, args...)
}

// counts lists the names with their counts, the most frequent first.
func counts(n map[string]int) string {
	if len(n) == 0 {
		return "nothing was found"
	}
	names := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		if n[a] != n[b] {
			return n[b] - n[a]
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, n[name])
	}
	return strings.Join(names, ", ")
}

// some formats a number with its noun.
func some(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

// short truncates a long line and replaces characters that could disturb the terminal.
func short(line string) string {
	const most = 80
	runes := []rune(line)
	if len(runes) > most {
		runes = append(runes[:most], []rune("...")...)
	}
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = ' '
		}
	}
	return string(runes)
}
