package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// served is an adapter whose workers serve with their own options.
type served struct {
	functions map[string]core.Function
	options   core.ServeOptions
	show      func(token string) string // changes the token that the workers present, unless nil
	ended     func(err error)           // receives Serve's error, unless nil
}

func (served) Name() string { return "served" }

func (s served) Start(_ context.Context, l *core.Launcher) (*core.Link, error) {
	host, worker := coretest.Pipe()
	codecs := []core.Codec{codec.Codec{}}
	o := s.options
	if o.Token = l.WorkerToken; s.show != nil {
		o.Token = s.show(o.Token)
	}
	go func() {
		err := core.Serve(context.Background(), worker, codecs, s.functions, &o)
		if err = errors.Join(err, worker.Close()); s.ended != nil {
			s.ended(err)
		}
	}()
	return &core.Link{Conn: host, Codecs: codecs, Token: l.WorkerToken}, nil
}

// well fails the test if Serve returns an error.
func well(t *testing.T) func(error) {
	return func(err error) {
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// A Go worker logs its own failures to its own logger, or nowhere.
func TestServeLogsPanics(t *testing.T) {
	for _, log := range []*spy{nil, newSpy(func(*spy, string) {})} {
		synctest.Test(t, func(t *testing.T) {
			a := served{ended: well(t), functions: map[string]core.Function{
				"panics": core.Func(func(context.Context, any) (any, error) { panic("boom") }),
			}}
			if log != nil {
				a.options.Logger = log
			}
			p := opened(t, a, core.Options{Size: 1})
			_, err := core.Execute[any](t.Context(), p, "panics", nil)
			if err == nil || !strings.Contains(err.Error(), "boom") {
				t.Error(err)
			}
			synctest.Wait()
			if log != nil && countPrefix(log.lines(), "the function panicked: boom") != 1 {
				t.Errorf("the log: %q", log.lines())
			}
		})
	}
}

// A sender never exceeds its credit, neither of items nor of bytes.
func TestSendersKeepWithinCredit(t *testing.T) {
	for name, o := range map[string]core.ServeOptions{
		"items": {WindowItems: 2, WindowBytes: 1000},
		"bytes": {WindowItems: 100, WindowBytes: 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := served{options: o, ended: well(t), functions: map[string]core.Function{
				"count": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
					n := 0
					for _, err := range c.Input(ctx) {
						if err != nil {
							return nil, err
						}
						synctest.Wait() // until no more can be sent
						n++
					}
					return n, nil
				}},
			}}
			p := opened(t, a, core.Options{Size: 1, CallTimeout: -1})
			items := slices.Repeat([]string{"01234567"}, 50) // ten bytes each
			n, err := core.Execute[int](t.Context(), p, "count", nil, core.Input(slices.Values(items)))
			if n != len(items) || err != nil {
				t.Errorf("%s: %d, %v", name, n, err)
			}
		})
	}
}
