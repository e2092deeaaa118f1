package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/core/coretest"
)

// recordings reads the recordings in a directory, by name.
func recordings(t *testing.T, dir string) []*core.Recording {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*core.Recording
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := core.ReadRecording(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(path, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info, err)
		}
		all = append(all, r)
	}
	return all
}

// recorded makes calls, one of which runs when the worker is lost, and returns the recording.
func recorded(t *testing.T, o core.Recorder) *core.Recording {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "new")
	a := &coretest.Adapter{Concurrency: 2}
	bubble(t, a, core.Options{Size: 1, Name: "a/b", Recorder: o}, func(t *testing.T, p *core.Pool) {
		ctx := core.WithMetadata(t.Context(), map[string]string{"k": "secret"})
		lost := make(chan error)
		go func() {
			_, err := core.Execute[any](ctx, p.Session("s"), "wait", "also secret")
			lost <- err
		}()
		synctest.Wait()
		for range 20 {
			call(t, p, "echo", 1)
		}
		time.Sleep(time.Second)
		a.Crash(0)
		var exit *core.WorkerExit
		if err := <-lost; !errors.As(err, &exit) || filepath.Dir(exit.Recording) != o.Dir ||
			!strings.Contains(err.Error(), "; recorded in "+exit.Recording) {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := os.Stat(exit.Recording); err != nil {
			t.Error(err)
		}
	})
	all := recordings(t, o.Dir)
	if len(all) != 1 {
		t.Fatalf("%d recordings", len(all))
	}
	return all[0]
}

func TestRecording(t *testing.T) {
	r := recorded(t, core.Recorder{Frames: 10})
	if r.Pool != "a/b" || r.Worker != 0 || r.Adapter != "coretest" || r.Codec != "json" || r.Age != 1 ||
		!strings.HasPrefix(r.Exit, "worker lost: worker 0 closed the connection") || !slices.Contains(r.Doing, "wait") {
		t.Errorf("%+v", r)
	}
	if len(r.Events) < 4 || r.Events[1] != "worker 0 is ready" ||
		!strings.HasPrefix(r.Events[3], "worker 0 is dead: ") {
		t.Errorf("%q", r.Events)
	}
	// Ten frames, and before them the call that runs, although it is older.
	if len(r.Frames) != 11 || r.Frames[0].Name != "wait" || r.Frames[0].Session != "s" || r.Frames[0].Size != 13 {
		t.Fatalf("%+v", r.Frames)
	}
	for i, f := range r.Frames {
		if f.Body != nil || f.Meta != nil {
			t.Errorf("a body or metadata was recorded: %+v", f)
		}
		if i > 1 && (f.At.Before(r.Frames[i-1].At) || f.Sent == r.Frames[i-1].Sent) {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
	if open := r.Unfinished(); len(open) != 1 || open[0].Name != "wait" {
		t.Errorf("%+v", open)
	}
}

func TestRecordingWithBodies(t *testing.T) {
	r := recorded(t, core.Recorder{Bodies: true})
	open := r.Unfinished()
	if len(open) != 1 || string(open[0].Body) != `"also secret"` || open[0].Meta["k"] != "secret" || !r.Bodies {
		t.Errorf("%+v", open)
	}
	if len(r.Frames) < 41 {
		t.Errorf("%d frames", len(r.Frames))
	}
}

// Bodies are bounded: large ones are not kept, and the oldest ones are dropped. A live call keeps its own.
func TestRecordedBodiesAreBounded(t *testing.T) {
	dir := t.TempDir()
	a := &coretest.Adapter{Concurrency: 2}
	o := core.Options{Size: 1, Recorder: core.Recorder{Dir: dir, Bodies: true}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		go func() { _, _ = core.Execute[any](t.Context(), p, "wait", "keep me") }()
		synctest.Wait()
		for range 10 {
			call(t, p, "echo", strings.Repeat("x", 300<<10))
		}
		call(t, p, "echo", strings.Repeat("y", 2<<20))
		call(t, p, "echo", "the last")
		a.Crash(0)
		synctest.Wait()
	})
	r := recordings(t, dir)[0]
	total, large := 0, 0
	for _, f := range r.Frames {
		total += len(f.Body)
		if f.Size > 1<<20 {
			large++
			if f.Body != nil {
				t.Error("a large body was kept")
			}
		}
	}
	if open := r.Unfinished(); len(open) != 1 || string(open[0].Body) != `"keep me"` {
		t.Errorf("%+v", open)
	}
	if total > 1<<20 || total < 600<<10 || large != 2 || string(r.Frames[len(r.Frames)-1].Body) != `"the last"` {
		t.Errorf("%d bytes, %d large bodies", total, large)
	}
}

// A breach of the protocol is recorded with the frame that broke it.
func TestRecordingOfABreach(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		rogue := scripted(func(w *coretest.Conn) {
			for f := range frames(w) {
				if f.Kind == core.KindCall {
					_ = w.Write([]core.Frame{{Kind: core.KindItem, ID: 99}}) // the host ends the connection
				}
			}
		})
		p := opened(t, rogue, core.Options{Size: 1, Recorder: core.Recorder{Dir: dir}})
		if _, err := core.Execute[any](t.Context(), p, "echo", 1); !errors.Is(err, core.ErrProtocol) {
			t.Fatal(err)
		}
		synctest.Wait()
	})
	r := recordings(t, dir)[0]
	if last := r.Frames[len(r.Frames)-1]; last.Kind != "item" || last.ID != 99 || last.Sent ||
		!strings.Contains(r.Cause, "an id that was never used") {
		t.Errorf("%+v, %s", last, r.Cause)
	}
}

func TestOldRecordingsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"snakepit-other-2.snakepit", "snakepit-notes.txt", "other-20260101.snakepit"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &coretest.Adapter{}
	o := core.Options{Size: 1, Recorder: core.Recorder{Dir: dir, Files: 2}}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		for i := range 5 {
			call(t, p, "echo", i)
			a.Crash(0)
			time.Sleep(time.Minute)
		}
	})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Error(entries, err)
	}
}

// A directory that can't be written is logged, and harms nothing.
func TestRecordingThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	a := &coretest.Adapter{}
	o := core.Options{
		Size: 1, Recorder: core.Recorder{Dir: filepath.Join(file, "sub")},
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
	}
	bubble(t, a, o, func(t *testing.T, p *core.Pool) {
		call(t, p, "echo", 1)
		a.Crash(0)
		synctest.Wait()
		call(t, p, "echo", 1)
	})
	if !strings.Contains(log.String(), "the recording of a lost worker could not be written") {
		t.Error(&log)
	}
}

func TestRecorderOptions(t *testing.T) {
	for text, r := range map[string]core.Recorder{
		"option Recorder has fields and no Dir":                                {Frames: 3},
		"option Recorder.Frames is -1; it has to be positive, and 0 means 256": {Dir: "x", Frames: -1},
		"option Recorder.Files is -2; it has to be positive, and 0 means 20":   {Dir: "x", Files: -2},
	} {
		_, err := core.Open(context.Background(), &coretest.Adapter{}, core.Command{}, &core.Options{Recorder: r})
		if err == nil || err.Error() != text {
			t.Error(err)
		}
	}
}

func TestReadRecordingRefusesOthers(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "this is not a recording of a worker: EOF",
		"hello":                            "this is not a recording of a worker: invalid character",
		`{"version":7}`:                    "the recording has version 7, and this program reads version 1",
		`{"version":1} {"kind":"call"} {"`: "frame 2 of the recording: unexpected EOF",
	} {
		if _, err := core.ReadRecording(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
