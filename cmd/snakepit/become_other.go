//go:build !unix

package main

import (
	"context"
	"errors"
)

// become is for systems that can replace a program by another one.
func become(context.Context, []string, []string) error {
	return runError{serveError{errors.New("this command needs Linux or another Unix")}}
}
