//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

const heavyWorker = `
import time
begin = time.process_time()
TEXTS = [f"a text of some length, number {i}" for i in range(1_000_000)]
while time.process_time() - begin < 2:
    pass
from snakepit_bridge import Worker

worker = Worker()

@worker.command
def read_all():
    return sum(len(text) for text in TEXTS)

worker.run()
`

// BenchmarkForkServer starts 16 workers of a program that computes for two seconds at its import and keeps a million
// strings. docs/operations.md has its figures.
func BenchmarkForkServer(b *testing.B) {
	const size = 16
	path := filepath.Join(b.TempDir(), "worker.py")
	if err := os.WriteFile(path, []byte(heavyWorker), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, adapter := range []string{"grpc", "msgpack"} {
		for _, forks := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/forks=%t", adapter, forks), func(b *testing.B) {
				for b.Loop() {
					program := snakepit.Python(path)
					program.ForkServer = forks
					chosen, err := snakepit.Adapters(adapter)
					if err != nil {
						b.Fatal(err)
					}
					begin := time.Now()
					p, err := snakepit.OpenWith(b.Context(), chosen, program, &snakepit.Options{
						Size: size, Logger: hclog.NewNullLogger(),
					})
					if err != nil {
						b.Fatal(err)
					}
					if err := p.WaitReady(b.Context(), size); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(time.Since(begin).Seconds(), "s-ready")
					b.ReportMetric(memoryOf(b, os.Getpid()), "MiB-ready")
					for i := range size {
						_, err := snakepit.Execute[int](b.Context(), p.Session(strconv.Itoa(i)), "read_all", nil)
						if err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(memoryOf(b, os.Getpid()), "MiB-read")
					if err := p.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

var pss = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB$`)

// memoryOf returns the memory of all descendants of a process, in MiB. A page that several of them share counts once.
func memoryOf(b *testing.B, pid int) float64 {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		b.Fatal(err)
	}
	sum := 0.0
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread that has ended has no children
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", child))
			if err != nil {
				b.Fatal(err)
			}
			if m := pss.FindSubmatch(rollup); m != nil {
				kib, _ := strconv.Atoi(string(m[1]))
				sum += float64(kib) / 1024
			}
			sum += memoryOf(b, child)
		}
	}
	return sum
}
