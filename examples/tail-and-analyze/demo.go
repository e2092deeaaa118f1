package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// demo follows a log that it writes itself, as a service would. Meanwhile it rotates and truncates the log. It
// returns an error if a line with a problem was not found exactly once.
func (s *session) demo(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "tail-and-analyze-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	service := &service{path: filepath.Join(dir, "app.log"), found: map[string]int{}, changed: make(chan struct{}, 1)}
	if err := os.WriteFile(service.path, nil, 0o600); err != nil {
		return err
	}
	s.Patterns = []string{"ERROR", "FATAL", "OutOfMemoryError", "WARN"}
	s.observe = service.observe

	following, end := context.WithCancel(ctx)
	defer end()
	var failure error
	var wg sync.WaitGroup
	wg.Go(func() {
		failure = service.run(following)
		end()
	})
	err = s.follow(following, []string{service.path})
	end()
	wg.Wait()
	if err != nil {
		return err
	}
	if failure == nil && ctx.Err() == nil {
		s.console.printf("✅ each of the %s in the log was found once\n", some(len(service.written), "problem"))
	}
	return failure
}

// service writes a log and records the findings in it.
type service struct {
	path    string
	written []string // the lines with a problem

	mu      sync.Mutex
	found   map[string]int
	notes   int
	changed chan struct{}
}

func (s *service) observe(c Chunk) {
	s.mu.Lock()
	if c.Note != "" {
		s.notes++
	} else {
		s.found[c.LogLine]++
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// until waits until heard returns true.
func (s *service) until(ctx context.Context, heard func() bool) error {
	timeout := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		done := heard()
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			return fmt.Errorf("of %d problems in the log, %d were found", len(s.written), len(s.found))
		}
	}
}

// run writes three rounds of lines. It rotates the file after the first and truncates it after the second.
// Truncating a file loses the unread part for every reader. So run waits until all lines are found. The last
// line of each round is one to find.
func (s *service) run(ctx context.Context) error {
	// The first note says that the file is being followed.
	if err := s.until(ctx, func() bool { return s.notes > 0 }); err != nil {
		return err
	}
	for round := range 3 {
		if err := s.write(ctx, round); err != nil {
			return err
		}
		if err := s.until(ctx, func() bool { return len(s.found) == len(s.written) }); err != nil {
			return err
		}
		var err error
		switch round {
		case 0:
			err = os.Rename(s.path, s.path+".1") // write creates the new file
		case 1:
			err = os.Truncate(s.path, 0)
		}
		if err != nil {
			return err
		}
	}
	return s.check()
}

// check returns an error if a line was not found exactly once.
func (s *service) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.written {
		if s.found[line] != 1 {
			return fmt.Errorf("the line %q was found %d times", line, s.found[line])
		}
	}
	if len(s.found) != len(s.written) {
		return fmt.Errorf("%d lines were found, but %d were written", len(s.found), len(s.written))
	}
	return nil
}

const linesPerRound = 100

// write appends the lines of a round to the file. It creates the file if needed.
func (s *service) write(ctx context.Context, round int) error {
	file, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for i := range linesPerRound {
		text := routine[rand.IntN(len(routine))]
		switch {
		case i == linesPerRound-1:
			text = "FATAL the service is restarted"
		case rand.IntN(8) == 0:
			text = problems[rand.IntN(len(problems))]
		}
		text = strings.ReplaceAll(text, "#", fmt.Sprint(rand.IntN(1000)))
		line := fmt.Sprintf("%s %s request=%d", time.Now().Format("2006-01-02T15:04:05.000"), text,
			linesPerRound*round+i)
		if !strings.HasPrefix(text, "INFO") {
			s.mu.Lock()
			s.written = append(s.written, line)
			s.mu.Unlock()
		}
		if _, err := fmt.Fprintln(file, line); err != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return file.Close()
}

var routine = []string{
	"INFO  GET /orders/# answered 200 in # ms",
	"INFO  GET /bücher/# answered 200 in # ms",
	"INFO  POST /orders answered 201 in # ms",
	"INFO  queue: # messages were taken",
}

var problems = []string{
	"WARN  High memory usage detected: 85% of heap used",
	"WARN  GET /orders/# is slow: # ms",
	"ERROR Database connection failed: timeout after 30s",
	"ERROR order # cannot be priced: no rate for its currency",
	"FATAL OutOfMemoryError: Java heap space exceeded",
}
