// Package browser tests the service of the parent directory in a real browser. It is a module of its own
// because of its dependencies.
package browser
