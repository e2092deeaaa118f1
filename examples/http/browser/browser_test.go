package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestInABrowser clicks through the page and leaves it. Then it asks the service for the effect on Python.
func TestInABrowser(t *testing.T) {
	browser := start(t, find(t))
	binary := filepath.Join(t.TempDir(), "http")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = ".." // the other module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	t.Run("all of a stream is shown", func(t *testing.T) {
		s := serve(t, binary)
		page := open(t, browser, s.url)
		page.ask("1000000")
		page.shows("78,498 primes up to 1,000,000; the largest is 999,983")
		page.holds("document.querySelectorAll('#events li').length === 101")
		page.holds("document.getElementById('progress').value === 100")
		page.holds("document.getElementById('stop').disabled")
		if h := s.health(t); h.Calls != 1 || h.Cancelled != 0 || h.Running != 0 { // it did not connect again
			t.Errorf("%+v", h)
		}
	})
	t.Run("the stop button cancels Python", func(t *testing.T) {
		s := serve(t, binary)
		page := open(t, browser, s.url)
		page.ask(hours)
		page.waits("document.querySelectorAll('#events li').length > 2")
		page.does(chromedp.Click("#stop"))
		page.shows("Stopped.")
		s.isCancelled(t)
		page.ask("100") // on the same worker
		page.shows("25 primes up to 100; the largest is 97")
	})
	t.Run("closing the page cancels Python", func(t *testing.T) {
		s := serve(t, binary)
		page := open(t, browser, s.url)
		page.ask(hours)
		page.waits("document.querySelectorAll('#events li').length > 2")
		page.close()
		s.isCancelled(t)
	})
	t.Run("bad input is explained", func(t *testing.T) {
		page := open(t, browser, serve(t, binary).url)
		page.ask("-5")
		page.shows("limit is -5, but it must be from 2 to 1000000000000")
		page.ask("many")
		page.shows(`limit is "many", but it must be a whole number`)
	})
	t.Run("the end of the service is told", func(t *testing.T) {
		s := serve(t, binary)
		page := open(t, browser, s.url)
		page.ask(hours)
		page.waits("document.querySelectorAll('#events li').length > 2")
		if err := s.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		page.shows("the service is shutting down")
		if <-s.ended; s.err != nil {
			t.Errorf("%v\n%s", s.err, s.stderr)
		}
	})
}

const (
	hours    = "1000000000000" // of work
	patience = time.Minute     // for events that are sure to happen
)

// find returns the browser of SNAKEPIT_BROWSER, or one of this machine. It skips the test if there is none.
func find(t *testing.T) string {
	t.Helper()
	named := os.Getenv("SNAKEPIT_BROWSER")
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			t.Fatalf("SNAKEPIT_BROWSER is %q: %v", named, err)
		}
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("this test needs chromium, chromium-browser or google-chrome in PATH, " +
		"or SNAKEPIT_BROWSER with the path of one")
	return ""
}

// start starts a browser in a new directory. The browser ends with the test. Its context opens tabs.
func start(t *testing.T, path string) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.Headless,
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), // /dev/shm is small in many containers
		chromedp.WSURLReadTimeout(patience))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("%s does not start: %v", path, err)
	}
	return ctx
}

// page is a tab that shows the service's page.
type page struct {
	*testing.T
	ctx   context.Context
	close context.CancelFunc
}

func open(t *testing.T, browser context.Context, url string) page {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	p := page{t, ctx, closeTab}
	p.does(chromedp.Navigate(url))
	return p
}

func (p page) does(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.Fatal(err)
	}
}

// ask requests the count of the primes up to limit.
func (p page) ask(limit string) {
	p.Helper()
	p.does(chromedp.SetValue("#limit", limit), chromedp.Click("#start"))
}

// waits waits until an expression is true.
func (p page) waits(expression string) {
	p.Helper()
	often, long := chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(patience)
	if err := chromedp.Do(p.ctx, chromedp.Poll[chromedp.Void](expression, often, long)); err != nil {
		text, _ := chromedp.Run(p.ctx, chromedp.Text("#status"))
		p.Fatalf("%s: %v; the page says %q", expression, err, text)
	}
}

// shows waits until the page shows a text.
func (p page) shows(text string) {
	p.Helper()
	quoted, _ := json.Marshal(text)
	p.waits("document.getElementById('status').textContent === " + string(quoted))
}

func (p page) holds(expression string) {
	p.Helper()
	if is, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](expression)); !is {
		p.Errorf("%s does not hold: %v", expression, err)
	}
}

// service is a running program.
type service struct {
	*exec.Cmd
	url    string
	stderr *bytes.Buffer
	ended  chan struct{} // closed after its end, when err is set
	err    error
}

func serve(t *testing.T, binary string) *service {
	t.Helper()
	s := &service{Cmd: exec.Command(binary, "-addr", "127.0.0.1:0", "-workers", "1"), stderr: &bytes.Buffer{},
		ended: make(chan struct{})}
	s.Stderr = s.stderr
	stdout, err := s.StdoutPipe()
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	s.url = strings.TrimPrefix(lines.Text(), "listening on ")
	go func() {
		for lines.Scan() {
		}
		s.err = s.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = s.Process.Signal(syscall.SIGTERM)
		<-s.ended
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.stderr)
		}
	})
	if !strings.HasPrefix(s.url, "http://") {
		t.Fatalf("the service does not listen: %q", lines.Text())
	}
	return s
}

type health struct{ Ready, Running, Calls, Cancelled, Lost int }

func (s *service) health(t *testing.T) (h health) {
	t.Helper()
	response, err := http.Get(s.url + "/healthz")
	if err == nil {
		defer response.Body.Close()
		err = json.NewDecoder(response.Body).Decode(&h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// isCancelled waits until the one call is cancelled and its worker is free.
func (s *service) isCancelled(t *testing.T) {
	t.Helper()
	end := time.Now().Add(patience)
	for s.health(t) != (health{Ready: 1, Calls: 1, Cancelled: 1}) {
		if time.Now().After(end) {
			t.Fatalf("within %v: %+v", patience, s.health(t))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
