package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit/observe/debugpage"
)

func topCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "top [HOST]", Short: "Watch the workers of a running program",
		Long: "Top shows the workers of a program that runs a pool, what they run, and what waits. It refreshes\n" +
			"each second and at each change. The keys are shown at the bottom.\n" + aboutHost + hostCodes,
		Args:    atMost(1, words()),
		Example: "  snakepit top\n  snakepit top http://localhost:6060/debug/snakepit/",
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each state as a line of JSON, until Ctrl-C or the pool's end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		h, err := findHost(strings.Join(args, ""))
		if err != nil {
			return err
		}
		if asJSON {
			return h.watch(cmd.Context(), func(state []byte) error {
				return write(cmd.OutOrStdout(), string(state)+"\n")
			})
		}
		if !isTerminal(cmd.OutOrStdout()) {
			return errors.New("top needs a terminal; use snakepit ps, or snakepit top --json")
		}
		return showTop(cmd, h)
	}
	return cmd
}

// showTop runs the screen until the user quits. Its error is that of the connection.
func showTop(cmd *cobra.Command, h host) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	program := tea.NewProgram(&top{host: h, ctx: ctx}, tea.WithContext(ctx), tea.WithInput(cmd.InOrStdin()))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		err := h.watch(ctx, func(state []byte) error {
			var s debugpage.State
			if err := json.Unmarshal(state, &s); err != nil {
				return runError{hostError{fmt.Errorf("%s does not answer as a debug page: %w", h.base, err)}}
			}
			program.Send(s)
			return nil
		})
		if ctx.Err() == nil {
			program.Send(ended{err})
		}
	}()
	last, err := program.Run()
	cancel()
	<-watched
	switch {
	case cmd.Context().Err() != nil:
		return runError{cmd.Context().Err()}
	case err != nil:
		return runError{err}
	}
	return last.(*top).err
}

// ended says that the pool is closed, or why the connection has ended.
type ended struct{ err error }

// looked is the answer to a look at a worker.
type looked struct {
	text string
	err  error
}

// orders are the orders of the workers, by the key s.
var orders = []struct {
	name    string
	compare func(a, b *debugpage.Worker) int
}{
	{"index", func(a, b *debugpage.Worker) int { return 0 }},
	{"CPU", func(a, b *debugpage.Worker) int { return cmp.Compare(b.CPU, a.CPU) }},
	{"memory", func(a, b *debugpage.Worker) int { return cmp.Compare(b.Memory, a.Memory) }},
	{"calls", func(a, b *debugpage.Worker) int { return cmp.Compare(b.Calls, a.Calls) }},
	{"age", func(a, b *debugpage.Worker) int { return cmp.Compare(a.Age, b.Age) }},
}

// top is the model of the screen.
type top struct {
	host host
	ctx  context.Context // of the requests that keys make; it ends with the screen

	state         *debugpage.State // nil before the first one
	order         int
	selected      int // the row of a worker
	page          topPage
	text          []string // of the page with stacks
	scroll        int
	width, height int
	err           error
}

// topPage is what the lower part of the screen shows.
type topPage uint8

const (
	pageCalls topPage = iota
	pageCommands
	pageErrors
	pageEvents
	pageStack // of the selected worker
	pageCount
)

var pageNames = [pageCount]string{"calls", "commands", "errors", "events", "stacks"}

func (t *top) Init() tea.Cmd { return nil }

func (t *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = msg.Width, msg.Height
	case debugpage.State:
		t.state = &msg
		slices.SortStableFunc(msg.Workers, func(a, b debugpage.Worker) int { return orders[t.order].compare(&a, &b) })
	case ended:
		t.err = msg.err
		return t, tea.Quit
	case looked:
		text := msg.text
		if msg.err != nil {
			text = msg.err.Error()
		}
		t.text = strings.Split(strings.TrimRight(text, "\n"), "\n")
	case tea.KeyPressMsg:
		return t, t.key(msg.String())
	}
	return t, nil
}

// key handles a key.
func (t *top) key(key string) tea.Cmd {
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "s":
		t.order = (t.order + 1) % len(orders)
	case "c":
		t.turnTo(pageCalls)
	case "m":
		t.turnTo(pageCommands)
	case "x":
		t.turnTo(pageErrors)
	case "v":
		t.turnTo(pageEvents)
	case "tab":
		t.turnTo((t.page + 1) % pageStack)
	case "down", "j":
		t.selected++
	case "up", "k":
		t.selected--
	case "pgdown", "space":
		t.scroll += 10
	case "pgup":
		t.scroll = max(0, t.scroll-10)
	case "enter":
		if t.state == nil || len(t.state.Workers) == 0 {
			return nil
		}
		w := t.state.Workers[t.row()]
		t.turnTo(pageStack)
		t.text = []string{fmt.Sprintf("asking worker %d ...", w.Index)}
		return func() tea.Msg {
			var look debugpage.Look
			what := "stack?worker=" + strconv.Itoa(w.Index)
			if w.PID != 0 {
				what += "&pid=" + strconv.Itoa(w.PID)
			}
			err := t.host.get(t.ctx, http.MethodPost, what, &look)
			return looked{lookText(look), err}
		}
	}
	return nil
}

func (t *top) turnTo(p topPage) { t.page, t.scroll = p, 0 }

// row returns the selected row, which exists.
func (t *top) row() int {
	t.selected = max(0, min(t.selected, len(t.state.Workers)-1))
	return t.selected
}

const (
	bold     = "\x1b[1m"
	inverse  = "\x1b[7m"
	dim      = "\x1b[2m"
	ordinary = "\x1b[0m"
)

// View draws the screen: the pool, the workers, the page, and the keys.
func (t *top) View() tea.View {
	v := tea.NewView(strings.Join(t.lines(), "\n"))
	v.AltScreen = true
	return v
}

func (t *top) lines() []string {
	if t.state == nil {
		return []string{"connecting to " + t.host.name + " ..."}
	}
	head := headOf(*t.state)
	lines := []string{bold + t.fit(head[0]) + ordinary, t.fit(head[1]), ""}
	room := max(t.height-len(lines)-3, 4) // without the title of the page, a blank line and the keys
	table := alignedRows(workerRows(*t.state))
	shown := min(len(table), room/2+1)
	first := max(0, min(t.row()-shown/2+1, len(table)-shown)) // of the workers on the screen
	lines = append(lines, dim+t.fit(table[0])+ordinary)
	for i := first; i < first+shown-1; i++ {
		line := t.fit(table[i+1])
		if i == t.row() {
			line = inverse + line + ordinary
		}
		lines = append(lines, line)
	}
	lines = append(lines, "", bold+pageNames[t.page]+ordinary)
	body := t.body()
	t.scroll = min(t.scroll, max(0, len(body)-1))
	for _, line := range body[t.scroll:] {
		if len(lines) >= t.height-1 {
			break
		}
		lines = append(lines, t.fit(line))
	}
	for len(lines) < t.height-1 {
		lines = append(lines, "")
	}
	keys := fmt.Sprintf("q quit  ↑↓ worker  enter stacks  s sort (%s)  c calls  m commands  x errors  v events  "+
		"pgup pgdn scroll", orders[t.order].name)
	return append(lines, dim+t.fit(keys)+ordinary)
}

// fit cuts a line to the width of the screen.
func (t *top) fit(line string) string {
	line = strings.ReplaceAll(line, "\t", "    ")
	return ansi.Truncate(ansi.Strip(line), max(t.width, 20), "…")
}

// body returns the lines of the page.
func (t *top) body() []string {
	s := t.state
	switch t.page {
	case pageCommands:
		rows := [][]string{{"COMMAND", "CALLS", "FAILED", "MEDIAN", "95%", "95% BEFORE", "SLOWEST", "MEAN WAIT"}}
		for _, c := range s.Commands {
			if c.Calls == 0 {
				continue
			}
			row := []string{c.Name, strconv.FormatInt(c.Calls, 10), "", seconds(c.Median), seconds(c.P95), "",
				seconds(c.Max), ""}
			if c.Failed > 0 {
				row[2] = strconv.FormatInt(c.Failed, 10)
			}
			if c.Before > 0 {
				row[5] = seconds(c.Before)
			}
			if c.Waited > 0 {
				row[7] = seconds(c.Waited)
			}
			rows = append(rows, row)
		}
		return orNone(rows, "no calls in the last five minutes")
	case pageErrors:
		var lines []string
		for _, l := range s.Losses {
			lines = append(lines, l.Time.Local().Format("15:04:05  ")+l.Text)
		}
		for _, f := range s.Failures {
			when := f.Last.Local().Format("15:04:05")
			line := when + "  " + f.Command
			if f.Count > 1 {
				line += fmt.Sprintf(" (%d times)", f.Count)
			}
			lines = append(lines, line)
			for line := range strings.Lines(cmp.Or(f.Traceback, f.Text)) {
				lines = append(lines, "    "+strings.TrimRight(line, "\n"))
			}
		}
		if lines == nil {
			lines = []string{"none"}
		}
		return lines
	case pageEvents:
		lines := make([]string, 0, len(s.Events))
		for _, e := range s.Events {
			lines = append(lines, e.Time.Local().Format("15:04:05  ")+e.Text)
		}
		return lines
	case pageStack:
		return t.text
	}
	rows := [][]string{{
		"CALL", "WORKER", "SINCE", "WAITED", "STATE", "CAME", "SENT", "CREDIT", "SESSION", "TENANT", "ARGUMENTS",
	}}
	for _, c := range s.Calls {
		rows = append(rows, callRow(c))
	}
	return orNone(rows, "nothing runs")
}

func orNone(rows [][]string, none string) []string {
	if len(rows) == 1 {
		return []string{none}
	}
	return alignedRows(rows)
}

func callRow(c debugpage.Call) []string {
	row := []string{c.Command, "waits", seconds(c.Age), "", "", "", "", "", c.Session, c.Tenant, c.Arguments}
	if c.Worker >= 0 {
		row[1] = strconv.Itoa(c.Worker)
	}
	if c.Waited > 0 {
		row[3] = seconds(c.Waited)
	}
	switch {
	case c.Overdue:
		row[4] = "goes on after its cancel"
	case c.Cancelled:
		row[4] = "cancelled"
	case c.Function:
		row[4] = "function"
	case c.ToHost.Items > 0 && c.HostCredit.Items <= 0:
		row[4] = "waits for its caller"
	}
	if n := c.ToHost.Items; n > 0 {
		row[5] = fmt.Sprintf("%d items", n)
		row[7] = strconv.FormatInt(max(0, c.HostCredit.Items), 10)
	}
	if n := c.ToWorker.Items; n > 0 {
		row[6] = fmt.Sprintf("%d items", n)
	}
	return row
}
