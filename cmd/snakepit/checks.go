package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/remote"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// probed is the report of doctor.py about its Python.
type probed struct {
	Python         string
	Implementation string
	Environment    string
	Bridge         string
	Packages       map[string]string
	Generated      string
	OpenFiles      int64 `json:"open_files"`
}

// needs lists the packages that each adapter requires.
var needs = map[string][]string{"grpc": {"grpcio", "protobuf"}, "msgpack": {"msgpack"}}

// examine runs all checks. A check comes after the checks that it depends on.
func (d *doctor) examine(ctx context.Context, word string, chain []core.Adapter) *diagnosis {
	found := &diagnosis{Versions: map[string]string{"snakepit": version().Snakepit, "go": runtime.Version()}}
	say := func(c ...check) { found.Checks = append(found.Checks, c...) }

	isScript := isPython(word)
	choice, interpreter := d.chosen(word, isScript)
	say(interpreter)
	say(tempDirectory(), memory())
	if d.basePort > 0 {
		say(d.ports())
	}
	var program python.Program
	works := interpreter.Status != bad
	if works {
		program = python.Program{Script: "doctor.py", FS: doctorFiles, Interpreter: choice.Interpreter}
		p, unpacked, err := probe(ctx, program)
		say(unpacked)
		works = err == nil
		switch {
		case works:
			found.record(p)
			say(p.python(choice), p.packages(chain))
			if slices.ContainsFunc(chain, func(a core.Adapter) bool { return a.Name() == "grpc" }) {
				say(p.generated())
			}
			say(p.openFiles())
		case unpacked.Status == good:
			text, fix := explain(err)
			say(check{Name: "Python", Status: bad, Text: text, Fix: fix})
		}
	}
	for _, a := range chain {
		c := check{Name: a.Name(), Status: bad, Text: "not tried, because of the problems above"}
		if works {
			c = d.try(ctx, a, program)
		}
		found.OK = found.OK || c.Status == good
		found.Adapters = append(found.Adapters, c)
	}
	for i := range found.Adapters {
		if !found.OK { // a refusal is harmless only if another adapter works
			found.Adapters[i].Status = bad
		}
	}
	if word != "" {
		c := check{Name: filepath.Base(word), Status: bad, Text: "not tried, because no adapter works"}
		if found.OK || !isScript {
			c = d.user(ctx, word)
		}
		found.Worker, found.OK = &c, c.Status != bad && (found.OK || !isScript)
	}
	return found
}

// examineRay examines a Ray cluster. Nothing of it needs Python on this machine.
func (d *doctor) examineRay(ctx context.Context, word string) *diagnosis {
	found := &diagnosis{Versions: map[string]string{"snakepit": version().Snakepit, "go": runtime.Version()}}
	r := remote.Ray{Dashboard: d.ray}
	if token := os.Getenv("RAY_AUTH_TOKEN"); token != "" {
		r.Header = http.Header{"Authorization": {"Bearer " + token}}
	}
	asking, cancel := asked(ctx)
	defer cancel()
	works := check{Name: r.Name(), Status: bad, Text: "not tried, because of the problems above"}
	if ray, err := r.Version(asking); err != nil {
		text, fix := explain(err)
		found.Checks = append(found.Checks, check{Name: "dashboard", Status: bad, Text: text, Fix: fix})
	} else {
		found.Versions["ray"] = ray
		found.Checks = append(found.Checks, check{Name: "dashboard", Status: good, Text: "Ray " + ray + " at " + d.ray})
		works = d.try(ctx, r, python.Elsewhere{Script: "doctor.py", FS: doctorFiles})
	}
	found.Adapters, found.OK = []check{works}, works.Status == good
	if word != "" {
		c := check{Name: filepath.Base(word), Status: bad, Text: "not tried, because no call works"}
		if found.OK {
			c = c.offers(ctx, func() (*snakepit.Pool, error) {
				opts := silently()
				opts.StartTimeout = d.start
				return snakepit.OpenWith(ctx, r, python.Elsewhere{Script: word}, opts)
			})
		}
		found.Worker, found.OK = &c, c.Status == good
	}
	return found
}

// chosen returns the interpreter that workers get.
func (d *doctor) chosen(word string, isScript bool) (python.Choice, check) {
	p := python.Program{Interpreter: d.python}
	if isScript {
		if _, err := os.Stat(word); err == nil { // otherwise the check of the worker reports it
			p.Script = word
		}
	}
	choice, err := p.Choose()
	if err != nil {
		text, fix := explain(err)
		return choice, check{Name: "interpreter", Status: bad, Text: text, Fix: fix}
	}
	by := choice.By
	if by == python.ByProgram {
		by = "--python"
	}
	return choice, check{Name: "interpreter", Status: good,
		Text: fmt.Sprintf("%s, chosen by %s", choice.Interpreter, by)}
}

// probe runs doctor.py by hand, as a host would start it.
func probe(ctx context.Context, program python.Program) (p probed, unpacked check, err error) {
	program.Args = []string{"--probe"}
	start, err := program.Command()
	if err != nil {
		text, fix := explain(err)
		return p, check{Name: "cache directory", Status: bad, Text: text, Fix: fix}, err
	}
	p, err = runProbe(ctx, start)
	return p, check{Name: "cache directory", Status: good,
		Text: "snakepit_bridge is unpacked in " + filepath.Dir(start.Args[0])}, err
}

func runProbe(ctx context.Context, start core.Command) (p probed, err error) {
	ctx, cancel := asked(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, start.Path, start.Args...)
	cmd.Env = append(append(os.Environ(), start.Env...), "SNAKEPIT_PROTOCOL=")
	cmd.WaitDelay = time.Second // a child process may hold the pipes open
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n") // a start-up hook may print lines first
	if err == nil && json.Unmarshal([]byte(lines[len(lines)-1]), &p) == nil && p.Python != "" {
		return p, nil
	}
	fail := func(format string, args ...any) (probed, error) {
		return p, &core.RemedyError{
			Err: fmt.Errorf(format, args...), Remedy: "set SNAKEPIT_PYTHON or --python to a Python 3.8 or later",
		}
	}
	said := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	switch last := said[len(said)-1]; {
	case ctx.Err() != nil:
		return fail("%s did not answer within 30 s", start.Path)
	case err != nil && last != "":
		return fail("%s is not a working Python: %w: %s", start.Path, err, last)
	case err != nil:
		return fail("%s is not a working Python: %w", start.Path, err)
	default:
		return fail("%s is not a Python: it ran, but printed no report", start.Path)
	}
}

func (d *diagnosis) record(p probed) {
	d.Versions["python"], d.Versions["snakepit_bridge"] = p.Python, p.Bridge
	for name, version := range p.Packages {
		d.Versions[name] = version
	}
}

func (p probed) python(choice python.Choice) check {
	text := fmt.Sprintf("%s %s, snakepit_bridge %s", p.Implementation, p.Python, p.Bridge)
	if p.Environment != "" {
		text += ", the virtual environment " + p.Environment
	}
	c := check{Name: "Python", Status: good, Text: text}
	if choice.By == "PATH" && p.Environment == "" {
		c.Text += ", no virtual environment"
	}
	return c
}

// packages lists the packages that the adapters of the chain need. The adapter that misses one names the fix.
func (p probed) packages(chain []core.Adapter) check {
	c := check{Name: "packages", Status: good}
	var has []string
	for _, a := range chain {
		for _, name := range needs[a.Name()] {
			switch version := p.Packages[name]; version {
			case "":
				c.Status = warning
				has = append(has, "no "+name)
			default:
				has = append(has, name+" "+version)
			}
		}
	}
	c.Text = strings.Join(has, ", ")
	if has == nil {
		c.Text = "none is needed by " + chain[0].Name()
	}
	return c
}

func (p probed) generated() check {
	c := check{Name: "generated code", Status: good, Text: "snakepit_bridge.grpc can be imported"}
	switch {
	case p.Generated == "":
	case p.Packages["grpcio"] == "" || p.Packages["protobuf"] == "":
		c.Status, c.Text = warning, "snakepit_bridge.grpc is there, but cannot be imported without grpcio and protobuf"
	default:
		c.Status, c.Text = warning, "snakepit_bridge.grpc cannot be imported: "+p.Generated
	}
	return c
}

func (p probed) openFiles() check {
	const few = 256
	c := check{Name: "open files", Status: good, Text: fmt.Sprintf("%d for each worker", p.OpenFiles)}
	switch {
	case p.OpenFiles == 0:
		c.Text = runtime.GOOS + " sets no limit"
	case p.OpenFiles >= 1<<40:
		c.Text = "no limit"
	case p.OpenFiles < few:
		c.Status, c.Fix = warning, "raise the limit: ulimit -n 1024, or LimitNOFILE=1024 of systemd"
	}
	return c
}

// tempDirectory creates a directory and a socket in it, as a pool does.
func tempDirectory() check {
	temp := os.TempDir()
	fail := func(err error) check {
		if path := new(os.PathError); errors.As(err, &path) {
			err = path.Err
		}
		text := fmt.Sprintf("%s cannot be written to: %v", temp, err)
		return check{Name: "temp directory", Status: bad, Text: text,
			Fix: "set TMPDIR to a directory that can be written to"}
	}
	dir, err := os.MkdirTemp(temp, "snakepit-doctor-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte{1}, 64<<10), 0o600); err != nil {
		return fail(err)
	}
	c := check{Name: "temp directory", Status: good, Text: temp + " can be written to, sockets in it work"}
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err == nil {
		defer listener.Close()
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			conn.Close()
		}
	}
	switch {
	case err != nil && len(path) > 100:
		c.Text = fmt.Sprintf("%s can be written to; its name is too long for sockets, which go to /tmp", temp)
	case err != nil:
		c.Status, c.Text = warning, fmt.Sprintf("%s can be written to, but sockets in it do not work: %v", temp, err)
		c.Fix = "set TMPDIR to a directory on a local file system"
	}
	return c
}

// ports tries each port of the range.
func (d *doctor) ports() check {
	var taken []string
	n := d.portRange + 1
	for port := d.basePort; port < d.basePort+n; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			taken = append(taken, strconv.Itoa(port))
			continue
		}
		l.Close()
	}
	c := check{Name: "ports", Status: good, Text: fmt.Sprintf("%d to %d: %d of %d are free", d.basePort,
		d.basePort+d.portRange, n-len(taken), n)}
	if len(taken) > 0 {
		c.Text += "; not " + strings.Join(taken[:min(len(taken), 8)], ", ")
		if len(taken) > 8 {
			c.Text += ", ..."
		}
	}
	if len(taken) == n {
		c.Status, c.Fix = bad,
			"choose another --base-port, and use the same in your program; without a port, gRPC uses a Unix socket"
	}
	return c
}

// try starts doctor.py over an adapter and makes a call.
func (d *doctor) try(ctx context.Context, a core.Adapter, program snakepit.Program) check {
	c := check{Name: a.Name()}
	begun := time.Now()
	opts := silently()
	opts.StartTimeout = d.start
	pool, err := snakepit.OpenWith(ctx, a, program, opts)
	if err != nil {
		return c.refused(err)
	}
	defer pool.Close()
	start := time.Since(begun)
	ctx, cancel := asked(ctx)
	defer cancel()
	const times = 5 // the first call also pays one-time costs
	best := time.Duration(0)
	for range times {
		begun = time.Now()
		text, err := snakepit.Execute[string](ctx, pool, "ping", "pong")
		if err != nil || text != "pong" {
			c.Status, c.Text = bad, fmt.Sprintf("the worker started, but a call failed: %v", err)
			return c
		}
		if took := time.Since(begun); best == 0 || took < best {
			best = took
		}
	}
	c.Status, c.Start, c.Call = good, milliseconds(start), milliseconds(best)
	c.Text = fmt.Sprintf("a call takes %s, the start of a worker %s", rounded(best), rounded(start))
	return c
}

// user starts the user's worker as a pool would.
func (d *doctor) user(ctx context.Context, word string) check {
	c := check{Name: filepath.Base(word)}
	adapter, err := adapters(d.adapter)
	if err != nil {
		return c.refused(err)
	}
	return c.offers(ctx, func() (*snakepit.Pool, error) {
		return d.openWith(ctx, adapter, word, silently(), io.Discard)
	})
}

// offers turns c into the check of a user's worker, which open starts.
func (c check) offers(ctx context.Context, open func() (*snakepit.Pool, error)) check {
	begun := time.Now()
	pool, err := open()
	if err != nil {
		return c.refused(err)
	}
	defer pool.Close()
	start := time.Since(begun)
	commands, err := describe(ctx, pool)
	if err != nil {
		c.Status, c.Text = bad, fmt.Sprintf("it started, but did not list its commands: %v", err)
		return c
	}
	names := make([]string, len(commands))
	for i, command := range commands {
		names[i] = command.Name
	}
	c.Status, c.Start = good, milliseconds(start)
	const most = 8
	if more := len(names) - most; more > 1 {
		names = append(names[:most], fmt.Sprintf("and %d more", more))
	}
	c.Text = fmt.Sprintf("starts on %s in %s, offers %s", pool.Workers()[0].Info().Adapter, rounded(start),
		strings.Join(names, ", "))
	if len(names) == 0 {
		c.Status, c.Text = warning, "it starts, but offers no commands"
	}
	return c
}

// refused turns c into the check of something that could not be started.
func (c check) refused(err error) check {
	c.Status = bad
	if errors.Is(err, core.ErrUnavailable) {
		c.Status = warning
	}
	c.Text, c.Fix = explain(err)
	return c
}

// explain returns the cause of a failure in one line, and the fix.
func explain(err error) (text, fix string) {
	text, fix = core.Explain(err)
	text, _, _ = strings.Cut(text, "\n")
	var start *snakepit.StartError
	var raised *snakepit.RemoteError
	switch {
	case !errors.As(err, &start):
	case errors.Is(err, context.DeadlineExceeded):
		fix = slowStart
	case errors.As(start.Err, &raised) && len(raised.Frames) > 0:
		text = raised.Error() + lastLine(raised)
	}
	return text, fix
}

// slowStart is the advice for a worker that does not start in time.
const slowStart = "if its imports are slow, set a longer --start-timeout"

// lastLine returns the place where a worker's program failed. A SyntaxError already names it.
func lastLine(raised *snakepit.RemoteError) string {
	n := len(raised.Frames)
	if n == 0 || raised.Type == "SyntaxError" {
		return ""
	}
	return fmt.Sprintf(" (%s, line %d)", raised.Frames[n-1].File, raised.Frames[n-1].Line)
}
