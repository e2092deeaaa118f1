package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

// needs skips a test if Python lacks a package. If an interpreter is named, it must have the package.
func needs(t *testing.T, adapter string) {
	t.Helper()
	module := map[string]string{"grpc": "grpc", "msgpack": "msgpack"}[adapter]
	if module == "" || os.Getenv("SNAKEPIT_PYTHON") != "" {
		return
	}
	if err := exec.Command("python3", "-c", "import "+module).Run(); err != nil {
		t.Skipf("this test needs the Python package %s; make install-grpc, and SNAKEPIT_PYTHON=.venv/bin/python",
			module)
	}
}

// output is a buffer for many goroutines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// eventually waits for an event that is sure to happen.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// fixture is a service and its log.
type fixture struct {
	*service
	url string
	log *output
}

// begin serves the worker of this directory, or a test's own worker with the same commands.
func begin(t *testing.T, adapter, worker string, change func(*snakepit.Options)) fixture {
	t.Helper()
	log := &output{}
	o := options(1, hclog.New(&hclog.LoggerOptions{Output: log}))
	if change != nil {
		change(o)
	}
	pool, err := open(t.Context(), adapter, o)
	if worker != "" {
		if err == nil {
			pool.Close()
		}
		path := filepath.Join(t.TempDir(), "worker.py")
		if err := os.WriteFile(path, []byte(worker), 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err = snakepit.Open(t.Context(), snakepit.Python(path), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	s := newService(pool, o.Logger)
	server := httptest.NewServer(s.handler())
	t.Cleanup(server.Close) // it waits for the streams, which the next line ends
	t.Cleanup(s.close)
	return fixture{s, server.URL, log}
}

// get makes a request that ends with ctx.
func get(t *testing.T, ctx context.Context, url string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// event is a server-sent event. The name of a comment is ":".
type event struct{ name, data string }

// stream reads the events of a response.
type stream struct {
	*http.Response
	lines *bufio.Scanner
}

func read(t *testing.T, ctx context.Context, url string) stream {
	t.Helper()
	response := get(t, ctx, url)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %s, %v, %s", url, response.Status, response.Header, body)
	}
	return stream{response, bufio.NewScanner(response.Body)}
}

// next returns the next event, or an empty one at the end.
func (s stream) next() (e event) {
	for s.lines.Scan() {
		switch key, value, _ := strings.Cut(s.lines.Text(), ": "); key {
		case "event":
			e.name = value
		case "data":
			e.data = value
		default:
			if s.lines.Text() != "" {
				e.name = ":"
			} else if e != (event{}) {
				return e
			}
		}
	}
	return event{}
}

func TestOnEachAdapter(t *testing.T) {
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			needs(t, adapter)
			f := begin(t, adapter, "", nil)
			s := read(t, t.Context(), f.url+"/primes?limit=1000000")
			n := 0
			var last string
			e := s.next()
			for ; e.name == "progress"; e = s.next() {
				n, last = n+1, e.data
			}
			if n != 101 || last != `{"count":78498,"progress":100}` {
				t.Errorf("%d events, the last %s", n, last)
			}
			if want := (event{"done", `{"count":78498,"largest":999983,"limit":1000000}`}); e != want ||
				s.next() != (event{}) {
				t.Errorf("the stream ends with %v, want %v", e, want)
			}
			body, _ := io.ReadAll(get(t, t.Context(), f.url+"/factor?n=360").Body)
			if want := `{"factors":[2,2,2,3,3,5],"n":360}` + "\n"; string(body) != want {
				t.Errorf("factor: %s, want %s", body, want)
			}
			var health struct {
				Ready    int
				Calls    int
				Adapters []string
			}
			if err := json.NewDecoder(get(t, t.Context(), f.url+"/healthz").Body).Decode(&health); err != nil {
				t.Fatal(err)
			}
			if health.Ready != 1 || health.Calls != 2 || len(health.Adapters) != 1 ||
				adapter != "auto" && health.Adapters[0] != adapter {
				t.Errorf("health is %+v", health)
			}
		})
	}
}

const much = "/primes?limit=1000000000000" // hours of work

// TestTheBrowserLeaves checks that Python notices a browser that leaves, whatever Python is doing.
func TestTheBrowserLeaves(t *testing.T) {
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio"} {
		t.Run(adapter, func(t *testing.T) {
			needs(t, adapter)
			f := begin(t, adapter, "", nil)
			ctx, leave := context.WithCancel(t.Context())
			s := read(t, ctx, f.url+much)
			s.next()
			s.next()
			leave()
			eventually(t, "the generator's finally",
				func() bool { return strings.Contains(f.log.String(), "primes has ended: ") })
			eventually(t, "a free worker", func() bool { return f.pool.Stats().Running == 0 })
			if stats := f.pool.Stats(); stats.Cancelled != 1 || stats.Lost+stats.Restarts+stats.Terminated != 0 {
				t.Errorf("%+v", stats)
			}
			if s := read(t, t.Context(), f.url+"/primes?limit=10"); s.next().name != "progress" {
				t.Error("the same worker answers no more")
			}
			if strings.Contains(f.log.String(), "ERROR") {
				t.Errorf("a browser that leaves is no error:\n%s", f.log)
			}
		})
	}
}

// TestTheBrowserLeavesInSilence checks that Python also notices if no item fails first.
func TestTheBrowserLeavesInSilence(t *testing.T) {
	f := begin(t, "auto", `
import time
from snakepit_bridge import Worker
worker = Worker()
@worker.command
def primes(limit):
    try:
        yield {}
        time.sleep(3600)
    finally:
        print("it has left")
worker.run()
`, nil)
	f.heartbeat = time.Hour
	ctx, leave := context.WithCancel(t.Context())
	read(t, ctx, f.url+"/primes?limit=2").next()
	leave()
	eventually(t, "the generator's finally", func() bool { return strings.Contains(f.log.String(), "it has left") })
}

func TestACallersLeavingEndsAPlainCall(t *testing.T) {
	f := begin(t, "auto", "", nil)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/factor?n=9223372036854775783", nil)
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
		}
	}()
	eventually(t, "the call", func() bool { return f.pool.Stats().Running == 1 })
	leave()
	<-done
	eventually(t, "a free worker", func() bool { s := f.pool.Stats(); return s.Running == 0 && s.Cancelled == 1 })
}

func TestBadInput(t *testing.T) {
	f := begin(t, "auto", "", nil)
	for _, test := range []struct {
		path string
		code int
		want string
	}{
		{"/primes?limit=many", 400, `limit is "many", but it must be a whole number`},
		{"/primes", 400, `limit is "", but it must be a whole number`},
		{"/primes?limit=99999999999999999999", 400, `limit is "99999999999999999999", but it must be a whole number`},
		{"/primes?limit=-5", 400, "limit is -5, but it must be from 2 to 1000000000000"},
		// this message comes from Python
		{"/factor?n=1.5", 400, `n is "1.5", but it must be a whole number`},
		{"/factor?n=0", 400, "n is 0, but it must be at least 2"},
		{"/nowhere", 404, ""},
	} {
		response := get(t, t.Context(), f.url+test.path)
		var got failure
		err := json.NewDecoder(response.Body).Decode(&got)
		if response.StatusCode != test.code || got.Error != test.want || test.want != "" && err != nil {
			t.Errorf("%s: %s, %q, %v; want %d, %q", test.path, response.Status, got.Error, err, test.code, test.want)
		}
	}
	response, err := http.Post(f.url+"/primes?limit=10", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", response.Status)
	}
	if strings.Contains(f.log.String(), "ERROR") {
		t.Errorf("what a caller does wrong is no error of the service:\n%s", f.log)
	}
}

func TestDeadline(t *testing.T) {
	f := begin(t, "auto", "", func(o *snakepit.Options) { o.CallTimeout, o.StreamTimeout = time.Second, time.Second })
	response := get(t, t.Context(), f.url+"/factor?n=9223372036854775783")
	body, _ := io.ReadAll(response.Body)
	want := `{"error":"it took too long and was stopped"}` + "\n"
	if response.StatusCode != http.StatusGatewayTimeout || string(body) != want {
		t.Errorf("%s, %s", response.Status, body)
	}
	s := read(t, t.Context(), f.url+much)
	e := s.next()
	for e.name == "progress" {
		e = s.next()
	}
	if want := (event{"error", `{"error":"it took too long and was stopped"}`}); e != want || s.next() != (event{}) {
		t.Errorf("the stream ends with %v", e)
	}
}

// TestSaturated runs one stream, lets one wait, and checks that the third is rejected.
func TestSaturated(t *testing.T) {
	f := begin(t, "auto", "", nil)
	ctx, leave := context.WithCancel(t.Context())
	read(t, ctx, f.url+much).next()
	waited := make(chan event)
	go func() {
		response, err := http.Get(f.url + "/primes?limit=10")
		if err != nil {
			waited <- event{"error", err.Error()}
			return
		}
		defer response.Body.Close()
		waited <- stream{response, bufio.NewScanner(response.Body)}.next()
	}()
	eventually(t, "the second waits", func() bool { return f.pool.Stats().Waiting == 1 })
	for _, path := range []string{much, "/factor?n=6"} {
		response := get(t, t.Context(), f.url+path)
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" ||
			!strings.Contains(string(body), "all workers are busy") {
			t.Errorf("%s: %s, %v, %s", path, response.Status, response.Header, body)
		}
	}
	leave()
	if e := <-waited; e.name != "progress" {
		t.Errorf("the one that waited got %v", e)
	}
}

const faulty = `
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def primes(limit):
    if limit == 1:
        raise RuntimeError("no sieve")
    yield {"progress": 0}
    if limit == 2:
        yield {"progress": float("nan")}
    raise RuntimeError("the sieve broke")

@worker.command
def factor(n):
    raise RuntimeError("no divisor")

worker.run()
`

func TestExceptions(t *testing.T) {
	f := begin(t, "auto", faulty, nil)
	for path, want := range map[string]string{"/factor?n=6": "no divisor", "/primes?limit=1": "no sieve"} {
		response := get(t, t.Context(), f.url+path)
		var got failure
		err := json.NewDecoder(response.Body).Decode(&got)
		if response.StatusCode != http.StatusInternalServerError || err != nil || got.Error != want {
			t.Errorf("%s: %s, %q, %v", path, response.Status, got.Error, err)
		}
	}
	for path, want := range map[string]string{
		"/primes?limit=2": "the answer has no JSON",
		"/primes?limit=3": "the sieve broke",
	} {
		s := read(t, t.Context(), f.url+path)
		if first, then := s.next(), s.next(); first.name != "progress" ||
			then != (event{"error", `{"error":"` + want + `"}`}) || s.next() != (event{}) {
			t.Errorf("%s: %v, %v", path, first, then)
		}
	}
	// The exception that primes raises after the number without JSON has no caller any more. The pool may log
	// it. The program does not.
	if log := f.log.String(); !strings.Contains(log, "in factor") || strings.Count(log, "a handler has raised") != 3 {
		t.Errorf("three tracebacks are to be in the log:\n%s", log)
	}
}

func TestALostWorker(t *testing.T) {
	f := begin(t, "auto", "", nil)
	s := read(t, t.Context(), f.url+much)
	s.next()
	process, err := os.FindProcess(f.pool.Workers()[0].Info().PID)
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	e := s.next()
	for e.name == "progress" {
		e = s.next()
	}
	if e.name != "error" || !strings.Contains(e.data, "killed") {
		t.Errorf("the stream ends with %v", e)
	}
	eventually(t, "another worker", func() bool {
		return get(t, t.Context(), f.url+"/healthz").StatusCode == http.StatusOK
	})
}

func TestHeartbeat(t *testing.T) {
	f := begin(t, "auto", `
import time
from snakepit_bridge import Worker
worker = Worker()
@worker.command
def primes(limit):
    yield {}
    time.sleep(3600)
worker.run()
`, nil)
	f.heartbeat = time.Millisecond
	s := read(t, t.Context(), f.url+"/primes?limit=2")
	s.next()
	for range 3 {
		if e := s.next(); e.name != ":" {
			t.Errorf("a silent stream has %v", e)
		}
	}
}

const eager = `
from snakepit_bridge import Worker
worker = Worker()
@worker.command
def primes(ctx, limit):
    for n in range(limit):
        ctx.call("sent")
        yield {"n": n}
worker.run()
`

// slow is a browser that reads on command.
type slow struct {
	*httptest.ResponseRecorder
	reads <-chan struct{}
}

func (s slow) Write(p []byte) (int, error) {
	<-s.reads
	return s.ResponseRecorder.Write(p)
}

func (s slow) WriteString(text string) (int, error) { return s.Write([]byte(text)) }

func (slow) SetWriteDeadline(time.Time) error { return nil }

func TestASlowBrowserSlowsPython(t *testing.T) {
	var sent atomic.Int64
	const items, window = 1000, 4
	f := begin(t, "auto", eager, func(o *snakepit.Options) {
		o.WindowItems = window
		o.Functions = map[string]snakepit.Function{"sent": snakepit.Func(func(context.Context, any) (any, error) {
			sent.Add(1)
			return nil, nil
		})}
	})
	reads, done := make(chan struct{}), make(chan struct{})
	browser := slow{httptest.NewRecorder(), reads}
	go func() {
		defer close(done)
		f.handler().ServeHTTP(browser, httptest.NewRequestWithContext(t.Context(), http.MethodGet,
			fmt.Sprintf("/primes?limit=%d", items), nil))
	}()
	eventually(t, "a full window", func() bool { return sent.Load() >= window })
	for range 200 { // each round gives Python time to send more
		if _, err := f.pool.Workers()[0].Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := sent.Load(); n > 2*window+2 {
		t.Errorf("Python has made %d items, and the browser read none", n)
	}
	close(reads)
	<-done
	if n := sent.Load(); n != items || strings.Count(browser.Body.String(), "event: progress\n") != items {
		t.Errorf("of %d items %d were made", items, n)
	}
}

// TestABrowserThatReadsNothing checks that the service cuts off such a browser, because it holds a worker.
func TestABrowserThatReadsNothing(t *testing.T) {
	f := begin(t, "auto", `
from snakepit_bridge import Worker
worker = Worker()
@worker.command
def primes(limit):
    while True:
        yield "much " * 10_000
worker.run()
`, nil)
	f.stall = 100 * time.Millisecond
	get(t, t.Context(), f.url+"/primes?limit=2") // its body is not read
	eventually(t, "a free worker", func() bool { s := f.pool.Stats(); return s.Running == 0 && s.Cancelled == 1 })
}

// program is a run of the whole program.
type program struct {
	url            string
	stdout, stderr *output
	stop           context.CancelFunc
	code           chan int
}

func start(t *testing.T, args ...string) program {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := program{stdout: &output{}, stderr: &output{}, stop: stop, code: make(chan int, 1)}
	go func() { p.code <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), p.stdout, p.stderr) }()
	eventually(t, "listening", func() bool {
		_, url, ok := strings.Cut(p.stdout.String(), "listening on ")
		p.url, _, _ = strings.Cut(url, "\n")
		return ok
	})
	return p
}

// TestInterrupt checks that open streams get an event and that a stream that waits for a worker gets an answer.
func TestInterrupt(t *testing.T) {
	p := start(t, "-workers", "1")
	s := read(t, t.Context(), p.url+much)
	s.next()
	waiting := make(chan string)
	go func() {
		response, err := http.Get(p.url + much)
		if err != nil {
			waiting <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		waiting <- fmt.Sprintln(response.StatusCode, string(body))
	}()
	eventually(t, "the second waits", func() bool {
		body, _ := io.ReadAll(get(t, t.Context(), p.url+"/healthz").Body)
		return strings.Contains(string(body), `"waiting":1`)
	})
	p.stop()
	e := s.next()
	for e.name == "progress" {
		e = s.next()
	}
	if want := (event{"error", `{"error":"the service is shutting down"}`}); e != want || s.next() != (event{}) {
		t.Errorf("the stream ends with %v", e)
	}
	if got := <-waiting; !strings.HasPrefix(got, "503 ") || !strings.Contains(got, "shutting down") {
		t.Errorf("the one that waited got %s", got)
	}
	if code := <-p.code; code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if log := p.stderr.String(); !strings.Contains(log, "primes has ended: ") || strings.Contains(log, "ERROR") {
		t.Errorf("the log:\n%s", log)
	}
	var refused *net.OpError
	if _, err := http.Get(p.url); !errors.As(err, &refused) {
		t.Errorf("it still answers: %v", err)
	}
}

func TestThePage(t *testing.T) {
	p := start(t)
	defer func() { <-p.code }()
	defer p.stop()
	response := get(t, t.Context(), p.url+"/")
	body, _ := io.ReadAll(response.Body)
	if response.Header.Get("Content-Type") != "text/html; charset=utf-8" || !bytes.Equal(body, page) {
		t.Errorf("%v", response.Header)
	}
}

func TestWhatIsWrongIsSaidInASentence(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-addr " + addr, 1, "http: listen tcp " + addr +
			": bind: address already in use; choose another address with -addr\n"},
		{"-addr nonsense", 1,
			"http: listen tcp: address nonsense: missing port in address; choose another address with -addr\n"},
		{"-workers 0", 2, "http: -workers is 0, but it must be at least 1; see http -h\n"},
		{"-adapter nonsense", 2, "http: -adapter: "},
		{"more", 2, "http: \"more\" is not a flag; see http -h\n"},
		{"-nonsense", 2, "flag provided but not defined: -nonsense\n"},
		{"-h", 0, usage},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr); code != test.code ||
			!strings.HasPrefix(stderr.String(), test.want) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, &stderr, test.code, test.want)
		}
	}
}
