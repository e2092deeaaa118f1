// Package ray measures Ray on this machine. The caller of its actors is a Python program: Ray has no Go client.
package ray

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed driver.py
var source []byte

// Result holds the measured times of one run.
type Result struct {
	P50       time.Duration `json:"p50_ns"`     // median time of a call
	PerSecond float64       `json:"per_second"` // calls answered per second
}

// Measure starts Ray and a driver, warms up an actor and calls it so many times. The driver keeps callers calls in
// flight. Measure returns when Ray's processes have ended and their files are removed. If ctx ends earlier, the driver
// is interrupted and Measure returns an error. Standard error of the driver goes to that of this program.
func Measure(ctx context.Context, python string, callers, calls int) (result Result, err error) {
	c, err := Start(ctx, python, 1)
	if err != nil {
		return result, err
	}
	result, err = c.Calls(callers, calls)
	return result, errors.Join(err, c.Close(), ctx.Err())
}

// Cluster is a running Ray and its driver. One goroutine uses it.
type Cluster struct {
	dashboard string // its address; "" if there is none
	directory string // holds Ray's files
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *json.Decoder
	interrupt context.CancelFunc // interrupts the driver, and kills it later
}

// longest is the time limit for a command of the driver.
const longest = 5 * time.Minute

// Start starts Ray with so many processors to assign, without a dashboard. If ctx ends, the driver is interrupted, and
// with it Ray ends. Otherwise it runs until Close.
func Start(ctx context.Context, python string, processors int) (*Cluster, error) {
	return start(ctx, python, strconv.Itoa(processors))
}

// StartDashboard is like Start, but Ray has a dashboard, and so it takes jobs.
func StartDashboard(ctx context.Context, python string, processors int) (*Cluster, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c, err := start(ctx, python, strconv.Itoa(processors), port)
	if err != nil {
		return nil, err
	}
	c.dashboard = "http://127.0.0.1:" + port
	return c, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func start(ctx context.Context, python string, args ...string) (*Cluster, error) {
	// Ray's sockets are in this directory, some 60 bytes deeper. Their paths are limited to 107 bytes.
	directory, err := os.MkdirTemp("", "ray")
	if err != nil {
		return nil, err
	}
	ctx, interrupt := context.WithCancel(ctx)
	c := &Cluster{directory: directory, interrupt: interrupt}
	script := filepath.Join(directory, "driver.py")
	if err := os.WriteFile(script, source, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	c.cmd = exec.CommandContext(ctx, python, append([]string{script, directory}, args...)...)
	c.cmd.Env = append(os.Environ(), "RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=disabled",
		"PATH="+filepath.Dir(python)+string(os.PathListSeparator)+os.Getenv("PATH")) // jobs run python
	c.cmd.Stderr = os.Stderr
	// An interrupted driver ends Ray's processes. A killed one leaves this to them.
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(os.Interrupt) }
	c.cmd.WaitDelay = 20 * time.Second
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	c.out = json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	if err := c.answer(&struct{}{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends Ray's processes, waits for them and removes their files.
func (c *Cluster) Close() error {
	timer := time.AfterFunc(longest, c.interrupt)
	err := errors.Join(c.in.Close(), c.cmd.Wait())
	timer.Stop()
	c.interrupt()
	if err != nil {
		err = fmt.Errorf("ray: %w", err)
	}
	return errors.Join(err, os.RemoveAll(c.directory))
}

// PIDs lists the driver.
func (c *Cluster) PIDs() []int { return []int{c.cmd.Process.Pid} }

// Dashboard returns the address of the dashboard, such as "http://127.0.0.1:8265", or "".
func (c *Cluster) Dashboard() string { return c.dashboard }

// Calls warms up an actor and calls it so many times. The driver keeps callers calls in flight.
func (c *Cluster) Calls(callers, calls int) (result Result, err error) {
	if callers < 1 || calls < 1 {
		return result, fmt.Errorf("ray: %d callers, %d calls: both must be positive", callers, calls)
	}
	return result, c.ask(&result, map[string]any{"do": "calls", "callers": callers, "calls": calls})
}

// Items receives a stream of small items from a streaming generator. It returns the items per second.
func (c *Cluster) Items(items int) (perSecond float64, err error) {
	var result Result
	err = c.ask(&result, map[string]any{"do": "items", "items": items})
	return result.PerSecond, err
}

// Actors starts so many actors at once, waits until each has answered a call, and kills them. It returns how long the
// start took.
func (c *Cluster) Actors(count int) (time.Duration, error) {
	var result struct {
		Seconds float64 `json:"seconds"`
	}
	err := c.ask(&result, map[string]any{"do": "start", "count": count})
	return seconds(result.Seconds), err
}

// Job submits a job with a directory of files. It returns how long it took until an actor of the job had answered a
// call. Then the job does what Actors does, for each count, and its times are the second result. The job has ended when
// Job returns.
func (c *Cluster) Job(counts ...int) (first time.Duration, took []time.Duration, err error) {
	var result struct {
		Seconds float64   `json:"seconds"`
		Took    []float64 `json:"took"`
	}
	err = c.ask(&result, map[string]any{"do": "job", "counts": append([]int{}, counts...)})
	for _, s := range result.Took {
		took = append(took, seconds(s))
	}
	return seconds(result.Seconds), took, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// ask sends a command and decodes its answer.
func (c *Cluster) ask(result any, command map[string]any) error {
	if err := json.NewEncoder(c.in).Encode(command); err != nil {
		return fmt.Errorf("ray: %w", err)
	}
	return c.answer(result)
}

// answer decodes an answer. A driver that takes too long is interrupted.
func (c *Cluster) answer(result any) error {
	timer := time.AfterFunc(longest, c.interrupt)
	var text json.RawMessage
	err := c.out.Decode(&text)
	if !timer.Stop() {
		return fmt.Errorf("ray: no answer in %v", longest)
	}
	if err != nil {
		return fmt.Errorf("ray: the driver has ended: %w", err)
	}
	var failed struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(text, &failed); err != nil || failed.Error != "" {
		return errors.Join(fmt.Errorf("ray: %s", failed.Error), err)
	}
	return json.Unmarshal(text, result)
}
