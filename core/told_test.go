package core_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// mutable makes workers that stay silent while silent is set. It says that another adapter was refused.
type mutable struct {
	*coretest.Adapter

	silent *atomic.Bool
}

func (a mutable) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	link, err := a.Adapter.Start(ctx, l)
	if err == nil {
		link.Conn = mutableConn{link.Conn, a.silent}
		link.Refused = []core.Refusal{{Adapter: "other", Err: errors.New("not here")}}
	}
	return link, err
}

type mutableConn struct {
	core.Conn

	silent *atomic.Bool
}

func (c mutableConn) Read() ([]core.Frame, error) {
	frames, err := c.Conn.Read()
	for c.silent.Load() {
		time.Sleep(100 * time.Millisecond)
	}
	return frames, err
}

// Each type of event is emitted, and each field of Stats has another value than zero at some time.
func TestEverythingIsTold(t *testing.T) {
	var log eventLog
	var broken, silent, slow atomic.Bool
	never := make(map[string]bool) // the fields that have been zero so far
	f := functions()
	f["stubborn"] = core.Func(func(context.Context, any) (any, error) { time.Sleep(time.Hour); return nil, nil })
	a := mutable{&coretest.Adapter{Functions: f, Before: func(context.Context, int) error {
		if broken.Load() {
			return errors.New("no luck")
		}
		return nil
	}}, &silent}
	synctest.Test(t, func(t *testing.T) {
		p := opened(t, a, core.Options{
			Size: 1, Queue: 1, StartBudget: 3, WedgedAfter: time.Minute, CancelGrace: time.Second,
			CallTimeout: -1, OnEvent: func(e core.Event) {
				log.put(e)
				for slow.Load() {
					time.Sleep(time.Second)
				}
			},
		})
		look := func() {
			t.Helper()
			synctest.Wait()
			s := p.Stats()
			note(never, "", reflect.ValueOf(s))
			for _, w := range s.Workers {
				note(never, "Workers.", reflect.ValueOf(w))
			}
		}
		begin := func(target core.Target, command string) context.CancelFunc {
			ctx, cancel := context.WithCancel(core.WithTenant(t.Context(), "tenant"))
			go func() { _, _ = core.Execute[any](ctx, target, command, nil) }()
			synctest.Wait()
			return cancel
		}
		silent.Store(true)
		time.Sleep(3 * time.Minute)
		silent.Store(false)
		time.Sleep(time.Minute)
		running, waiting := begin(p.Session("s"), "wait"), begin(p, "wait")
		time.Sleep(time.Second)
		look()
		for range 2000 {
			if _, err := core.Execute[any](t.Context(), p, "echo", 1); !errors.Is(err, core.ErrSaturated) {
				t.Fatal(err)
			}
			slow.Store(true)
		}
		slow.Store(false)
		running()
		synctest.Wait()
		waiting()
		synctest.Wait()
		p.Session("s").Close()
		begin(p, "stubborn")()
		time.Sleep(2 * time.Hour)
		if err := errors.Join(p.Resize(2), p.Reload(t.Context())); err != nil {
			t.Error(err)
		}
		call(t, p.Session("s"), "echo", 1)
		call(t, p.Session("other"), "echo", 1)
		broken.Store(true)
		if err := p.Reload(t.Context()); err == nil {
			t.Error("no error")
		}
		broken.Store(false)
		if err := p.Reload(t.Context()); err != nil { // the workers with sessions drain
			t.Error(err)
		}
		look()
		broken.Store(true)
		for i := range 2 {
			a.Crash(i)
		}
		time.Sleep(time.Minute)
		look()
		broken.Store(false)
		time.Sleep(2 * time.Minute)
		call(t, p, "echo", 1)
		look()
		kept := opened(t, coretest.Conformance(1), core.Options{})
		call(t, kept.Session("s"), "conformance.remember", "what the pool keeps")
		note(never, "", reflect.ValueOf(kept.Stats()))
	})
	for name, zero := range never {
		if zero && name != "Workers.PID" { // coretest has no processes
			t.Errorf("Stats.%s is always zero", name)
		}
	}
	if len(never) < 25 {
		t.Errorf("only %d fields", len(never))
	}
	for _, name := range eventTypes(t) {
		if len(log.lines(name)) == 0 {
			t.Errorf("%s is never emitted", name)
		}
	}
}

// note keeps which fields of a struct are zero in all of its values.
func note(never map[string]bool, prefix string, v reflect.Value) {
	for f, value := range v.Fields() {
		name := prefix + f.Name
		zero, known := never[name]
		never[name] = value.IsZero() && (zero || !known)
	}
}

// eventTypes returns the names of the types that event.go declares to be events.
func eventTypes(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range file.Decls {
		if m, ok := d.(*ast.FuncDecl); ok && m.Recv != nil && m.Name.Name == "event" {
			names = append(names, fmt.Sprint(m.Recv.List[0].Type))
		}
	}
	if len(names) < 13 {
		t.Errorf("only %s", strings.Join(names, ", "))
	}
	return names
}
