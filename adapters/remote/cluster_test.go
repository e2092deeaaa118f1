//go:build unix

package remote

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/python"
)

// cluster is a Ray cluster of several nodes on this machine.
type cluster struct {
	t         *testing.T
	in        io.Writer
	out       *bufio.Scanner
	dashboard string
}

// newCluster starts a cluster of a head without room. It skips the test if Ray is not installed.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	interpreter := os.Getenv("SNAKEPIT_PYTHON")
	if interpreter == "" {
		interpreter = "python3"
	}
	if err := exec.Command(interpreter, "-c", "import ray, grpc, cryptography").Run(); err != nil {
		t.Skipf("%s lacks Ray: make install-ray installs it", interpreter)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	cmd := exec.Command(interpreter, "testdata/cluster.py", fmt.Sprint(free.Addr().(*net.TCPAddr).Port))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(interpreter)+":"+os.Getenv("PATH")) // jobs run python
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the cluster: %v\n%s", err, said.String())
		}
	})
	c := &cluster{t: t, in: in, out: bufio.NewScanner(out)}
	var about struct {
		Dashboard string `json:"dashboard"`
	}
	c.answer(&about)
	c.dashboard = about.Dashboard
	return c
}

// tell sends a command and decodes its answer.
func (c *cluster) tell(answer any, format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
	c.answer(answer)
}

func (c *cluster) answer(v any) {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatal("the cluster does not answer: ", c.out.Err())
	}
	if err := json.Unmarshal(c.out.Bytes(), v); err != nil {
		c.t.Fatalf("%v: %s", err, c.out.Text())
	}
}

// add adds a node with so many processors and slots, a resource of its own.
func (c *cluster) add(name string, slots int) {
	c.t.Helper()
	var id string
	c.tell(&id, `add %s {"num_cpus": %d, "resources": {"slot": %d}}`, name, slots, slots)
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	var text string
	c.tell(&text, "remove %s", name)
}

// actors returns how many workers' actors there are.
func (c *cluster) actors() (n int) {
	c.t.Helper()
	c.tell(&n, "actors")
	return n
}

// running reports whether a job runs.
func (c *cluster) running() bool {
	c.t.Helper()
	var states []string
	c.tell(&states, "jobs")
	return slices.Contains(states, "RUNNING") || slices.Contains(states, "PENDING")
}

// ray returns the adapter of the cluster.
func (c *cluster) ray() Ray {
	return Ray{Dashboard: c.dashboard, Resources: map[string]float64{"slot": 1}}
}

// openRay opens a pool of a worker file on the cluster.
func (c *cluster) open(t *testing.T, a core.Adapter, path string, o core.Options) (*core.Pool, error) {
	t.Helper()
	cmd, err := python.Elsewhere{Script: path}.Command()
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = hclog.NewNullLogger()
	o.StartTimeout = 5 * time.Minute // of a busy machine
	p, err := core.Open(t.Context(), a, cmd, &o)
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

func (c *cluster) mustOpen(t *testing.T, a core.Adapter, o core.Options) *core.Pool {
	t.Helper()
	p, err := c.open(t, a, write(t, script), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRay tries a pool on a real cluster. Starting one takes some seconds, so there is one for all.
func TestRay(t *testing.T) {
	c := newCluster(t)
	c.add("first", 3)

	t.Run("lives and ends", func(t *testing.T) {
		p := c.mustOpen(t, c.ray(), core.Options{Size: 2})
		if err := p.WaitReady(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		pids := family(t, p)
		if info := p.Workers()[0].Info(); info.Adapter != "ray" || info.Host == "" {
			t.Errorf("%+v", info)
		}
		if n := c.actors(); n != 2 {
			t.Errorf("%d actors", n)
		}
		_, err := core.Execute[any](t.Context(), p, "leave", 3)
		var how *core.WorkerExit
		if !errors.As(err, &how) || how.ExitCode != 3 || !strings.Contains(err.Error(), "a last word") {
			t.Errorf("%v", err)
		}
		answers(t, p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		gone(t, pids)
		if c.running() || c.actors() > 0 {
			t.Error("something is left")
		}
	})
	t.Run("starts that are called off", func(t *testing.T) {
		p := c.mustOpen(t, c.ray(), core.Options{Size: 1})
		for range 3 {
			if err := p.Resize(2); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Ray makes the actor", func() bool { return c.actors() == 2 })
			if err := p.Resize(1); err != nil {
				t.Fatal(err)
			}
			eventually(t, "one actor is left", func() bool { return c.actors() == 1 })
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a broken worker", func(t *testing.T) {
		_, err := c.open(t, c.ray(), write(t, "import no_such_module\n"), core.Options{Size: 1})
		if err == nil || !strings.Contains(err.Error(), "No module named 'no_such_module'") {
			t.Errorf("%v", err)
		}
		eventually(t, "nothing is left", func() bool { return !c.running() && c.actors() == 0 })
	})
	t.Run("no room", func(t *testing.T) {
		a := c.ray()
		a.Resources = map[string]float64{"slot": 4}
		_, err := c.open(t, a, write(t, script), core.Options{Size: 1, StartBudget: 1})
		_, remedy := core.Explain(err)
		if !errors.Is(err, core.ErrNoRoom) || !strings.Contains(err.Error(), "slot: 4") ||
			!strings.Contains(remedy, "add nodes") {
			t.Errorf("%v", err)
		}
	})
	t.Run("waits for room", func(t *testing.T) {
		a := c.ray()
		a.Resources, a.WaitForRoom = map[string]float64{"slot": 4}, true
		added := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { c.add("large", 4); close(added) })
		t.Cleanup(func() { <-added })
		p := c.mustOpen(t, a, core.Options{Size: 1})
		answers(t, p)
		<-added
		c.remove("large")
	})
	t.Run("a node is lost under load", func(t *testing.T) {
		a := c.ray()
		a.Strategy = "SPREAD"
		c.add("second", 3)
		p := c.mustOpen(t, a, core.Options{Size: 2, StartBudget: -1})
		if err := p.WaitReady(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		pids := family(t, p)
		c.remove("second")
		eventually(t, "a worker is lost and replaced", func() bool {
			_, _ = core.Execute[any](t.Context(), p, "echo", "load") // it may be lost
			return p.Stats().Lost >= 1 && p.Stats().Ready == 2
		})
		answers(t, p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		gone(t, pids)
	})
	t.Run("the back end is killed", func(t *testing.T) {
		p := c.mustOpen(t, c.ray(), core.Options{Size: 1, StartBudget: -1})
		pids := family(t, p)
		var drivers []int
		if c.tell(&drivers, "drivers"); len(drivers) != 1 {
			t.Fatalf("the back ends are %v", drivers)
		}
		if err := syscall.Kill(drivers[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		gone(t, pids)
		eventually(t, "the pool is back", func() bool { return p.Stats().Lost >= 1 && p.Stats().Ready == 1 })
		answers(t, p)
	})
	t.Run("the back end is told to end", func(t *testing.T) {
		p := c.mustOpen(t, c.ray(), core.Options{Size: 1})
		pids := family(t, p)
		var drivers []int
		if c.tell(&drivers, "drivers"); len(drivers) != 1 {
			t.Fatalf("the back ends are %v", drivers)
		}
		if err := syscall.Kill(drivers[0], syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker is replaced", func() bool {
			answers(t, p)
			return p.Stats().Replaced == 1
		})
		gone(t, pids)
		answers(t, p)
	})
	t.Run("the host is killed", func(t *testing.T) {
		host := exec.Command(os.Args[0], "-test.run", "^TestRayHost$")
		host.Env = append(os.Environ(), hostMode+"="+c.dashboard)
		out, err := host.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Start(); err != nil {
			t.Fatal(err)
		}
		pids := make([]int, 2)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			t.Log("host: ", lines.Text())
			if _, err := fmt.Sscanf(lines.Text(), "family %d %d", &pids[0], &pids[1]); err == nil {
				break
			}
		}
		if pids[1] == 0 || !c.running() {
			t.Error("the host does not start")
		}
		_ = host.Process.Signal(syscall.SIGKILL) // an error: it has ended
		_ = host.Wait()                          // it was killed
		gone(t, pids)
		eventually(t, "nothing is left", func() bool { return !c.running() && c.actors() == 0 })
	})
	t.Run("conformance", func(t *testing.T) {
		c.add("wide", 16)
		cmd, err := python.Elsewhere(python.Conformance(4)).Command()
		if err != nil {
			t.Fatal(err)
		}
		// All clauses share one job. Otherwise each would submit one, which takes seconds.
		one := c.ray().ForPool(core.PoolInfo{
			RunID: "conformance", Command: cmd, Log: func(hclog.Level, string, ...any) {},
		})
		conformance.Run(t, conformance.Harness{Adapter: one, DetectsLoss: true, Parts: parts()})
		if err := one.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// parts returns the parts of the suite to run on Ray: all, if SNAKEPIT_TEST_RAY is "all". The worker takes no notice of
// Ray, and each start takes a second.
func parts() []conformance.Part {
	if os.Getenv("SNAKEPIT_TEST_RAY") == "all" {
		return nil
	}
	return []conformance.Part{conformance.Adapter}
}

// TestRayHost is the host that TestRay kills.
func TestRayHost(t *testing.T) {
	address := os.Getenv(hostMode)
	if address == "" {
		t.Skip("TestRay runs it")
	}
	c := &cluster{t: t, dashboard: address}
	pids := family(t, c.mustOpen(t, c.ray(), core.Options{Size: 1}))
	fmt.Printf("family %d %d\n", pids[0], pids[1])
	select {} // until it is killed
}
