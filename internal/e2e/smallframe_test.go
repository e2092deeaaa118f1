//go:build unix

package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/snakepit-go/snakepit"
)

const longErrors = `
from snakepit_bridge import RemoteError, Worker

worker = Worker()

@worker.command
def fail(text):
    raise ValueError(text * 20_000)

@worker.command
def ask(ctx, text):
    try:
        ctx.call("fail", text)
    except RemoteError as exc:
        return exc.message[:1]
    return "nothing"

worker.run()
`

// An error that is too long for a frame is cut until it fits, also if each of its characters takes many bytes. The
// connection lives on.
func TestLongErrorsInSmallFrames(t *testing.T) {
	fail := snakepit.Func(func(_ context.Context, text string) (any, error) {
		return nil, errors.New(strings.Repeat(text, 20_000))
	})
	onEach(t, []string{"jsonstdio", "msgpack", "grpc"}, func(t *testing.T, adapter string) {
		f := Must(Begin(t, adapter, script(t, File(t, "worker.py", longErrors)), snakepit.Options{
			MaxFrame: 4096, Functions: map[string]snakepit.Function{"fail": fail},
		}))
		for _, text := range []string{"x", "\x01", "😀", `"`} {
			_, err := snakepit.Execute[any](f.Context(), f.Pool, "fail", text)
			if !errors.Is(err, snakepit.Exception("ValueError")) {
				t.Errorf("%q: %.200v", text, err)
			}
			got, err := snakepit.Execute[string](f.Context(), f.Pool, "ask", text)
			if err != nil || got == "" || got == "nothing" {
				t.Errorf("a Go function with %q: %q, %.200v", text, got, err)
			}
		}
		if s := f.Stats(); s.Lost > 0 {
			t.Errorf("%d workers were lost", s.Lost)
		}
	})
}
