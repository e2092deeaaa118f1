//go:build linux

package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// book is the host's side of the ledger: one line before a call, and one after it. Each line is one write, so the book
// is complete up to the moment in which the host is killed.
type book struct {
	mu   sync.Mutex // guards file
	file *os.File
}

func openBook(path string) (*book, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	return &book{file: file}, err
}

func (b *book) write(words ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.file.WriteString(strings.Join(words, " ") + "\n"); err != nil {
		panic(err) // a host without a ledger proves nothing
	}
}

func (b *book) begin(id string) { b.write("begin", id) }

// end notes a call's outcome. mayHaveRun is what the error says; true if there is none.
func (b *book) end(id, outcome string, mayHaveRun bool) {
	b.write("end", id, outcome, fmt.Sprint(mayHaveRun))
}

// wrong notes that something is wrong, in words.
func (b *book) wrong(text string) { b.write("wrong", strings.ReplaceAll(text, "\n", " | ")) }

// account is what the two sides of the ledger say about one life of the host.
type account struct {
	calls    int
	outcomes map[string]int
	wrong    []string
}

// settle compares both sides. killed says that the host was killed, so the last calls have no outcome. gentle says that
// all workers and back ends were ended in order, so no call was lost.
func settle(host, worker string, killed, gentle bool) (*account, error) {
	a := &account{outcomes: map[string]int{}}
	begun, ended, didNotRun := map[string]bool{}, map[string]int{}, map[string]bool{}
	err := eachLine(host, func(line string) {
		kind, rest, _ := strings.Cut(line, " ")
		words := strings.Fields(rest)
		switch {
		case kind == "begin":
			begun[rest] = true
			a.calls++
		case kind == "end" && len(words) == 3:
			ended[words[0]]++
			a.outcomes[words[1]]++
			didNotRun[words[0]] = words[2] == "false"
			if gentle && (words[1] == "lost" || words[1] == "session-lost") {
				a.wrong = append(a.wrong, fmt.Sprintf("call %s is %s, but nothing ended by force", words[0], words[1]))
			}
		case kind == "wrong":
			a.wrong = append(a.wrong, rest)
		}
	})
	if err != nil {
		return nil, err
	}
	open := 0
	for id := range begun {
		switch n := ended[id]; {
		case n == 0 && killed:
			open++
		case n != 1:
			a.wrong = append(a.wrong, fmt.Sprintf("call %s has %d outcomes", id, n))
		}
	}
	if open > 0 {
		a.outcomes["host-killed"] = open
	}
	ran := map[string]int{}
	err = eachLine(worker, func(id string) {
		ran[id]++
		if didNotRun[id] {
			a.wrong = append(a.wrong, fmt.Sprintf("call %s ran, and its error says that it did not", id))
		}
		if !begun[id] {
			a.wrong = append(a.wrong, fmt.Sprintf("nobody made call %q, but it ran", id))
		}
	})
	if os.IsNotExist(err) { // no call has reached a worker
		err = nil
	}
	for id, n := range ran {
		if n > 1 {
			a.wrong = append(a.wrong, fmt.Sprintf("call %s ran %d times", id, n))
		}
	}
	return a, err
}

func eachLine(path string, f func(string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	s := bufio.NewScanner(file)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f(s.Text())
	}
	return s.Err()
}

// add adds another account.
func (a *account) add(other *account) {
	a.calls += other.calls
	for name, n := range other.outcomes {
		a.outcomes[name] += n
	}
	a.wrong = append(a.wrong, other.wrong...)
}

// String returns the number of calls, and of each outcome.
func (a *account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d calls:", a.calls)
	for _, name := range slices.Sorted(maps.Keys(a.outcomes)) {
		fmt.Fprintf(&b, " %s %d", name, a.outcomes[name])
	}
	return b.String()
}
