//go:build linux

// Chaos makes mixed calls on a real pool while its workers, their back ends, and the host itself, are killed, stopped,
// starved, reloaded and resized. A ledger on both sides shows whether each call had one outcome and the right one, and
// whether anything is left behind. It ends with code 1 if something was wrong.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/snakepit-go/snakepit/internal/venv"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "host" {
		if err := host(); err != nil {
			fmt.Fprintln(os.Stderr, "host:", err)
			os.Exit(1)
		}
		return
	}
	long := flag.Duration("for", time.Minute, "how long, over all adapters")
	adapters := flag.String("adapters", "grpc,msgpack,jsonstdio,chain,remote", "the adapters, each for an equal time")
	python := flag.String("python", "", "the interpreter; it needs grpcio, protobuf, msgpack and cryptography")
	clock := flag.Bool("clock", false, "step the system's clock, too; needs root, and disturbs other programs")
	flag.Parse()
	r := &referee{python: *python, clock: *clock}
	if err := r.run(*long, strings.Split(*adapters, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// referee starts hosts, one after another, kills some, and keeps the accounts.
type referee struct {
	python string
	clock  bool
	dir    string
	tmp    string // the temporary directory of the pools: a small file system, if this program may make one
	env    *venv.Environment
	grpc   []string
	lives  int

	backends     []*backend // of the adapter remote, while that is in use
	certificates string     // their directory
}

func (r *referee) run(long time.Duration, adapters []string) (err error) {
	if r.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	defer r.clean()
	wrong := 0
	for _, adapter := range adapters {
		total := &account{outcomes: map[string]int{}}
		faults, slowest, kills := map[string]int{}, 0.0, 0
		begin := time.Now()
		if adapter == "remote" {
			if err := r.startBackEnds(); err != nil {
				return err
			}
		}
		for time.Since(begin) < long/time.Duration(len(adapters)) {
			life, err := r.life(adapter, min(time.Duration(5+rand.IntN(15))*time.Second,
				max(5*time.Second, long/time.Duration(len(adapters))-time.Since(begin))))
			if err != nil {
				return err
			}
			total.add(life.account)
			for name, n := range life.report.Faults {
				faults[name] += n
			}
			slowest = max(slowest, life.report.FullAfter)
			if life.killed {
				kills++
			}
			for _, text := range life.wrong {
				fmt.Printf("  wrong: %s\n", text)
			}
			if len(life.wrong) > 0 {
				fmt.Printf("  log of the host: %s\n", life.dir)
			} else if err := os.RemoveAll(life.dir); err != nil {
				return err
			}
		}
		for _, text := range r.endBackEnds() {
			fmt.Printf("  wrong: %s\n", text)
			wrong++
		}
		wrong += len(total.wrong)
		fmt.Printf("%-10s %s, %d times the host killed; full size at most %.1f s after the last fault\n", adapter,
			time.Since(begin).Round(time.Second), kills, slowest)
		fmt.Printf("           %s\n           faults:", total)
		for _, name := range slices.Sorted(maps.Keys(faults)) {
			fmt.Printf(" %s %d", name, faults[name])
		}
		fmt.Println()
	}
	if wrong > 0 {
		return fmt.Errorf("%d things were wrong", wrong)
	}
	fmt.Println("the ledger is clean")
	return nil
}

// prepare makes the directories and the virtual environment.
func (r *referee) prepare() error {
	r.tmp = filepath.Join(r.dir, "tmp")
	if err := os.Mkdir(r.tmp, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("chaos", r.tmp, "tmpfs", 0, "size=8m,nr_inodes=200"); err != nil {
		fmt.Printf("no small file system (%v): no fault of a full directory\n", err)
	}
	if r.python == "" {
		r.python = os.Getenv("SNAKEPIT_PYTHON")
	}
	if r.python == "" {
		r.python = filepath.Join(".venv", "bin", "python")
	}
	var err error
	if r.env, err = venv.New(context.Background(), r.python, filepath.Join(r.dir, "env")); err != nil {
		return err
	}
	for _, name := range []string{"grpcio", "protobuf", "msgpack"} {
		if err := r.env.Install(name); err != nil {
			return err
		}
	}
	r.grpc = r.env.Links("grpcio")
	return nil
}

func (r *referee) clean() {
	for _, b := range r.backends { // only after an error
		if b.cmd != nil && b.cmd.Process != nil {
			_ = b.cmd.Process.Kill()
		}
	}
	_ = syscall.Unmount(r.tmp, syscall.MNT_DETACH)
	if kept, _ := filepath.Glob(filepath.Join(r.dir, "life*")); len(kept) == 0 {
		_ = os.RemoveAll(r.dir)
	}
}

// life is what happened in one life of a host.
type life struct {
	*account

	dir    string
	killed bool
	report report
}

// life runs one host for a while. Then it kills the host, or lets it close its pool.
func (r *referee) life(adapter string, long time.Duration) (*life, error) {
	r.lives++
	name := fmt.Sprintf("life%d", r.lives)
	l := &life{dir: filepath.Join(r.dir, name), killed: rand.IntN(3) == 0}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	begin := time.Now()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "host")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	o := order{
		Adapter: adapter, Life: name, Dir: l.dir, Tmp: r.tmp, Python: r.env.Python,
		Clock: r.clock, Fork: rand.IntN(2) == 0, Keeps: rand.IntN(2) == 0,
	}
	switch adapter {
	case "chain":
		o.GRPC = r.grpc
	case "remote":
		o.Certificates, o.Waits, o.Gentle = r.certificates, rand.IntN(2) == 0, rand.IntN(3) == 0
		for _, b := range r.backends {
			o.Targets = append(o.Targets, b.address)
		}
	}
	if err := json.NewEncoder(stdin).Encode(o); err != nil {
		return nil, err
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); err != nil || line != "open\n" {
		return nil, errors.Join(fmt.Errorf("the host did not open its pool: %q", line), err, cmd.Wait())
	}
	stopHarm := r.harmBackEnds(o.Gentle)
	time.Sleep(long)
	if l.killed {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	done, left, err := stopHarm()
	if err != nil {
		return nil, err
	}
	if l.killed {
		err = r.restore(begin)
	} else {
		err = l.end(cmd, stdin, out)
	}
	if err != nil {
		return nil, err
	}
	if l.report.Faults == nil { // a killed host has told nothing
		l.report.Faults = map[string]int{}
	}
	maps.Copy(l.report.Faults, done)
	left = append(left, r.leftovers(name, l.killed)...)
	l.account, err = settle(filepath.Join(l.dir, "host"), filepath.Join(l.dir, "worker"), l.killed, o.Gentle)
	if err != nil {
		return nil, err
	}
	l.wrong = append(l.wrong, append(left, l.report.Left...)...)
	return l, nil
}

// end lets a host end its life by itself.
func (l *life) end(cmd *exec.Cmd, stdin io.Closer, out *bufio.Reader) error {
	_ = stdin.Close()
	patience := time.AfterFunc(fullTime+time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer patience.Stop()
	err := json.NewDecoder(out).Decode(&l.report)
	return errors.Join(err, cmd.Wait())
}

// restore undoes the faults that a killed host has left. begin is a time before that host was started.
func (r *referee) restore(begin time.Time) error {
	if step := clockStep(begin); r.clock && step != 0 {
		if err := stepClock(-step); err != nil {
			return fmt.Errorf("the system's clock is wrong by %s: %w", step, err)
		}
	}
	(&faults{grpc: r.grpc}).install()
	fillers, _ := filepath.Glob(filepath.Join(r.tmp, "filler*"))
	for _, path := range fillers {
		_ = os.Remove(path)
	}
	return nil
}

// leftovers returns what is left of a host after two seconds: processes, and files. The private directory of a killed
// host stays until the next pool opens, and that of a killed back end's worker until the next worker starts.
func (r *referee) leftovers(name string, killed bool) []string {
	return settled(func() []string {
		left := processesWith("SNAKEPIT_CHAOS=" + name)
		files, _ := filepath.Glob(filepath.Join(r.tmp, "snakepit-*"))
		for _, file := range files {
			if !killed || strings.HasPrefix(filepath.Base(file), "snakepit-seat-") && inUse(file) {
				inside, _ := filepath.Glob(filepath.Join(file, "*"))
				left = append(left, fmt.Sprintf("%s with %q, in use: %t", file, inside, inUse(file)))
			}
		}
		for _, b := range r.backends {
			left = append(left, b.left()...)
		}
		return left
	}, 2*time.Second)
}

// settled returns what f finds, after so long at most. It returns at once if f finds nothing.
func settled(f func() []string, patience time.Duration) []string {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if found := f(); len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
}

// processesWith returns the processes that have a variable in their environment.
func processesWith(variable string) []string {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []string
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err == nil && strings.Contains("\x00"+string(env), "\x00"+variable+"\x00") {
			found = append(found, "process "+filepath.Base(filepath.Dir(path)))
		}
	}
	return found
}
