package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/observe/debugpage"
)

func psCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ps [HOST]", Short: "List the workers of running programs, and what they run",
		Long: "Ps prints the workers of a program that runs a pool, and what they run. Without HOST it does so\n" +
			"for each program of this user that offers a socket. It takes a moment to measure the processors.\n" +
			aboutHost + hostCodes,
		Args:    atMost(1, words()),
		Example: "  snakepit ps\n  snakepit ps localhost:6060\n  snakepit ps --json | jq '.[].workers[].pid'",
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list of the hosts' states as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		hosts, err := findHosts(strings.Join(args, ""))
		if err != nil {
			return err
		}
		states := make([]debugpage.State, 0, len(hosts))
		for _, h := range hosts {
			s, err := h.measured(cmd.Context())
			if err != nil {
				return err
			}
			states = append(states, s)
		}
		if asJSON {
			return printIndented(cmd.OutOrStdout(), states)
		}
		for i, s := range states {
			text := strings.Join(append(headOf(s), alignedRows(workerRows(s))...), "\n") + "\n"
			if i > 0 {
				text = "\n" + text
			}
			if err := write(cmd.OutOrStdout(), text); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// headOf returns lines about a pool.
func headOf(s debugpage.State) []string {
	c := s.Counters
	line := fmt.Sprintf("%s: %d of %d workers ready, %d running, %d waiting", s.Pool, c.Ready, s.Size, c.Running,
		c.Waiting)
	if c.Waiting > 0 {
		line += fmt.Sprintf(" (the oldest for %s)", seconds(c.OldestWait))
	}
	second := fmt.Sprintf("%s, pid %d; calls so far: %d, refused: %d, workers lost: %d", s.Program, s.PID, c.Calls,
		c.Saturated, c.Lost)
	if c.StartFails > 0 {
		second += fmt.Sprintf(", starts failed: %d", c.StartFails)
	}
	return []string{line, second}
}

// workerRows returns the table of the workers, with its head.
func workerRows(s debugpage.State) [][]string {
	rows := [][]string{{"WORKER", "STATE", "RUNS", "SLOTS", "CPU", "MEMORY", "CALLS", "AGE", "PROTOCOL", "PID", "WHY"}}
	for _, w := range s.Workers {
		row := []string{
			strconv.Itoa(w.Index), string(w.State), runsOn(s, w.Index), "", "", "", "", seconds(w.Age), w.Adapter, "",
			whyOf(w),
		}
		if w.PID != 0 {
			row[9] = strconv.Itoa(w.PID)
		}
		if w.Slots > 0 {
			row[3] = fmt.Sprintf("%d/%d", w.Running, w.Slots)
			row[6] = strconv.FormatInt(w.Calls, 10)
		}
		if w.CPUTime > 0 {
			row[4] = fmt.Sprintf("%.0f%%", 100*w.CPU)
		}
		if w.Memory > 0 {
			row[5] = bytesText(w.Memory)
		}
		rows = append(rows, row)
	}
	return rows
}

// runsOn returns the oldest call of a worker.
func runsOn(s debugpage.State, worker int) string {
	text, more := "", 0
	for _, c := range s.Calls {
		switch {
		case c.Worker != worker || c.Function:
		case text == "":
			text = fmt.Sprintf("%s %s", c.Command, seconds(c.Age))
			if c.Cancelled {
				text += " cancelled"
			}
		default:
			more++
		}
	}
	if more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

// whyOf returns why a worker is not as it should be.
func whyOf(w debugpage.Worker) string {
	var all []string
	if w.Reason != "" {
		all = append(all, w.Reason)
	}
	if w.Failures > 0 {
		first, _, _ := strings.Cut(w.LastErr, "\n")
		all = append(all, fmt.Sprintf("%d failed starts: %s", w.Failures, first))
	}
	for _, r := range w.Refused {
		first, _, _ := strings.Cut(r, "\n")
		all = append(all, "not "+first)
	}
	return strings.Join(all, "; ")
}

// alignedRows returns a table as lines. Columns without content are left out.
func alignedRows(rows [][]string) []string {
	widths := make([]int, len(rows[0]))
	for i, row := range rows {
		for c, cell := range row {
			if i > 0 && cell != "" {
				widths[c] = max(widths[c], utf8.RuneCountInString(cell), len(rows[0][c]))
			}
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		var b strings.Builder
		for c, cell := range row {
			if widths[c] > 0 {
				b.WriteString(cell + strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell)+2))
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// seconds formats a number of seconds with a unit.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", s)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
