// Package e2e contains the end-to-end tests: pools on every adapter with real Python processes. It exports the helpers
// that the tests in docs share. All tests run in the root of the repository.
package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/core"
)

// Interpreter returns a Python with every package: SNAKEPIT_PYTHON, otherwise the checkout's own.
func Interpreter(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("SNAKEPIT_PYTHON"); p != "" {
		return p
	}
	p, err := filepath.Abs(filepath.Join(".venv", "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run make dev-setup, or set SNAKEPIT_PYTHON to a Python with grpcio, protobuf, msgpack and numpy",
			err)
	}
	return p
}

// Log collects what a pool logs.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns the log so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Fixture is a pool and the test that uses it.
type Fixture struct {
	*testing.T
	*snakepit.Pool
	Log *Log
}

// Logged closes the pool and returns its whole log.
func (f *Fixture) Logged() string {
	f.Helper()
	if err := f.Close(); err != nil {
		f.Error(err)
	}
	return f.Log.String()
}

// Begin opens a pool, of one worker unless o says otherwise. The pool closes when the test ends.
func Begin(t *testing.T, adapter string, program snakepit.Program, o snakepit.Options) (*Fixture, error) {
	t.Helper()
	a, err := snakepit.Adapters(adapter)
	if err != nil {
		t.Fatal(err)
	}
	return BeginWith(t, a, program, o)
}

// BeginWith is Begin with the test's own adapter.
func BeginWith(t *testing.T, a core.Adapter, program snakepit.Program, o snakepit.Options) (*Fixture, error) {
	t.Helper()
	l := &Log{}
	o.Logger = hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
	if o.Size == 0 {
		o.Size = 1
	}
	pool, err := snakepit.OpenWith(t.Context(), a, program, &o)
	if err != nil {
		if pool != nil {
			t.Error("an error and a pool")
		}
		return &Fixture{t, nil, l}, err
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the pool's log:\n%s", l)
		}
	})
	return &Fixture{t, pool, l}, nil
}

// File writes a file into a new directory of the test and returns its path.
func File(t *testing.T, path, text string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.TempDir(), path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Eventually polls for a condition that only the operating system knows.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Args are keyword arguments.
type Args = map[string]any
