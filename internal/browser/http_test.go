package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestHTTP clicks through the page and leaves it. Then it asks the service for the effect on Python.
func TestHTTP(t *testing.T) {
	browser := start(t, find(t))
	binary := filepath.Join(t.TempDir(), "http")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "../../examples/http" // in another module
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

const hours = "1000000000000" // of work

// ask requests the count of the primes up to limit.
func (p page) ask(limit string) {
	p.Helper()
	p.does(chromedp.SetValue("#limit", limit), chromedp.Click("#start"))
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
