package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/snakepit-go/snakepit"
)

// need skips the test if the user's Python lacks a module of the adapter or of the bundled prices. The Python
// that SNAKEPIT_PYTHON names must have them.
func need(t *testing.T, adapter string) {
	t.Helper()
	if os.Getenv("SNAKEPIT_PYTHON") != "" {
		return
	}
	modules := "matplotlib" + map[string]string{"grpc": ", grpc, google.protobuf", "msgpack": ", msgpack"}[adapter]
	python, err := snakepit.PythonFS(files, "worker.py").Command()
	if err != nil {
		t.Skip("there is no Python:", err)
	}
	if err := exec.Command(python.Path, "-c", "import "+modules).Run(); err != nil {
		t.Skipf("%s can't import %s; make install-examples has a Python that can, for SNAKEPIT_PYTHON", python.Path,
			modules)
	}
}

const summary = `📊 Market session ended
   GOOG: 1047 days from 2004-08-19 to 2008-10-14; BUY on 31, SELL on 184, alerts on 242
   MSFT: 65 days from 2003-06-19 to 2003-09-19; BUY on 0, SELL on 5, alerts on 5
`

func TestOnEachAdapter(t *testing.T) {
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			need(t, adapter)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"-adapter", adapter, "-speed", "0"}, &stdout, &stderr); code != 0 {
				t.Fatalf("exit code %d, %s", code, &stderr)
			}
			got := stdout.String()
			for text, n := range map[string]int{
				" GOOG: $": 1047, "🟢 GOOG: $": 31, "🔴 GOOG: $": 184,
				" MSFT: $": 65, "🔴 MSFT: $": 5,
				"⚡": 247,
			} {
				if found := strings.Count(got, text); found != n {
					t.Errorf("%q is printed %d times, not %d", text, found, n)
				}
			}
			for _, want := range []string{
				"⚪ GOOG: $100.34 - HOLD (RSI: -)\n",
				"🔴 MSFT: $29.96 - SELL signal (RSI: 71.6)\n" +
					"   ⚡ 2003-09-19: RSI 71.6 is above 70; MACD 0.75; its signal 0.58; SMA_20 27.86; SMA_50 26.92\n",
				"   ⚡ 2005-02-14: volume is 2.8 times the mean of 20 days; MACD 0.83; its signal 1.91; SMA_20 " +
					"193.61; SMA_50 189.28\n",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not printed", want)
				}
			}
			if !strings.HasSuffix(got, summary) {
				t.Errorf("the end is %s", got[max(0, len(got)-300):])
			}
		})
	}
}

func store(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One worker streams the days of all its symbols in the order of their dates.
func TestOnesOwnPrices(t *testing.T) {
	a := store(t, "a b=1.csv", "date,volume,close\n2024-01-03,5,3\n2024-01-01,5,1\n")
	b := store(t, "b.csv", "Date,Open,High,Low,Close,Volume\n2-Jan-24,1,1,1,2.5,7\n")
	var stdout, stderr bytes.Buffer
	args := []string{"-adapter", "jsonstdio", "-csv", "a=" + a, "-csv", "B=" + b, "-workers", "1", "-speed", "1000"}
	code := run(t.Context(), args, &stdout, &stderr)
	want := `⚪ A: $1.00 - HOLD (RSI: -)
⚪ B: $2.50 - HOLD (RSI: -)
⚪ A: $3.00 - HOLD (RSI: -)
📊 Market session ended
   A: 2 days from 2024-01-01 to 2024-01-03; BUY on 0, SELL on 0, alerts on 0
   B: 1 day from 2024-01-02 to 2024-01-02; BUY on 0, SELL on 0, alerts on 0
`
	if code != 0 || stdout.String() != want {
		t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
}

// trigger is a writer that calls do once text has been written to it.
type trigger struct {
	mu sync.Mutex
	bytes.Buffer
	text string
	do   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.do()
	}
	return n, err
}

// The interrupt reaches a worker that sleeps a quarter of an hour until its next day.
func TestInterrupt(t *testing.T) {
	path := store(t, "own.csv", "Date,Close,Volume\n2024-01-01,1,5\n2024-01-02,2,5\n")
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &trigger{text: "$1.00", do: cancel}
	var stderr bytes.Buffer
	code := run(ctx, []string{"-adapter", "jsonstdio", "-csv", "OWN=" + path, "-speed", "0.001"}, stdout, &stderr)
	want := "⚪ OWN: $1.00 - HOLD (RSI: -)\n📊 Market session ended\n   OWN: 1 of 2 days, to 2024-01-01\n"
	if code != 130 || stdout.String() != want || stderr.String() != "stock-analysis: interrupted\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, &stderr)
	}
	noChild(t)
}

// noChild fails if this process still has a child process.
func noChild(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	children, err := exec.Command("sh", "-c", "cat /proc/$PPID/task/*/children").Output()
	if err != nil {
		t.Fatal(err)
	}
	if left := strings.Fields(string(children)); len(left) > 1 { // one is the shell
		t.Errorf("processes %v are left", left)
	}
}

func TestBadInput(t *testing.T) {
	empty, wrong := store(t, "empty.csv", ""), store(t, "wrong.csv", "Date,Price,Volume\n")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-symbols", "TSLA"}, 1, "stock-analysis: there are no prices of TSLA; there are those of GOOG, " +
			"MSFT, and -csv TSLA=FILE brings others\n"},
		{[]string{"-csv", "A=nowhere.csv"}, 1,
			"stock-analysis: nowhere.csv cannot be read: No such file or directory\n"},
		{[]string{"-csv", "A=."}, 1, "stock-analysis: . cannot be read: Is a directory\n"},
		{[]string{"-csv", "A=" + empty}, 1, "stock-analysis: " + empty +
			" has no column Date and no column Close and no column Volume; it is empty\n"},
		{[]string{"-csv", "A=" + wrong}, 1, "stock-analysis: " + wrong +
			" has no column Close; its first line is 'date,price,volume'\n"},
		{[]string{"-csv", "A"}, 2, "invalid value \"A\" for flag -csv: it must be like ACME=acme.csv\n"},
		{[]string{"-symbols", "GOOG,,MSFT"}, 2,
			"stock-analysis: -symbols has \"GOOG,,MSFT\", with nothing between two commas; see stock-analysis -h\n"},
		{[]string{"-symbols", "GOOG,goog"}, 2, "stock-analysis: -symbols has GOOG twice; see stock-analysis -h\n"},
		{[]string{"-indicators", "EMA"}, 2,
			"stock-analysis: -indicators has \"EMA\"; there are RSI,MACD,SMA_20,SMA_50; see stock-analysis -h\n"},
		{[]string{"-rsi-oversold", "80"}, 2,
			"stock-analysis: -rsi-oversold is 80 and -rsi-overbought 70, but they must be from 0 to"},
		{[]string{"-rsi-overbought", "NaN"}, 2, "stock-analysis: -rsi-oversold is 30 and -rsi-overbought NaN, but"},
		{[]string{"-volume-spike", "-2"}, 2,
			"stock-analysis: -volume-spike is -2, but it must be above 0; see stock-analysis -h\n"},
		{[]string{"-speed", "-1"}, 2,
			"stock-analysis: -speed is -1, but it must be a number of days, or 0; see stock-analysis -h\n"},
		{[]string{"-workers", "0"}, 2,
			"stock-analysis: -workers is 0, but it must be at least 1; see stock-analysis -h\n"},
		{[]string{"-adapter", "nonsense"}, 2, "stock-analysis: -adapter: "},
		{[]string{"-nonsense"}, 2, "flag provided but not defined: -nonsense\n"},
		{[]string{"GOOG"}, 2, "stock-analysis: \"GOOG\" is not a flag; see stock-analysis -h\n"},
		{[]string{"-h"}, 0, usage},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"-adapter", "jsonstdio"}, test.args...), &stdout, &stderr)
		if code != test.code || !strings.HasPrefix(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d, %q; want %d, %q", test.args, code, &stderr, test.code, test.want)
		}
	}
}
