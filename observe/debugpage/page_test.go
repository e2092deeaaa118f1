package debugpage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
	"github.com/snakepit-go/snakepit/observe/debugpage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a pool of coretest workers with its page on an HTTP server.
type site struct {
	*testing.T

	adapter *coretest.Adapter
	pool    *core.Pool
	page    *debugpage.Page
	url     string
}

func open(t *testing.T, o *debugpage.Options) *site {
	t.Helper()
	a := &coretest.Adapter{Functions: map[string]core.Function{
		"echo": core.Func(func(_ context.Context, v any) (any, error) { return v, nil }),
		"fail": core.Func(func(_ context.Context, text string) (any, error) {
			return nil, &core.RemoteError{Type: "ValueError", Message: text, Text: "Traceback of " + text}
		}),
		"wait": core.Func(func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}}
	p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{
		Name: "the models", Size: 2, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	page := debugpage.New(p, o)
	mux := http.NewServeMux()
	mux.Handle("/debug/pit/", page)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	if err := p.WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	return &site{t, a, p, page, server.URL + "/debug/pit/"}
}

// ask returns the status and the body of a request. header has names and values.
func (s *site) ask(method, what string, header ...string) (int, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, s.url+what, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// until calls f with each state that the page tells, until it returns true.
func (s *site) until(what string, f func() bool) {
	s.Helper()
	response, err := http.Get(s.url + "watch")
	if err != nil {
		s.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") && f() {
			return
		}
	}
	s.Fatalf("in vain: %s; %v", what, lines.Err())
}

func TestState(t *testing.T) {
	s := open(t, nil)
	ctx, cancel := context.WithCancel(core.WithTenant(t.Context(), "a"))
	ended := make(chan struct{})
	for range 3 {
		go func() {
			_, _ = core.Execute[any](ctx, s.pool, "wait", "a secret")
			ended <- struct{}{}
		}()
	}
	s.until("three calls", func() bool { return len(s.pool.Calls()) == 3 })
	status, body := s.ask("GET", "state")
	var state debugpage.State
	if err := json.Unmarshal([]byte(body), &state); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	if strings.Contains(body, "secret") {
		t.Error("the state shows arguments")
	}
	waiting := 0
	for _, c := range state.Calls {
		if c.Worker == -1 {
			waiting++
		}
		if c.Command != "wait" || c.Tenant != "a" {
			t.Errorf("%+v", c)
		}
	}
	if state.Pool != "the models" || state.Size != 2 || len(state.Workers) != 2 || waiting != 1 || state.Control ||
		state.Counters.Waiting != 1 || state.Counters.Running != 2 || len(state.Tenants) != 1 {
		t.Errorf("%+v", state)
	}
	for _, w := range state.Workers {
		if w.Running != 1 || w.Slots != 1 || w.State != core.StateReady || w.Adapter != "coretest" {
			t.Errorf("%+v", w)
		}
	}
	cancel()
	for range 3 {
		<-ended
	}
}

func TestHistory(t *testing.T) {
	s := open(t, &debugpage.Options{Arguments: true})
	for i := range 5 {
		if _, err := core.Execute[any](t.Context(), s.pool, "echo", i); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Execute[any](t.Context(), s.pool, "fail", "no luck"); err == nil {
			t.Fatal("no error")
		}
		if _, err := core.Execute[any](t.Context(), s.pool, "invented", i); err == nil {
			t.Fatal("no error")
		}
	}
	s.adapter.Crash(1)
	s.until("a loss", func() bool { return len(s.page.State().Losses) == 1 })
	state := s.page.State()
	if len(state.Commands) != 2 { // not the invented one
		t.Errorf("%+v", state.Commands)
	}
	for _, c := range state.Commands {
		if c.Calls != 5 || c.Total != 5 || c.P95 <= 0 || c.Median > c.P95 || c.P95 > c.Max || c.Failed%5 != 0 {
			t.Errorf("%+v", c)
		}
	}
	calls := int64(0)
	for _, i := range state.Series {
		calls += i.Calls
	}
	if calls != 10 || len(state.Series) != 30 {
		t.Errorf("%d calls in the series of %d", calls, len(state.Series))
	}
	f := state.Failures[1]
	if len(state.Failures) != 2 || f.Count != 5 || f.Text != "ValueError: no luck" || f.Arguments != "no luck" ||
		strings.TrimSpace(f.Traceback) != "Traceback of no luck" {
		t.Errorf("%+v", state.Failures)
	}
	if l := state.Losses[0]; l.Worker != 1 || !strings.Contains(l.Text, "worker lost: worker 1 closed the connection") {
		t.Errorf("%+v", l)
	}
	if len(state.Log) == 0 || !strings.HasPrefix(state.Log[0].Text, "worker lost worker=1 exit=") {
		t.Errorf("%+v", state.Log)
	}
}

func TestWatchSendsTheStateAtEachChange(t *testing.T) {
	s := open(t, nil)
	response, err := http.Get(s.url + "watch")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	next := func() (kind string, state debugpage.State) {
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				kind = name
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &state); err != nil {
					t.Fatal(err)
				}
				return kind, state
			}
		}
		return "", state
	}
	if kind, state := next(); kind != "state" || state.Counters.Lost != 0 {
		t.Error(kind, state.Counters)
	}
	s.adapter.Crash(0)
	for {
		kind, state := next()
		if kind != "state" {
			t.Fatal(kind)
		}
		if state.Counters.Lost == 1 {
			break
		}
	}
	if err := s.pool.Close(); err != nil {
		t.Fatal(err)
	}
	for kind := ""; kind != "closed"; {
		if kind, _ = next(); kind == "" {
			t.Fatal("the connection has ended without the last event")
		}
	}
	if kind, _ := next(); kind != "" {
		t.Error("more after the end:", kind)
	}
}

func TestEventsFollow(t *testing.T) {
	s := open(t, nil)
	s.adapter.Crash(0)
	s.until("the events", func() bool { return len(s.page.State().Events) > 3 })
	status, body := s.ask("GET", "events")
	if status != http.StatusOK || !strings.Contains(body, `"text":"worker lost: worker 0`) {
		t.Error(status, body)
	}
	response, err := http.Get(s.url + "events?follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	s.adapter.Crash(1)
	seen := map[int]bool{}
	dec := json.NewDecoder(response.Body)
	for !seen[0] || !seen[1] {
		var e debugpage.Happening
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(e.Text, "worker lost") {
			seen[e.Worker] = true
		}
	}
	if err := s.pool.Close(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = dec.Decode(&debugpage.Happening{})
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	s := open(t, &debugpage.Options{Token: "letmein"})
	token := []string{"Authorization", "Bearer letmein"}
	for _, test := range []struct {
		method, what string
		header       []string
		status       int
		says         string
	}{
		{"GET", "", nil, 200, "<title>snakepit</title>"},
		{"GET", "page.js", nil, 200, "EventSource"},
		{"GET", "page.css", nil, 200, "color-scheme"},
		{"HEAD", "state", nil, 200, ""},
		{"GET", "nothing.js", nil, 404, "nothing.js is not a part of this page"},
		{"POST", "state", nil, 405, "state needs GET"},
		{"GET", "stack?worker=0", nil, 405, "stack needs POST"},
		{"POST", "stack?worker=x", nil, 400, "name a worker by its index"},
		{"POST", "stack?worker=7", nil, 404, "no worker 7 runs"},
		{"POST", "stack?worker=0&pid=1", nil, 404, "no worker 0 runs as process 1"},
		{"POST", "stack?worker=0", nil, 200, `"condition":"idle"`},
		{"POST", "stack?worker=0", []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross-origin"},
		{"POST", "flame?worker=0&seconds=1000", nil, 400, "use 1 to 60"},
		{"POST", "reload", nil, 401, "the token is wrong or missing"},
		{"POST", "reload", []string{"Authorization", "Bearer letmeout"}, 401, "the token is wrong"},
		{"POST", "reload", token, 204, ""},
		{"POST", "replace?worker=9", token, 404, "no worker 9 runs"},
		{"POST", "replace?worker=0", token, 204, ""},
		{"POST", "terminate?worker=1", token, 204, ""},
	} {
		status, body := s.ask(test.method, test.what, test.header...)
		if status != test.status || !strings.Contains(body, test.says) {
			t.Errorf("%s %s: %d %.200s", test.method, test.what, status, body)
		}
	}
	s.until("both changes", func() bool {
		stats := s.pool.Stats()
		return stats.Replaced == 3 && stats.Terminated == 1 && stats.Ready == 2
	})

	s = open(t, nil)
	for _, what := range []string{"reload", "replace?worker=0", "terminate?worker=0"} {
		status, body := s.ask("POST", what, token...)
		if status != http.StatusForbidden || !strings.Contains(body, "this page changes nothing") {
			t.Error(what, status, body)
		}
	}
	if stats := s.pool.Stats(); stats.Replaced+stats.Terminated != 0 {
		t.Errorf("%+v", stats)
	}
}

// The page works below any path.
func TestPrefixes(t *testing.T) {
	s := open(t, nil)
	for _, url := range []string{"/", "/a/", "/a/b/"} {
		w := httptest.NewRecorder()
		s.page.ServeHTTP(w, httptest.NewRequest("GET", url+"state", nil))
		if w.Code != http.StatusOK {
			t.Error(url, w.Code)
		}
		w = httptest.NewRecorder()
		s.page.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<title>") {
			t.Error(url, w.Code)
		}
	}
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, httptest.NewRequest("GET", "/debug/pit", nil))
	if w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != "/debug/pit/" {
		t.Error(w.Code, w.Header())
	}
}

func TestListen(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	s := open(t, nil)
	for range 2 {
		if err := s.page.Listen(""); err != nil {
			t.Fatal(err)
		}
	}
	sockets, err := debugpage.Sockets()
	if err != nil || len(sockets) != 2 || !strings.HasPrefix(filepath.Base(sockets[0]), "the_models-") {
		t.Fatal(sockets, err)
	}
	for _, path := range append(sockets, core.UserDir()) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Error(info, err)
		}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sockets[0])
	}}
	response, err := (&http.Client{Transport: transport}).Get("http://socket/state")
	if err != nil {
		t.Fatal(err)
	}
	var state debugpage.State
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil || state.Pool != "the models" {
		t.Error(state, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	transport.CloseIdleConnections()
	var idle []net.Conn // a server closes them after its socket
	for _, socket := range sockets {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_, err = io.WriteString(c, "HEAD /page.css HTTP/1.1\r\nHost: socket\r\n\r\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	if err := s.page.Listen(sockets[0]); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Error(err)
	}
	if err := s.pool.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range idle {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(core.UserDir(), "*")); err != nil || len(left) > 0 {
		t.Error("sockets are left:", left, err)
	}
}

// The sockets of killed programs are removed, and a directory of somebody else is refused.
func TestSocketsLeftBehind(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	s := open(t, nil)
	if err := s.page.Listen(""); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(core.UserDir(), "gone-1.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	sockets, err := debugpage.Sockets()
	if _, gone := os.Stat(stale); err != nil || len(sockets) != 1 || !os.IsNotExist(gone) {
		t.Error(sockets, err, gone)
	}

	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if err := os.Mkdir(core.UserDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.page.Listen(""); err == nil || !strings.Contains(err.Error(), "of this user alone") {
		t.Error(err)
	}
}
