//go:build unix

// Package docs_test runs what the pages and the README show, and holds their figures, links, options and messages to what is true.
package docs_test

import (
	"os"
	"testing"
)

// The tests run in the root of the repository, whose files they name.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
