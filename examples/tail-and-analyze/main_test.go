package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
)

// need skips the test if the user's Python lacks a module of the adapter. The Python that SNAKEPIT_PYTHON names
// must have it.
func need(t *testing.T, adapter string) {
	t.Helper()
	module := map[string]string{"grpc": "grpc, google.protobuf", "msgpack": "msgpack"}[adapter]
	if module == "" || os.Getenv("SNAKEPIT_PYTHON") != "" {
		return
	}
	python, err := snakepit.PythonFS(files, "worker.py").Command()
	if err != nil {
		t.Skip("there is no Python:", err)
	}
	if err := exec.Command(python.Path, "-c", "import "+module).Run(); err != nil {
		t.Skipf("%s can't import %s; make install-grpc has a Python that can, for SNAKEPIT_PYTHON", python.Path, module)
	}
}

// screen collects the program's output. A test waits for text in it.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// until waits until the text is printed n times. Only one goroutine may wait. It returns false when ctx ends first.
func (s *screen) until(ctx context.Context, text string, n int) bool {
	for strings.Count(s.String(), text) < n {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// program runs the program until end is called. end returns the exit code.
func program(t *testing.T, stdout, stderr *screen, args ...string) (ctx context.Context, end func() int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, args, stdout, stderr)
		cancel() // the program prints nothing more: stop waiting
	}()
	return ctx, func() int {
		cancel()
		return <-code
	}
}

// TestOnEachAdapter writes two logs of numbered lines. It rotates and truncates them while the program reads.
func TestOnEachAdapter(t *testing.T) {
	const rounds, perRound = 6, 50
	for _, adapter := range []string{"grpc", "msgpack", "jsonstdio", "auto"} {
		t.Run(adapter, func(t *testing.T) {
			need(t, adapter)
			stdout, stderr, dir := newScreen(), newScreen(), t.TempDir()
			paths := []string{filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log")}
			for _, path := range paths {
				write(t, path, "2025-01-20 15:30:45 INFO was there before\n")
			}
			ctx, end := program(t, stdout, stderr,
				append([]string{"-adapter", adapter, "-context-lines", "0", "-patterns", "ERROR"}, paths...)...)
			ok := stdout.until(ctx, "is followed from its end, line 2", 2)
			var want []string
			for round := range rounds {
				var text strings.Builder
				for i := range perRound {
					want = append(want, fmt.Sprintf("[2025-01-20T15:30:45] ERROR: line %d é\n", perRound*round+i))
					fmt.Fprintf(&text, "2025-01-20 15:30:45 INFO another\n2025-01-20 15:30:45 ERROR line %d é\n",
						perRound*round+i)
				}
				for _, path := range paths {
					write(t, path, text.String()[:len(text.String())/2]) // this may end in the middle of a character
					write(t, path, text.String()[len(text.String())/2:])
				}
				// A rotated file keeps its unread part. A truncated file loses it for every reader. So the last
				// line must be printed before.
				if round%3 == 0 {
					for _, path := range paths {
						if err := os.Rename(path, fmt.Sprint(path, ".", round)); err != nil {
							t.Fatal(err)
						}
					}
					continue
				}
				ok = ok && stdout.until(ctx, fmt.Sprintf("ERROR: line %d é\n", perRound*(round+1)-1), 2)
				if round%3 == 1 {
					for _, path := range paths {
						if err := os.Truncate(path, 0); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			code := end()
			if !ok || code != 130 {
				t.Errorf("exit code %d", code)
			}
			for _, path := range paths {
				var got []string
				for line := range strings.Lines(stdout.String()) {
					if rest, ok := strings.CutPrefix(line, "🚨 "+path+":"); ok {
						_, rest, _ = strings.Cut(rest, " ")
						got = append(got, rest)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: got %d lines, want %d", path, len(got), len(want))
				}
			}
			summary := fmt.Sprintf("%d lines read, 2 rotations, 2 truncations\n", 2*rounds*perRound)
			if strings.Count(stdout.String(), summary) != 2 ||
				!strings.Contains(stdout.String(), "by severity: ERROR 600\n") {
				t.Error("the summary is wrong")
			}
			if t.Failed() {
				t.Logf("%s\n%s", stdout, stderr)
			}
		})
	}
}

// write appends to a file. It creates the file if needed.
func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

const text = `2025-01-20 15:30:44 INFO  starting
2025-01-20 15:30:45 ERROR Database connection failed: timeout after 30s
2025-01-20 15:30:50 WARN  High memory usage detected: 85% of heap used
2025-01-20 15:31:00 FATAL OutOfMemoryError: Java heap space exceeded, and this line is so long that its end is ` +
	`not printed
java.lang.OutOfMemoryError`

func TestOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, text)
	stdout, stderr := newScreen(), newScreen()
	args := []string{"-adapter", "jsonstdio", "-once", "-context-lines", "1", "-patterns",
		"ERROR,FATAL,OutOfMemoryError,\"A{2,3}\"", path}
	if code := run(t.Context(), args, stdout, stderr); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	want := "📄 " + path + ` is followed from its beginning
     │ 2025-01-20 15:30:44 INFO  starting
🚨 [2025-01-20T15:30:45] ERROR: Database connection failed: timeout after 30s
     │ 2025-01-20 15:30:50 WARN  High memory usage detected: 85% of heap used
     │ 2025-01-20 15:30:50 WARN  High memory usage detected: 85% of heap used
💀 [2025-01-20T15:31:00] FATAL: OutOfMemoryError: Java heap space exceeded, and this line is so long that its en...
     │ java.lang.OutOfMemoryError
     │ 2025-01-20 15:31:00 FATAL OutOfMemoryError: Java heap space exceeded, and this l...
ℹ️ OutOfMemoryError: java.lang.OutOfMemoryError
📊 Log analysis session ended
   ` + path + `: 5 lines read, 0 rotations, 0 truncations
   by pattern: ERROR 1, FATAL 1, OutOfMemoryError 1
   by severity: ERROR 1, FATAL 1, none 1
`
	if stdout.String() != want {
		t.Errorf("got:\n%swant:\n%s", stdout, want)
	}
}

// The last match still waits for its following lines when the interrupt comes.
func TestInterrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "ERROR one\nINFO two\nERROR three\n")
	stdout, stderr := newScreen(), newScreen()
	ctx, end := program(t, stdout, stderr, "-adapter", "jsonstdio", "-from-start", "-context-lines", "1", path)
	found := stdout.until(ctx, "ERROR: one", 1)
	code := end()
	want := "🚨 ERROR: three\n📊 Log analysis session ended\n   " + path +
		": 3 lines read, 0 rotations, 0 truncations\n" +
		"   by pattern: ERROR 2\n   by severity: ERROR 2\n"
	if !found || code != 130 || !strings.HasSuffix(stdout.String(), want) || stderr.String() != "" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
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

// A caller that does not need the last matches may just cancel the call. The cancellation reaches a sleeping
// handler, and its worker lives on.
func TestCancelReachesASleepingHandler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "")
	adapter, err := snakepit.Adapters("jsonstdio")
	if err != nil {
		t.Fatal(err)
	}
	never := snakepit.Func(func(context.Context, any) (bool, error) { return false, nil })
	pool, err := snakepit.OpenWith(t.Context(), adapter, snakepit.PythonFS(files, "worker.py"), &snakepit.Options{
		Size: 1, CancelGrace: time.Minute, Functions: map[string]snakepit.Function{"stopping": never},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pid := pool.Workers()[0].Info().PID
	for range 2 { // the second call runs on the same worker, which is free again
		a := arguments{LogPath: path, Patterns: []string{"ERROR"}}
		for chunk, err := range snakepit.ExecuteStream[Chunk](t.Context(), pool, "tail_and_analyze", a) {
			if err != nil || chunk.Note == "" {
				t.Fatalf("%+v, %v", chunk, err)
			}
			break // this cancels the stream
		}
	}
	if now := pool.Workers()[0].Info().PID; now != pid {
		t.Errorf("process %d was replaced by %d", pid, now)
	}
}

func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	stdout, stderr := newScreen(), newScreen()
	ctx, end := program(t, stdout, stderr, "-adapter", "jsonstdio", "-wait", path)
	ok := stdout.until(ctx, "does not exist; it is tried again", 1)
	write(t, path, "ERROR \x1b[31mone\n")
	ok = ok && stdout.until(ctx, "🚨 ERROR:  [31mone\n", 1)
	if code := end(); !ok || code != 130 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestDemo(t *testing.T) {
	stdout, stderr := newScreen(), newScreen()
	code := run(t.Context(), []string{"-demo", "-adapter", "jsonstdio", "-context-lines", "1"}, stdout, stderr)
	for _, want := range []string{": 300 lines read, 1 rotation, 1 truncation\n", " in the log was found once\n"} {
		if code != 0 || !strings.Contains(stdout.String(), want) {
			t.Errorf("exit code %d, %q is not in\n%s%s", code, want, stdout, stderr)
		}
	}
}

func TestTheDemoSeesWhatIsWrong(t *testing.T) {
	s := &service{written: []string{"a", "b"}, found: map[string]int{"a": 1, "b": 2}}
	if err := s.check(); err == nil || err.Error() != `the line "b" was found 2 times` {
		t.Error(err)
	}
	s.found = map[string]int{"a": 1, "b": 1, "c": 1}
	if err := s.check(); err == nil || err.Error() != "3 lines were found, but 2 were written" {
		t.Error(err)
	}
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "app.log")
	write(t, there, text)
	const badPatterns = " is not a list of regular expressions with commas between; see tail-and-analyze -h\n"
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{dir + "/nowhere.log"}, 1, "tail-and-analyze: " + dir +
			"/nowhere.log does not exist; -wait waits for it\n"},
		{[]string{there, dir + "/nowhere.log"}, 1,
			"tail-and-analyze: " + dir + "/nowhere.log does not exist; -wait waits for it\n"},
		{[]string{dir}, 1, "tail-and-analyze: " + dir + " is not a regular file\n"},
		{[]string{"-patterns", "a(b", there}, 1,
			"tail-and-analyze: the pattern 'a(b' is not a regular expression: missing ), "},
		{[]string{"-patterns", "", there}, 2, "tail-and-analyze: -patterns \"\"" + badPatterns},
		{[]string{"-patterns", "a,", there}, 2, "tail-and-analyze: -patterns \"a,\"" + badPatterns},
		{[]string{"-context-lines", "-1", there}, 2,
			"tail-and-analyze: -context-lines is -1, but it must be from 0 to 100; see tail-and-analyze -h\n"},
		{[]string{"-context-lines", "101", there}, 2,
			"tail-and-analyze: -context-lines is 101, but it must be from 0 to 100; see tail-and-analyze -h\n"},
		{[]string{"-adapter", "nonsense", there}, 2, "tail-and-analyze: -adapter: "},
		{[]string{there, dir + "//app.log"}, 2,
			"tail-and-analyze: " + dir + "//app.log is named twice; see tail-and-analyze -h\n"},
		{[]string{}, 2, "tail-and-analyze: no file is named; name a log file, or say -demo; see tail-and-analyze -h\n"},
		{[]string{"-once", "-wait", there}, 2,
			"tail-and-analyze: -once reads what is there, and -wait waits for what is not: "},
		{[]string{"-demo", "-once"}, 2, "tail-and-analyze: -demo has a log of its own, and what to look for; "},
		{[]string{"-demo", there}, 2, "tail-and-analyze: -demo has a log of its own, and what to look for; "},
		{[]string{"-nonsense"}, 2, "flag provided but not defined: -nonsense\n"},
		{[]string{"-h"}, 0, usage},
	} {
		stdout, stderr := newScreen(), newScreen()
		args := append([]string{"-adapter", "jsonstdio"}, test.args...)
		if code := run(t.Context(), args, stdout, stderr); code != test.code ||
			!strings.HasPrefix(stderr.String(), test.want) {
			t.Errorf("%q: exit code %d, %q; want %d, %q", test.args, code, stderr, test.code, test.want)
		}
		if test.code == 1 && strings.Contains(stderr.String(), "Traceback") {
			t.Errorf("%q: %s", test.args, stderr)
		}
	}
}
