//go:build unix

package core

import (
	"bufio"
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestExit(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		signal string
	}{
		{"exit 0", 0, ""},
		{"echo oops >&2; echo more; exit 3", 3, ""},
		{"kill -KILL $$", -1, "killed"},
		{"ulimit -c 0; kill -SEGV $$", -1, "segmentation fault"},
		{"kill -TERM $$", -1, "terminated"},
	} {
		t.Run(c.script, func(t *testing.T) {
			p := newFixture(t, shell(c.script)).launch(Spec{Protocol: "none"})
			await(t, p)
			mustBeGone(t, p.PID())
			if code, signal, oom := p.Exit(); code != c.code || signal != c.signal || oom {
				t.Errorf("exit is %d, %q, %v", code, signal, oom)
			}
			if strings.Contains(c.script, "oops") &&
				!slices.Equal(p.lastOutput(time.Time{}), []string{"oops", "more"}) {
				t.Errorf("the last output is %q", p.lastOutput(time.Time{}))
			}
			p.terminate() // has no effect any more
			p.kill()
			if how := p.stop(time.Hour); how != "exited" {
				t.Errorf("stopping it says %q", how)
			}
		})
	}
}

func TestStopExited(t *testing.T) {
	p := newFixture(t, shell("cat")).launch(Spec{Protocol: "none", Stdio: true})
	_ = p.Stdin.Close()
	if how := p.stop(time.Minute); how != "exited" {
		t.Errorf("it says %q", how)
	}
	if code, _, _ := p.Exit(); code != 0 {
		t.Errorf("the code is %d", code)
	}
}

func TestStopTerminated(t *testing.T) {
	p := newFixture(t, shell("exec sleep 1000")).launch(Spec{Protocol: "none"})
	if how := p.stop(2 * time.Second); how != "terminated" {
		t.Errorf("it says %q", how)
	}
	if _, signal, _ := p.Exit(); signal != "terminated" {
		t.Errorf("the signal is %q", signal)
	}
}

func TestStopKilledByMany(t *testing.T) {
	f := newFixture(t, shell(`trap "" TERM; echo ready; sleep 1000`))
	p := f.launch(Spec{Protocol: "none"})
	f.log.line(t, "ready")
	hows := make(chan string)
	for range 5 {
		go func() { hows <- p.stop(20 * time.Millisecond) }()
	}
	for range 5 {
		if how := <-hows; how != "killed" {
			t.Errorf("it says %q", how)
		}
	}
	mustBeGone(t, p.PID())
	if how := p.stop(time.Hour); how != "killed" {
		t.Errorf("stopping it again says %q", how)
	}
	if _, signal, oom := p.Exit(); signal != "killed" || oom {
		t.Errorf("the signal is %q, out of memory: %v", signal, oom)
	}
}

// When a worker ends, its process group ends.
func TestGroupEnds(t *testing.T) {
	f := newFixture(t, shell(familyScript))
	p := f.launch(Spec{Protocol: "none"})
	var worker, grandchild int
	if _, err := fmt.Sscan(f.log.line(t, "family "), &worker, &grandchild); err != nil || worker != p.PID() {
		t.Fatal(worker, p.PID(), err)
	}
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, p)
	mustBeGone(t, worker)
	eventually(t, "the grandchild is gone", func() bool { return !alive(grandchild) })
}

// A process that has ended gets no signal: another process or group may have its id by now.
func TestNoSignalAfterTheEnd(t *testing.T) {
	f := newFixture(t, shell("cat"))
	stranger := f.launch(Spec{Protocol: "none", Stdio: true})
	p := f.launch(Spec{Protocol: "none", Stdio: true})
	_ = p.Stdin.Close()
	await(t, p)
	p.body = stranger.body // as if the stranger had got its id
	p.terminate()
	p.kill()
	p.stop(0)
	if _, err := stranger.Stdin.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stranger.Stdout).ReadString('\n'); line != "hello\n" {
		t.Error("the stranger has ended:", line, err)
	}
}

// The pool does not wait for a grandchild that has left the group and holds every descriptor.
func TestGrandchildHoldsDescriptors(t *testing.T) {
	for _, reports := range []bool{false, true} {
		for _, stdio := range []bool{false, true} {
			t.Run(fmt.Sprintf("reports=%v stdio=%v", reports, stdio), func(t *testing.T) {
				cmd := self("escapee")
				cmd.Reports = reports
				f := newFixture(t, cmd)
				if reports {
					_, err := f.fails(t.Context(), Spec{Protocol: "none", Stdio: stdio})
					if !strings.Contains(err.Error(), "exited with code 7") {
						t.Error(err)
					}
				} else {
					p := f.launch(Spec{Protocol: "none", Stdio: stdio})
					await(t, p)
					if code, _, _ := p.Exit(); code != 7 {
						t.Errorf("the code is %d", code)
					}
				}
				pid, err := strconv.Atoi(f.log.line(t, "grandchild "))
				if err != nil {
					t.Fatal(err)
				}
				if !alive(pid) {
					t.Error("the grandchild was to outlive its parent")
				}
				_ = syscall.Kill(pid, syscall.SIGKILL)
			})
		}
	}
}

// Input is standard input up to the end of file, however long it is, and nothing waits for a worker that leaves it.
func TestInput(t *testing.T) {
	input := bytes.Repeat([]byte("x"), 1<<20) // more than a pipe holds
	for script, printed := range map[string]int{"wc -c": len(input), "exec 0<&-; echo 1": 1, "echo 2": 2} {
		p := newFixture(t, shell(script)).launch(Spec{Protocol: "none", Input: input})
		await(t, p)
		if last := p.lastOutput(time.Time{}); len(last) != 1 || strings.TrimSpace(last[0]) != strconv.Itoa(printed) {
			t.Errorf("%s printed %q", script, last)
		}
	}
	f := newFixture(t, self("escapee"))
	p := f.launch(Spec{Protocol: "none", Input: input})
	await(t, p)
	pid, err := strconv.Atoi(f.log.line(t, "grandchild "))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if _, err := f.fails(t.Context(), Spec{Protocol: "none", Stdio: true, Input: input}); !strings.Contains(
		err.Error(), "both Stdio and Input") {
		t.Error(err)
	}
}

// kill -9 of the host ends workers and grandchildren, although neither reads anything. The grandchild holds none of the
// pool's descriptors. The order of the ends varies.
func TestHostKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a group when its host has gone")
	}
	for range 20 {
		killHost(t)
	}
}

// The worker survives the end of the thread that called Launch, and of all threads that other goroutines may end.
func TestThreadEnds(t *testing.T) {
	f := newFixture(t, shell("cat"))
	launched := make(chan *Process)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		launched <- f.launch(Spec{Protocol: "none", Stdio: true})
	}()
	p := <-launched
	for range 3 {
		var ending sync.WaitGroup
		for range 100 {
			ending.Go(runtime.LockOSThread)
		}
		ending.Wait()
		if _, err := p.Stdin.WriteString("hello\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(p.Stdout).ReadString('\n'); line != "hello\n" {
			t.Fatal(line, err)
		}
	}
}
