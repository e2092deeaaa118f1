package browser

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/observe/debugpage"
)

var pictures = flag.String("pictures", "", "the directory that gets the pictures of the debug page")

// TestPictures takes the pictures of docs/operations.md: of a pool that computes, with a call that waits for ever, a
// worker that has died and a call that fails. "make pictures" runs it.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("it takes the pictures of the pages and checks nothing: make pictures")
	}
	browser := start(t, find(t))
	d := debugOf(t, browser, shop(t), 4, &debugpage.Options{Arguments: true})
	d.does(chromedp.EmulateViewport(1200, 1040), scheme("light"))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	execute := func(command string, args any) {
		_, _ = snakepit.Execute[any](ctx, d.pool, command, args, snakepit.Timeout(-1))
	}
	load := func() {
		for i := 0; ctx.Err() == nil; i++ {
			execute("predict", 50_000+i%17*20_000)
			time.Sleep(time.Duration(i%40) * 10 * time.Millisecond) // callers come now and then
		}
	}
	go load()
	d.bars(3)
	execute("thumbnail", map[string]any{"image": "cup.png"})
	for range 3 {
		execute("parse", "{tea")
	}
	go func() {
		for range snakepit.ExecuteStream[any](ctx, d.pool, "export", "orders", snakepit.Timeout(-1)) {
		}
	}()
	d.contains("#calls", "export")
	go execute("reserve", "tea")
	d.contains("#workers", "reserve for ")
	go load()
	d.bars(5)
	d.contains("#workers", "predict for ")
	d.picture("overview", chromedp.CaptureScreenshot())

	d.does(chromedp.EmulateViewport(1000, 800))
	d.holds("(document.getElementById('look').style.padding = '8px') !== ''") // a margin for the pictures
	d.clicks("reserve", 0)
	d.contains("#look-stack", "in reserve")
	d.picture("stacks", chromedp.Screenshot("#look"))
	d.clicks("predict", 1)
	d.contains("#look-flame", "square")
	d.picture("flame", chromedp.Screenshot("#look"))
}

// bars waits until the page has so many bars of calls. Each stands for ten seconds.
func (d debugged) bars(n int) {
	d.Helper()
	const bars = "[...document.querySelectorAll('#series-calls rect')].filter((r) => r.getAttribute('height') > 0)"
	d.waits(fmt.Sprintf("%s.length >= %d", bars, n))
}

// shop is the worker's file and the program's name that the pictures show.
func shop(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("pictures.py")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shop-")
	if err != nil {
		t.Fatal(err)
	}
	old := os.Args[0]
	os.Args[0] = "shop"
	t.Cleanup(func() {
		os.Args[0] = old
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "worker.py")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// clicks clicks a button of the worker that runs a command.
func (d debugged) clicks(command string, button int) {
	d.Helper()
	const script = `(() => {
		const row = [...document.querySelectorAll('#workers tbody tr')].find((r) => r.textContent.includes(%q));
		if (row) row.querySelectorAll('button')[%d].click();
		return Boolean(row);
	})()`
	d.waits(fmt.Sprintf(script, command+" for ", button))
}

// picture keeps a picture of the page.
func (d debugged) picture(name string, take chromedp.Action[[]byte]) {
	d.Helper()
	taken, err := chromedp.Run(d.ctx, take)
	if err != nil {
		d.Fatal(err)
	}
	full, err := png.Decode(bytes.NewReader(taken))
	if err != nil {
		d.Fatal(err)
	}
	small := image.NewPaletted(full.Bounds(), colours(full))
	draw.Draw(small, small.Bounds(), full, full.Bounds().Min, draw.Src)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small); err != nil {
		d.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, "debugpage-"+name+".png"), b.Bytes(), 0o644); err != nil {
		d.Fatal(err)
	}
}

// colours returns the most frequent colours of a picture, at most 256. They make its file half as large.
func colours(full image.Image) color.Palette {
	count := map[color.Color]int{}
	for y := full.Bounds().Min.Y; y < full.Bounds().Max.Y; y++ {
		for x := full.Bounds().Min.X; x < full.Bounds().Max.X; x++ {
			count[full.At(x, y)]++
		}
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return count[b] - count[a] })
	return all[:min(len(all), 256)]
}
