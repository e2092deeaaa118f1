// Package browser tests the pages of this project in a real browser: the debug page, and the service of examples/http.
// It is a module of its own because of its dependencies.
package browser
