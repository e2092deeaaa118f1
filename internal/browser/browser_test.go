package browser

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const patience = time.Minute // for events that are sure to happen

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

// page is a tab.
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
