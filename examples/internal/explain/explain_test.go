package explain_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/examples/internal/explain"
)

func TestError(t *testing.T) {
	raised := &snakepit.RemoteError{Type: "ValueError", Message: "no such share"}
	missing := &snakepit.RemoteError{Type: "ModuleNotFoundError", Message: "No module named 'numpy'"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&snakepit.CallError{Command: "f", Worker: -1, Err: raised}, "no such share"},
		{errors.New("the disk is full"), "the disk is full"},
		{&snakepit.StartError{Err: raised, Remedy: "mend it"}, "ValueError: no such share\nhint: mend it"},
		{&snakepit.StartError{Err: missing, Remedy: "pip install numpy"},
			"ModuleNotFoundError: No module named 'numpy'\nhint: make install-examples, in the checkout,"},
	} {
		if got := explain.Error(c.err); !strings.HasPrefix(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
