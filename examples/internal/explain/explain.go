// Package explain says in the examples what an error means for the person who started the program.
package explain

import (
	"errors"

	"github.com/snakepit-go/snakepit"
)

// Error returns the message of a Python exception without its traceback. Of a failed start it returns everything. If
// a package is missing, the hint is the command that installs those of all examples.
func Error(err error) string {
	var start *snakepit.StartError
	var remote *snakepit.RemoteError
	switch {
	case errors.As(err, &start) && errors.Is(err, snakepit.Exception("ModuleNotFoundError")):
		own := *start
		own.Remedy = "make install-examples, in the checkout, installs what the examples import into .venv"
		return own.Error()
	case start == nil && errors.As(err, &remote):
		return remote.Message
	}
	return err.Error()
}
