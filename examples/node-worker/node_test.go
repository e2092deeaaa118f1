// Package node_test checks the worker in JavaScript.
package node_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/adapters/jsonstdio"
	"github.com/snakepit-go/snakepit/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{
		Adapter: jsonstdio.Adapter{}, Worker: snakepit.Command(node(t), "worker.js"),
		Parts: []conformance.Part{conformance.Worker},
	})
}

// TestPool follows the README.
func TestPool(t *testing.T) {
	pool, err := snakepit.OpenWith(t.Context(), jsonstdio.Adapter{}, snakepit.Command(node(t), "worker.js"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	value, err := snakepit.Execute[string](t.Context(), pool, "conformance.echo", map[string]any{"value": "hello"})
	if err != nil || value != "hello" {
		t.Errorf("an echo of hello is %q, %v", value, err)
	}
	var result struct {
		Sent int `json:"sent"`
	}
	n := 0
	for i, err := range snakepit.ExecuteStream[int](t.Context(), pool, "conformance.count", map[string]any{"n": 1000},
		snakepit.Result(&result)) {
		if err != nil || i != n {
			t.Fatalf("item %d is %d, %v", n, i, err)
		}
		n++
	}
	if n != 1000 || result.Sent != n {
		t.Errorf("%d items have come, and the result is %+v", n, result)
	}
}

// node returns the interpreter. It skips the test if there is none or it is too old.
func node(t *testing.T) string {
	t.Helper()
	// This also makes go test run again after a change of the file.
	if _, err := os.Stat("worker.js"); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("this test needs Node 18 or later: %v", err)
	}
	version, err := exec.Command(path, "--version").Output()
	var major int
	if _, scanErr := fmt.Sscanf(string(version), "v%d.", &major); err != nil || scanErr != nil || major < 18 {
		t.Skipf("this test needs Node 18 or later, and %s is %q (%v)", path, version, err)
	}
	return path
}
