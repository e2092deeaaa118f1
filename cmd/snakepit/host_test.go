package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
	"github.com/snakepit-go/snakepit/observe/debugpage"
)

// openHost opens a pool that has lost a worker and runs a call, and its debug page.
func openHost(ctx context.Context, name string) (*core.Pool, *debugpage.Page, error) {
	waits := make(chan struct{})
	a := &coretest.Adapter{Functions: map[string]core.Function{
		"wait": core.Func(func(ctx context.Context, _ any) (any, error) {
			close(waits)
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"fail": core.Func(func(context.Context, any) (any, error) {
			return nil, &core.RemoteError{Type: "ValueError", Message: "no luck"}
		}),
	}}
	lost := make(chan struct{})
	p, err := core.Open(ctx, a, core.Command{}, &core.Options{
		Name: name, Size: 2, Logger: hclog.NewNullLogger(), OnEvent: func(e core.Event) {
			if s, ok := e.(core.StateChanged); ok && errors.Is(s.Err, core.ErrWorkerLost) {
				close(lost)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	page := debugpage.New(p, nil)
	if err := p.WaitReady(ctx, 2); err != nil {
		return nil, nil, err
	}
	a.Crash(1)
	<-lost
	if err := p.WaitReady(ctx, 2); err != nil {
		return nil, nil, err
	}
	_, _ = core.Execute[any](ctx, p, "fail", nil)
	go func() { _, _ = core.Execute[any](ctx, p, "wait", nil, core.Timeout(-1)) }()
	<-waits
	return p, page, nil
}

// startHost offers the page of a pool at the socket NAME.sock, where the commands of the script look: host NAME.
func startHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: host NAME")
	}
	p, page, err := openHost(context.Background(), args[0])
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.Close()) })
	dir := filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "snakepit")
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(page.Listen(filepath.Join(dir, args[0]+".sock")))
}

// press sends a key to the screen.
func press(t *top, key rune) tea.Cmd {
	msg := tea.KeyPressMsg{Code: key}
	if unicode.IsPrint(key) {
		msg.Text = string(key)
	}
	_, cmd := t.Update(msg)
	return cmd
}

// TestTopScreen draws each page of a state.
func TestTopScreen(t *testing.T) {
	p, page, err := openHost(t.Context(), "models")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	screen := &top{host: host{name: "there"}, ctx: t.Context()}
	if text := strings.Join(screen.lines(), "\n"); text != "connecting to there ..." {
		t.Error(text)
	}
	screen.Update(tea.WindowSizeMsg{Width: 60, Height: 20})
	screen.Update(page.State())
	shows := func(texts ...string) {
		t.Helper()
		lines := screen.lines()
		all := strings.Join(lines, "\n")
		for _, text := range texts {
			if !strings.Contains(all, text) {
				t.Errorf("the screen lacks %q:\n%s", text, all)
			}
		}
		if len(lines) != 20 {
			t.Errorf("%d lines", len(lines))
		}
	}
	shows("models: 2 of 2 workers ready, 1 running, 0 waiting", "WORKER",
		"1mcalls", "CALL", "wait", "q quit", "s sort (index)")
	press(screen, 'm')
	shows("COMMAND  CALLS  FAILED  MEDIAN", "95%  SLOWEST", "fail     1      1")
	press(screen, 'x')
	shows("worker lost: worker 1", "  fail\n", "ValueError: no luck")
	press(screen, 'v')
	shows("worker lost: worker 1 closed")
	press(screen, 's')
	shows("s sort (CPU)")
	for range 10 { // beyond the last worker
		press(screen, 'j')
	}
	shows("\x1b[7m1 ")
	for range 10 {
		press(screen, 'k')
	}
	shows("\x1b[7m0 ")
	screen.Update(looked{text: "worker 0, pid 7: it waits\n\nthe stack\n"})
	if cmd := press(screen, tea.KeyEnter); cmd == nil {
		t.Error("enter asks for nothing")
	}
	shows("asking worker 0 ...")
	screen.Update(looked{text: "worker 0, pid 7: it waits\n\nthe stack\n"})
	shows("stacks", "it waits", "the stack")
	screen.Update(ended{context.DeadlineExceeded})
	if screen.err == nil || press(screen, 'q') == nil {
		t.Error("the end is not told")
	}
	for height := range 30 { // also far too small
		screen.Update(tea.WindowSizeMsg{Width: height, Height: height})
		screen.lines()
	}
}

func TestAlignedRows(t *testing.T) {
	got := alignedRows([][]string{{"A", "EMPTY", "LONG"}, {"é", "", "x"}, {"longer", "", ""}})
	if want := []string{"A       LONG", "é       x", "longer"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestParseHost(t *testing.T) {
	for word, want := range map[string]string{
		"localhost:6060":                       "http://localhost:6060/debug/snakepit/",
		"http://localhost:6060":                "http://localhost:6060/debug/snakepit/",
		"https://example.com/pit":              "https://example.com/pit/",
		"http://localhost:6060/debug/pit/?a=b": "http://localhost:6060/debug/pit/",
		"http://[::1]:6060/debug/snakepit/":    "http://[::1]:6060/debug/snakepit/",
		"example.com":                          "",
		"://":                                  "",
		"/no/such.sock":                        "",
	} {
		if h, err := parseHost(word); h.base != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", word, h.base, err)
		}
	}
}
