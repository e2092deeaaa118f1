//go:build unix

// Package docs_test runs the examples of the pages and the README. It checks their figures, links, options and
// messages.
package docs_test

import (
	"os"
	"testing"
)

// The tests name files relative to the root of the repository, so they run there.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
