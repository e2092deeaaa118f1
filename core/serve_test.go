package core_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	codec "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// served is an adapter whose workers serve with options of their own.
type served struct {
	functions map[string]core.Function
	options   core.ServeOptions
}

func (served) Name() string { return "served" }

func (s served) Start(context.Context, core.Launcher) (*core.Link, error) {
	host, worker := coretest.Pipe()
	codecs := []core.Codec{codec.Codec{}}
	go func() {
		_ = core.Serve(context.Background(), worker, codecs, s.functions, &s.options)
		_ = worker.Close()
	}()
	return &core.Link{Conn: host, Codecs: codecs}, nil
}

// A worker in Go logs what goes wrong on its side with its own logger, or nowhere.
func TestServeLogsPanics(t *testing.T) {
	for _, log := range []*spy{nil, newSpy(func(*spy, string) {})} {
		synctest.Test(t, func(t *testing.T) {
			a := served{functions: map[string]core.Function{
				"panics": core.Func(func(context.Context, any) (any, error) { panic("boom") }),
			}}
			if log != nil {
				a.options.Logger = log
			}
			p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, Logger: hclog.NewNullLogger()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := core.Execute[any](t.Context(), p, "panics", nil); err == nil || !strings.Contains(err.Error(), "boom") {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if log != nil && countPrefix(log.lines(), "the function panicked: boom") != 1 {
				t.Errorf("the log: %q", log.lines())
			}
		})
	}
}

// What is sent never runs ahead of the credit, neither of items nor of bytes.
func TestSendersKeepWithinCredit(t *testing.T) {
	for name, o := range map[string]core.ServeOptions{
		"items": {WindowItems: 2, WindowBytes: 1000},
		"bytes": {WindowItems: 100, WindowBytes: 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := served{options: o, functions: map[string]core.Function{
				"count": {Run: func(ctx context.Context, c *core.Incoming) (any, error) {
					n := 0
					for _, err := range c.Input(ctx) {
						if err != nil {
							return nil, err
						}
						time.Sleep(time.Second)
						n++
					}
					return n, nil
				}},
			}}
			p, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Size: 1, CallTimeout: -1, Logger: hclog.NewNullLogger()})
			if err != nil {
				t.Fatal(err)
			}
			items := slices.Repeat([]string{"01234567"}, 50) // of ten bytes each
			n, err := core.Execute[int](t.Context(), p, "count", nil, core.Input(slices.Values(items)))
			if n != len(items) || err != nil {
				t.Errorf("%s: %d, %v", name, n, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
