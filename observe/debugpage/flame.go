package debugpage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Flame is one frame of a flame graph: how many samples had it at this place of the stack.
type Flame struct {
	Name     string   `json:"name"`
	Samples  int      `json:"samples"`
	Children []*Flame `json:"children,omitempty"` // the one with the most samples first
}

const (
	flameTime     = 5 * time.Second // that is sampled if nothing else is asked for
	mostFlame     = 60 * time.Second
	samplesASec   = 100
	flamePatience = 10 * time.Second // for the start and the end of py-spy
)

// serveFlame has py-spy sample a worker. py-spy reads the memory of the process from outside: the worker is not asked.
func (p *Page) serveFlame(w http.ResponseWriter, r *http.Request) error {
	worker, err := p.worker(r)
	if err != nil {
		return err
	}
	seconds := flameTime
	if text := r.FormValue("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if seconds = time.Duration(n) * time.Second; err != nil || seconds <= 0 || seconds > mostFlame {
			err := fmt.Errorf("seconds is %q; use 1 to %d", text, mostFlame/time.Second)
			return &statusError{http.StatusBadRequest, err}
		}
	}
	info := worker.Info()
	if info.Host != "" {
		err := fmt.Errorf("%s runs on %s; py-spy can sample it there", worker, info.Host)
		return &statusError{http.StatusConflict, err}
	}
	tool, err := findPySpy(info.PID)
	if err != nil {
		return &statusError{http.StatusNotImplemented, err}
	}
	if !p.flames.TryLock() {
		return &statusError{http.StatusTooManyRequests, errors.New("another worker is being sampled; wait for it")}
	}
	defer p.flames.Unlock()
	flame, err := sample(r.Context(), tool, info.PID, seconds)
	if err != nil {
		return err
	}
	return writeJSON(w, flame)
}

// findPySpy looks for py-spy in PATH, and beside the worker's interpreter.
func findPySpy(pid int) (string, error) {
	if tool, err := exec.LookPath("py-spy"); err == nil {
		return tool, nil
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		interpreter, _, _ := bytes.Cut(args, []byte{0})
		tool := filepath.Join(filepath.Dir(string(interpreter)), "py-spy")
		if filepath.IsAbs(tool) {
			if _, err := os.Stat(tool); err == nil {
				return tool, nil
			}
		}
	}
	return "", errors.New("a flame graph needs py-spy, which is neither in PATH nor beside the worker's interpreter; " +
		"install it there: pip install py-spy")
}

// sample runs py-spy on a process.
func sample(ctx context.Context, tool string, pid int, d time.Duration) (*Flame, error) {
	ctx, cancel := context.WithTimeout(ctx, d+flamePatience)
	defer cancel()
	dir, err := os.MkdirTemp("", "snakepit-flame-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left there is in the system's care
	folded := filepath.Join(dir, "folded")
	cmd := exec.CommandContext(ctx, tool, "record", "--pid", strconv.Itoa(pid), "--format", "raw", "--output", folded,
		"--duration", strconv.Itoa(int(d/time.Second)), "--rate", strconv.Itoa(samplesASec), "--nonblocking")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, spyError(ctx, strings.TrimSpace(string(text)), err)
	}
	text, err := os.ReadFile(folded)
	if err != nil {
		return nil, fmt.Errorf("py-spy has written nothing: %w", err)
	}
	return parseFolded(text), nil
}

// spyError explains an error of py-spy.
func spyError(ctx context.Context, text string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	hint := ""
	if strings.Contains(strings.ToLower(text), "permission") && runtime.GOOS == "linux" {
		hint = "\nhint: reading another process needs CAP_SYS_PTRACE, such as by " +
			"\"docker run --cap-add SYS_PTRACE\", or sysctl kernel.yama.ptrace_scope=0"
	}
	return fmt.Errorf("py-spy: %w\n%s%s", err, text, hint)
}

// parseFolded reads folded stacks: lines of frames, the outermost first, separated by semicolons, and a count. See
// https://github.com/brendangregg/FlameGraph.
func parseFolded(text []byte) *Flame {
	root := &Flame{Name: "all"}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		stack, count, found := cutLast(lines.Text(), " ")
		n, err := strconv.Atoi(count)
		if !found || err != nil {
			continue
		}
		at := root
		at.Samples += n
		for name := range strings.SplitSeq(stack, ";") {
			at = at.child(name)
			at.Samples += n
		}
	}
	root.sort()
	return root
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (f *Flame) child(name string) *Flame {
	for _, c := range f.Children {
		if c.Name == name {
			return c
		}
	}
	c := &Flame{Name: name}
	f.Children = append(f.Children, c)
	return c
}

func (f *Flame) sort() {
	slices.SortFunc(f.Children, func(a, b *Flame) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), cmp.Compare(a.Name, b.Name))
	})
	for _, c := range f.Children {
		c.sort()
	}
}
