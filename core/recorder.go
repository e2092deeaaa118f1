package core

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Recorder says how the pool records the last frames of each worker. When a worker is lost, also because it broke the
// protocol, they are written to a file with its exit and the pool's last events: see ReadRecording.
// WorkerExit.Recording is its path. The zero value records nothing.
type Recorder struct {
	// Dir is the directory of the files. It is made if it does not exist. "" means that nothing is recorded.
	Dir string
	// Frames is how many frames of each worker are kept, besides the call frames of the calls that run. 0
	// means 256.
	Frames int
	// Bodies records arguments, results, items, errors and metadata, too, so that "snakepit replay" can
	// repeat a call. They may be secrets. Up to 1 MiB of bodies are kept for each worker.
	Bodies bool
	// Files is how many files of this pool's name are kept. The oldest ones are removed. 0 means 20.
	Files int
}

// recorderEvents is how many events are kept of the pool.
const recorderEvents = 64

// check returns an error that names the bad field and its value, and sets the defaults.
func (r *Recorder) check() error {
	switch {
	case r.Dir == "" && *r != Recorder{}:
		return errors.New("option Recorder has fields and no Dir")
	case r.Frames < 0:
		return fmt.Errorf("option Recorder.Frames is %d; it has to be positive, and 0 means 256", r.Frames)
	case r.Files < 0:
		return fmt.Errorf("option Recorder.Files is %d; it has to be positive, and 0 means 20", r.Files)
	}
	if r.Frames == 0 {
		r.Frames = 256
	}
	if r.Files == 0 {
		r.Files = 20
	}
	return nil
}

// eventRing keeps the last events of a pool, for recordings.
type eventRing struct {
	mu  sync.Mutex // guards all
	all []Event
}

func (r *eventRing) put(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all = append(r.all, e); len(r.all) > recorderEvents {
		r.all = slices.Delete(r.all, 0, 1)
	}
}

// texts returns the events as text. It may run user code.
func (r *eventRing) texts() []string {
	r.mu.Lock()
	all := slices.Clone(r.all)
	r.mu.Unlock()
	texts := make([]string, 0, len(all))
	for _, e := range all {
		texts = append(texts, e.String())
	}
	return texts
}

// recordingPath returns where the recording of a lost worker goes, or "" without a recorder.
func (w *Worker) recordingPath() string {
	if w.mux.recorder == nil {
		return ""
	}
	name := recordingPrefix(w.pool.opts.Name) + time.Now().UTC().Format("20060102T150405.000000")
	name += fmt.Sprintf("-%d-%d%s", os.Getpid(), w.index, recordingSuffix)
	return filepath.Join(w.pool.opts.Recorder.Dir, name)
}

const recordingSuffix = ".snakepit"

// recordingPrefix is the begin of the names of a pool's recordings. Every file system takes its characters.
func recordingPrefix(pool string) string {
	return regexp.MustCompile(`[^A-Za-z0-9_-]`).ReplaceAllString(pool, "_") + "-"
}

// writeRecording writes the recording of a lost worker, and removes the oldest ones. It is called off all locks, after
// callers know of the loss, because a disk may be slow.
func (w *Worker) writeRecording(exit *WorkerExit) {
	if exit.Recording == "" {
		return
	}
	err := isolate("an error in an event", func() error {
		return w.pool.saveRecording(exit.Recording, w.recording(exit))
	})
	if err != nil {
		w.log.Error("the recording of a lost worker could not be written", "file", exit.Recording, "error", err.Error())
	}
}

// recording returns what is known of a lost worker.
func (w *Worker) recording(exit *WorkerExit) *Recording {
	r := &Recording{
		Version: recordingVersion, Time: time.Now(), Pool: w.pool.opts.Name, Worker: w.index, PID: exit.PID,
		Host: exit.Host, Adapter: exit.Adapter, Codec: w.codec, Runtime: w.hello.Runtime, Library: w.hello.Library,
		Exit: exit.Error(), ExitCode: exit.ExitCode, Signal: exit.Signal, OOM: exit.OOM, Limit: exit.Limit,
		Age: exit.Age.Seconds(), Doing: exit.Doing, Output: exit.Stderr, Stacks: exit.Stacks,
		Bodies: w.pool.opts.Recorder.Bodies, Events: w.pool.recorded.texts(), Frames: w.mux.recorder.frames(),
	}
	if exit.Cause != nil {
		r.Cause = exit.Cause.Error()
	}
	return r
}

// saveRecording writes a file that only this user may read.
func (p *Pool) saveRecording(path string, r *Recording) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".part", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err = errors.Join(r.write(w), w.Flush(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // err is what counts
		return err
	}
	p.recording.Lock() // one removes at a time
	defer p.recording.Unlock()
	entries, err := os.ReadDir(dir) // by name, which begins with the time
	if err != nil {
		return err
	}
	prefix := recordingPrefix(p.opts.Name)
	own := slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		rest, found := strings.CutPrefix(e.Name(), prefix)
		return !found || !strings.HasSuffix(rest, recordingSuffix) || rest[0] < '0' || rest[0] > '9'
	})
	for _, e := range own[:max(0, len(own)-p.opts.Recorder.Files)] {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
