// Package browser tries the service of the directory above in a real browser. It is a module of its own because of what that takes.
package browser
