// Command stock-analysis replays daily share prices through Python workers. The workers compute technical
// indicators as streams. The program prints trading signals.
//
// This file has the flags and the streams. print.go has the output. The Python side starts in worker.py.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
)

//go:embed worker.py indicators.py prices.py
var files embed.FS

const usage = `Usage: stock-analysis [flags]

Replays daily prices with technical analysis, on a pool of Python workers. The prices are those of GOOG and MSFT in
matplotlib, or yours by -csv.

Example: stock-analysis -symbols GOOG -rsi-oversold 25 -speed 100
         stock-analysis -csv ACME=acme.csv -csv SAFE=safe.csv -volume-spike 3

`

// arguments are those of realtime_stock_analysis in Python.
type arguments struct {
	Symbols         []string           `json:"symbols"`
	Indicators      []string           `json:"indicators"`
	AlertThresholds map[string]float64 `json:"alert_thresholds"`
	Files           map[string]string  `json:"files"` // CSV files by symbol
	Speed           float64            `json:"speed"` // days per second; 0 means as fast as possible
}

// Chunk is an item that a worker streams: one day of a share. An indicator is nil while there are too few
// prices for it.
type Chunk struct {
	Date          string   `json:"date"`
	Symbol        string   `json:"symbol"`
	Price         float64  `json:"price"`
	Volume        int64    `json:"volume"`
	RSI           *float64 `json:"rsi"`
	MACD          *float64 `json:"macd"`
	MACDSignal    *float64 `json:"macd_signal"`
	SMA20         *float64 `json:"sma_20"`
	SMA50         *float64 `json:"sma_50"`
	TradingSignal string   `json:"trading_signal"`
	Alerts        []string `json:"alerts"`
}

// Summary is a stream's result.
type Summary struct {
	IsFinal bool `json:"is_final"`
	Symbols map[string]struct {
		Signals map[string]int `json:"signals"`
		Alerts  int            `json:"alerts"`
	} `json:"symbols"`
}

// share is the answer of open_market about a symbol.
type share struct {
	Symbol string `json:"symbol"`
	Days   int    `json:"days"`
	First  string `json:"first"`
	Last   string `json:"last"`
}

// knownIndicators are INDICATORS of worker.py.
var knownIndicators = []string{"RSI", "MACD", "SMA_20", "SMA_50"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if something failed, 2 for wrong flags, 130 if ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := arguments{Files: map[string]string{}}
	flags := flag.NewFlagSet("stock-analysis", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	names := flags.String("adapter", "auto",
		"the `protocols` to try in order; auto is SNAKEPIT_ADAPTERS, else "+snakepit.Default)
	workers := flags.Int("workers", 4, "the maximum number of workers; the symbols are distributed to them")
	symbols := flags.String("symbols", "", "the shares, separated by commas (default: those of -csv, else GOOG,MSFT)")
	indicators := flags.String("indicators", strings.Join(knownIndicators, ","), "the indicators to report")
	oversold := flags.Float64("rsi-oversold", 30, "an RSI below this is a signal to buy")
	overbought := flags.Float64("rsi-overbought", 70, "an RSI above this is a signal to sell")
	spike := flags.Float64("volume-spike", 2, "a volume of this many `times` the mean of the last 20 days is an alert")
	flags.Float64Var(&a.Speed, "speed", 100, "the number of `days` per second; 0 means as fast as possible")
	csv := "prices from a CSV file with the columns Date, Close and Volume, as `SYMBOL=FILE`; may be given several " +
		"times"
	flags.Func("csv", csv, func(s string) error {
		symbol, path, ok := strings.Cut(s, "=")
		if !ok || symbol == "" || path == "" {
			return errors.New("it must be like ACME=acme.csv")
		}
		a.Files[strings.ToUpper(symbol)] = path
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	misuse := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "stock-analysis: "+format+"; see stock-analysis -h\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return misuse("%q is not a flag", flags.Arg(0))
	}
	adapter, err := snakepit.Adapters(*names)
	if err != nil {
		return misuse("-adapter: %v", err)
	}
	if *workers < 1 {
		return misuse("-workers is %d, but it must be at least 1", *workers)
	}
	switch {
	case *symbols != "":
		a.Symbols = strings.Split(strings.ToUpper(*symbols), ",")
	case len(a.Files) > 0:
		a.Symbols = slices.Sorted(maps.Keys(a.Files))
	default:
		a.Symbols = []string{"GOOG", "MSFT"}
	}
	for i, symbol := range a.Symbols {
		switch {
		case symbol == "":
			return misuse("-symbols has %q, with nothing between two commas", *symbols)
		case slices.Contains(a.Symbols[:i], symbol):
			return misuse("-symbols has %s twice", symbol)
		}
	}
	a.Indicators = strings.Split(*indicators, ",")
	for _, name := range a.Indicators {
		if !slices.Contains(knownIndicators, name) {
			return misuse("-indicators has %q; there are %s", name, strings.Join(knownIndicators, ","))
		}
	}
	if !(0 <= *oversold && *oversold < *overbought && *overbought <= 100) { // this also rejects NaN
		return misuse("-rsi-oversold is %v and -rsi-overbought %v, but they must be from 0 to 100, the first the "+
			"lower one", *oversold, *overbought)
	}
	if !(*spike > 0) {
		return misuse("-volume-spike is %v, but it must be above 0", *spike)
	}
	if !(a.Speed >= 0) || math.IsInf(a.Speed, 1) {
		return misuse("-speed is %v, but it must be a number of days, or 0", a.Speed)
	}
	a.AlertThresholds = map[string]float64{"rsi_oversold": *oversold, "rsi_overbought": *overbought,
		"volume_spike": *spike}

	err = analyse(ctx, adapter, *workers, a, stdout, stderr)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "stock-analysis: interrupted")
		return 130
	}
	if err != nil {
		fmt.Fprintln(stderr, "stock-analysis:", explain.Error(err))
		return 1
	}
	return 0
}

// analyse opens a pool and distributes the symbols to its workers. It prints the items of all streams as they arrive.
func analyse(ctx context.Context, adapter core.Adapter, workers int, a arguments, stdout, stderr io.Writer) error {
	level := hclog.LevelFromString(os.Getenv("SNAKEPIT_LOG"))
	if level == hclog.NoLevel {
		level = hclog.Off // this program prints all that matters itself
	}
	streams := min(workers, len(a.Symbols))
	pool, err := snakepit.OpenWith(ctx, adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
		Size: streams, CallTimeout: -1, StreamTimeout: -1, // a market has no time limit
		Logger: hclog.New(&hclog.LoggerOptions{Output: stderr, Level: level}),
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	market, err := snakepit.Execute[[]share](ctx, pool, "open_market",
		map[string]any{"symbols": a.Symbols, "files": a.Files})
	if err != nil {
		return err
	}

	console := newConsole(stdout, market)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range streams {
		mine := a
		mine.Symbols = nil
		for j := i; j < len(a.Symbols); j += streams {
			mine.Symbols = append(mine.Symbols, a.Symbols[j])
		}
		wg.Go(func() {
			var summary Summary
			for chunk, err := range snakepit.ExecuteStream[Chunk](ctx, pool, "realtime_stock_analysis", mine,
				snakepit.Result(&summary)) {
				if err != nil {
					cancel(err) // the other streams end, too
					return
				}
				console.chunk(chunk)
			}
			console.done(summary)
		})
	}
	wg.Wait()
	console.end()
	return context.Cause(ctx)
}
