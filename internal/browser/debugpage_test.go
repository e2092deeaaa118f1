package browser

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/observe/debugpage"
)

// TestDebugPage looks for what is stuck, what has died and what fails.
func TestDebugPage(t *testing.T) {
	browser := start(t, find(t))

	t.Run("a killed worker is shown", func(t *testing.T) {
		d := debug(t, browser, 2, nil)
		d.waits("document.querySelectorAll('#workers td.good').length === 2")
		if err := syscall.Kill(d.pool.Workers()[0].Info().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		d.contains("#losses", `worker 0 (pid `)
		t.Logf("shown %v after the kill", time.Since(begin).Round(time.Millisecond))
		d.contains("#losses", `ended by signal "killed"`)
		d.contains("#number-lost", "1")
		d.waits("document.querySelectorAll('#workers td.good').length === 2") // another one has started
	})
	t.Run("a stuck call is found", func(t *testing.T) {
		d := debug(t, browser, 1, nil)
		go func() { _, _ = snakepit.Execute[any](t.Context(), d.pool, "stuck", 1000) }()
		d.contains("#workers", "stuck for ")
		d.contains("#calls", "stuck")
		d.does(chromedp.Click("#workers button")) // the first one is that of the stacks
		d.contains("#look-stack", "in stuck")
		d.contains("#look-text", "its calls wait; stuck has been running for ")
	})
	t.Run("a flame graph shows what computes", func(t *testing.T) {
		interpreter := os.Getenv("SNAKEPIT_PYTHON")
		_, err := os.Stat(filepath.Join(filepath.Dir(interpreter), "py-spy"))
		d := debug(t, browser, 1, nil)
		go func() { _, _ = snakepit.Execute[any](t.Context(), d.pool, "burn", 1000) }()
		d.contains("#workers", "burn for ")
		d.does(chromedp.Click("#workers button + button"))
		if err != nil {
			d.contains("#look-stack", "pip install py-spy")
			return
		}
		d.contains("#look-flame", "inner_work")
	})
	t.Run("errors are shown as text", func(t *testing.T) {
		d := debug(t, browser, 1, &debugpage.Options{Arguments: true})
		const text = `<img src=x onerror="document.title='taken'">`
		for range 3 {
			if _, err := snakepit.Execute[any](t.Context(), d.pool, "broken", text); err == nil {
				t.Fatal("no error")
			}
		}
		d.contains("#failures", "ValueError: <img")
		d.contains("#failures", "(3 times)")
		d.contains("#failures", "raise ValueError(text)")
		d.contains("#failures", "arguments: <img")
		d.holds("document.title === 'models: 1 of 1 workers'")
		d.contains("#commands", "broken")
	})
	t.Run("a stream tells its rate, or that its caller is slow", func(t *testing.T) {
		d := debug(t, browser, 2, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for range snakepit.ExecuteStream[int](ctx, d.pool, "numbers", 0.01) {
			}
		}()
		go func() {
			for range snakepit.ExecuteStream[int](ctx, d.pool, "numbers", 0) {
				<-ctx.Done()
			}
		}()
		d.contains("#calls", "items/s")
		d.contains("#calls", "waits for its caller")
	})
	t.Run("changes need the token", func(t *testing.T) {
		d := debug(t, browser, 1, nil)
		d.waits("document.querySelectorAll('#workers td.good').length === 1")
		d.holds("document.getElementById('control').hidden")

		d = debug(t, browser, 1, &debugpage.Options{Token: "letmein"})
		d.waits("!document.getElementById('control').hidden")
		d.does(chromedp.Click("#reload"))
		d.contains("#said", "the token is wrong or missing")
		d.does(chromedp.SetValue("#token", "letmein"), chromedp.Click("#reload"))
		d.contains("#said", "reload: done")
		d.contains("#events", "the pool was reloaded in ")
		go func() { _, _ = snakepit.Execute[any](t.Context(), d.pool, "stuck", 1000) }()
		d.contains("#workers", "stuck for ")
		d.does(chromedp.Click("#workers tr:last-child button:last-child"))
		d.contains("#losses", "somebody asked for it on the debug page")
	})
	t.Run("on a phone and in the dark", func(t *testing.T) {
		d := debug(t, browser, 2, nil)
		const background = "getComputedStyle(document.body).backgroundColor"
		d.does(chromedp.EmulateViewport(390, 844), scheme("dark"))
		d.waits("document.querySelectorAll('#workers td.good').length === 2")
		d.holds("document.documentElement.scrollWidth <= 390")
		d.holds(background + " === 'rgb(22, 24, 27)'")
		d.does(scheme("light"))
		d.holds(background + " === 'rgb(251, 251, 250)'")
	})
	t.Run("the end of the pool is told", func(t *testing.T) {
		d := debug(t, browser, 1, nil)
		d.contains("#link", "live")
		if err := d.pool.Close(); err != nil {
			t.Fatal(err)
		}
		d.contains("#link", "the pool is closed")
	})
}

// debugged is a tab that shows the debug page of a pool.
type debugged struct {
	page

	pool *snakepit.Pool
}

func debug(t *testing.T, browser context.Context, size int, o *debugpage.Options) debugged {
	t.Helper()
	return debugOf(t, browser, "worker.py", size, o)
}

// debugOf shows a pool of another worker.
func debugOf(t *testing.T, browser context.Context, script string, size int, o *debugpage.Options) debugged {
	t.Helper()
	p, err := snakepit.OpenWith(t.Context(), msgpack.Adapter{}, snakepit.Python(script), &snakepit.Options{
		Name: "models", Size: size, Logger: hclog.NewNullLogger(), CancelGrace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.WaitReady(t.Context(), size); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(debugpage.New(p, o))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return debugged{open(t, browser, server.URL+"/debug/snakepit/"), p}
}

// contains waits until an element's text contains another text.
func (d debugged) contains(element, text string) {
	d.Helper()
	d.waits(fmt.Sprintf("document.querySelector(%q).textContent.includes(%q)", element, text))
}

// scheme has the browser prefer light or dark colours.
func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}
