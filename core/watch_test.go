package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("worker.py", "good")
	write("model.json", "1")
	a := &coretest.Adapter{Functions: functions(), Before: func(ctx context.Context, _ int) error {
		switch text, err := os.ReadFile(filepath.Join(dir, "worker.py")); {
		case err != nil || string(text) == "bad":
			return errors.New("SyntaxError")
		case string(text) == "hangs":
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}}
	cmd := core.Command{Sources: []string{filepath.Join(dir, "*.py"), filepath.Join(dir, "model.json")}}
	synctest.Test(t, func(t *testing.T) {
		p, err := core.Open(t.Context(), a, cmd, &core.Options{Size: 2, Watch: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		reloads := int64(0)
		// expect checks whether a change has reloaded the pool within a second.
		expect := func(what string, reload bool) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if reload {
				reloads++
			}
			if s := p.Stats(); s.Replaced != 2*reloads || s.Ready != 2 {
				t.Errorf("after %s: %+v", what, s)
			}
		}
		expect("nothing", false)
		write("worker.py", "good and new")
		expect("a change of the script", true)
		write("lib/deep/module.py", "1")
		expect("a new module", true)
		write("model.json", "12")
		expect("a change of a file that is named", true)
		for _, name := range []string{
			"data.csv", ".hidden/a.py", "__pycache__/b.py", "lib/site-packages/c.py", "env/pyvenv.cfg", "env/d.py",
		} {
			write(name, "1")
		}
		expect("changes of other files", false)
		write("worker.py", "bad")
		expect("a broken program", false)
		call(t, p, "echo", 1)
		write("worker.py", "hangs")
		expect("a program that hangs", false)
		write("worker.py", "good again")
		expect("its correction", true)
		if err := os.Remove(filepath.Join(dir, "lib/deep/module.py")); err != nil {
			t.Fatal(err)
		}
		expect("the end of a module", true)
	})
	_, err := core.Open(t.Context(), a, core.Command{}, &core.Options{Watch: true})
	if err == nil || !strings.Contains(err.Error(), "Command.Sources") {
		t.Error(err)
	}
}
